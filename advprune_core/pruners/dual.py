"""DUAL: uncertain and difficult images, found early, drawn by a Beta density over their difficulty."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import stats
from torch import Tensor

from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.history import History, HistoryPruner, completed, label_window, remembered, window_mean
from advprune_core.pruners.keep_rules import Highest, Indices, Scores
from advprune_core.pruners.selection import Selection

#: Concentration of the Beta density: its two shapes add up to this much.
_SHAPES = 16.0
#: Images whose mean probability says where the density has its mode.
_HARDEST = 10


def note_difficulty(state: History, *, ids: Tensor, logits: Tensor, y: Tensor, window: int) -> None:
    """Take note of a batch: logits (B, classes) of the images `ids` (B,) with labels `y` (B,)."""
    p, recent, complete = label_window(state, ids=ids, logits=logits, y=y, window=window)
    remembered(state, "total", ids)[ids] += p
    score = recent.std(1, correction=1) * (1 - recent.mean(1))
    remembered(state, "dual", ids)[ids] += torch.where(complete, score, 0.0)


def dual(state: History, n: int, *, window: int) -> Scores:
    """Mean over windows of epochs of ``std(p_y) (1 - mean(p_y))``, shape (n,): high is uncertain and difficult."""
    return window_mean(state, "dual", n, window=window)


def beta_shapes(mode: float, pruned: float, *, exponent: float) -> tuple[float, float]:
    """The shapes of the Beta density from which images are drawn, by their mean probability.

    The more is pruned, the more of what is easy stays: the mode moves from `mode` towards 1.

    Parameters
    ----------
    mode : float
        Mean probability of the label among the images of the highest scores, in [0, 1).
    pruned : float
        Share of the images that is dropped, in (0, 1).
    exponent : float
        How late that begins.

    Returns
    -------
    a, b : float
    """
    b = (_SHAPES - 1) * (1 - mode) * (1 - pruned**exponent)
    return _SHAPES - b, b


def drawn(weights: NDArray[np.float64], k: int, *, rng: np.random.Generator) -> Indices:
    """`k` positions drawn one after the other in proportion to `weights` (n,) of those left; those of 0 come last."""
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + rng.gumbel(size=len(weights))
    ranks = np.lexsort((rng.random(len(weights)), keys))
    return ranks[len(weights) - k :]


@PRUNERS.register
class DUAL(HistoryPruner):
    """Uncertain and difficult images from few epochs (Cho et al. 2025), drawn by difficulty; no cost but warm-up.

    Spread of the label's probability times the distance of its mean from 1, over windows of epochs. With an
    `exponent` (4 in the paper) images are drawn in proportion to the score times a Beta density of the mean
    probability, which lets easy images in as more is dropped; without, the keep rule takes the highest. On the
    outputs of training, so under attack with an adversarial objective.

    References
    ----------
    Cho et al., Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
    Uncertainty, 2025 (2502.06905): windows of 10 of the first 30 epochs; exponent 4 for CIFAR-100.
    """

    name = "dual"
    warmup_epochs: Annotated[int, Field(ge=1, le=100_000, description="epochs on full data before selecting")] = 10
    window: Annotated[int, Field(ge=2, le=100_000, description="epochs of a window")] = 5
    exponent: Annotated[
        float | None,
        Field(gt=0, le=100, description="draw by a Beta density, which lets easy images in the later; none: by `keep`"),
    ] = None

    @model_validator(mode="after")
    def _long_enough(self) -> DUAL:
        if self.exponent is not None and self.keep != Highest():
            raise ValueError("exponent draws images by a density, keep takes them by rule: give one of the two")
        return self.with_window_of(self.window)

    def needed_visits(self) -> int:
        return self.window

    def observe(self, batch: Batch, outputs: Outputs, state: dict[str, Tensor]) -> None:
        note_difficulty(state, ids=batch.ids, logits=outputs.logits, y=batch.y, window=self.window)

    def scores(self, context: Context) -> Scores:
        return dual(self.observed(context), context.n, window=self.window)

    def choose(self, context: Context) -> Selection:
        if self.exponent is None:
            return super().choose(context)
        scores, state = self.scores(context), self.observed(context)
        means = completed(state["total"] / state["visits"], state["visits"] > 0, context.n)
        hardest = np.argsort(-scores, kind="stable")[:_HARDEST]
        shapes = beta_shapes(float(means[hardest].mean()), 1 - context.k / context.n, exponent=self.exponent)
        weights, rng = stats.beta.pdf(np.clip(means, 1e-6, 1 - 1e-6), *shapes) * scores, context.rng
        if not self.balanced:
            return Selection(drawn(weights, context.k, rng=rng))
        return Selection(
            np.concatenate([ids[drawn(weights[ids], quota, rng=rng)] for ids, quota in context.per_class()])
        )
