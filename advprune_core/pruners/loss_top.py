"""The hardest images of each candidate batch."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from advprune_core.attacks.losses import cross_entropy
from advprune_core.datasets.augmentation import Crops
from advprune_core.models.mode import quiet_logits
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import PRUNERS, Context, Pruner
from advprune_core.pruners.selection import Selection


def loss_top(model: nn.Module, x: Tensor, y: Tensor, size: int) -> Tensor:
    """Positions of the `size` images with the highest clean cross-entropy, in their order in the batch.

    One forward-equivalent an image, in eval mode; leaves no trace. Int64 of shape (size,).
    """
    losses = cross_entropy(quiet_logits(model, x), y)
    return losses.topk(size, sorted=False).indices.sort().values


@PRUNERS.register
class LossTop(Pruner):
    """The highest losses of every mini-batch (DS-AT, Mendonca et al. 2022); 1 / fraction an image trained on.

    Every update draws ``batch_size / fraction`` candidates, scores them with one clean forward pass
    each, and attacks and trains on the hardest `batch_size` of them; an epoch thus has as many updates
    as one on a subset of the fraction. The paper's summary says that the highest cross-entropies of a
    mini-batch are kept; that they are those of clean images here is our choice, for its cost.

    References
    ----------
    Mendonca et al., Adversarial training with informed data selection, EUSIPCO 2022 (2301.04472).
    """

    name = "loss_top"
    exact = False

    def candidates(self, batch_size: int, fraction: float) -> int:
        """``batch_size / fraction``."""
        return max(batch_size, round(batch_size / fraction))

    def narrow(self, model: nn.Module, batch: Batch, size: int) -> Batch:
        if size >= len(batch.y):
            return batch
        rows = loss_top(model, batch.x, batch.y, size)
        crops = batch.crops
        if crops is not None:
            crops = Crops(crops.top[rows], crops.left[rows], crops.flip[rows], crops.padding)
        x, y, ids, epochs, weights = (part[rows] for part in (batch.x, batch.y, batch.ids, batch.epochs, batch.weights))
        return Batch(x, y, ids, epochs, weights, crops)

    def select(self, context: Context) -> Selection:
        """Everything: what is dropped is dropped from each batch."""
        return Selection(np.arange(context.n))
