"""What runs leave on disk, and how it is read back: one JSON per run, one tidy table of them.

``results/runs/<key>/record.json`` is the run, beside it ``selections.npz``, ``last.pt``,
``best.pt``, ``evaluations/<key>.json`` and ``timings/<number>.json``. Only the driver of a study
writes these; ``work/`` belongs to the process that trains.
"""

from __future__ import annotations

import itertools
import json
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from advprune_core.evaluate import Outcome, pack_bits, unpack_bits, wilson
from advprune_core.files import write_atomically, write_text
from advprune_core.pruners.base import Selection
from advprune_core.settings import ConfigError

#: Begins the keys of weights that no run here has trained.
OWN_WEIGHTS = "own-"
#: Fields in which an interrupted or parallel run may differ from an undisturbed, serial one.
CIRCUMSTANCES = ("seconds", "cpu_seconds", "timed_alone", "peak_memory", "environment", "git")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1

    def comparable(self) -> dict[str, Any]:
        """Everything but time, memory and environment."""
        return self.model_dump(mode="json", exclude=set(CIRCUMSTANCES))


class RunRecord(_Record):
    """One trained model: what it was, what it cost, how it ended.

    Attributes
    ----------
    passes : dict
        Forward-equivalents by phase: train, select, validate.
    seconds, cpu_seconds : dict
        By phase, also save (checkpoints). Only runs `timed_alone` may be compared in seconds.
    peak_memory : int
        Bytes, sampled during the run.
    n, kept, unique_images : int
        Training images; images of the last selection; images trained on at least once.
    n_filled : int
        Images of the last selection that the pruner's rule fell short of.
    """

    key: str
    config: dict[str, Any]
    dataset: dict[str, Any]
    status: Literal["ok", "collapsed", "diverged", "failed"]
    error: str | None = None
    passes: dict[str, int] = {}
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}
    timed_alone: bool = False
    peak_memory: int = 0
    n: int = 0
    kept: int = 0
    n_filled: int = 0
    unique_images: int = 0
    images_visited: int = 0
    steps: int = 0
    best_epoch: int | None = None
    collapse_epoch: int | None = None
    state_bytes: int = 0
    epochs: list[dict[str, Any]] = []
    environment: dict[str, Any] = {}
    git: dict[str, Any] = {}

    @property
    def trained(self) -> bool:
        """Whether it has weights and a cost worth comparing; collapse is an outcome like another."""
        return self.status in ("ok", "collapsed")

    @property
    def cost(self) -> int:
        """Forward-equivalents of training and selection: what pruning is judged by."""
        return self.passes.get("train", 0) + self.passes.get("select", 0)


class Timing(_Record):
    """Seconds of one more training of a run, alone on the machine."""

    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    environment: dict[str, Any] = {}


class Accuracy(BaseModel):
    """An accuracy with its 95 % Wilson interval and the outcome of every image, packed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    accuracy: float
    low: float
    high: float
    images: str

    def text(self) -> str:
        """`` 76.6 % [72.7, 80.1]``, for a column."""
        return f"{100 * self.accuracy:5.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    @classmethod
    def of(cls, right: np.ndarray) -> Accuracy:
        """From outcomes of bool, shape (n,)."""
        low, high = wilson(int(right.sum()), len(right))
        return cls(accuracy=float(right.mean()), low=low, high=high, images=pack_bits(right))


class EvaluationRecord(_Record):
    """One evaluation of one checkpoint: accuracies in [0, 1] on `n` test images.

    Attributes
    ----------
    warnings : list of str
        Why the numbers may say more than is true (see `attacks.guards.inspect`).
    """

    key: str
    train_key: str
    config: dict[str, Any]
    n: int
    clean: Accuracy
    robust: Accuracy
    attacks: dict[str, Accuracy]
    warnings: list[str] = []
    passes: dict[str, int]
    seconds: dict[str, float]
    environment: dict[str, Any] = {}
    git: dict[str, Any] = {}

    def outcome(self) -> Outcome:
        """The outcome of every image."""
        attacks = {name: unpack_bits(value.images, self.n) for name, value in self.attacks.items()}
        return Outcome(unpack_bits(self.clean.images, self.n), attacks, tuple(self.warnings))


R = TypeVar("R", bound=BaseModel)


class RunStore:
    """The folder ``results/runs``: finds, reads and writes what belongs to a run key.

    Damaged records are set aside, or left where they are with `read_only`.
    """

    def __init__(self, results: str | Path, *, read_only: bool = False) -> None:
        self.results, self._keep = Path(results), read_only

    def folder(self, key: str) -> Path:
        """Folder of a run."""
        return self.results / "runs" / key

    def work(self, key: str) -> Path:
        """Folder of the process that trains the run."""
        return self.folder(key) / "work"

    def weights(self, key: str, checkpoint: str) -> Path:
        """File of the ``"last"`` or ``"best"`` weights."""
        return self.folder(key) / f"{checkpoint}.pt"

    def run_keys(self) -> list[str]:
        """All keys that have a record."""
        return sorted(path.parent.name for path in self.results.glob("runs/*/record.json"))

    def run(self, key: str) -> RunRecord | None:
        """The record of a run, or None if it is missing or damaged."""
        return _read(self.folder(key) / "record.json", RunRecord, keep=self._keep)

    def finished(self, key: str) -> RunRecord | None:
        """The record of a run that is not to be trained again (and whose weights are there)."""
        record = self.run(key)
        if record is None or record.status == "failed" or not self.weights(key, "last").exists():
            return None
        return record

    def evaluations(self, key: str) -> list[EvaluationRecord]:
        """All evaluations of a run."""
        files = sorted((self.folder(key) / "evaluations").glob("*.json"))
        records = [_read(file, EvaluationRecord, keep=self._keep) for file in files]
        return [record for record in records if record is not None]

    def evaluation(self, key: str, evaluation_key: str) -> EvaluationRecord | None:
        """One evaluation, or None."""
        return _read(self.evaluation_file(key, evaluation_key), EvaluationRecord, keep=self._keep)

    def evaluation_file(self, key: str, evaluation_key: str) -> Path:
        """File of an evaluation."""
        return self.folder(key) / "evaluations" / f"{evaluation_key}.json"

    def timings(self, key: str) -> list[Timing]:
        """Repeated timings of a run."""
        files = sorted((self.folder(key) / "timings").glob("*.json"))
        return [timing for timing in (_read(file, Timing, keep=self._keep) for file in files) if timing is not None]

    def write_run(
        self,
        record: RunRecord,
        *,
        last: dict[str, Any] | None = None,
        best: dict[str, Any] | None = None,
        selections: dict[int, Selection] | None = None,
    ) -> None:
        """Write weights and selections, and the record last: where it is, the rest is."""
        folder = self.folder(record.key)
        for name, weights in (("last", last), ("best", best)):
            if weights is not None:
                write_atomically(folder / f"{name}.pt", partial(torch.save, weights))
        if selections:
            arrays: dict[str, Any] = {}
            for epoch, selection in selections.items():
                kept = np.zeros(record.n, dtype=bool)
                kept[selection.indices] = True
                arrays[f"kept_{epoch}"] = np.packbits(kept)
                if selection.n_filled:
                    arrays[f"filled_{epoch}"] = np.array(selection.n_filled)
                if not (selection.weights == 1).all():
                    arrays[f"weights_{epoch}"] = selection.weights
            write_atomically(folder / "selections.npz", lambda file: np.savez_compressed(file, **arrays))
        write_text(folder / "record.json", record.model_dump_json(indent=1))

    def selections(self, key: str) -> dict[int, Selection]:
        """Selections of a run, by the epoch from which each holds."""
        record = self.run(key)
        path = self.folder(key) / "selections.npz"
        if record is None or not path.exists():
            return {}
        result = {}
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                if name.startswith("kept_"):
                    epoch = int(name.removeprefix("kept_"))
                    kept = np.unpackbits(arrays[name])[: record.n]
                    weights = arrays.get(f"weights_{epoch}", np.empty(0, np.float32))
                    filled = int(arrays.get(f"filled_{epoch}", 0))
                    result[epoch] = Selection(np.flatnonzero(kept), weights, filled)
        return result

    def write_evaluation(self, record: EvaluationRecord) -> None:
        """Write an evaluation beside its run."""
        write_text(self.evaluation_file(record.train_key, record.key), record.model_dump_json(indent=1))

    def write_timing(self, key: str, timing: Timing) -> None:
        """Add a repeated timing."""
        folder = self.folder(key) / "timings"
        number = next(n for n in itertools.count(1) if not list(folder.glob(f"{n}.json*")))
        write_text(folder / f"{number}.json", timing.model_dump_json(indent=1))


def _read(path: Path, kind: type[R], *, keep: bool) -> R | None:
    """Read a record; one that cannot be read is named in a warning and set aside (unless `keep`)."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return kind.model_validate_json(text)
    except (ValidationError, ValueError) as error:
        version = _version(text)
        if version not in (None, 1):
            raise ConfigError(f"{path} has the schema version {version}; this advprune reads version 1") from None
        reason = str(error).splitlines()[0]
        fate = "left out"
        if not keep:
            aside = path.with_name(f"{path.name}.damaged")
            os.replace(path, aside)
            fate = f"set aside as {aside.name}, to be made again"
        warnings.warn(f"{path} is damaged ({reason}); {fate}", stacklevel=3)
        return None


def _version(text: bytes) -> Any:
    """Schema version of a record that is JSON; None of one that is not."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content.get("schema_version") if isinstance(content, dict) else None
