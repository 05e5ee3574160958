"""Runs that another device has trained: a study that is begun on a laptop and goes on where there is a GPU, or back."""

from __future__ import annotations

from typing import get_args

from advprune_core.datasets.splits import Dataset
from advprune_core.study.store import RunStore
from advprune_core.study.study import Execution
from advprune_core.trainers.config import Device, RunConfig


def found(config: RunConfig, dataset: Dataset, store: RunStore, execution: Execution) -> RunConfig:
    """The run under whose key a record lies: the one asked for, or if there is none the same of another device.

    Of another device only where `execution.any_device` says so, and what is finished there (with `retrain`: and
    has its weights here); its bits are others, what it has learnt is not.
    """
    if not execution.any_device or store.finished(config.train_key(dataset)) is not None:
        return config
    for device in get_args(Device):
        if device in ("auto", config.device):
            continue
        other = config.replace(device=device)
        record = store.finished(other.train_key(dataset))
        if record is not None and not store.damaged(record) and not (execution.retrain and store.absent(record)):
            return other
    return config
