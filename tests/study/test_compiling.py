"""Where nothing compiles: said before work starts, and exact runs and tests under keys of their own."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from advprune_core.attacks import compiled
from advprune_core.attacks.compiled import NotCompiled
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.study import compiling
from advprune_core.study.compiling import Settled, settle_speed
from advprune_core.study.grid import study_grid
from advprune_core.study.records import EvaluationRecord
from advprune_core.study.runner import StudyResult, run_study
from advprune_core.study.single_evaluation import evaluate_checkpoint
from advprune_core.study.store import RunStore
from advprune_core.study.study import StudyConfig
from advprune_core.study.tasks import EvaluateTask
from tests.tiny import DATASET, tiny_study

COMPILE = torch.compile
NO_COMPILER = "no C\\+\\+ compiler"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(DATASET)


def study(results: Path, speed: str = "compiled", **options: Any) -> StudyConfig:
    """The full run and 40 % of it, with its control."""
    settings = {"settings": {"speed": speed}, "seeds": [0], "fractions": [0.4], "epochs": 1}
    return tiny_study(results, **settings | options)


def elsewhere(results: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> StudyResult:
    """The compiled study, made where a network can be compiled."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", partial(COMPILE, backend="aot_eager"))
        result = run_study(study(results, **options), progress=False)
    compiled._passes.clear()
    torch._dynamo.reset()
    return result


def settle(results: Path, data: Dataset, **options: Any) -> Settled:
    config = study(results)
    datasets = {config.base_config().dataset: data}
    return settle_speed(study_grid(config), datasets, RunStore(results), config.execution.replace(**options))


def speeds(results: Path) -> list[tuple[str, str]]:
    """Speed of every run and of its one test, in the order of the table's rows."""
    store, found = RunStore(results), []
    for key in store.run_keys():
        record = store.run(key)
        assert record is not None
        found += [(record.config["speed"], made.config["speed"]) for made in store.evaluations(key)]
    return sorted(found)


def evaluation_of(results: Path, key: str, **options: Any) -> EvaluationRecord:
    nothing: dict[str, Any] = {"weights": None, "own": {}, "threat": {}, "data": None, "images": None}
    given: dict[str, Any] = {"attacks": [{"pgd": {"steps": 3}}], "checkpoint": "last", "results": str(results)}
    return evaluate_checkpoint(run_key=key, **{**nothing, **given, **options})[0]


@pytest.mark.usefixtures("no_compiler")
def test_a_study_has_exact_keys(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"{NO_COMPILER}.*speed = exact"):
        result = run_study(study(tmp_path), progress=False)
    assert not result.failed
    assert result.trained == 2
    assert run_study(study(tmp_path, "exact"), progress=False).trained == 0


@pytest.mark.usefixtures("no_compiler")
def test_what_is_trained_and_tested_needs_no_compiler(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = elsewhere(tmp_path, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settle(tmp_path, data) == Settled(study_grid(study(tmp_path)), set())
        again = run_study(study(tmp_path), progress=False)
    assert (again.trained, again.evaluated) == (0, 0)
    assert again.table.equals(result.table)


@pytest.mark.usefixtures("no_compiler")
def test_compiled_runs_get_an_exact_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, monkeypatch)
    evaluation = [{"pgd": {"steps": 3}}]
    for trial in (2, 0):  # and a second time it is there
        with pytest.warns(UserWarning, match=f"{NO_COMPILER}.*tests are exact ones"):
            result = run_study(study(tmp_path, evaluation=evaluation), progress=False)
        assert (result.failed, result.trained, result.evaluated) == ({}, 0, trial)
        assert result.table["robust"].notna().all()
    assert speeds(tmp_path) == [("compiled", "compiled")] * 2 + [("compiled", "exact")] * 2


@pytest.mark.usefixtures("no_compiler")
def test_one_test_that_is_missing_does_not_change_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, monkeypatch)
    store = RunStore(tmp_path)
    key = store.run_keys()[0]
    store.evaluation_file(key, store.evaluations(key)[0].key).unlink()
    with pytest.warns(UserWarning, match=NO_COMPILER):
        result = run_study(study(tmp_path), progress=False)
    assert (result.failed, result.evaluated) == ({}, 1)
    assert result.table["robust"].notna().all()
    assert speeds(tmp_path) == [("compiled", "compiled"), ("compiled", "exact")]


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("retrain", [False, True])
def test_without_weights_there_is_nothing_to_compile_unless_they_are_made_again(
    retrain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, monkeypatch)
    for path in tmp_path.glob("runs/*/last.pt"):
        path.unlink()
    other = study(tmp_path, evaluation=[{"pgd": {"steps": 3}}])
    if not retrain:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = run_study(other, progress=False)
        assert (len(result.without_weights), result.evaluated) == (2, 0)
        return
    with pytest.warns(UserWarning, match=f"{NO_COMPILER}.*speed = exact"):
        result = run_study(other, progress=False, retrain=True)
    assert (result.failed, result.trained, result.evaluated) == ({}, 2, 2)
    assert speeds(tmp_path) == [("compiled", "compiled")] * 2 + [("exact", "exact")] * 2


@pytest.mark.usefixtures("no_compiler")
def test_damaged_weights_are_made_again_by_an_exact_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, monkeypatch)
    for path in tmp_path.glob("runs/*/last.pt"):
        path.write_bytes(b"cut off")
    with pytest.warns(UserWarning, match=f"{NO_COMPILER}.*speed = exact"):
        result = run_study(study(tmp_path), progress=False)
    assert (result.failed, result.trained, result.evaluated) == ({}, 2, 2)


@pytest.mark.usefixtures("traced")
def test_weights_that_compile_otherwise_get_an_exact_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network compiles, but not as one of its runs was trained: known only when that is tested."""
    call = EvaluateTask.__call__

    def refuse(task: EvaluateTask, dataset: Dataset) -> Any:
        if task.evaluation.speed == "compiled":
            raise NotCompiled("other gradients")
        return call(task, dataset)

    monkeypatch.setattr(EvaluateTask, "__call__", refuse)
    with pytest.warns(UserWarning, match="other gradients.*exact evaluation"):
        result = run_study(study(tmp_path), progress=False)
    assert (result.failed, result.trained, result.evaluated) == ({}, 2, 2)
    assert result.table["robust"].notna().all()
    assert speeds(tmp_path) == [("compiled", "exact")] * 2


@pytest.mark.usefixtures("traced")
def test_a_run_is_evaluated_at_its_own_speed(tmp_path: Path) -> None:
    run_study(study(tmp_path), progress=False)
    key = RunStore(tmp_path).run_keys()[0]
    own, exact = evaluation_of(tmp_path, key), evaluation_of(tmp_path, key, speed="exact")
    assert (own.config["speed"], exact.config["speed"]) == ("compiled", "exact")
    assert own.key != exact.key
    assert abs(own.robust.accuracy - exact.robust.accuracy) <= 0.02


@pytest.mark.usefixtures("no_compiler")
def test_an_evaluation_of_a_compiled_run_is_an_exact_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, monkeypatch)
    key = RunStore(tmp_path).run_keys()[0]
    with pytest.warns(UserWarning, match=f"{NO_COMPILER}.*the evaluation is an exact one"):
        record = evaluation_of(tmp_path, key)
    assert (record.train_key, record.config["speed"]) == (key, "exact")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluation_of(tmp_path, key, speed="exact") == record
        monkeypatch.setattr(compiling, "compiled_searches", None)  # what was compiled elsewhere is read as it is
        assert evaluation_of(tmp_path, key, attacks=[{"pgd": {"steps": 2}}]).config["speed"] == "compiled"


@pytest.mark.usefixtures("no_compiler")
def test_a_compiled_run_is_trained_again_as_an_exact_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, monkeypatch)
    store = RunStore(tmp_path)
    key = store.run_keys()[0]
    before = store.run(key)
    (store.folder(key) / "last.pt").unlink()
    with pytest.warns(UserWarning, match=f"{NO_COMPILER}.*instead of run {key} the exact one"):
        record = evaluation_of(tmp_path, key, retrain=True)
    twin = store.run(record.train_key)
    assert twin is not None
    assert before is not None
    assert {name for name in twin.config if twin.config[name] != before.config[name]} == {"speed"}
    assert (twin.config["speed"], record.config["speed"]) == ("exact", "exact")
    assert store.run(key) == before
