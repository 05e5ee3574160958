"""FGSM and projected gradient descent, as pure functions.

Goodfellow et al. 2015 (1412.6572) and Madry et al. 2018 (1706.06083).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, overload

import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm, ascend, check_images, project, random_point
from advprune_core.attacks.losses import LOSSES, AttackLoss
from advprune_core.attacks.mode import Mode, no_trace
from advprune_core.ledger import attack_pass
from advprune_core.randomness import normal, stream, uniform

Start = Literal["clean", "random"] | Tensor


@overload
def default_step_size(eps: float, steps: int) -> float: ...
@overload
def default_step_size(eps: float, steps: Tensor) -> Tensor: ...
def default_step_size(eps: float, steps: int | Tensor) -> float | Tensor:
    """min(2.5 / k, 1) eps: far enough to cross the ball, never more than its radius."""
    if isinstance(steps, Tensor):
        return ((2.5 / steps.double()).clamp(max=1.0) * eps).float()
    return min(2.5 / max(steps, 1), 1.0) * eps


def input_gradient(
    model: nn.Module, x: Tensor, target: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Gradient of the mean loss with respect to the images only, and the logits there.

    Returns
    -------
    gradient : Tensor, shape of `x`
    logits : Tensor, shape (B, classes), detached
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad(), attack_pass(len(x)):
        logits = model(x)
        # The mean, as elsewhere in the field: its gradients have the same bits.
        (gradient,) = torch.autograd.grad(loss(logits, target).mean(), x)
    return gradient, logits.detach()


def start_point(x: Tensor, *, norm: Norm, eps: float, key: int, ids: Tensor, epochs: Tensor) -> Tensor:
    """A random start in the ball for each image, by counter (see `randomness`)."""
    shape = tuple(x.shape[1:])
    if norm == "linf":
        return random_point(x, uniform(key, ids, epochs, shape), None, norm=norm, eps=eps)
    radius = uniform(stream(key, "radius"), ids, epochs, (1,)).squeeze(1)
    return random_point(x, normal(key, ids, epochs, shape), radius, norm=norm, eps=eps)


def pgd(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    norm: Norm = "linf",
    eps: float,
    steps: int | Tensor = 10,
    step_size: float | Tensor | None = None,
    start: Start = "random",
    restarts: int = 1,
    loss: AttackLoss = "cross_entropy",
    seed: int = 0,
    mode: Mode = "eval",
    labels: Tensor | None = None,
    ids: Tensor | None = None,
    stop_early: bool = False,
) -> Tensor:
    """Projected gradient descent on images in [0, 1].

    Parameters
    ----------
    model : nn.Module
        Images (B, C, H, W) to logits (B, classes); normalises inside. Left as it was.
    x : Tensor of float32, shape (B, C, H, W)
        Clean images.
    target : Tensor
        Labels (B,) for the cross-entropy and the margin, clean logits (B, classes) for KL.
    norm, eps
        Threat model; `eps` in pixel units of [0, 1].
    steps : int or Tensor of int64, shape (B,)
        Steps for all images, or for each. Images without steps left are not passed any more.
    step_size : float or Tensor, shape (B,), optional
        Default ``min(2.5 / steps, 1) * eps``, of each image's own steps. Above ``2 * eps`` warns.
    start : "clean", "random" or Tensor, shape of `x`
        Where the attack starts; a tensor is used as it is (with `stop_early`, projected first).
    restarts : int
        With more than one, an image keeps its first misclassified result (else its last one).
    loss : "cross_entropy", "kl" or "margin"
        What is maximised; the margin is the largest wrong logit minus the label's.
    seed : int
        For the random start; draws from no global generator.
    mode : "eval" or "train"
        Mode of the model (BatchNorm, dropout) during the attack.
    labels : Tensor, shape (B,), optional
        Labels that decide what is misclassified, where `target` holds logits.
    ids : Tensor of int64, shape (B,), optional
        What the noise of each image is keyed by, with `seed`; default: its place in the batch.
    stop_early : bool
        Leave an image at its first misclassified iterate: cheaper, and never a weaker attack.

    Returns
    -------
    Tensor of float32, shape of `x`
        Inside the ball and [0, 1], detached.

    Raises
    ------
    ValueError
        Images outside [0, 1]; steps, restarts, eps or step size out of range; a start of another
        shape; KL without labels where they are needed.
    """
    x = x.detach()
    labels = target if labels is None and target.dim() == 1 else labels
    most = int(steps.max()) if isinstance(steps, Tensor) else steps
    _check(x, steps, eps=eps, step_size=step_size, start=start, restarts=restarts)
    if labels is None and (restarts > 1 or stop_early):
        raise ValueError("restarts and stop_early need `labels` where the target holds logits")
    size = default_step_size(eps, steps) if step_size is None else step_size
    everything = torch.arange(len(x), device=x.device)
    names = everything if ids is None else ids

    def random_start(rows: Tensor, key: int) -> Tensor:
        epochs = torch.zeros_like(rows)
        return start_point(x[rows], norm=norm, eps=eps, key=key, ids=names[rows], epochs=epochs)

    def climb(x_adv: Tensor, active: Tensor) -> Tensor:
        """Take the steps; images that have none left, or are broken, leave the batch."""
        for step in range(most):
            if isinstance(steps, Tensor):
                active = active[steps[active] > step]
            if len(active) == 0:
                break
            rows = slice(None) if len(active) == len(x) else active
            gradient, logits = input_gradient(model, x_adv[rows], target[rows], LOSSES[loss])
            length = size[rows] if isinstance(size, Tensor) else size
            moved = ascend(x_adv[rows], gradient, norm=norm, step_size=length)
            moved = project(moved, x[rows], norm=norm, eps=eps)
            if stop_early and labels is not None:
                standing = logits.argmax(1) == labels[rows]
                active, moved, rows = active[standing], moved[standing], active[standing]
            x_adv[rows] = moved
        return x_adv

    if isinstance(start, Tensor):
        first = start.detach().clone()
        if stop_early:  # an image may stay where it starts, so that has to be in the ball
            first = project(first, x, norm=norm, eps=eps)
    else:
        first = random_start(everything, seed) if start == "random" else x.detach().clone()
    with no_trace(model, mode):
        result = climb(first, everything)
        for restart in range(1, restarts):
            with torch.no_grad():
                standing = (model(result).argmax(1) == labels).nonzero().squeeze(1)
            if len(standing) == 0:
                break
            result[standing] = random_start(standing, stream(seed, "restart", restart))
            result = climb(result, standing)
    return result


def fgsm(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    norm: Norm = "linf",
    eps: float,
    start: Start = "clean",
    loss: AttackLoss = "cross_entropy",
    seed: int = 0,
    mode: Mode = "eval",
) -> Tensor:
    """Fast gradient sign method: one step of length `eps` (see `pgd` for the parameters)."""
    return pgd(
        model, x, target, norm=norm, eps=eps, steps=1, step_size=eps, start=start, loss=loss, seed=seed, mode=mode
    )


def _check(
    x: Tensor,
    steps: int | Tensor,
    *,
    eps: float,
    step_size: float | Tensor | None,
    start: Start,
    restarts: int,
) -> None:
    if len(x) == 0:
        raise ValueError("the batch is empty")
    check_images(x)
    if not eps > 0:
        raise ValueError(f"eps must be above 0, not {eps}")
    if (int(steps.min()) < 0) if isinstance(steps, Tensor) else (steps < 1):
        raise ValueError(f"steps must be at least 1 (0 where given per image), not {steps}")
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, not {restarts}")
    if isinstance(start, Tensor) and start.shape != x.shape:
        raise ValueError(f"start has shape {tuple(start.shape)}, the images {tuple(x.shape)}")
    if step_size is not None:
        sizes = (step_size, step_size) if isinstance(step_size, float | int) else torch.aminmax(step_size)
        low, high = (float(size) for size in sizes)
        if not low > 0:
            raise ValueError(f"step_size must be above 0, not {low:g}")
        if high > 2 * eps * (1 + 1e-6):
            warnings.warn(
                f"a step of {high:g} is more than the ball's diameter, 2 eps = {2 * eps:g}",
                stacklevel=3,
            )
