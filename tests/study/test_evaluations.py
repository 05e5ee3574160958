"""How weights are evaluated: settings and their key."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks import FGSM, PGD, ThreatModel
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.study.evaluations import EvaluationConfig, evaluate_model

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


class Always(nn.Module):
    """Sees one class in every image, whether there is such a class or not."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(11)[self.label] + 0 * x.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("label", "what", "otherwise"),
    [
        (3, r"clean accuracy is at chance: .*; robust accuracy says nothing then; ", "train for longer, or with"),
        (10, "every image is misclassified without an attack, .*; ", "check the labels, and that images and"),
    ],
)
@pytest.mark.parametrize(
    ("steps", "few"), [(1, "only 1 step"), (12, "only 12 steps"), (200, None), (5000, None), (None, None)]
)
def test_few_steps_are_named_where_nothing_was_learnt(
    label: int, what: str, otherwise: str, steps: int | None, few: str | None, digits: Dataset
) -> None:
    said = otherwise if few is None else f"{few}: train for more epochs, or with a smaller --batch-size$"
    evaluation = EvaluationConfig(attacks=(FGSM(),), threat=ThreatModel(eps=1e-4))
    with pytest.warns(UserWarning, match=f"^{what}{said}"):
        outcome, _ = evaluate_model(Always(label), digits, evaluation, steps=steps)
    assert re.search(f"^{what}{said}", outcome.warnings[-1])


def test_an_attack_is_listed_once() -> None:
    """The second would find what the first did, and both have one column."""
    for attacks in (["pgd", {"pgd": {"steps": 40}}], (PGD(), PGD())):
        with pytest.raises(ConfigError, match="an attack is listed twice: pgd40, pgd40"):
            EvaluationConfig.create(attacks=attacks)
    assert EvaluationConfig.create(attacks="pgd").attacks == (PGD(),)
