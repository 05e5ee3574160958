"""Pieces of work: warm-up, locks, what another process has finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from filelock import Timeout

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.study.evaluations import EvaluationConfig
from advprune_core.study.finished import evaluation_record, finish, finish_evaluation, finish_failed, run_record
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from advprune_core.study.tasks import EvaluateTask, TrainTask, warm_up
from advprune_core.trainers.config import RunConfig
from tests.tiny import tiny_run, tiny_study


def test_warm_up_leaves_nothing() -> None:
    state = torch.get_rng_state()
    warm_up(tiny_run(), load_dataset(tiny_run().dataset))
    assert torch.equal(state, torch.get_rng_state())


def test_a_run_that_another_process_finished_is_not_trained(tmp_path: Path) -> None:
    config = tiny_run()
    dataset = load_dataset(config.dataset)
    key = config.train_key(dataset)
    store = RunStore(tmp_path)
    task = TrainTask(config, key, str(tmp_path))
    result = task(dataset)
    assert result is not None
    assert store.work(key).exists()
    record = run_record(key, config, dataset, result)
    assert finish(store, record, result)
    assert not store.work(key).exists()
    assert task(dataset) is None
    # Another driver, that has trained it as well, neither writes nor counts it; nor does one where it failed.
    assert not finish(store, record.model_copy(update={"steps": 0}), result)
    finish_failed(store, run_record(key, config, dataset, "not here"))
    kept = store.run(key)
    assert kept is not None
    assert kept.comparable() == record.comparable()


@pytest.mark.parametrize("what", ["train", "test"])
def test_other_data_than_the_driver_has_seen_is_refused(what: str, tmp_path: Path) -> None:
    config = tiny_run()
    dataset = load_dataset(config.dataset)
    evaluation = EvaluationConfig()
    task: TrainTask | EvaluateTask = TrainTask(config, tiny_run(seed=1).train_key(dataset), str(tmp_path))
    if what == "test":
        task = EvaluateTask(config, "k", evaluation, evaluation.key("others"), str(tmp_path), "w")
    with pytest.raises(ConfigError, match="has changed since this study was started"):
        task(dataset)


def test_an_evaluation_that_another_process_finished_is_not_done_again(tmp_path: Path) -> None:
    config = tiny_study(tmp_path, seeds=[0], fractions=[1.0], controls=[])
    run_study(config, progress=False)
    store = RunStore(tmp_path)
    (key,) = store.run_keys()
    run = RunConfig.create(**store.run(key).config)
    evaluation = EvaluationConfig(attacks=config.attacks, threat=run.threat)
    dataset, weights = load_dataset(run.dataset), str(store.folder(key) / "last.pt")

    def task(evaluation: EvaluationConfig) -> EvaluateTask:
        return EvaluateTask(run, key, evaluation, evaluation.key(dataset.test_hash), str(tmp_path), weights)

    assert task(evaluation)(dataset) is None
    part = evaluation.replace(images=20)
    found = task(part)(dataset)
    assert found is not None
    record = evaluation_record(key, run, part, dataset, *found, weights=None)
    assert [finish_evaluation(store, record), finish_evaluation(store, record)] == [True, False], "counted once"


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with store.lock("k"), pytest.raises(Timeout):
        store.lock("k").acquire(timeout=0)


def test_what_a_kill_left_of_a_finished_run_is_tidied_up(tmp_path: Path) -> None:
    store, results = RunStore(tmp_path), tiny_study(tmp_path, seeds=[0], fractions=[1.0], controls=[])
    run_study(results, progress=False)
    (key,) = store.run_keys()
    for left in ("checkpoint.pt", "metrics.jsonl"):
        store.work(key).mkdir(exist_ok=True)
        (store.work(key) / left).write_text("left by a kill between record and tidying up")
        assert run_study(results, progress=False).trained == 0
        assert not store.work(key).exists()
    (store.work(key) / "evaluation-under-way").mkdir(parents=True)
    run_study(results, progress=False)
    assert (store.work(key) / "evaluation-under-way").exists()
