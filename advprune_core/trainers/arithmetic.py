"""Threads and floating-point modes of a run, restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advprune_core.attacks.compiled import CompiledPasses, compiled_passes
from advprune_core.trainers.config import RunConfig


@contextmanager
def arithmetic(config: RunConfig) -> Iterator[None]:
    """A run's own threads on a CPU; on a GPU deterministic kernels, and TF32 in compiled runs only."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    tf32 = config.speed == "compiled"
    if config.device == "cpu":
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high" if tf32 and config.device == "cuda" else precision)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)


def autocast(config: RunConfig) -> torch.autocast:
    """The precision of a run's steps."""
    return torch.autocast(config.device, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")


def run_passes(config: RunConfig, model: nn.Module, images: Tensor) -> CompiledPasses:
    """A run's passes, compiled inside `arithmetic` for a batch of `images`.

    Raises
    ------
    NotCompiled
        See `compiled_passes`.
    """
    with autocast(config):
        return compiled_passes(model, images)
