"""PUMA: how far images are from the boundary of the network, by DeepFool."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm, ascend, lengths
from advprune_core.attacks.losses import margin
from advprune_core.base.ledger import attack_pass, count_passes
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import device_of, no_trace, quiet_logits
from advprune_core.models.passes import ask, gradient_of
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.keep_rules import KeepRule, Lowest, Rule, ScorePruner, Scores
from advprune_core.pruners.outputs import BATCH

#: DeepFool goes so much further than its steps lead, so as not to end on this side of the boundary.
OVERSHOOT = 0.02


def leads(model: nn.Module, x: Tensor, y: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By how much the label leads over some other classes, and how steeply that falls.

    Cost: 1 forward-equivalent an image, and 1 for each of the classes.

    Parameters
    ----------
    x, y : Tensor
        Images (B, C, H, W) and labels (B,).
    others : Tensor of int64, shape (B, classes)

    Returns
    -------
    lead : Tensor, shape (B, classes)
    descent : Tensor, shape (classes, B, C, H, W)
        Minus the gradients of the leads.
    logits : Tensor
        Of all classes.
    """
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad(), attack_pass(len(x)):
        logits = ask(model, x)
        gaps = logits.gather(1, others) - logits.gather(1, y[:, None])
        descent = torch.stack([gradient_of(gap, x, again=True) for gap in gaps.unbind(1)])
    count_passes((others.shape[1] - 1) * len(x))  # backward passes beyond the first
    return -gaps.detach(), descent, logits.detach()


def boundary_distance(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm = "linf", steps: int = 10, classes: int = 9
) -> Tensor:
    """How far each image has to move until it is misclassified, about: shape (B,).

    Each step leads to the nearest place where the label's lead over one of the likeliest other classes would end if
    it were linear; what all steps make together is overshot by `OVERSHOOT`. As in the original, nothing is held
    inside [0, 1], because what that takes away would leave images on the boundary. 0 for an image that is wrong as
    it is; the diameter of the box for one that all steps leave right, or that goes farther. Broken images leave the
    batch. Cost: at most ``steps * (classes + 1) + 2`` forward-equivalents an image. Leaves no trace.

    Parameters
    ----------
    model : nn.Module
        Images (B, C, H, W) in [0, 1] to logits.
    x, y : Tensor
        Images and labels.
    norm : "linf" or "l2"
    steps : int
    classes : int
        Other classes that the boundary is looked for at: those likeliest for the image as it is, if there are more.

    References
    ----------
    Moosavi-Dezfooli, Fawzi, Frossard, DeepFool, CVPR 2016 (1511.04599), alg. 2 and eq. (11).
    """
    widest = lengths(torch.ones_like(x[:1]), norm=norm)
    distance, dual = widest.repeat(len(x)), 1 if norm == "linf" else 2
    logits, x_adv = quiet_logits(model, x), x
    ranked = logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    others = ranked[:, : min(classes, logits.shape[1] - 1)]
    active, moved = torch.arange(len(y), device=y.device), torch.zeros_like(x)

    def leave(logits: Tensor) -> Tensor:
        """Note the images that are broken here, and say which are not."""
        standing = margin(logits, y[active]) < 0
        broken = active[~standing]
        distance[broken] = torch.minimum(lengths(x_adv[~standing] - x[broken], norm=norm), widest)
        return standing

    with no_trace(model):
        standing = leave(logits)
        active, moved, x_adv = active[standing], moved[standing], x_adv[standing]
        for _ in range(steps):
            if len(active) == 0:
                return distance
            lead, descent, logits = leads(model, x_adv, y[active], others[active])
            standing = leave(logits)
            slopes = descent.flatten(2).norm(p=dual, dim=2).T
            # Where the network is flat no step leads anywhere; further than through the box none needs to lead.
            length, nearest = torch.minimum(lead / slopes, widest).min(1)
            moved = ascend(moved, descent[nearest, torch.arange(len(active))], norm=norm, step_size=length)
            active, moved = active[standing], moved[standing]
            x_adv = x[active] + (1 + OVERSHOOT) * moved
        if len(active):
            with torch.no_grad():
                leave(model(x_adv))
    return distance


@PRUNERS.register
class PUMA(ScorePruner):
    """The smallest DeepFool margins (PUMA, Maroto and Frossard 2024), without its smaller attacks; 10 a step.

    Drops the images farthest from the network's boundary, in the norm of the threat model. That is half of PUMA: it
    also trains the images of the smallest margins with a smaller attack, because dropping the largest ones alone did
    harm in its setting; by which formula could not be read, so here all images are attacked alike. (BulletTrain,
    `steps: bullet`, spares images that are wrong without an attack.) The paper takes the margins from another,
    robust network: `score_epochs` trains one; else it is that of the run after its warm-up. Settings: `steps` of
    DeepFool and the other `classes` that it looks at, the keep rule, class balance. Cost per selection: 1
    forward-equivalent an image, and 1 + `classes` for each step that it needs, of which two or three break most.

    References
    ----------
    Maroto and Frossard, PUMA: margin-based data pruning, 2024 (2405.06298).
    """

    name = "puma"
    keep: Rule = Lowest()
    steps: Annotated[int, Field(ge=1, le=10_000, description="most steps of DeepFool")] = 10
    classes: Annotated[int, Field(ge=1, le=1_000_000, description="other classes it looks at, the likeliest")] = 9

    def rule(self) -> KeepRule:
        return self.keep

    def hard_is_high(self) -> bool:
        """Small margins are hard."""
        return False

    def scores(self, context: Context) -> Scores:
        if context.attack is None:
            raise ConfigError("distances to the boundary need a context with the run's attack, for its norm")
        model, norm = context.network, context.attack.norm
        distances = [
            boundary_distance(model, x, y, norm=norm, steps=self.steps, classes=self.classes)
            for _, x, y in context.dataset.train.batches(BATCH, device_of(model))
        ]
        return np.asarray(torch.cat(distances).cpu().numpy(), np.float64)
