"""What an attack maximises, per image."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AttackLoss = Literal["cross_entropy", "kl", "margin"]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with labels (B,): shape (B,)."""
    return F.cross_entropy(logits, target, reduction="none")


def kl(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)), shape (B,); finite where probabilities underflow.

    A class that both rule out, by logits of minus infinity, adds nothing.
    """
    # Both are finite, or 0 times infinity would be NaN.
    log_p, log_q = (F.log_softmax(x, dim=1).clamp_min(torch.finfo(x.dtype).min) for x in (reference, logits))
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """CW margin: largest wrong logit minus the label's logit (Carlini and Wagner 2017), (B,)."""
    label = logits.gather(1, target[:, None]).squeeze(1)
    others = logits.scatter(1, target[:, None], -torch.inf)
    return others.amax(1) - label


def dlr(logits: Tensor, target: Tensor) -> Tensor:
    """Difference-of-logits ratio, the margin in units of the spread of the logits (Croce and Hein 2020b, eq. 5): (B,).

    With two classes the ratio is constant; there it is the margin itself.
    """
    ordered = logits.sort(dim=1, descending=True).values
    if logits.shape[1] < 3:
        return margin(logits, target)
    return margin(logits, target) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Targeted difference-of-logits ratio (Croce and Hein 2020b, eq. 6), for labels and targets (B,): (B,).

    It needs four classes; with three, the spread is that of `dlr`, with two it is 1.
    """
    gap = logits.gather(1, label[:, None]).squeeze(1) - logits.gather(1, target[:, None]).squeeze(1)
    if logits.shape[1] < 3:
        return -gap
    ordered = logits.sort(dim=1, descending=True).values
    third = ordered[:, 2] if logits.shape[1] == 3 else (ordered[:, 2] + ordered[:, 3]) / 2
    return -gap / (ordered[:, 0] - third + 1e-12)


LOSSES = {"cross_entropy": cross_entropy, "kl": kl, "margin": margin}
