"""FGSM and projected gradient descent, as pure functions.

Goodfellow et al. 2015 (1412.6572) and Madry et al. 2018 (1706.06083).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import (
    Norm,
    ThreatModel,
    Uniform,
    ascend,
    project,
    random_point,
    threat_model,
)
from advprune_core.attacks.inputs import (
    check_choice,
    check_inputs,
    check_labels,
    check_logits,
    check_start,
    check_whole,
    check_width,
)
from advprune_core.attacks.losses import LOSSES, AttackLoss
from advprune_core.attacks.steps import check_step_size, check_steps
from advprune_core.base import randomness
from advprune_core.base.ledger import attack_pass
from advprune_core.base.randomness import normal, stream
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import Mode, no_trace
from advprune_core.models.passes import ask, check_sound, gradient_of

StartArgument = Literal["clean", "random"] | Tensor


def input_gradient(
    model: nn.Module, x: Tensor, target: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Gradient of each image's own loss with respect to that image, and the logits there.

    Returns
    -------
    gradient : Tensor, shape of `x`
    logits : Tensor, shape (B, classes), detached

    Raises
    ------
    ConfigError
        A model that `passes.ask` cannot ask, or that gives the images no gradient.
    """
    x = x.detach().clone().requires_grad_()  # a copy: not even a model that changes its input changes the attack
    with torch.enable_grad(), attack_pass(len(x)):
        logits = ask(model, x)
        gradient = gradient_of(loss(logits, target), x)
    return gradient, logits.detach()


def start_point(
    x: Tensor, *, norm: Norm, eps: float, key: int, ids: Tensor, epochs: Tensor, uniform: Uniform = "radius"
) -> Tensor:
    """A random start in the ball for each image, by counter (see `randomness`)."""
    shape = tuple(x.shape[1:])
    if norm == "linf":
        return random_point(x, randomness.uniform(key, ids, epochs, shape), None, norm=norm, eps=eps)
    radius = randomness.uniform(stream(key, "radius"), ids, epochs, (1,)).squeeze(1)
    return random_point(x, normal(key, ids, epochs, shape), radius, norm=norm, eps=eps, uniform=uniform)


def pgd(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    threat: ThreatModel | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    steps: int | Tensor = 10,
    step_size: float | str | Tensor | None = None,
    start: StartArgument = "random",
    uniform: Uniform = "radius",
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
    threat, or norm and eps
        Threat model; `eps` in pixel units of [0, 1], a number or "8/255"; `norm` is "linf" unless given.
    steps : int or Tensor of int64, shape (B,)
        Steps for all images, or for each. Images without steps left are not passed any more.
    step_size : float, str or Tensor, shape (B,), optional
        Default ``min(2.5 / steps, 1) * eps``, of each image's own steps. Above ``2 * eps`` warns.
    start : "clean", "random" or Tensor, shape of `x`
        Where the attack starts; a tensor is used as it is (with `stop_early`, projected first).
    uniform : "radius" or "volume"
        Of random starts in L2: uniform in distance (mean eps / 2, as in public code), or in the ball.
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
    ConfigError
        What `inputs.check_inputs` refuses; steps, restarts, step size, loss, start or mode out of
        range; KL without the logits or the labels that it needs; a model whose outputs are no logits,
        are not finite, have none for a label, or give the images no gradient.
    """
    check_choice("loss", loss, LOSSES)
    check_choice("mode", mode, get_args(Mode))
    check_choice("uniform", uniform, get_args(Uniform))
    check_whole("restarts", restarts, least=1)
    if loss != "kl":
        labels = target if labels is None else labels
    elif labels is None and (restarts > 1 or stop_early):
        raise ConfigError("restarts and stop_early need `labels` where the target holds logits")
    given = check_inputs(model, x, labels, threat=threat, norm=norm, eps=eps, seed=seed, ids=ids)
    x, right = given.x, given.y
    goal = check_logits(target, x) if loss == "kl" else check_labels(target, x)
    count = check_steps(steps, x)
    ball, size = given.threat, check_step_size(step_size, x, steps=count, eps=given.threat.eps)
    needed = max(given.classes, int(goal.max()) + 1) if loss != "kl" else given.classes

    def losses(logits: Tensor, wanted: Tensor) -> Tensor:
        check_width(logits, wanted, classes=needed)
        return LOSSES[loss](logits, wanted)

    def random_start(rows: Tensor, key: int) -> Tensor:
        epochs, names = torch.zeros_like(rows), given.ids[rows]
        return start_point(x[rows], norm=ball.norm, eps=ball.eps, key=key, ids=names, epochs=epochs, uniform=uniform)

    everything = torch.arange(len(x), device=x.device)
    stop_at = right if stop_early else None
    with no_trace(model, mode):
        if isinstance(start, str):
            check_choice("start", start, ("clean", "random"))
            result = random_start(everything, seed) if start == "random" else x.clone()
        else:
            result = check_start(start, x)
            if stop_early:  # an image may stay where it starts, so that has to be in the ball
                result = project(result, x, norm=ball.norm, eps=ball.eps)
        walk = partial(climb, model, x, goal, norm=ball.norm, eps=ball.eps, steps=count, size=size, loss=losses)
        largest = walk(result, stop_at=stop_at)
        for restart in range(1, restarts):
            with torch.no_grad():
                standing = (ask(model, result).argmax(1) == right).nonzero().squeeze(1)
            if len(standing) == 0:
                break
            result[standing] = random_start(standing, stream(seed, "restart", restart))
            largest = torch.maximum(largest, walk(result, active=standing, stop_at=stop_at))
    check_sound(largest[None, None])
    return result


def climb(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    x_adv: Tensor,
    *,
    norm: Norm,
    eps: float,
    steps: int | Tensor,
    size: float | Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    active: Tensor | None = None,
    stop_at: Tensor | None = None,
) -> Tensor:
    """Take the steps of `pgd` from `x_adv`, in place and without a look at the arguments: what training calls.

    Images that have no steps left leave the batch. The model must be in its mode already.

    Parameters
    ----------
    x, x_adv : Tensor of float32, shape (B, C, H, W)
    steps, size : number, or Tensor of shape (B,)
    active : Tensor of int64, optional
        The images that move; default: all.
    stop_at : Tensor of int64, shape (B,), optional
        Labels: an image leaves where it is misclassified.

    Returns
    -------
    Tensor, scalar
        The largest logit met: NaN or infinite where the model's outputs were.
    """
    most = int(steps.max()) if isinstance(steps, Tensor) else steps
    active = torch.arange(len(x), device=x.device) if active is None else active
    largest = x.new_full((), -torch.inf)
    for step in range(most):
        if isinstance(steps, Tensor):
            active = active[steps[active] > step]
        if len(active) == 0:
            break
        rows = slice(None) if len(active) == len(x) else active
        gradient, logits = input_gradient(model, x_adv[rows], target[rows], loss)
        largest = torch.maximum(largest, logits.amax())
        length = size[rows] if isinstance(size, Tensor) else size
        moved = ascend(x_adv[rows], gradient, norm=norm, step_size=length)
        moved = project(moved, x[rows], norm=norm, eps=eps)
        if stop_at is not None:
            standing = logits.argmax(1) == stop_at[rows]
            active, moved, rows = active[standing], moved[standing], active[standing]
        x_adv[rows] = moved
    return largest


def fgsm(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    threat: ThreatModel | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    start: StartArgument = "clean",
    loss: AttackLoss = "cross_entropy",
    seed: int = 0,
    mode: Mode = "eval",
) -> Tensor:
    """Fast gradient sign method: one step of length `eps` (see `pgd` for the parameters)."""
    ball = threat_model(threat, norm, eps)
    return pgd(model, x, target, threat=ball, steps=1, step_size=ball.eps, start=start, loss=loss, seed=seed, mode=mode)
