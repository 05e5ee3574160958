"""TDDS: how unevenly an image's prediction moves from epoch to epoch."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.history import History, HistoryPruner, completed, remembered, visit
from advprune_core.pruners.keep_rules import Scores


def note_change(state: History, *, ids: Tensor, logits: Tensor, window: int, decay: float) -> None:
    """Take note of a batch: logits (B, classes) of the images `ids` (B,).

    Parameters
    ----------
    window : int
        Epochs of a window, so that it has ``window - 1`` changes.
    decay : float
        Weight of the newest window in the moving average.
    """
    before = visit(state, ids)
    log_p = torch.log_softmax(logits.float(), 1)
    last = remembered(state, "log_p", ids, width=logits.shape[1])
    changes = remembered(state, "changes", ids, width=window - 1)
    # The first visit's own change is nonsense, and overwritten before a window is complete.
    changes[ids, (before - 1) % (window - 1)] = (log_p.exp() * (log_p - last[ids]).abs()).sum(1)
    last[ids] = log_p
    own = changes[ids]
    depth = (own - own.mean(1, keepdim=True)).norm(dim=1)
    average = remembered(state, "average", ids)
    average[ids] = torch.where(before + 1 >= window, decay * depth + (1 - decay) * average[ids], average[ids])


def tdds(state: History, n: int, *, window: int) -> Scores:
    """Moving average over windows of the changes' spread, shape (n,): high is informative."""
    return completed(state["average"], state["visits"] >= window, n)


@PRUNERS.register
class TDDS(HistoryPruner):
    """Spread of changing predictions over windows of epochs (Zhang et al. 2024), by keep rule; no cost but warm-up.

    Keeps what moves the training most and least evenly. On the outputs of training, so under attack
    with an adversarial objective. Settings: the window (10 of 30 scored epochs in the public code for
    CIFAR-100) and the weight of the newest window.

    References
    ----------
    Zhang et al., Spanning Training Progress: Temporal Dual-Depth Scoring, CVPR 2024 (2311.13613).
    """

    name = "tdds"
    warmup_epochs: Annotated[int, Field(ge=1, le=100_000, description="epochs on full data before selecting")] = 10
    window: Annotated[int, Field(ge=3, le=100_000, description="epochs of a window")] = 5
    decay: Annotated[float, Field(gt=0, le=1, description="weight of the newest window in the average")] = 0.9

    @model_validator(mode="after")
    def _long_enough(self) -> TDDS:
        return self.with_window_of(self.window)

    def needed_visits(self) -> int:
        return self.window

    def observe(self, batch: Batch, outputs: Outputs, state: dict[str, Tensor]) -> None:
        note_change(state, ids=batch.ids, logits=outputs.logits, window=self.window, decay=self.decay)

    def scores(self, context: Context) -> Scores:
        return tdds(self.observed(context), context.n, window=self.window)
