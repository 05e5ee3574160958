"""Runs on disk as objects: found by key, with their trained network."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from advprune_core.base.environment import results_root
from advprune_core.base.settings import ConfigError, check_names
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.models.weights import with_weights
from advprune_core.pruners.selection import Selection
from advprune_core.study.records import EvaluationRecord, RunRecord
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import RunConfig


class StoredRun:
    """A run on disk.

    Attributes
    ----------
    store : RunStore
        The results folder that it lies in.
    record : RunRecord
        What it was, what it cost, and how it ended.
    """

    def __init__(self, store: RunStore, record: RunRecord) -> None:
        self.store, self.record = store, record

    @property
    def config(self) -> RunConfig:
        """The run's configuration; its device may be none of this machine's."""
        return self.record.run_config

    @property
    def evaluations(self) -> list[EvaluationRecord]:
        """Every evaluation of it; the outcome of each image is its ``outcome()``."""
        return self.store.evaluations(self.record.key)

    @property
    def selections(self) -> dict[int, Selection]:
        """What it was trained on, by the epoch from which each selection holds; none of a run on all the data."""
        return self.store.selections(self.record.key)

    def model(self, dataset: Dataset | None = None, checkpoint: str = "last") -> nn.Module:
        """The trained network in eval mode, on the CPU.

        Parameters
        ----------
        dataset : Dataset, optional
            Of as many classes and images of the same shape; default: the run's own, which is loaded.
        checkpoint : str
            ``"last"`` or ``"best"``.

        Raises
        ------
        ConfigError
            See `weights`.
        """
        if dataset is None:
            dataset = load_dataset(self.config.dataset)
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


def load_run(key: str, results: str | Path | None = None) -> StoredRun:
    """Find a run by its key, or the beginning of it.

    Raises
    ------
    ConfigError
        No run, or several, whose key begins so.
    """
    store = RunStore(results_root(results))
    matches = [name for name in store.run_keys() if name.startswith(key)]
    record = store.run(matches[0]) if len(matches) == 1 else None
    if record is None:
        found = f"{len(matches)} runs begin" if matches else "no run begins"
        raise ConfigError(f"{found} with {key!r} in {store.results / 'runs'}")
    return StoredRun(store, record)
