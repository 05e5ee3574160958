"""What a training leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advprune_core.pruners.selection import Selection
from advprune_core.trainers.state import Weights


@dataclass(repr=False)
class TrainResult:
    """What a run leaves: plain data and weights on the CPU.

    Attributes
    ----------
    status : "ok", "collapsed" or "diverged"
    metrics : list of dict
        One row per epoch.
    selections : dict of int to Selection
        By the epoch from which each holds.
    ledger : dict
        State of the `Ledger`.
    last, best : state dicts
        Weights at the end, and at the best epoch by PGD-10 on val_stop (None without checks).
    collapse_epoch : int or None
        Epoch at whose check a catastrophic overfitting was seen first.
    state_bytes : int
        What attack policy, objective and pruner keep between batches.
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

    @property
    def last_selection(self) -> Selection | None:
        """The selection that held to the end; None of a run on all the data."""
        return self.selections[max(self.selections)] if self.selections else None

    @property
    def step_ratio(self) -> float | None:
        """Mean of `Selection.step_ratio` over the epochs on a selection; None where it was not measured."""
        known = [row["step_ratio"] for row in self.metrics if "step_ratio" in row]
        return sum(known) / len(known) if known else None

    def __repr__(self) -> str:
        passes = sum(self.ledger.get("passes", {}).values())
        return f"TrainResult({self.status}, epochs={len(self.metrics)}, steps={self.steps}, passes={passes})"
