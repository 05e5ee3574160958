"""Threads and floating-point modes of a run, restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from advprune_core.attacks.compiled import CompiledPasses, compiled_passes
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import first_logits
from advprune_core.trainers.config import RunConfig


@contextmanager
def arithmetic(config: RunConfig) -> Iterator[None]:
    """A run's own threads on a CPU, of torch and of NumPy; on a GPU deterministic kernels, and TF32 if compiled.

    NumPy's linear algebra would take all cores for the small products of a pursuit, which so are two or three times
    as slow, and round as the number of cores has it.
    """
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    tf32 = config.speed == "compiled"
    own = config.device == "cpu"
    if own:
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high" if tf32 and config.device == "cuda" else precision)
    try:
        with (
            threadpool_limits(limits=config.threads, user_api="blas") if own else nullcontext(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32),
        ):
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


def check_precision(config: RunConfig, model: nn.Module, images: Tensor) -> None:
    """Refuse what PyTorch computes wrongly: in bfloat16 on a CPU, strided convolutions of maps of one pixel.

    Their weight gradient is made of memory that nobody has written (seen with oneDNN 3.12 in PyTorch 2.14,
    3x3 with stride 2): NaN now and then, or other bits each time.

    Raises
    ------
    ConfigError
        A network that has one, for images of this size.
    """
    if config.precision != "bfloat16" or config.device != "cpu":
        return
    found: list[str] = []

    def look(name: str, module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        if max(module.stride) > 1 and max(inputs[0].shape[-2:]) == 1:
            found.append(name)

    convolutions = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(partial(look, name)) for name, module in convolutions]
    try:
        first_logits(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        raise ConfigError(
            f"precision = 'bfloat16' on a CPU: PyTorch computes wrong gradients of convolutions with a stride on maps "
            f"of one pixel, and the network has {found[0]!r}; use float32, or a network that shrinks its maps less"
        )
