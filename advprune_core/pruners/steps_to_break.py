"""Steps to break: how many steps of an attack an image withstands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm, ascend, project
from advprune_core.attacks.losses import cross_entropy
from advprune_core.attacks.pgd import input_gradient
from advprune_core.attacks.steps import default_step_size
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import device_of, no_trace
from advprune_core.pruners.base import Context
from advprune_core.pruners.outputs import BATCH

#: Steps of the scoring attack, where training takes fewer and none are told.
FEWEST = 7


def steps_to_break(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm = "linf",
    eps: float,
    steps: int,
    step_size: float | None = None,
) -> Tensor:
    """Steps of PGD until each image is misclassified, int64 of shape (B,).

    0 for an image that is wrong without an attack, ``steps + 1`` for one that all steps leave right.
    The attack starts from the clean image, so the distance has no noise in it; broken images leave
    the batch. Cost: at most ``2 * steps + 1`` forward-equivalents an image. Leaves no trace.

    Parameters
    ----------
    model : nn.Module
        Images (B, C, H, W) in [0, 1] to logits.
    x, y : Tensor
        Images and labels.
    norm, eps, steps, step_size
        As in `pgd`.

    References
    ----------
    Zhang et al., Geometry-aware Instance-reweighted Adversarial Training, ICLR 2021 (2010.01736), sec. 3.2.
    """
    size = default_step_size(eps, steps) if step_size is None else step_size
    count = torch.zeros_like(y)
    active, x_adv = torch.arange(len(y), device=y.device), x.detach().clone()
    with no_trace(model):
        for _ in range(steps):
            gradient, logits = input_gradient(model, x_adv, y[active], cross_entropy)
            standing = logits.argmax(1) == y[active]
            active = active[standing]
            count[active] += 1
            moved = ascend(x_adv[standing], gradient[standing], norm=norm, step_size=size)
            x_adv = project(moved, x[active], norm=norm, eps=eps)
            if len(active) == 0:
                return count
        with torch.no_grad():
            count[active] += (model(x_adv).argmax(1) == y[active]).long()
    return count


def split_steps_to_break(context: Context, *, steps: int | None = None) -> Tensor:
    """`steps_to_break` of all training images, shape (n,), with the threat model of the run.

    Parameters
    ----------
    context : Context
        With a model and the run's attack.
    steps : int, optional
        Default: those of an image that training attacks (`Steps.attacked`), but at least `FEWEST`: one
        step tells images that are wrong, broken and not apart, and chance would decide between those of
        a kind.

    Notes
    -----
    A step is as long as the training attack's, see `Steps.length_of`: a length that is given holds;
    the default one, and that of a single step, are of as many steps as are taken here.
    """
    if context.attack is None:
        raise ConfigError("steps to break need a context with the run's attack")
    model, split = context.network, context.dataset.train
    norm, eps, policy = context.attack.norm, context.attack.radius, context.attack.steps
    steps = max(FEWEST, policy.attacked) if steps is None else steps
    size = policy.length_of(eps, steps)
    return torch.cat(
        [
            steps_to_break(model, x, y, norm=norm, eps=eps, steps=steps, step_size=size)
            for _, x, y in split.batches(BATCH, device_of(model))
        ]
    )
