"""How weights are evaluated: settings and their key."""

from __future__ import annotations

from advprune_core.attacks import PGD, ThreatModel
from advprune_core.study.evaluations import EvaluationConfig

CHANGES = {
    "attacks": (PGD(steps=3),),
    "threat": ThreatModel(eps=0.1),
    "checkpoint": "best",
    "seed": 5,
    "batch_size": 7,
    "images": 11,
    "speed": "compiled",
}


def test_every_setting_changes_the_evaluation_key() -> None:
    assert set(CHANGES) == set(EvaluationConfig.model_fields)
    base = EvaluationConfig()
    keys = {base.replace(**{name: value}).key("test") for name, value in CHANGES.items()}
    assert len(keys | {base.key("test"), base.key("other images")}) == len(CHANGES) + 2


def test_an_evaluation_is_json_and_back() -> None:
    config = EvaluationConfig(attacks=(PGD(steps=3, loss="margin"),), threat=ThreatModel(norm="l2", eps=0.5))
    assert EvaluationConfig.create(**config.model_dump(mode="json")) == config
