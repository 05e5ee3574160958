"""What a run leaves: its record, its evaluations, its timings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from advprune_core.attacks.evaluate import Outcome, pack_bits, unpack_bits, wilson
from advprune_core.base.keys import content_key
from advprune_core.base.ledger import cost_of
from advprune_core.datasets.splits import Dataset
from advprune_core.study.columns import Column, derived
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.sentinel import depth, held_out

#: Begins the keys of weights that no run here has trained.
OWN_WEIGHTS = "own-"
#: Fields in which an interrupted or parallel run may differ from an undisturbed, serial one.
CIRCUMSTANCES = (
    *("seconds", "cpu_seconds", "timed_alone", "peak_memory", "environment", "git"),
    *("provenance", "canonical", "files", "weights"),
)
#: What lies beside a record.
FILES = ("last.pt", "best.pt", "selections.npz")
#: Version of the records that this code writes; version 1 had no digests.
SCHEMA = 2

#: Where a record came from: made in this results folder, or brought into it by `advprune import`, from
#: records with digests or from old ones without, which nothing vouches for.
Provenance = Literal["here", "imported", "imported without digests"]


class Record(BaseModel):
    """A file that a run leaves; on disk it carries the SHA-256 of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[2] = 2
    provenance: Provenance = "here"

    def comparable(self) -> dict[str, Any]:
        """Everything but time, memory and environment."""
        return self.model_dump(mode="json", exclude=set(CIRCUMSTANCES))


def _known_files(files: dict[str, str]) -> dict[str, str]:
    """Refuse a name that no run writes: an import copies what is named, and a foreign record may name anything."""
    if unknown := sorted(set(files) - set(FILES)):
        raise ValueError(f"{unknown[0]!r} is no file of a run; these are {', '.join(FILES)}")
    return files


class _Keyed(Record):
    """A record under a key: the hash of `canonical`, which holds all that the key stands for."""

    key: str
    canonical: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _key_is_its_hash(self) -> Self:
        if self.canonical is not None and content_key(self.canonical) != self.key:
            raise ValueError(f"its key {self.key} is not the hash of what it was made from")
        return self


class RunRecord(_Keyed):
    """One trained model: what it was, what it cost, how it ended.

    Attributes
    ----------
    passes : dict
        Forward-equivalents by phase: train, select, validate.
    seconds, cpu_seconds : dict
        By phase, also save (checkpoints). Only runs `timed_alone` may be compared in seconds.
    canonical : dict or None
        What the key was hashed from: settings, versions and sources of components, training data.
    files : dict
        SHA-256 of the files beside the record: ``last.pt``, ``best.pt``, ``selections.npz``.
    """

    config: dict[str, Any]
    dataset: dict[str, Any]
    status: Literal["ok", "collapsed", "diverged", "failed"]
    passes: dict[str, int] = {}
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}
    timed_alone: Annotated[bool, Column("Whether it was timed alone: only then seconds may be compared")] = False
    peak_memory: Annotated[
        int, Column("Bytes, sampled during the run", of=lambda result, _: result.ledger["peak_memory"])
    ] = 0
    n: Annotated[int, Column("Training images")] = 0
    kept: Annotated[
        int, Column("Images of the last selection", of=lambda result, dataset: len(_last_kept(result, dataset)))
    ] = 0
    n_filled: Annotated[
        int,
        Column(
            "Images of the last selection that the pruner's rule fell short of",
            of=lambda result, _: selection.n_filled if (selection := result.last_selection) else 0,
        ),
    ] = 0
    step_ratio: Annotated[
        float | None,
        Column(
            "How many times as long as on all data a step of the same learning rate is on a selection: length of the "
            "weighted mean last-layer gradient over that of the mean of all training images, as the pruner saw them; "
            "mean over the epochs on a selection, empty where the pruner does not measure it",
            of=lambda result, _: result.step_ratio,
        ),
    ] = None
    wrong_labels: Annotated[
        float | None,
        Column(
            "Share of the images of the last selection whose label is wrong, on data with label_noise",
            of=lambda result, dataset: _wrong_labels(result, dataset),
        ),
    ] = None
    unique_images: Annotated[
        int, Column("Images trained on at least once", of=lambda result, _: result.unique_images)
    ] = 0
    images_visited: Annotated[int, Column("Images in all updates", of=lambda result, _: result.images_visited)] = 0
    steps: Annotated[
        int, Column("Updates of the network", name="optimiser_steps", of=lambda result, _: result.steps)
    ] = 0
    best_epoch: Annotated[
        int | None, Column("Epoch of the best check on val_stop", of=lambda result, _: result.best_epoch)
    ] = None
    collapse_epoch: Annotated[
        int | None,
        Column(
            "Epoch of the check that saw catastrophic overfitting first", of=lambda result, _: result.collapse_epoch
        ),
    ] = None
    state_bytes: Annotated[
        int,
        Column(
            "What attack policy, objective and pruner keep between batches, in bytes",
            of=lambda result, _: result.state_bytes,
        ),
    ] = 0
    error: Annotated[str | None, Column("Message of a run that failed")] = None
    epochs: list[dict[str, Any]] = []
    environment: dict[str, Any] = {}
    git: dict[str, Any] = {}
    files: Annotated[dict[str, str], AfterValidator(_known_files)] = {}

    @property
    def trained(self) -> bool:
        """Whether it has weights and a cost worth comparing; collapse is an outcome like another."""
        return self.status in ("ok", "collapsed")

    def same_training(self, other: RunRecord) -> bool:
        """Whether another training of this run came out the same: its losses agree to the last digit.

        Settings are not compared: they are those of the key, and an older record knows fewer of them.
        """

        def course(record: RunRecord) -> list[tuple[Any, Any]]:
            return [(row.get("train_loss"), row.get("train_accuracy")) for row in record.epochs]

        return (self.status, self.steps, course(self)) == (other.status, other.steps, course(other))

    @property
    def cost(self) -> int:
        """Forward-equivalents of training and selection: what pruning is judged by."""
        return cost_of(self.passes)

    @property
    def cost_seconds(self) -> float:
        """The same in processor seconds, which also count what is no forward pass, such as a pursuit."""
        return float(cost_of(self.cpu_seconds))

    @property
    def run_config(self) -> RunConfig:
        """The run's settings; older records know one speed. Their device may be none of this machine's."""
        return RunConfig.create(**{"speed": "exact", **self.config})


def _last_kept(result: TrainResult, dataset: Dataset) -> np.ndarray:
    """Images of the last selection, or all."""
    selection = result.last_selection
    return np.arange(len(dataset.train)) if selection is None else selection.indices


def _wrong_labels(result: TrainResult, dataset: Dataset) -> float | None:
    if dataset.true_labels is None:
        return None
    return float(dataset.wrong_labels()[_last_kept(result, dataset)].mean())


@derived
def classes(record: RunRecord) -> float:
    """Classes of the data: a constant answer is right, and robust, for one in so many images."""
    return float(record.dataset.get("classes", np.nan))


@derived
def cost(record: RunRecord) -> float:
    """Forward-equivalents of training and selection; empty of a run that did not get to its end."""
    return record.cost if record.trained else np.nan


@derived
def cost_seconds(record: RunRecord) -> float:
    """Processor seconds of training and selection, which count what no forward pass does (a pursuit)."""
    return record.cost_seconds if record.trained else np.nan


@derived
def val_pgd_best(record: RunRecord) -> float:
    """PGD-10 on val_stop at its best check."""
    return max(held_out(record.epochs), default=np.nan)


@derived
def val_pgd_last(record: RunRecord) -> float:
    """The same at the last check: the difference is robust overfitting."""
    return next(reversed(held_out(record.epochs)), np.nan)


@derived
def collapse_depth(record: RunRecord) -> float:
    """Fall of that accuracy from its best check to the lowest later one (images of val_stop are no test)."""
    return depth(record.epochs)


@derived
def run_device(record: RunRecord) -> str | None:
    """Processor or accelerator that it was trained on."""
    return record.environment.get("device")


class Timing(Record):
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


class EvaluationRecord(_Keyed):
    """One evaluation of one checkpoint: accuracies in [0, 1] on `n` test images.

    Attributes
    ----------
    weights : str or None
        SHA-256 of the weights that were evaluated.
    warnings : list of str
        Why the numbers may say more than is true (see `attacks.guards.inspect`).
    by_class : dict
        Counts of each class: of its test ``images``, and of those that are right: ``clean``, ``robust``.
        Empty in records that are older than it.
    """

    train_key: str
    config: dict[str, Any]
    n: int
    clean: Accuracy
    robust: Accuracy
    attacks: dict[str, Accuracy]
    warnings: list[str] = []
    by_class: dict[str, list[int]] = {}
    passes: dict[str, int]
    seconds: dict[str, float]
    environment: dict[str, Any] = {}
    git: dict[str, Any] = {}
    weights: str | None = None

    @model_validator(mode="after")
    def _accuracies_are_those_of_the_images(self) -> Self:
        """Every accuracy is counted once more: a number that contradicts the images is no result."""
        outcome = self.outcome()
        columns = {"clean": outcome.clean, "robust": outcome.robust, **outcome.attacks}
        for name, stated in {"clean": self.clean, "robust": self.robust, **self.attacks}.items():
            counted = Accuracy.of(columns[name])
            pairs = [(getattr(counted, end), getattr(stated, end)) for end in ("accuracy", "low", "high")]
            if any(abs(a - b) > 1e-9 for a, b in pairs) or counted.images != stated.images:
                raise ValueError(f"{name} is stated as {stated.accuracy:g}, its images say {counted.accuracy:g}")
        whole = {"images": self.n, "clean": int(outcome.clean.sum()), "robust": int(outcome.robust.sum())}
        if self.by_class and {name: sum(counts) for name, counts in self.by_class.items()} != whole:
            raise ValueError(f"its classes have other sums than its images: {self.by_class}")
        return self

    def worst_class(self, column: Literal["clean", "robust"]) -> float | None:
        """Accuracy of the class that has the lowest, in [0, 1]; None where classes were not counted."""
        counted = zip(self.by_class.get(column, []), self.by_class.get("images", []), strict=True)
        return min((right / images for right, images in counted if images), default=None)

    def outcome(self) -> Outcome:
        """The outcome of every image."""
        attacks = {name: unpack_bits(value.images, self.n) for name, value in self.attacks.items()}
        return Outcome(unpack_bits(self.clean.images, self.n), attacks, tuple(self.warnings))
