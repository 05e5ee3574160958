"""What a run cost: forward-equivalents, seconds and memory, by phase.

One forward pass of one image counts 1, its backward pass to the input 1 more, a full backward
pass (input and weights) 2 more. Forward passes are counted by a hook on the model, whatever
calls it; a full backward pass counts for every image that was passed with gradients since the
last one, attacks excepted, because those differentiate with respect to the input only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import psutil
import torch
from torch import nn

N = TypeVar("N", int, float)

_ACTIVE: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def attack_pass(images: int) -> Iterator[None]:
    """Mark a forward and input-backward pass of an attack on `images` images."""
    ledger = _ACTIVE.get()
    if ledger is None:
        yield
        return
    ledger.attacking = True
    try:
        yield
    finally:
        ledger.attacking = False
    ledger.add(images)


def count_passes(passes: int) -> None:
    """Count forward-equivalents that no hook sees: a step's own backward pass to the input, say."""
    ledger = _ACTIVE.get()
    if ledger is not None:
        ledger.add(passes)


def cost_of(by_phase: Mapping[str, N]) -> N:
    """What a run is judged by, of passes or seconds by phase: those of training and selection."""
    return by_phase.get("train", 0) + by_phase.get("select", 0)


def passes_counted() -> int:
    """Forward-equivalents that the ledger under way has counted so far; 0 without one."""
    ledger = _ACTIVE.get()
    return 0 if ledger is None else sum(ledger.passes.values())


class Ledger:
    """Adds up passes and seconds by phase; its `state` goes into checkpoints.

    Attributes
    ----------
    passes : dict of str to int
        Forward-equivalents by phase.
    seconds, cpu_seconds : dict of str to float
        Wall-clock and processor time by phase.
    peak_memory : int
        Largest sampled size in bytes: resident set on a CPU, allocated memory on a GPU.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.passes: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.peak_memory = 0
        self.attacking = False
        self._in_graph = 0
        self._phases: list[str] = []
        self._since = (0.0, 0.0)

    @contextmanager
    def watch(self, *models: nn.Module) -> Iterator[Ledger]:
        """Count every pass of `models` during a block."""
        hooks = [model.register_forward_pre_hook(self._on_forward) for model in models]
        nested = _ACTIVE.get() is self
        token = _ACTIVE.set(self)
        if self.device.type == "cuda" and not nested:
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            yield self
        finally:
            _ACTIVE.reset(token)
            for hook in hooks:
                hook.remove()

    def _on_forward(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        images = len(inputs[0])
        self.add(images)
        if torch.is_grad_enabled() and not self.attacking:
            self._in_graph += images

    def add(self, passes: int) -> None:
        """Add forward-equivalents to the phase under way."""
        phase = self._phases[-1] if self._phases else "other"
        self.passes[phase] = self.passes.get(phase, 0) + passes

    @property
    def cost(self) -> int:
        """Forward-equivalents of training and selection so far: what a run is judged by."""
        return cost_of(self.passes)

    def full_backward(self) -> None:
        """Count the full backward pass of all images in the graph."""
        self.add(2 * self._in_graph)
        self._in_graph = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Book what happens in a block under `name`; an inner phase stops the outer one's clock."""
        self._book()
        self._phases.append(name)
        self.passes.setdefault(name, 0)
        try:
            yield
        finally:
            self._book()
            self._phases.pop()

    def _book(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = (time.perf_counter(), time.process_time())
        if self._phases:
            name = self._phases[-1]
            for book, start, stop in zip((self.seconds, self.cpu_seconds), self._since, now, strict=True):
                book[name] = book.get(name, 0.0) + stop - start
        self._since = now

    def sample_memory(self) -> None:
        """Sample memory now; the largest sample is kept."""
        if self.device.type == "cuda":
            size = int(torch.cuda.max_memory_allocated(self.device))
        else:
            size = int(psutil.Process(os.getpid()).memory_info().rss)
        self.peak_memory = max(self.peak_memory, size)

    def state(self) -> dict[str, Any]:
        """Everything counted so far, as plain data."""
        return {
            "passes": dict(self.passes),
            "seconds": dict(self.seconds),
            "cpu_seconds": dict(self.cpu_seconds),
            "peak_memory": self.peak_memory,
        }

    def absorb(self, state: dict[str, Any], *, phase: str) -> None:
        """Book all that another ledger's `state` has counted under one phase; its memory is not this one's."""
        for name in ("passes", "seconds", "cpu_seconds"):
            book = getattr(self, name)
            book[phase] = book.get(phase, 0) + sum(state[name].values())

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.passes = dict(state["passes"])
        self.seconds = dict(state["seconds"])
        self.cpu_seconds = dict(state["cpu_seconds"])
        self.peak_memory = int(state["peak_memory"])
