"""Dynamic uncertainty: how much the probability of the label moves from epoch to epoch."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.history import History, HistoryPruner, label_window, remembered, window_mean
from advprune_core.pruners.keep_rules import Scores


def note_probability(state: History, *, ids: Tensor, logits: Tensor, y: Tensor, window: int) -> None:
    """Take note of a batch: logits (B, classes) of the images `ids` (B,) with labels `y` (B,)."""
    _, recent, complete = label_window(state, ids=ids, logits=logits, y=y, window=window)
    remembered(state, "spreads", ids)[ids] += torch.where(complete, recent.std(1, correction=1), 0.0)


def dynamic_uncertainty(state: History, n: int, *, window: int) -> Scores:
    """Mean standard deviation of the label's probability in windows of epochs, shape (n,): high is uncertain."""
    return window_mean(state, "spreads", n, window=window)


@PRUNERS.register
class DynamicUncertainty(HistoryPruner):
    """Spread of the label's probability over windows of epochs (He et al. 2023), by keep rule; no cost but warm-up.

    Drops what training is always sure of, and what it never learns. On the outputs of training, so
    under attack with an adversarial objective, as in Nieth et al. 2024 (2406.13283).

    References
    ----------
    He et al., Large-scale Dataset Pruning with Dynamic Uncertainty, 2023 (2306.05175), eq. (2)-(4):
    windows of 10 epochs over a whole training; here over the epochs before the selection.
    """

    name = "dynamic_uncertainty"
    warmup_epochs: Annotated[int, Field(ge=1, le=100_000, description="epochs on full data before selecting")] = 10
    window: Annotated[int, Field(ge=2, le=100_000, description="epochs of a window")] = 5

    @model_validator(mode="after")
    def _long_enough(self) -> DynamicUncertainty:
        return self.with_window_of(self.window)

    def needed_visits(self) -> int:
        return self.window

    def observe(self, batch: Batch, outputs: Outputs, state: dict[str, Tensor]) -> None:
        note_probability(state, ids=batch.ids, logits=outputs.logits, y=batch.y, window=self.window)

    def scores(self, context: Context) -> Scores:
        return dynamic_uncertainty(self.observed(context), context.n, window=self.window)
