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
    """KL(softmax(reference) || softmax(logits)), shape (B,); finite where probabilities underflow."""
    log_reference = F.log_softmax(reference, dim=1)
    return F.kl_div(F.log_softmax(logits, dim=1), log_reference, reduction="none", log_target=True).sum(1)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """CW margin: largest wrong logit minus the label's logit (Carlini and Wagner 2017), (B,)."""
    label = logits.gather(1, target[:, None]).squeeze(1)
    others = logits.scatter(1, target[:, None], -torch.inf)
    return others.amax(1) - label


LOSSES = {"cross_entropy": cross_entropy, "kl": kl, "margin": margin}
