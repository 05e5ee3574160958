"""How a network is asked: for logits, and for gradients of the images; a sentence where it has neither."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advprune_core.base.settings import AdvpruneError, ConfigError

IN_PLACE = "the model changes its input in place, and with it the data; use x = x + 1 instead of x += 1 in its forward"

PROBABILITIES = (
    "the outputs look like probabilities (not below 0, sums of 1): attacks and losses need logits, because softmax "
    "hides the gradient; leave the softmax out of the model"
)


class NotFiniteError(ConfigError):
    """Outputs that are not numbers: no class, and no verdict."""


def check_network(model: Any) -> None:
    """Refuse what is no network, or has no weights yet."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"the model must be an nn.Module, not {kind_of(model)}")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ConfigError("the model is on the meta device, where weights have no values; use to_empty and load them")


def kind_of(value: Any) -> str:
    """What somebody gave instead of what was wanted, in a word."""
    if isinstance(value, Tensor):
        return f"one of {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def ask(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, classes) of images (B, C, H, W), with whatever graph there is.

    Raises
    ------
    ConfigError
        A model that cannot take the images, changes them in place, or gives anything but one row of
        logits for each.
    """
    version = x._version
    try:
        logits = model(x)
    except (torch.cuda.OutOfMemoryError, MemoryError, AdvpruneError):
        raise
    except Exception as error:
        raise ConfigError(_refusal(error, x)) from error
    if x._version != version:
        raise ConfigError(IN_PLACE)
    if isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(x) and logits.is_floating_point():
        return logits
    raise ConfigError(
        f"the model gives {described(logits)} for {len(x)} images, where attacks need one tensor of logits "
        f"({len(x)}, classes); wrap it in an nn.Module whose forward returns that alone"
    )


def _refusal(error: Exception, x: Tensor) -> str:
    reason = (str(error) or type(error).__name__).strip().partition("\n")[0]
    if "leaf Variable" in reason and "in-place" in reason:
        return IN_PLACE
    return (
        f"the model cannot take images of shape {tuple(x.shape)} ({str(x.dtype).removeprefix('torch.')}, "
        f"on {x.device}): {reason}"
    )


def described(outputs: Any) -> str:
    """What somebody's code has given, as a message shows it."""
    if isinstance(outputs, Tensor):
        return f"outputs of shape {tuple(outputs.shape)} ({str(outputs.dtype).removeprefix('torch.')})"
    return f"an output of type {type(outputs).__name__}"


def check_classes(logits: Tensor, classes: int) -> None:
    """Refuse logits (B, K) with K below the number of classes that the labels need."""
    if logits.shape[1] < classes:
        raise ConfigError(
            f"a label is {classes - 1}, but the model has {logits.shape[1]} classes, whose labels are 0 to "
            f"{logits.shape[1] - 1}"
        )


def gradient_of(losses: Tensor, x: Tensor, *, again: bool = False) -> Tensor:
    """Gradient of each image's loss with respect to that image, shape of `x`.

    The losses (B,) are summed, not averaged: what an image gets does not depend on its company. With `again` the
    graph stays, for another loss of the same pass.

    Raises
    ------
    ConfigError
        If no gradient reaches the images.
    """
    gradient = None
    if losses.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(losses.sum(), x, allow_unused=True, retain_graph=again)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"the model's outputs cannot be differentiated: {reason}") from error
    if gradient is None:
        raise ConfigError(
            "no gradient reaches the images: the model detaches them (torch.no_grad, detach, numpy or integers in its "
            "forward), so that only an attack without gradients, such as square, can be made"
        )
    return gradient


def sound(logits: Tensor) -> Tensor:
    """Whether all logits are numbers, a bool on their device; minus infinity rules a class out and is one."""
    return (logits < torch.inf).all()


def check_sound(logits: Tensor) -> None:
    """Refuse logits (B, classes) that are NaN or infinite, which `argmax` would take for a class.

    Raises
    ------
    NotFiniteError
        With the number of images.
    """
    if not sound(logits):
        bad = int((logits < torch.inf).all(1).logical_not().sum())
        raise NotFiniteError(
            f"the model's outputs are NaN or infinite for {bad} of {len(logits)} images, so there is nothing to "
            "judge; look for weights that diverged, or a division by 0 or an overflow in its forward"
        )


def look_like_probabilities(logits: Tensor) -> bool:
    """Whether outputs (B, classes) are not below 0 and have sums of 1: there is a softmax in the network."""
    return float(logits.min()) >= 0 and float((logits.sum(1) - 1).abs().max()) < 1e-4
