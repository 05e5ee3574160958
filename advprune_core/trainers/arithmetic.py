"""Threads and floating-point modes of a run, restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from advprune_core.config import RunConfig


@contextmanager
def arithmetic(config: RunConfig) -> Iterator[None]:
    """A run's own threads on a CPU; on a GPU deterministic kernels and float32 that is float32."""
    threads = torch.get_num_threads()
    if config.device == "cpu":
        torch.set_num_threads(config.threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)
