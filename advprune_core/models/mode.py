"""Run a block on a model and leave no trace of it: modes, buffers, gradients, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from advprune_core.base.randomness import generators_kept
from advprune_core.base.settings import ConfigError
from advprune_core.models.passes import IN_PLACE, ask

Mode = Literal["eval", "train"]


def device_of(model: nn.Module, otherwise: torch.device | str = "cpu") -> torch.device:
    """Where a model is; `otherwise`, where it has neither weights nor buffers."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device(otherwise))


@contextmanager
def no_trace(model: nn.Module, mode: Mode = "eval") -> Iterator[None]:
    """Put `model` in a mode for a block, then restore every module's mode and all that it changed.

    Gradients work inside, whatever is set around it. The global generators are put back, for models
    that draw from them; in ``"train"`` the buffers (BatchNorm statistics) as well.
    """
    # Of scripted models, frozen ones have no mode.
    modules = [module for module in model.modules() if hasattr(module, "training")]
    before = [module.training for module in modules]
    wanted = mode == "train"
    # Setting modes costs more than a forward pass of a tiny network has time for: skip if right.
    if any(flag != wanted for flag in before):
        model.train(wanted)
    try:
        with (
            _buffers_kept(model) if wanted else nullcontext(),
            generators_kept(),
            torch.inference_mode(mode=False),
        ):
            yield
    finally:
        for module, flag in zip(modules, before, strict=True):
            if module.training != flag:
                module.training = flag


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """`no_trace` around code of somebody else's: whatever it does to modes, buffers and gradients is undone.

    Inside, no weight has a gradient.
    """
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    for parameter, _, gradient in before:
        if gradient is not None:  # set aside: `backward` would add to it
            parameter.grad = None
    try:
        with _buffers_kept(model), no_trace(model):
            yield
    finally:
        for parameter, wanted, gradient in before:
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
            if parameter.grad is not gradient:
                parameter.grad = gradient


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put the values of all buffers (BatchNorm statistics) back after a block."""
    saved = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(model.buffers(), saved, strict=True):
            buffer.data.copy_(value)  # of the data: autograd may still need the buffer, and it is as it was


@contextmanager
def true_float32(device: torch.device) -> Iterator[None]:
    """Float32 that is float32, whatever is set around the block: no autocast, no TF32, no inference mode."""
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    settings = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.autocast(device.type, enabled=False),
            cudnn.flags(**settings, allow_tf32=False),
            torch.inference_mode(mode=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def first_logits(model: nn.Module, x: Tensor, mode: Mode = "eval") -> Tensor:
    """Logits of a few images, as `quiet_logits` or in another mode, of a model that must leave its input alone.

    Raises
    ------
    ConfigError
        If it changes them, seen by autograd or not.
    """
    probe = x.clone()
    with no_trace(model, mode), torch.no_grad():
        logits = ask(model, probe)
    if not torch.equal(probe, x):
        raise ConfigError(IN_PLACE)
    return logits


def quiet_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, classes) in eval mode, without gradients and without a trace."""
    with no_trace(model), torch.no_grad():
        logits = ask(model, x.clone())  # a copy, whatever the model does to it
    # Copies of the weights made here have no graph: a pass that is trained on must not meet them.
    torch.clear_autocast_cache()
    return logits
