"""How a search asks the model: logits, gradients of the input, and whether an image is really broken.

A search may ask in bfloat16, because whatever it proposes is asked once more in float32; only that
answer counts. The model must be in its mode already (see `mode.no_trace`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.losses import margin
from advprune_core.base.ledger import attack_pass
from advprune_core.models.passes import ask, check_classes, check_sound, gradient_of

Precision = Annotated[
    Literal["float32", "bfloat16"], Field(description="arithmetic of the search; float32 always has the last word")
]
GiveUp = Annotated[bool, Field(description="leave images whose progress, extrapolated, does not reach a success")]

#: bfloat16 rounds to 1 part in 256: a margin closer to 0 than this share of the largest logit is asked again.
DOUBT = 2 / 256
#: An image is given up if this many times the pace of its last window would not get it there.
PATIENCE = 4.0


@dataclass(frozen=True)
class Search:
    """A model as a search sees it.

    Attributes
    ----------
    model : nn.Module
    precision : "float32" or "bfloat16"
        Of the passes that search.
    classes : int
        How many classes the labels need.
    """

    model: nn.Module
    precision: Literal["float32", "bfloat16"] = "float32"
    classes: int = 1

    def _arithmetic(self, x: Tensor) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(x.device.type, torch.bfloat16)

    def _ask(self, x: Tensor) -> Tensor:
        """Logits of a copy of the images: not even a model that changes its input changes the search."""
        with self._arithmetic(x):
            logits = ask(self.model, x).float()
        check_classes(logits, self.classes)
        check_sound(logits)
        return logits

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of float32, without gradients."""
        with torch.no_grad():
            return self._ask(x.clone())

    def gradient(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of each image's loss with respect to that image.

        Returns
        -------
        gradient : Tensor of float32, shape of `x`
        losses : Tensor, shape (B,)
        logits : Tensor, shape (B, classes)
        """
        x = x.detach().clone().requires_grad_()
        with torch.enable_grad(), attack_pass(len(x)):
            logits = self._ask(x)
            losses = loss(logits)
            gradient = gradient_of(losses, x)
        return gradient, losses.detach(), logits.detach()

    def broken(self, x_adv: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Which images the float32 model misclassifies, bool (B,).

        `logits` are the search's: in float32 they decide; in bfloat16 whatever they do not rule
        out is asked again.
        """
        if self.precision == "float32":
            return logits.argmax(1) != y
        wrong = margin(logits, y) > -DOUBT * logits.abs().amax(1)
        rows = wrong.nonzero().squeeze(1)
        if len(rows):
            with torch.no_grad():
                wrong[rows] = ask(self.model, x_adv[rows]).argmax(1) != y[rows]
        return wrong


def hopeless(gap: Tensor, before: Tensor, *, window: int, remaining: int) -> Tensor:
    """Images that would not arrive at `PATIENCE` times their pace: bool (B,).

    Searches slow down as their steps shrink, so the pace of the last window is more than an image
    will have from here on.

    Parameters
    ----------
    gap, before : Tensor, shape (B,)
        How far from success an image is now, and was `window` iterations ago.
    window, remaining : int
        Iterations of the last window, and still to come.
    """
    return gap > PATIENCE * (before - gap) / window * remaining
