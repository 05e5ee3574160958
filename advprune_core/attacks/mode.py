"""Run a block on a model and leave no trace of it: modes, buffers, gradients, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

Mode = Literal["eval", "train"]


@contextmanager
def no_trace(model: nn.Module, mode: Mode = "eval") -> Iterator[None]:
    """Put `model` in a mode for a block, then restore every module's mode and all that it changed.

    The global generators are put back, for models that draw from them; in ``"train"`` the buffers
    (BatchNorm statistics) as well.
    """
    modules = list(model.modules())
    before = [module.training for module in modules]
    wanted = mode == "train"
    # Setting modes costs more than a forward pass of a tiny network has time for: skip if right.
    if any(flag != wanted for flag in before):
        model.train(wanted)
    saved = [buffer.clone() for buffer in model.buffers()] if wanted else []
    try:
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, flag in zip(modules, before, strict=True):
            module.training = flag
        if saved:
            with torch.no_grad():
                for buffer, value in zip(model.buffers(), saved, strict=True):
                    buffer.copy_(value)
