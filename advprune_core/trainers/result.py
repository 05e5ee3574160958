"""What a training leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advprune_core.base.ledger import cost_of
from advprune_core.pruners.selection import Selection
from advprune_core.trainers.state import Weights


@dataclass(repr=False)
class TrainResult:
    """What a run leaves: plain data and weights on the CPU.

    Attributes
    ----------
    status : "ok", "collapsed" or "diverged"
    metrics : list of dict
        One row per epoch: ``epoch``; ``lr``, the learning rate of its last step; ``train_loss`` and
        ``train_accuracy``, means over its batches as they were trained on; ``images`` in them; ``kept``, images of the
        selection. Where they apply: ``attacked_accuracy`` (of the images that were attacked), ``plain`` (an epoch
        without an attack), ``cost`` (forward-equivalents so far, with a budget), ``step_ratio``; of an epoch with a
        check ``val_pgd``, ``val_pgd_trained``, ``train_pgd`` and ``pert_align`` (see `validate`).
    selections : dict of int to Selection
        By the epoch from which each holds; their indices are positions in the training split.
    ledger : dict
        State of the `Ledger`: ``passes`` (forward-equivalents), ``seconds`` and ``cpu_seconds``, each by phase.
    last, best : state dicts
        Weights at the end, and at the best epoch by PGD-10 on val_stop (None without checks).
    best_epoch : int or None
        That epoch.
    collapse_epoch : int or None
        Epoch at whose check a catastrophic overfitting was seen first.
    steps, images_visited, unique_images : int
        Updates; images in them; images trained on at least once.
    state_bytes : int
        What attack policy, objective and pruner keep between batches.
    rows : array of int64, shape (k,)
        Where the images of the last selection stand in the arrays that the data set was made from, in its order:
        ``x_train[result.rows]``. Of a run on all the data, all that are not held out.
    """

    status: str
    metrics: list[dict[str, Any]]
    selections: dict[int, Selection]
    ledger: dict[str, Any]
    last: Weights
    best: Weights | None
    best_epoch: int | None
    collapse_epoch: int | None
    steps: int
    images_visited: int
    unique_images: int
    state_bytes: int
    rows: NDArray[np.int64]

    @property
    def last_selection(self) -> Selection | None:
        """The selection that held to the end; None of a run on all the data. For its images see `rows`."""
        return self.selections[max(self.selections)] if self.selections else None

    @property
    def step_ratio(self) -> float | None:
        """Mean of `Selection.step_ratio` over the epochs on a selection; None where it was not measured."""
        known = [row["step_ratio"] for row in self.metrics if "step_ratio" in row]
        return sum(known) / len(known) if known else None

    @property
    def cost(self) -> int:
        """Forward-equivalents of training and selection: what pruning is judged by."""
        return int(cost_of(self.ledger["passes"]))

    def __repr__(self) -> str:
        passes = sum(self.ledger.get("passes", {}).values())
        return f"TrainResult({self.status}, epochs={len(self.metrics)}, steps={self.steps}, passes={passes})"
