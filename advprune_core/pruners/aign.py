"""Input-gradient norm: how much the loss of an image changes with its pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from advprune_core.attacks.losses import cross_entropy
from advprune_core.attacks.pgd import input_gradient
from advprune_core.models.mode import device_of, no_trace
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.keep_rules import KeepRule, Lowest, Rule, ScorePruner, Scores
from advprune_core.pruners.outputs import BATCH


def input_gradient_norm(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Euclidean length of each image's gradient of the cross-entropy, shape (B,): high is hard.

    2 forward-equivalents an image, in eval mode; leaves no trace.
    """
    with no_trace(model):
        gradient, _ = input_gradient(model, x, y, cross_entropy)
    return gradient.flatten(1).norm(dim=1)


@PRUNERS.register
class AIGN(ScorePruner):
    """The shortest input gradients, or another keep rule (EasyCore, Ramesh et al. 2025); 2 an image.

    Keeps images around which the loss is flat, the opposite of `keep_fragile`. The paper averages the
    norm over a training; this is the norm at the time of the selection.

    References
    ----------
    Ramesh et al., EasyCore, 2025 (2510.11018).
    """

    name = "aign"
    keep: Rule = Lowest()

    def rule(self) -> KeepRule:
        return self.keep

    def scores(self, context: Context) -> Scores:
        model, split = context.network, context.dataset.train
        parts = [input_gradient_norm(model, x, y) for _, x, y in split.batches(BATCH, device_of(model))]
        return np.asarray(torch.cat(parts).cpu().numpy(), np.float64)
