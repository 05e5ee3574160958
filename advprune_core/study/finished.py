"""What a task leaves when it is done: its record and files; what was kept to go on from is dropped."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from advprune_core.attacks.evaluate import Outcome
from advprune_core.base.environment import environment, git_state
from advprune_core.base.keys import content_key
from advprune_core.datasets.splits import Dataset
from advprune_core.study.columns import measured
from advprune_core.study.evaluations import EvaluationConfig
from advprune_core.study.records import Accuracy, EvaluationRecord, RunRecord
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.state import left_in


def is_done(store: RunStore, key: str, *, again: bool = False) -> bool:
    """Whether a run needs no training; with `again`, neither for the files that its record names."""
    record = store.finished(key)
    return record is not None and not (again and store.absent(record))


def run_record(
    key: str,
    config: RunConfig,
    dataset: Dataset,
    result: TrainResult | str,
    *,
    timed_alone: bool = False,
    where: dict[str, Any] | None = None,
) -> RunRecord:
    """The record of a finished run, or of one that failed with a message.

    It was carried out in the environment `where`, by default this one.
    """
    facts: dict[str, Any] = {
        "key": key,
        "canonical": config.identity(dataset.train_hash),
        "config": config.model_dump(mode="json"),
        "dataset": {
            "name": dataset.name,
            "train_hash": dataset.train_hash,
            "test_hash": dataset.test_hash,
            "classes": dataset.classes,
            "image_shape": dataset.image_shape,
        },
        "n": len(dataset.train),
        "environment": where or environment(config.device),
        "git": git_state(),
    }
    if isinstance(result, str):
        return RunRecord(status="failed", error=result, **facts)
    return RunRecord(
        status=result.status,
        **{name: result.ledger[name] for name in ("passes", "seconds", "cpu_seconds")},
        timed_alone=timed_alone,
        epochs=result.metrics,
        **measured(RunRecord, result, dataset),
        **facts,
    )


def evaluation_record(
    train_key: str,
    config: RunConfig,
    evaluation: EvaluationConfig,
    dataset: Dataset,
    outcome: Outcome,
    ledger: dict[str, Any],
    *,
    weights: str | None = None,
    where: dict[str, Any] | None = None,
) -> EvaluationRecord:
    """The record of an evaluation of weights with the SHA-256 `weights`, done in the environment `where`."""
    identity = evaluation.identity(dataset.test_hash)
    labels = evaluation.split(dataset)[0].labels.cpu().numpy()
    columns = {"images": np.ones_like(outcome.clean), "clean": outcome.clean, "robust": outcome.robust}
    return EvaluationRecord(
        key=content_key(identity),
        canonical=identity,
        weights=weights,
        train_key=train_key,
        config=evaluation.model_dump(mode="json"),
        n=len(outcome.clean),
        clean=Accuracy.of(outcome.clean),
        robust=Accuracy.of(outcome.robust),
        attacks={name: Accuracy.of(right) for name, right in outcome.attacks.items()},
        warnings=list(outcome.warnings),
        by_class={
            name: np.bincount(labels[right], minlength=dataset.classes).tolist() for name, right in columns.items()
        },
        passes=ledger["passes"],
        seconds=ledger["seconds"],
        environment=where or environment(config.device),
        git=git_state(),
    )


def evaluation_work(store: RunStore, key: str, evaluation_key: str) -> Path:
    """Folder of an evaluation under way."""
    return store.work(key) / f"evaluation-{evaluation_key}"


def finish_evaluation(store: RunStore, record: EvaluationRecord) -> bool:
    """Write the record of an evaluation, then drop its state; False if another process did meanwhile."""
    work = evaluation_work(store, record.train_key, record.key)
    with store.lock(record.train_key):  # or another study would go on from half of it
        first = store.evaluation(record.train_key, record.key) is None
        if first:
            store.write_evaluation(record)
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            work.parent.rmdir()  # unless something else is under way there
    return first


def drop_checkpoints(store: RunStore, key: str) -> None:
    """Drop what training has left of a finished run: it may have been killed between record and tidying up."""
    work = store.work(key)
    for path in left_in(work):
        if path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        work.rmdir()  # unless an evaluation is under way there


def drop_left_over(store: RunStore, key: str) -> None:
    """The same, unless somebody is training the run anew."""
    if store.work(key).exists():
        with suppress(Timeout, OSError), store.lock(key).acquire(timeout=0):
            drop_checkpoints(store, key)


def drop_warmup(store: RunStore, key: str) -> None:
    """Drop a warm-up, unless somebody is training it."""
    with suppress(Timeout, OSError), store.warmup_lock(key).acquire(timeout=0):
        shutil.rmtree(store.warmup(key), ignore_errors=True)


def drop_work(store: RunStore, key: str) -> None:
    """Drop all that is under way of a run where its records are not."""
    shutil.rmtree(store.work(key), ignore_errors=True)


def finish(store: RunStore, record: RunRecord, result: TrainResult, *, again: bool = False) -> bool:
    """Write a run's files, then drop its checkpoints; False if another process did meanwhile."""
    with store.lock(record.key):
        if is_done(store, record.key, again=again):
            return False
        store.write_run(record, last=result.last, best=result.best, selections=result.selections)
        drop_checkpoints(store, record.key)
        return True


def finish_failed(store: RunStore, record: RunRecord) -> None:
    """Write the record of a run that failed, unless it worked elsewhere meanwhile."""
    with store.lock(record.key):
        if store.finished(record.key) is None:
            store.write_run(record)
