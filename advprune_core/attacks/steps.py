"""Steps of an attack: how many, and how long."""

from __future__ import annotations

import warnings
from typing import Any, overload

import torch
from torch import Tensor

from advprune_core.attacks.geometry import pixels
from advprune_core.attacks.inputs import check_numbers, check_whole
from advprune_core.base.settings import ConfigError


@overload
def default_step_size(eps: float, steps: int) -> float: ...
@overload
def default_step_size(eps: float, steps: Tensor) -> Tensor: ...
def default_step_size(eps: float, steps: int | Tensor) -> float | Tensor:
    """min(2.5 / k, 1) eps: far enough to cross the ball, never more than its radius."""
    if isinstance(steps, Tensor):
        return ((2.5 / steps.double()).clamp(max=1.0) * eps).float()
    return min(2.5 / max(steps, 1), 1.0) * eps


def check_steps(steps: Any, x: Tensor) -> int | Tensor:
    """A number of steps from 1, or one from 0 for each image."""
    if not isinstance(steps, Tensor) or steps.dim() == 0:
        check_whole("steps", steps if not isinstance(steps, Tensor) else steps.item(), least=1)
        return int(steps)
    each = check_numbers("steps", steps, x)
    if int(each.min()) < 0:
        raise ConfigError(f"steps of an image must be at least 0, not {int(each.min())}")
    return each


def check_step_size(step_size: Any, x: Tensor, *, steps: int | Tensor, eps: float) -> float | Tensor:
    """A length of steps above 0, or one for each image; more than the ball's diameter warns."""
    if step_size is None:
        return default_step_size(eps, steps)
    if not isinstance(step_size, Tensor):
        size = pixels("step_size", step_size)
        warn_of_long_steps(size, eps)
        return size
    if not step_size.is_floating_point() or step_size.shape != x.shape[:1]:
        raise ConfigError(f"step_size must be a number, or floats of shape ({len(x)},), not {tuple(step_size.shape)}")
    low, high = (float(size) for size in torch.aminmax(step_size))
    if not 0 < low <= high < torch.inf:
        raise ConfigError(f"step_size must be above 0 and finite, not {low:g} to {high:g}")
    warn_of_long_steps(high, eps)
    return step_size.detach().to(x.device, torch.float32)


def warn_of_long_steps(size: float, eps: float) -> None:
    """Warn of steps that cross the whole ball."""
    if size > 2 * eps * (1 + 1e-6):
        warnings.warn(f"a step of {size:g} is more than the ball's diameter, 2 eps = {2 * eps:g}", stacklevel=4)
