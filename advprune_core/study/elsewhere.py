"""Runs that are not of this machine: trained by another device, or imported without their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from advprune_core.attacks.compiled import Speed
from advprune_core.datasets.splits import Dataset
from advprune_core.study.evaluations import EvaluationConfig
from advprune_core.study.execution import Execution
from advprune_core.study.records import RunRecord
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import Device, RunConfig


def found(
    config: RunConfig, test: EvaluationConfig, dataset: Dataset, store: RunStore, execution: Execution
) -> RunConfig:
    """The run under whose key a record lies: the one asked for, or if there is none the same of another device.

    Of another device only where `execution.any_device` says so, and what is finished there and need not be
    trained again for its test; its bits are others, what it has learnt is not.
    """
    if not execution.any_device or store.finished(config.train_key(dataset)) is not None:
        return config
    for other in _twins(config):
        record = store.finished(other.train_key(dataset))
        if record is not None and not needed_again(record, test, dataset, store, execution):
            return other
    return config


def finished(
    config: RunConfig, test: EvaluationConfig, dataset: Dataset, store: RunStore, execution: Execution
) -> RunRecord | None:
    """The record of the run that counts as this one, if it is finished."""
    return store.finished(found(config, test, dataset, store, execution).train_key(dataset))


def needed_again(
    record: RunRecord, test: EvaluationConfig, dataset: Dataset, store: RunStore, execution: Execution
) -> bool:
    """Whether a finished run is trained again: for files that were altered, or weights that its test lacks.

    For weights that are not here only with `execution.retrain`. What is tested needs none.
    """
    if store.altered(record):
        return True
    lacks = execution.retrain and lacks_weights(record, test, store)
    return lacks and untested(record, test, dataset, store, execution)


def lacks_weights(record: RunRecord, test: EvaluationConfig, store: RunStore) -> bool:
    """Whether weights that a run has, and that its test needs, are not here; an old record names the last alone."""
    return not {"last.pt", f"{test.checkpoint}.pt"}.isdisjoint(store.absent(record))


def untested(
    record: RunRecord, test: EvaluationConfig, dataset: Dataset, store: RunStore, execution: Execution
) -> bool:
    """Whether a finished run is still to be tested; one that has diverged is not."""
    tests = tests_that_count(test, any_device=execution.any_device)
    there = any(store.evaluation(record.key, each.key(dataset.test_hash)) is not None for each in tests)
    return record.status != "diverged" and not there


def tests_that_count(wanted: EvaluationConfig, *, any_device: bool) -> list[EvaluationConfig]:
    """The test that is wanted; of a run of any device its twin of the other speed too, whose verdicts are as plain."""
    twin: Speed = "exact" if wanted.speed == "compiled" else "compiled"
    return [wanted, wanted.replace(speed=twin)] if any_device else [wanted]


def _twins(config: RunConfig) -> Iterator[RunConfig]:
    """The run on the other devices: at its speed, or at that which ``auto`` stands for there if it is so here."""
    automatic = config.speed == config.replace(speed="auto").speed
    for device in get_args(Device):
        if device not in ("auto", config.device):
            yield config.replace(device=device)
            if automatic:
                yield config.replace(device=device, speed="auto")
