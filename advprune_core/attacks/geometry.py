"""The L-inf and L2 balls: random points, steepest steps and projections, outside the graph."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BeforeValidator, Field, TypeAdapter, model_validator
from torch import Tensor

from advprune_core.base.settings import ConfigError, Pixels, Settings, near_miss

Norm = Literal["linf", "l2"]
#: What is uniform in an L2 random start: the distance, as in public code, or the volume of the ball.
Uniform = Literal["radius", "volume"]
UniformSetting = Annotated[
    Uniform,
    Field(description="L2 random starts: uniform in radius (mean 1/2 eps) or in volume (nearly eps); L-inf: no effect"),
]
StepSize = Annotated[
    Pixels | None, Field(gt=0, le=100, description="length of a step; default min(2.5 / steps, 1) eps")
]
#: Raised when L2 attacks give other results than before; part of every key that L2 is involved in.
L2_VERSION = 2


def norm_name(value: Any) -> Any:
    """The name of a norm from its usual spellings ("Linf", "l-inf", "inf", "L_2", ...)."""
    if not isinstance(value, str):
        return value
    plain = value.lower().replace("_", "").replace("-", "").replace(" ", "")
    name = {"inf": "linf", "2": "l2"}.get(plain, plain)
    if name not in get_args(Norm):
        raise ValueError(f"unknown norm {value!r}{near_miss(value.lower(), get_args(Norm))}")
    return name


#: A norm as a setting.
NormSetting = Annotated[Norm, BeforeValidator(norm_name)]


def check_radius(norm: Norm, eps: float) -> None:
    """Refuse an L-inf radius above 1: it was meant in units of 1/255, or is no restriction.

    Raises
    ------
    ValueError
        As validators do.
    """
    if norm == "linf" and eps > 1:
        raise ValueError(
            f"eps = {eps:g} is more than the whole range of a pixel: it is in units of [0, 1], "
            f"at most 1 in L-inf; {min(eps, 255):g} of 255 grey levels are '{min(eps, 255):g}/255'"
        )


_LENGTH: TypeAdapter[float] = TypeAdapter(Annotated[Pixels, Field(gt=0, allow_inf_nan=False)])


def pixels(name: str, value: Any) -> float:
    """A length in pixel units from a number or "8/255".

    Raises
    ------
    ConfigError
        What is no finite number above 0.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        return _LENGTH.validate_python(value)
    except ValueError:
        raise ConfigError(f"{name} must be a number above 0, or a ratio such as '2/255', not {value!r}") from None


class ThreatModel(Settings):
    """What the adversary may do: move an image by at most `eps` in `norm`, inside [0, 1]."""

    norm: Annotated[NormSetting, Field(description="linf or l2")] = "linf"
    eps: Annotated[Pixels, Field(gt=0, le=100, description="radius in pixel units of [0, 1]; a number or '8/255'")] = (
        8 / 255
    )

    @model_validator(mode="after")
    def _in_unit(self) -> ThreatModel:
        check_radius(self.norm, self.eps)
        return self


def threat_model(threat: ThreatModel | None, norm: str | None, eps: float | str | None) -> ThreatModel:
    """The threat model of a call that takes one, or a norm (default L-inf) and a radius.

    Raises
    ------
    ConfigError
        Both, or neither; an unknown norm; a radius out of range.
    """
    if threat is not None:
        if norm is not None or eps is not None:
            raise ConfigError("give the threat model as threat=, or as norm= and eps=, not both")
        if not isinstance(threat, ThreatModel):
            raise ConfigError(f"threat must be a ThreatModel(norm=..., eps=...), not {threat!r}")
        return threat
    if eps is None:
        raise ConfigError(
            "the radius is missing: give eps in units of [0, 1], a number or '8/255', or threat=ThreatModel(...)"
        )
    return ThreatModel.create(norm="linf" if norm is None else norm, eps=pixels("eps", eps))


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


def scale(vectors: Tensor) -> Tensor:
    """The power of two (B,) that brings the largest entry of each vector (B, ...) to [1/2, 1).

    To multiply by it is exact, and lets lengths be taken: the square of 1e-23 is 0 in float32. 0 where all are 0.
    """
    largest = lengths(vectors.detach(), norm="linf")
    normal = largest.clamp(min=torch.finfo(vectors.dtype).tiny)
    return torch.frexp(normal).mantissa / normal * (largest > 0)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (B, ...) at L2 length 1, however short or long they are; zeros stay zeros."""
    vectors = vectors * per_image(scale(vectors), vectors)
    return vectors / per_image(lengths(vectors, norm="l2").clamp(min=torch.finfo(vectors.dtype).tiny), vectors)


def ascend(x_adv: Tensor, gradient: Tensor, *, norm: Norm, step_size: float | Tensor) -> Tensor:
    """One steepest-ascent step of length `step_size` (one number, or one per image), whatever the gradient's."""
    if isinstance(step_size, Tensor):
        step_size = per_image(step_size, x_adv)
    return x_adv + step_size * (gradient.sign() if norm == "linf" else unit(gradient))


def random_point(
    x: Tensor, noise: Tensor, radius: Tensor | None, *, norm: Norm, eps: float, uniform: Uniform = "radius"
) -> Tensor:
    """A random point of the ball around `x`, clamped to [0, 1].

    Parameters
    ----------
    noise : Tensor, shape of `x`
        Uniform in [0, 1) for L-inf; standard normal, the direction, for L2.
    radius : Tensor, shape (B,), or None
        Uniform in [0, 1): the distance in units of `eps`, for L2.
    uniform : "radius" or "volume"
        Of the L2 ball: the distance is `radius`, on average eps / 2, or with d pixels ``radius ** (1 / d)``,
        on average d / (d + 1) eps, so that the points fill the ball evenly.
    """
    if norm == "linf":
        delta = (2 * noise - 1) * eps
    else:
        assert radius is not None
        reach = radius if uniform == "radius" else radius ** (1 / noise[0].numel())
        delta = noise * per_image(eps * reach / lengths(noise, norm="l2"), noise)
    return (x + delta).clamp(0, 1)
