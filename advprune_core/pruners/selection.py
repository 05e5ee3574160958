"""A selection: which training images are kept, with which weights, and that no class is lost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """Which training images are kept, and how much each counts.

    Attributes
    ----------
    indices : array of int64, shape (k,)
        Distinct positions in the training split, sorted. That has no image that is held out: in the arrays that it was
        made from they are ``dataset.train.rows[indices]``. Of `select`, which holds none out: positions in its arrays.
    weights : array of float32, shape (k,)
        Weights in the loss, ``sum(w * loss) / batch size``; 1 unless the pruner sets them.
    n_filled : int
        How many indices the pruner's own rule fell short of, and filled in another way.
    step_ratio : float or None
        Length of the weighted mean gradient of what is kept, in units of that of the mean gradient of
        all training images: by how much a step is longer at the same learning rate. None: not measured.
    """

    indices: NDArray[np.int64]
    weights: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    n_filled: int = 0
    step_ratio: float | None = None

    def __post_init__(self) -> None:
        given = np.asarray(self.indices)
        if given.ndim != 1 or len(given) == 0:
            raise ConfigError("a selection must be a vector of at least one index")
        if not np.issubdtype(given.dtype, np.integer):
            raise ConfigError("indices of a selection must be whole numbers (of a mask: np.flatnonzero)")
        indices = np.asarray(self.indices, np.int64)
        weights = np.asarray(self.weights, np.float32)
        weights = np.ones(len(indices), np.float32) if len(weights) == 0 else weights
        if weights.shape != indices.shape:
            raise ConfigError(f"a selection has {len(indices)} indices, but {len(weights)} weights")
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ConfigError("weights of a selection must be finite and not negative")
        order = np.argsort(indices, kind="stable")
        if (np.diff(indices[order]) == 0).any() or indices[order[0]] < 0:
            raise ConfigError("indices of a selection must be distinct and not negative")
        object.__setattr__(self, "indices", indices[order])
        object.__setattr__(self, "weights", weights[order])
        # Python's own, not numpy's, which a checkpoint can't be read with.
        object.__setattr__(self, "n_filled", int(self.n_filled))
        object.__setattr__(self, "step_ratio", None if self.step_ratio is None else float(self.step_ratio))

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        weights = f"weights {self.weights.min():g} to {self.weights.max():g}"
        filled = f", {self.n_filled} filled in" if self.n_filled else ""
        return f"Selection({len(self)} images, {weights}{filled})"


def budget(fraction: float, n: int) -> int:
    """Images kept of `n`: ``floor(fraction * n + 1/2)``."""
    return int(np.floor(fraction * n + 0.5))


def check_every_class(kept: NDArray[np.int64], had: NDArray[np.int64], *, fraction: float) -> None:
    """Refuse to keep no image of a class that has some; `kept` and `had` are counts by class.

    Raises
    ------
    ConfigError
        With the first such class, and the fraction that it needs.
    """
    empty = np.flatnonzero((had > 0) & (kept == 0))
    if len(empty):
        size = had[empty[0]]
        raise ConfigError(
            f"fraction {fraction:g} keeps {kept.sum()} of {had.sum()} images and would leave class {empty[0]} "
            f"({size} images) without any: in proportion it needs a fraction of about {1 / size:.2g}; keep more, or "
            "set min_per_class = 1"
        )


def check_floors(had: NDArray[np.int64], k: int, *, least: int, fraction: float) -> None:
    """Refuse to keep at least `least` images of each class, of so many `had`, where that is more than `k`.

    Raises
    ------
    ConfigError
        With what it needs.
    """
    if (needed := int(np.minimum(had, least).sum())) > k:
        raise ConfigError(f"min_per_class = {least} needs {needed} images, and fraction {fraction:g} keeps {k}")


def check_selected(indices: NDArray[np.int64], dataset: Dataset, *, fraction: float) -> None:
    """Refuse a selection without images of a class that the training split has."""
    labels = np.asarray(dataset.train.labels.cpu().numpy())
    had, kept = (np.bincount(some, minlength=dataset.classes) for some in (labels, labels[indices]))
    check_every_class(kept, had, fraction=fraction)


def by_class(
    labels: NDArray[np.int64], quotas: NDArray[np.int64], order: NDArray[np.int64] | None = None
) -> list[tuple[NDArray[np.int64], int]]:
    """Positions of the images of each class that keeps some, ascending or as they come in an order, and its quota."""
    order = np.arange(len(labels)) if order is None else order
    return [(order[labels[order] == label], int(quotas[label])) for label in np.flatnonzero(quotas)]


def with_every_class(
    selection: Selection, labels: NDArray[np.int64], rng: np.random.Generator, *, least: int = 1
) -> Selection:
    """Exchange images of the fullest classes for one of each class that has fewer than `least`, until it has them.

    Returns
    -------
    Selection
        As many images, with `n_filled` larger by those exchanged; the same object if there are none.
        An exchanged image takes the place and the weight of the lightest one of the fullest class. A
        class of fewer images keeps them all; no class falls below its own share for another.
    """
    indices, weights, filled = selection.indices.copy(), selection.weights.copy(), selection.n_filled
    floors = np.minimum(np.bincount(labels), least)
    for label in np.flatnonzero(floors):
        while (kept := np.bincount(labels[indices], minlength=len(floors)))[label] < floors[label]:
            if not (kept > floors).any():
                return selection if filled == selection.n_filled else Selection(indices, weights, filled)
            fullest = np.where(kept > floors, kept, -1).argmax()
            members = rng.permutation(np.flatnonzero(labels[indices] == fullest))
            out = members[weights[members].argmin()]
            indices[out] = rng.choice(np.setdiff1d(np.flatnonzero(labels == label), indices))
            filled += 1
    return selection if filled == selection.n_filled else Selection(indices, weights, filled)
