"""Before a grid starts: the runs that cannot be compiled here become exact ones, under keys of their own."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch

from advprune_core.attacks.compiled import NotCompiled, compile_cache
from advprune_core.config import RunConfig
from advprune_core.controls import resolve
from advprune_core.data import Dataset
from advprune_core.grid import Datasets, Entry
from advprune_core.models import build_model
from advprune_core.settings import ConfigError
from advprune_core.store import RunStore
from advprune_core.trainers.arithmetic import arithmetic, run_passes


def settle_speed(entries: Sequence[Entry], datasets: Datasets, store: RunStore) -> list[Entry]:
    """Entries that this machine can carry out, each network compiled once, for all its runs.

    Nothing is compiled for runs that are finished.

    Warns
    -----
    UserWarning
        Why runs that were to be compiled are exact ones.
    """
    reasons: dict[str, str | None] = {}
    with compile_cache(store.results):
        for entry in entries:
            dataset = datasets[entry.config.dataset]
            what = _compiled_thing(entry.config)
            if entry.config.speed == "compiled" and what not in reasons and not _finished(entry, dataset, store):
                reasons[what] = _reason_against(entry.config, dataset)
    for reason in dict.fromkeys(filter(None, reasons.values())):
        warnings.warn(f"{reason}: its runs are exact ones, as with speed = exact", stacklevel=3)
    return [
        replace(entry, config=entry.config.replace(speed="exact"))
        if reasons.get(_compiled_thing(entry.config)) is not None
        else entry
        for entry in entries
    ]


def _compiled_thing(config: RunConfig) -> str:
    """Equal for runs that share what is compiled."""
    shape = (config.optimisation.batch_size, config.precision, config.device, config.threads)
    return json.dumps([config.speed, config.dataset.canonical(), config.model.canonical(), *shape], sort_keys=True)


def _reason_against(config: RunConfig, dataset: Dataset) -> str | None:
    model = build_model(config.model, dataset, seed=config.seed).to(config.device)
    model = model.to(memory_format=torch.channels_last)
    images = dataset.train.pixels(slice(0, config.optimisation.batch_size)).to(config.device)
    try:
        with arithmetic(config):
            run_passes(config, model, images)
    except NotCompiled as error:
        return str(error)
    return None


def _finished(entry: Entry, dataset: Dataset, store: RunStore) -> bool:
    record = store.finished(entry.config.train_key(dataset))
    if record is None or entry.control is None or not entry.derived:
        return record is not None
    try:
        return store.finished(resolve(entry.control, entry.config, record).train_key(dataset)) is not None
    except ConfigError:  # the driver says so
        return True
