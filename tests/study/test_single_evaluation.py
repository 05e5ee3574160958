"""Single evaluations, against an attack by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from advprune_core.attacks import APGD, FGSM
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.models.base import build_model
from advprune_core.study.record_files import read_record
from advprune_core.study.records import EvaluationRecord
from advprune_core.study.runs import load_run
from advprune_core.study.single_evaluation import evaluate_checkpoint
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect
from advprune_core.trainers.config import RunConfig
from tests.tiny import TINY

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def by_hand(model: torch.nn.Module, eps: float) -> tuple[float, float]:
    """Clean accuracy, and accuracy after one signed gradient step of size `eps`."""
    split = load_dataset(TINY["dataset"]).test
    x = split.images.clone().requires_grad_()
    logits = model(x)
    F.cross_entropy(logits, split.labels, reduction="sum").backward()
    right = logits.argmax(1) == split.labels
    moved = (x + eps * x.grad.sign()).clamp(0, 1).detach()
    return float(right.double().mean()), float((right & (model(moved).argmax(1) == split.labels)).double().mean())


def evaluation_of(**given: Any) -> Any:
    nothing = {"run_key": None, "weights": None, "own": {}, "threat": {}, "results": None, "data": None, "images": None}
    record, path = evaluate_checkpoint(**{**nothing, "attacks": ["fgsm"], "checkpoint": "last", **given})
    assert read_record(path, EvaluationRecord) == record
    return record


@pytest.mark.parametrize("eps", [None, 0.02, "1/16"])
def test_evaluation_of_a_run_is_kept_beside_it(trained: Path, eps: Any) -> None:
    table = collect(trained, study="tiny")
    key = str(table["key"].iloc[0])
    radius = {None: 2 / 16, "1/16": 1 / 16}.get(eps, eps)
    record = evaluation_of(run_key=key[:8], threat={} if eps is None else {"eps": eps}, results=str(trained))
    model = load_run(key, trained).model(load_dataset(TINY["dataset"]))
    clean, robust = by_hand(model, radius)
    assert (record.clean.accuracy, record.attacks["fgsm"].accuracy, record.robust.accuracy) == (clean, robust, robust)
    assert record.config["threat"]["eps"] == radius
    assert RunStore(trained).evaluation(key, record.key) == record
    pd.testing.assert_frame_equal(collect(trained, study="tiny"), table)  # the study's own evaluation stays


OWN: dict[str, Any] = {"dataset": TINY["dataset"], "model": {"small_cnn": {"width": 2}}}


def own_weights(path: Path) -> torch.nn.Module:
    """A network whose state dict is put at `path`."""
    model = build_model(RunConfig.flat(**OWN).model, load_dataset(OWN["dataset"]), seed=5)
    torch.save(model.state_dict(), path)
    return model


@pytest.mark.parametrize("own", [False, True], ids=["run", "own weights"])
def test_autoattack_goes_on_where_it_was_killed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    version = ["fgsm", {"apgd": {"steps": 5}}, {"square": {"queries": 20}}]
    spec = {"autoattack": {"version": version}}
    if own:
        own_weights(tmp_path / "mine.pt")
        given = {"weights": str(tmp_path / "mine.pt"), "own": OWN, "threat": {"eps": 0.1}}
    else:
        given = {"run_key": RunStore(trained).run_keys()[0]}

    def evaluation() -> EvaluationRecord:
        return evaluation_of(**given, attacks=[spec], results=str(trained))

    expected = evaluation()
    key, file = expected.train_key, RunStore(trained).evaluation_file(expected.train_key, expected.key)
    (label,) = (name for name in expected.attacks if "/" not in name)
    assert list(expected.attacks) == [f"{label}/fgsm", f"{label}/apgd", f"{label}/square", label]
    assert expected.attacks[label] == expected.robust
    assert expected.config["attacks"] == [{"autoattack": {"attacks": version}}]

    def killed(self: Any, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FGSM, "perturb", killed)
        assert evaluation() == expected, "what is finished is not done again"
    file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(APGD, "perturb", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluation()
    assert list(RunStore(trained).work(key).glob("evaluation-*/*.npz"))
    with monkeypatch.context() as patch:
        patch.setattr(FGSM, "perturb", killed)  # had its turn
        again = evaluation()
    assert again.comparable() == expected.comparable()
    assert not RunStore(trained).work(key).exists()
    columns = collect(trained)
    assert f"robust_{label}/apgd" in columns


def test_evaluation_of_own_weights_is_kept_by_their_content(tmp_path: Path) -> None:
    given = {"own": OWN, "threat": {"eps": 0.1}, "results": str(tmp_path / "r")}
    model = own_weights(tmp_path / "mine.pt")
    record = evaluation_of(weights=str(tmp_path / "mine.pt"), **given)
    assert (record.clean.accuracy, record.attacks["fgsm"].accuracy) == by_hand(model, 0.1)
    with torch.no_grad():
        model.get_parameter(next(iter(dict(model.named_parameters())))).mul_(0.5)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    other = evaluation_of(weights=str(tmp_path / "mine.pt"), **given)
    assert (other.clean.accuracy, other.attacks["fgsm"].accuracy) == by_hand(model, 0.1)
    assert (other.key, other.train_key != record.train_key) == (record.key, True)
    assert collect(tmp_path / "r").empty  # they are no runs


def test_evaluation_of_some_images_gives_what_all_of_them_give(trained: Path) -> None:
    given = {"run_key": RunStore(trained).run_keys()[0], "attacks": [{"pgd": {"steps": 3}}], "results": str(trained)}
    every, some = evaluation_of(**given), evaluation_of(**given, images=20)
    split = load_dataset(TINY["dataset"]).test
    ids = split.spread(20).numpy()
    counts = [torch.bincount(labels, minlength=10) for labels in (split.labels, split.labels[split.spread(20)])]
    assert (counts[1] - counts[0] * 20 / len(split)).abs().max() < 1, "class proportions are those of all"
    assert (some.n, every.n, some.config["images"]) == (20, len(split), 20)
    np.testing.assert_array_equal(some.outcome().clean, every.outcome().clean[ids])
    np.testing.assert_array_equal(some.outcome().robust, every.outcome().robust[ids])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run_key": "zzz"}, "no run begins with 'zzz'"),
        ({"run_key": "", "checkpoint": "best"}, "runs begin with ''"),
        ({"run_key": "KEY", "checkpoint": "best"}, "has no 'best' weights"),
        ({"run_key": "KEY", "checkpoint": "first"}, "first.*(last|best)"),
        ({"run_key": "KEY", "attacks": ["fgms"]}, "unknown attack 'fgms'.*did you mean 'fgsm'"),
        ({"run_key": "KEY", "threat": {"eps": -1}}, "eps = -1"),
        ({"run_key": "KEY", "threat": {"norm": "l2"}}, "eps"),
        ({"run_key": "KEY", "images": 100000}, "images = 100000, but there are only"),
        ({"run_key": "KEY", "images": 0}, "images = 0"),
        ({"weights": "missing.pt"}, "there is no file missing.pt"),
        ({"weights": "notes.pt"}, "notes.pt"),
        ({"weights": "list.pt"}, "list.pt"),
        ({"weights": "other.pt"}, "other.pt does not fit the model"),
    ],
)
def test_what_cannot_be_evaluated(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.pt").write_text("not weights")
    torch.save([1, 2], "list.pt")
    torch.save({"a": torch.ones(2)}, "other.pt")
    if given.get("run_key") == "KEY":
        given = {**given, "run_key": RunStore(trained).run_keys()[0]}
    with pytest.raises(ConfigError, match=message):
        evaluation_of(results=str(trained), **given)
