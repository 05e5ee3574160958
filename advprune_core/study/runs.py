"""Runs on disk as objects: found by key, with their trained network."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from advprune_core.base.environment import results_root
from advprune_core.base.settings import ConfigError, check_names
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.models.weights import with_weights
from advprune_core.study.records import RunRecord
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import RunConfig


class Run:
    """A run on disk: its record, evaluations, selections and model."""

    def __init__(self, store: RunStore, record: RunRecord) -> None:
        self.store, self.record = store, record

    @property
    def config(self) -> RunConfig:
        """The run's configuration; its device may be none of this machine's."""
        return RunConfig.create(**{"speed": "exact", **self.record.config})

    def model(self, dataset: Dataset, checkpoint: str = "last") -> nn.Module:
        """The trained network in eval mode, on the CPU."""
        return load_model(self.config, dataset, self.weights(checkpoint))

    def weights(self, checkpoint: str = "last") -> Path:
        """File of the weights, as they were written: "last", or "best" of a run with checks on val_stop.

        Raises
        ------
        ConfigError
            Another name; they are not there, or damaged.
        """
        check_names([checkpoint], ("last", "best"), what="checkpoint")
        path = self.store.file(self.record, f"{checkpoint}.pt")
        if path is not None:
            return path
        name, folder = f"{checkpoint}.pt", self.store.folder(self.record.key)
        if name in self.store.absent(self.record) or name in self.record.files:
            raise ConfigError(
                f"the weights of run {self.record.key} are not in {folder} (they do not travel with a study): "
                "`advprune evaluate --retrain` trains it again"
            )
        raise ConfigError(f"run {self.record.key} has no {checkpoint!r} weights, it was trained without best_every")


def load_model(config: RunConfig, dataset: Dataset, weights: Path) -> nn.Module:
    """Build a config's network and load its weights; nothing is unpickled."""
    return with_weights(build_model(config.model, dataset, seed=config.seed), weights)


def load_run(key: str, results: str | Path | None = None) -> Run:
    """Find a run by its key, or the beginning of it."""
    store = RunStore(results_root(results))
    matches = [name for name in store.run_keys() if name.startswith(key)]
    record = store.run(matches[0]) if len(matches) == 1 else None
    if record is None:
        found = f"{len(matches)} runs begin" if matches else "no run begins"
        raise ConfigError(f"{found} with {key!r} in {store.results / 'runs'}")
    return Run(store, record)
