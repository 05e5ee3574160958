"""Search passes as CUDA graphs: a GPU repeats what it has been shown once, and nobody waits for Python.

A pass of a small network is some dozens of kernels of microseconds each; to start them one by one takes
longer than to run them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Passes before a capture: kernels are compiled and memory is taken in the first.
_TRIES = 3


@dataclass(eq=False)
class Replayed:
    """A function of images that repeats recorded work, with a gradient of the images.

    Attributes
    ----------
    images, logits, towards, gradient : Tensor
        Where the recorded work reads and writes: `logits` of `images`; the `gradient` of the images, given
        that of the logits (`towards`).
    forward, backward : callable
        Do the work once more; a backward pass may use up what the forward pass left.
    """

    images: Tensor
    logits: Tensor
    towards: Tensor
    gradient: Tensor
    forward: Callable[[], None]
    backward: Callable[[], None]
    _last: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of images of the recorded shape, as a tensor of their own."""
        logits: Tensor = _Pass.apply(x, self)
        return logits

    def _passed(self, x: Tensor) -> int:
        self.images.copy_(x)
        self.forward()
        self._last += 1
        return self._last

    def _gone_back(self, x: Tensor, towards: Tensor, number: int) -> Tensor:
        if number != self._last:  # since then the memory has held another pass, or this one went back before
            self._passed(x)
        self.towards.copy_(towards)
        self.backward()
        self._last += 1
        return self.gradient.clone()


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, replayed: Replayed) -> Tensor:
        ctx.save_for_backward(x)
        ctx.replayed, ctx.number = replayed, replayed._passed(x)
        return replayed.logits.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.replayed._gone_back(x, towards, ctx.number), None


def recorded(function: Callable[[Tensor], Tensor], x: Tensor) -> Replayed:
    """Record a function of images and its gradient on their GPU.

    Parameters
    ----------
    function : callable
        Images to logits; reads its weights where they lie, so that later values count.
    x : Tensor
        Images of the shape to record.
    """
    images = x.detach().clone().requires_grad_()
    before, aside = torch.cuda.current_stream(x.device), torch.cuda.Stream(x.device)
    aside.wait_stream(before)
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    try:
        with torch.enable_grad(), torch.cuda.stream(aside):
            for _ in range(_TRIES):
                logits = function(images)
                towards = torch.zeros_like(logits)
                torch.autograd.grad(logits, images, towards)
            del logits
            # Other graphs may use the workspace of a product after this one's memory has gone.
            torch._C._cuda_clearCublasWorkspaces()
            with torch.cuda.graph(forward, stream=aside):
                logits = function(images)
            with torch.cuda.graph(backward, pool=forward.pool(), stream=aside):
                (gradient,) = torch.autograd.grad(logits, images, towards)
            torch._C._cuda_clearCublasWorkspaces()
    finally:
        torch.cuda.set_stream(before)  # a capture that fails does not leave its own
    before.wait_stream(aside)
    return Replayed(images.detach(), logits.detach(), towards, gradient, forward.replay, backward.replay)
