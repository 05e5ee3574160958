"""InfoBatch: each epoch without some of the well-learned images, the others of them weighing more."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import PRUNERS, Context, Pruner
from advprune_core.pruners.history import remembered
from advprune_core.pruners.selection import Selection, by_class


def infobatch(
    losses: NDArray[np.float64],
    k: int,
    *,
    max_ratio: float = 0.9,
    rng: np.random.Generator,
    labels: NDArray[np.int64] | None = None,
    least: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Drop n - k random images of those with a loss below the mean, and weight the rest of those up.

    Those that a class needs to keep `least` images are drawn before, and are neither dropped nor weighted: to
    exchange images afterwards would not be unbiased.

    Parameters
    ----------
    losses : array, shape (n,)
        Last known ones; NaN where none is known, which counts as not below the mean.
    k : int
        Images to keep. More are kept where too few may be dropped.
    max_ratio : float
        Largest share of the images that may be dropped that is: no weight is above ``1 / (1 - max_ratio)``.
    rng : Generator
    labels : array of int64, shape (n,), optional
        Classes; default: all images are of one.
    least : int
        Images of each class that are kept at least, as far as it has so many.

    Returns
    -------
    indices : array of int64, shape (at least k,)
    weights : array of float64
        ``1 / (1 - r)`` for images that may be dropped, r the share of them that is; else 1. The weighted
        sum of any values over the images kept is that over all of them, on average.

    References
    ----------
    Qin et al., InfoBatch: Lossless Training Speed Up, ICLR 2024 (2303.04947), eq. (3)-(6).
    """
    known = ~np.isnan(losses)
    below = np.flatnonzero(known & (losses < losses[known].mean())) if known.any() else np.empty(0, np.int64)
    labels = np.zeros(len(losses), np.int64) if labels is None else labels
    counts, all_below = (np.bincount(some, minlength=labels.max() + 1) for some in (labels, labels[below]))
    lacking = np.minimum(least, counts) - (counts - all_below)
    for members, needed in by_class(labels, lacking.clip(0), below):
        below = np.setdiff1d(below, rng.permutation(members)[:needed])
    dropped = min(len(losses) - k, int(max_ratio * len(below)))
    weights = np.ones(len(losses))
    weights[below] = len(below) / max(len(below) - dropped, 1)
    kept = np.setdiff1d(np.arange(len(losses)), rng.permutation(below)[:dropped])
    return kept, weights[kept]


def with_emptied_classes(selection: Selection, labels: NDArray[np.int64], rng: np.random.Generator) -> Selection:
    """Add a random image, of weight 1, of each class that a draw has left without any; `n_filled` counts them.

    Nothing else changes, so the draw stays unbiased for all other classes, and is the same where none is empty. The
    image added counts too much by the chance of such a draw, which is a chance of very small classes alone.
    """
    empty = (np.bincount(labels) > 0) & (np.bincount(labels[selection.indices], minlength=labels.max() + 1) == 0)
    added = [rng.choice(members) for members, _ in by_class(labels, empty.astype(np.int64))]
    if not added:
        return selection
    indices = np.concatenate([selection.indices, np.array(added, np.int64)])
    weights = np.concatenate([selection.weights, np.ones(len(added), np.float32)])
    return Selection(indices, weights, selection.n_filled + len(added))


@PRUNERS.register
class InfoBatch(Pruner):
    """Random well-learned images left out of each epoch, unbiased (Qin et al. 2024); no cost.

    From the second epoch on images whose last training loss is below the mean are dropped at random,
    others of them each time, and those that are kept weigh more, so that the gradient of an epoch is
    that of all data on average; the last epochs are on all data. The share dropped of them follows
    from the fraction (the paper's ratio of 0.5 keeps about 0.7), up to `max_ratio`: the realised
    fraction, which includes the full epochs, is in the record. Images that `min_per_class` keeps are drawn
    anew in each epoch, too, and weigh 1. Without it, a class that an epoch's draw leaves empty has one image of
    weight 1 added to it.
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
        floors: dict[str, Any] = {"labels": context.labels, "least": context.min_per_class}
        rng = context.rng
        indices, weights = infobatch(losses, context.k, max_ratio=self.max_ratio, rng=rng, **floors)
        # In the midst of training it is too late to refuse such a draw.
        return with_emptied_classes(Selection(indices, weights.astype(np.float32)), context.labels, rng)
