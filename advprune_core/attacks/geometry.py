"""The L-inf and L2 balls: random points, steepest steps and projections, outside the graph."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from advprune_core.settings import Pixels, Settings

Norm = Literal["linf", "l2"]


class ThreatModel(Settings):
    """What the adversary may do: move an image by at most `eps` in `norm`, inside [0, 1]."""

    norm: Annotated[Norm, Field(description="linf or l2")] = "linf"
    eps: Annotated[Pixels, Field(gt=0, description="radius in pixel units of [0, 1]; a number or '8/255'")] = 8 / 255


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """One value per image (B,), shaped to be combined with images `like` (B, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def shrink(delta: Tensor, *, norm: Norm, eps: float) -> Tensor:
    """Project perturbations onto the ball of radius `eps` around 0."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * per_image((eps / lengths(delta, norm=norm)).clamp(max=1.0), delta)


def project(x_adv: Tensor, x: Tensor, *, norm: Norm, eps: float) -> Tensor:
    """Project onto the ball of radius `eps` around `x`, then onto [0, 1].

    The box contains `x`, so clamping to it never leaves the ball again. Nothing here is ever
    differentiated through: a clamp inside the graph has no gradient at pixels of exactly 0 or 1.
    """
    return (x + shrink(x_adv - x, norm=norm, eps=eps)).clamp(0, 1)


def lengths(delta: Tensor, *, norm: Norm) -> Tensor:
    """Size (B,) of perturbations (B, ...) in a norm."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(p=2, dim=1)


def inside(x_adv: Tensor, x: Tensor, *, norm: Norm, eps: float) -> Tensor:
    """Which images lie in [0, 1] and in the ball around `x`, but for rounding: bool (B,)."""
    size = lengths(x_adv - x, norm=norm)
    low, high = torch.aminmax(x_adv.flatten(1), dim=1)
    return (size <= eps * (1 + 1e-5) + 1e-6) & (low >= 0) & (high <= 1)


def ascend(x_adv: Tensor, gradient: Tensor, *, norm: Norm, step_size: float | Tensor, floor: float = 1e-10) -> Tensor:
    """One steepest-ascent step of length `step_size` (one number, or one per image).

    L2 gradients much shorter than `floor` make shorter steps.
    """
    if isinstance(step_size, Tensor):
        step_size = per_image(step_size, x_adv)
    if norm == "linf":
        return x_adv + step_size * gradient.sign()
    return x_adv + step_size * (gradient / per_image(lengths(gradient, norm=norm) + floor, gradient))


def random_point(x: Tensor, noise: Tensor, radius: Tensor | None, *, norm: Norm, eps: float) -> Tensor:
    """A random point of the ball around `x`, clamped to [0, 1].

    Parameters
    ----------
    noise : Tensor, shape of `x`
        Uniform in [0, 1) for L-inf; standard normal, the direction, for L2.
    radius : Tensor, shape (B,), or None
        Uniform in [0, 1): the distance in units of `eps`, for L2.
    """
    if norm == "linf":
        delta = (2 * noise - 1) * eps
    else:
        assert radius is not None
        lengths = noise.flatten(1).norm(p=2, dim=1)
        delta = noise * per_image(eps * radius / lengths, noise)
    return (x + delta).clamp(0, 1)


def check_images(x: Tensor) -> None:
    """Refuse images outside [0, 1] (normalised ones, for example) or not finite.

    Raises
    ------
    ValueError
        With the range found.
    """
    low, high = torch.aminmax(x.detach())
    if not (float(low) >= 0 and float(high) <= 1):
        raise ValueError(
            f"images must lie in [0, 1], these are in [{float(low):g}, {float(high):g}]: pass them "
            "unnormalised and let the model normalise inside, so that eps has the unit it says"
        )
