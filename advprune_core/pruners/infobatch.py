"""InfoBatch: each epoch without some of the well-learned images, the others of them weighing more."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import PRUNERS, Context, Pruner
from advprune_core.pruners.history import remembered
from advprune_core.pruners.selection import Selection


def infobatch(
    losses: NDArray[np.float64], k: int, *, max_ratio: float = 0.9, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Drop n - k random images of those with a loss below the mean, and weight the rest of those up.

    Parameters
    ----------
    losses : array, shape (n,)
        Last known ones; NaN where none is known, which counts as not below the mean.
    k : int
        Images to keep. More are kept where too few lie below the mean.
    max_ratio : float
        Largest share of the images below the mean that may be dropped: no weight is above
        ``1 / (1 - max_ratio)``.
    rng : Generator

    Returns
    -------
    indices : array of int64, shape (at least k,)
    weights : array of float64
        ``1 / (1 - r)`` for images below the mean, r the share of them that is dropped; else 1. The
        weighted sum of any values over the images kept is that over all of them, on average.

    References
    ----------
    Qin et al., InfoBatch: Lossless Training Speed Up, ICLR 2024 (2303.04947), eq. (3)-(6).
    """
    known = ~np.isnan(losses)
    below = np.flatnonzero(known & (losses < losses[known].mean())) if known.any() else np.empty(0, np.int64)
    dropped = min(len(losses) - k, int(max_ratio * len(below)))
    weights = np.ones(len(losses))
    weights[below] = len(below) / max(len(below) - dropped, 1)
    kept = np.setdiff1d(np.arange(len(losses)), rng.permutation(below)[:dropped])
    return kept, weights[kept]


@PRUNERS.register
class InfoBatch(Pruner):
    """Random well-learned images left out of each epoch, unbiased (Qin et al. 2024); no cost.

    From the second epoch on images whose last training loss is below the mean are dropped at random,
    others of them each time, and those that are kept weigh more, so that the gradient of an epoch is
    that of all data on average; the last epochs are on all data. The share dropped of them follows
    from the fraction (the paper's ratio of 0.5 keeps about 0.7), up to `max_ratio`: the realised
    fraction, which includes the full epochs, is in the record.
    """

    name = "infobatch"
    exact = False
    steady = False
    uses_model = True
    full_at_end: Annotated[float, Field(ge=0, lt=1, description="share of the epochs, the last, on all data")] = 0.125
    max_ratio: Annotated[
        float, Field(gt=0, lt=1, description="largest share dropped of the images below the mean loss")
    ] = 0.9

    def due(self, epoch: int) -> bool:
        """Each epoch after the first."""
        return epoch >= 1

    def observe(self, batch: Batch, outputs: Outputs, state: dict[str, Tensor]) -> None:
        """Keep each image's last loss."""
        remembered(state, "losses", batch.ids, fill=float("nan"))[batch.ids] = outputs.losses.float()

    def select(self, context: Context) -> Selection:
        everything = Selection(np.arange(context.n))
        if context.k >= context.n:
            return everything
        if "losses" not in context.state:
            raise ConfigError("infobatch has observed nothing: it needs an epoch before it selects")
        if self.full_at_end and not context.epochs:
            raise ConfigError("infobatch ends on full data, and the context does not say how long the run is")
        if self.full_at_end and context.epoch >= (1 - self.full_at_end) * context.epochs:
            return everything
        losses = np.full(context.n, np.nan)
        seen = context.state["losses"].cpu().numpy()
        losses[: len(seen)] = seen
        indices, weights = infobatch(losses, context.k, max_ratio=self.max_ratio, rng=context.rng)
        return Selection(indices, weights.astype(np.float32))
