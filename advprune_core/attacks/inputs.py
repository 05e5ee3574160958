"""What every public attack accepts, looked at once, before any work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import ThreatModel, threat_model
from advprune_core.base.settings import ConfigError, check_names
from advprune_core.datasets.arrays import ROUNDING
from advprune_core.models.passes import check_classes, check_network, kind_of

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of an attack, checked.

    Attributes
    ----------
    x : Tensor of float32, shape (B, C, H, W)
        A copy of the images, without a graph, inside [0, 1].
    y : Tensor of int64, shape (B,)
        Labels, on the images' device.
    ids : Tensor of int64, shape (B,)
        What noise is keyed by; the places in the batch where none were given.
    threat : ThreatModel
    classes : int
        How many classes the labels need.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    threat: ThreatModel
    classes: int


def check_inputs(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None,
    *,
    threat: ThreatModel | None,
    norm: str | None = None,
    eps: float | str | None = None,
    seed: int = 0,
    ids: Tensor | None = None,
    precision: str = "float32",
    **counts: int,
) -> Inputs:
    """Check and convert what an attack is given; no labels (`y` None) are labels of 0.

    Raises
    ------
    ConfigError
        What is no `nn.Module` or stands on the meta device; images that are no floats (B, C, H, W) in
        [0, 1] (those off by `ROUNDING` are clamped); labels or ids of another number or kind; an unknown
        norm or precision; eps or one of `counts` (steps, ...) out of range.
    """
    found = threat_model(threat, norm, eps)
    check_network(model)
    x = check_images(x)
    check_choice("precision", precision, PRECISIONS)
    check_whole("seed", seed, least=0)
    for name, count in counts.items():
        check_whole(name, count, least=1)
    names = torch.arange(len(x), device=x.device) if ids is None else check_numbers("ids", ids, x)
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device) if y is None else check_labels(y, x)
    return Inputs(x, labels, names, found, classes=int(labels.max()) + 1)


def check_images(x: Any) -> Tensor:
    """Images as a copy of float32 inside [0, 1], without a graph.

    Raises
    ------
    ConfigError
        With what was found.
    """
    if not isinstance(x, Tensor):
        raise ConfigError(f"images must be a torch tensor of floats in [0, 1], not {kind_of(x)}")
    if x.is_meta or x.layout != torch.strided:
        raise ConfigError(f"images must be a dense tensor with values, these are {x.layout} on {x.device}")
    if not x.is_floating_point():
        unit = ", divided by 255 if they are grey levels" if x.dtype == torch.uint8 else ""
        raise ConfigError(f"images must be floats in [0, 1]{unit}; these are {str(x.dtype).removeprefix('torch.')}")
    if x.dim() != 4:
        raise ConfigError(f"images must have the shape (B, C, H, W), not {tuple(x.shape)}")
    if x.numel() == 0:
        raise ConfigError("the batch is empty" if len(x) == 0 else f"images of shape {tuple(x.shape)} have no pixels")
    with torch.inference_mode(mode=False):
        return in_unit(x.detach().to(torch.float32, copy=True))


def in_unit(x: Tensor) -> Tensor:
    """Images of floats inside [0, 1]: themselves, or clamped where they are off by `ROUNDING`.

    Raises
    ------
    ConfigError
        Pixels elsewhere.
    """
    low, high = (float(value) for value in torch.aminmax(x))
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ConfigError(
            f"images must lie in [0, 1], these are in [{low:g}, {high:g}]: pass them "
            "unnormalised and let the model normalise inside, so that eps has the unit it says"
        )
    return x if low >= 0 and high <= 1 else x.clamp(0, 1)


def check_start(start: Any, x: Tensor) -> Tensor:
    """A start of the images' shape, as float32 on their device."""
    if not isinstance(start, Tensor) or not start.is_floating_point() or start.is_meta:
        raise ConfigError(f"start must be a name or a tensor of floats, not {kind_of(start)}")
    if start.shape != x.shape:
        raise ConfigError(f"start has shape {tuple(start.shape)}, the images {tuple(x.shape)}")
    with torch.inference_mode(mode=False):
        start = start.detach().to(x.device, torch.float32, copy=True)
    if not start.isfinite().all():
        raise ConfigError("start has pixels that are not finite")
    return start


def check_labels(y: Any, x: Tensor) -> Tensor:
    """Labels (B,) from 0 as int64, on the images' device."""
    labels = check_numbers("labels", y, x)
    if (least := int(labels.min())) < 0:
        raise ConfigError(f"labels are classes from 0, but the least is {least}")
    return labels


def check_logits(target: Any, x: Tensor) -> Tensor:
    """Clean logits (B, classes) as the target of KL."""
    if not isinstance(target, Tensor) or not target.is_floating_point() or target.dim() != 2 or len(target) != len(x):
        raise ConfigError(f"with loss = 'kl' the target holds the clean logits, floats of shape ({len(x)}, classes)")
    return target.detach().to(x.device)


def check_width(logits: Tensor, target: Tensor, *, classes: int) -> None:
    """Refuse logits of fewer classes than labels need, or of others than a target of logits has."""
    check_classes(logits, classes)
    if target.dim() == 2 and target.shape[1] != logits.shape[1]:
        raise ConfigError(f"target has logits of {target.shape[1]} classes, the model of {logits.shape[1]}")


def check_numbers(name: str, values: Any, x: Tensor) -> Tensor:
    """One whole number for each image, as int64 on the images' device."""
    if not isinstance(values, Tensor) or values.is_floating_point() or values.is_complex() or values.is_meta:
        raise ConfigError(f"{name} must be a tensor of whole numbers (int64), not {kind_of(values)}")
    if values.shape != x.shape[:1]:
        raise ConfigError(f"{name} have shape {tuple(values.shape)}, for {len(x)} images it must be ({len(x)},)")
    with torch.inference_mode(mode=False):
        return values.detach().to(x.device, torch.int64, copy=True)


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Refuse a name that is not one of `allowed`, with the near miss."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    check_names([value], allowed, what=name)


def check_whole(name: str, value: Any, *, least: int) -> None:
    """Refuse what is no whole number from `least`, up to what int64 holds."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= int(value) < 2**63:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {value!r}")
