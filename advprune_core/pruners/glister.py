"""GLISTER: the subset after whose training step the held-out loss is lowest; of adversarial objectives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import Objective
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.branches import Branch, SplitOutputs
from advprune_core.pruners.gradients import (
    LastLayerGradients,
    last_layer_gradients,
    with_bias,
)
from advprune_core.pruners.selection import Selection
from advprune_core.pruners.weights import GradientPruner


def gains(
    gradients: LastLayerGradients, objective: Objective, held_out: SplitOutputs, rows: Tensor | None = None
) -> Tensor:
    """How fast the mean held-out loss falls along the last-layer gradient of each image, or of some: shape (n,).

    To first order, a step of length s on image i takes ``s * gains[i]`` off the loss.
    """
    mean = last_layer_gradients(objective, held_out).total() / len(held_out)
    return gradients.correlations(mean, rows)


def with_change(held_out: SplitOutputs, change: Callable[[Tensor], Tensor]) -> SplitOutputs:
    """Held-out outputs with `change` of the features and a one (n, d + 1) added to the logits of each branch."""

    def changed(branch: Branch | None) -> Branch | None:
        if branch is None:
            return None
        return replace(branch, logits=branch.logits + change(with_bias(branch.known_features())))

    return replace(held_out, clean=changed(held_out.clean), adversarial=changed(held_out.adversarial))


def after_step(held_out: SplitOutputs, gradient: LastLayerGradients, step: float) -> SplitOutputs:
    """Held-out outputs after the last layer has moved by -`step` times one image's gradient: exact.

    The features stay, so each branch's logits change by ``-step sum_t <h, h_t> e_t``.
    """

    def change(features: Tensor) -> Tensor:
        terms = [(features @ h[0])[:, None] * e[0] for e, h in zip(gradient.errors, gradient.features, strict=True)]
        return -step * torch.stack(terms).sum(0)

    return with_change(held_out, change)


def of_class(held_out: SplitOutputs, label: int) -> SplitOutputs:
    """The held-out images of a class; all of them, where it has none."""
    rows = (held_out.labels == label).nonzero().squeeze(1)
    return held_out[rows] if len(rows) else held_out


def glister(
    gradients: LastLayerGradients,
    objective: Objective,
    held_out: SplitOutputs,
    k: int,
    *,
    eta: float = 0.1,
    greedy: Literal["naive", "stochastic"] = "stochastic",
    members: NDArray[np.int64] | None = None,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Pick k images, one after the other, that take most off the held-out loss.

    After each pick the held-out logits follow a step of eta / k on it, and the gains are new.

    Parameters
    ----------
    gradients : LastLayerGradients
        Of n candidates.
    objective : Objective
        The loss, of candidates and of held-out images.
    held_out : SplitOutputs
        With the branches that the objective uses.
    k : int
        Images to pick.
    eta : float
        Length of the whole step, to which each pick adds its share.
    greedy : "naive" or "stochastic"
        Look at all candidates for each pick, or at ``n / k * log(100)`` random ones of them.
    members : array of int64, optional
        The images that are picked from, if not all n.
    rng : Generator
        Draws the candidates, and decides between equal gains.

    Returns
    -------
    array of int64, shape (k,)
        In the order of the picks, the largest first inner product first.

    References
    ----------
    Killamsetty et al., GLISTER, AAAI 2021 (2012.10630), alg. 2 and eq. (4); Mirzasoleiman et al.,
    Lazier than lazy greedy, AAAI 2015, for the random candidates.
    """
    device = gradients.errors[0].device
    left = rng.permutation(len(gradients) if members is None else members)
    n = len(left)
    count = n if greedy == "naive" else min(n, max(1, math.ceil(n / k * math.log(100))))
    picks = []
    for _ in range(k):
        size = min(count, len(left))
        drawn = rng.choice(len(left), size, replace=False) if size < len(left) else np.arange(size)
        rows = left[drawn]
        found = gains(gradients, objective, held_out, torch.from_numpy(rows).to(device))
        place = int(drawn[int(found.argmax())])
        pick = int(left[place])
        picks.append(pick)
        left[place] = left[-1]
        left = left[:-1]
        held_out = after_step(held_out, gradients[torch.tensor([pick], device=device)], eta / k)
    return np.array(picks, np.int64)


class HeldOutPruner(GradientPruner):
    """A pruner that selects by what training on an image does to held-out images."""

    def check(self, context: Context) -> None:
        """There must be held-out images."""
        if len(context.dataset.val_select) == 0:
            raise ConfigError(
                f"{self.name} needs held-out images: those of dataset.val_select, of select(held_out=(x, y)), "
                "or x_held_out and y_held_out of a file"
            )

    def choose(self, context: Context) -> Selection:
        self.check(context)
        return super().choose(context)


@PRUNERS.register
class Glister(HeldOutPruner):
    """Adv-GLISTER: subset that lowers the held-out loss most (reconstruction of 2302.12366); 2k + 1.

    A reconstruction: that paper's code is not public, so this rests on GLISTER (Killamsetty et al.
    2021, 2012.10630) with the gradients and the held-out loss (on val_select) of the adversarial
    objective. Helps against wrong labels and shifted data, which the held-out images do not have; for
    clean data it has no reason to keep the variety. Settings: `per_class`, `eta`, the length of the virtual
    step (the learning rate), and whether each pick looks at all candidates or at random ones. Unit weights.
    Per class, as in DeepCore's public code, each class is judged by its own held-out images. Jointly, a step
    as short as a learning rate, shared by all picks, hardly turns the held-out gradient: then the classes of
    the highest held-out loss get nearly all picks, and a network trained on them forgets the others. Where
    classes are to be chosen freely, a longer `eta` (1 and more) spreads the picks.
    Cost per selection: 2k + 1 forward-equivalents an image of the training split and of val_select
    (TRADES and MART 2k + 2).
    """

    name = "glister"
    version = 2
    per_class: Annotated[
        bool, Field(description="lower the held-out loss of each class by images of its own, in proportion")
    ] = True
    eta: Annotated[float, Field(gt=0, le=1_000_000, description="length of the virtual step, shared by all picks")] = (
        0.1
    )
    greedy: Annotated[
        Literal["naive", "stochastic"], Field(description="candidates of each pick: all, or random ones")
    ] = "stochastic"

    def check(self, context: Context) -> None:
        """There must be held-out images; per class, every class must have an image to keep."""
        super().check(context)
        if self.per_class:
            context.quotas()

    def pick(self, gradients: LastLayerGradients, context: Context) -> Selection:
        objective, held_out = self.outputs(context, context.dataset.val_select)
        search = partial(glister, gradients, objective, eta=self.eta, greedy=self.greedy, rng=context.rng)
        if not self.per_class:
            return Selection(search(held_out, context.k))
        picks = [
            search(of_class(held_out, int(context.labels[members[0]])), quota, members=members)
            for members, quota in context.per_class()
        ]
        return Selection(np.concatenate(picks))
