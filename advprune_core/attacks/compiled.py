"""A network's passes in compiled form: the same sums in fewer loops over memory.

A step of training is 1.2 times as fast on a processor with AVX-512 (results/reference/compiled), up to
twice with AVX2.

`torch.compile` rounds otherwise than the plain passes do, so what is compiled has a key of its own.
Passes are compiled for one network structure and one batch shape, once per process; weights and
buffers are arguments of what is compiled, so that all runs of a process share it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from advprune_core.attacks.graphs import Replayed, recorded
from advprune_core.base.environment import results_root
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import no_trace

Speed = Literal["exact", "compiled"]
State = dict[str, Tensor]

#: A batch below this share of the compiled size is passed plainly: filling it up would cost more.
LEAST_SHARE = 1 / 3
#: Largest distance from the plain passes, relative to the norm of what is compared.
TOLERANCE = 1e-2
#: The same in bfloat16, in units of what rounding alone does to the plain passes.
ROUNDINGS = 4.0
#: Structures that stay compiled; PyTorch gives up on a function that it had to compile 8 times.
_MOST = 3
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_root: ContextVar[Path | None] = ContextVar("results", default=None)
_passes: dict[Hashable, CompiledPasses] = {}


class NotCompiled(ConfigError):
    """Passes that cannot be compiled here, or that compute something else when they are."""


@contextmanager
def compile_cache(root: Path) -> Iterator[None]:
    """Keep what a block compiles in ``cache/inductor`` of a results folder, for all processes and later runs."""
    token = _root.set(root)
    try:
        yield
    finally:
        _root.reset(token)


@contextmanager
def _cached() -> Iterator[None]:
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str(((_root.get() or results_root()) / "cache" / "inductor").resolve())
    try:
        yield
    finally:
        os.environ.pop(_CACHE)
        if before is not None:
            os.environ[_CACHE] = before


@dataclass(frozen=True, eq=False)
class CompiledPasses:
    """Compiled functions of (state, images) that give logits; see `compiled_passes`.

    Attributes
    ----------
    shape : tuple of int
        (B, C, H, W) that they are compiled for.
    search : callable
        In eval mode; the gradient is of the images alone.
    update : callable
        In train mode; the gradient is of the weights alone, and buffers change as in a plain pass.
    model : nn.Module
        Whose passes they are; another of the same structure may use them.
    around : hashable
        Threads and arithmetic that they are compiled for.
    graphs : dict
        On a GPU, searches as CUDA graphs, by where a model's weights lie.
    """

    shape: tuple[int, ...]
    search: Callable[[State, Tensor], Tensor]
    update: Callable[[State, Tensor], Tensor]
    model: nn.Module
    around: Hashable
    graphs: dict[Hashable, Replayed] = field(default_factory=dict)

    def searched(self, model: nn.Module, x: Tensor) -> Tensor:
        """Logits (n, classes) in eval mode of any number n of images, with a graph that leads to them."""
        search, size, parts = self._search(model, x), self.shape[0], []
        for part in x.split(size):
            missing = size - len(part)
            filled = torch.cat([part, part[:1].detach().expand(missing, *part.shape[1:])]) if missing else part
            parts.append(search(_dense(filled))[: len(part)])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _search(self, model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Images of the compiled shape to logits, by a model's weights."""
        values = {name: value.detach() for name, value in _state(model).items()}
        if x.device.type != "cuda":
            return partial(self.search, _laid_out(values))
        where = _where(values)
        if where not in self.graphs:
            if len(self.graphs) >= _MOST:
                self.graphs.clear()
            self.graphs[where] = recorded(
                lambda images: self.search(_laid_out(values), images), x.new_zeros(self.shape)
            )
        return self.graphs[where]

    @contextmanager
    def instead_of(self, model: nn.Module) -> Iterator[None]:
        """Let `model` use these passes during a block, where they fit.

        Plain are passes without gradients (verdicts, statistics), with images of another shape, with few
        images, in another arithmetic, or differentiated by images and weights at once. Hooks on the
        model are called as ever.
        """
        plain, before = model.forward, model.__dict__.get("forward")

        def forward(x: Tensor) -> Tensor:
            fits = isinstance(x, Tensor) and x.dtype == torch.float32 and x.shape[1:] == self.shape[1:]
            if not (fits and torch.is_grad_enabled()) or model.training == x.requires_grad:
                return plain(x)
            if _around(x.device) != self.around:  # or it would be compiled once more, in the middle of the run
                return plain(x)
            if not model.training:
                return self.searched(model, x) if len(x) > LEAST_SHARE * self.shape[0] else plain(x)
            return self.update(_state(model), _dense(x)) if len(x) == self.shape[0] else plain(x)

        model.forward = forward
        try:
            yield
        finally:
            del model.forward
            if before is not None:
                model.forward = before
            self.graphs.pop(_where(_state(model)), None)  # its memory is for what comes next


def compiled_passes(model: nn.Module, x: Tensor, *, training: bool = True) -> CompiledPasses:
    """Compile a model's passes, or find them compiled, and see that they are those of the model.

    Parameters
    ----------
    model : nn.Module
        Images in [0, 1] to logits; left as it was.
    x : Tensor of float32, shape (B, C, H, W)
        Images to try, on the model's device; batches of this shape are what is compiled.
    training : bool
        Also what an update of the weights needs.

    Raises
    ------
    NotCompiled
        No C++ compiler, a model that cannot be compiled, other logits or gradients than the plain ones.
    """
    key = _key(model, x)
    try:
        with _cached():
            if key not in _passes:
                if len(_passes) >= _MOST:
                    _passes.clear()
                    torch._dynamo.reset()
                _passes[key] = _compile(model, x)
            passes = _passes[key]
            plain = _values(None, model, x, training=training)
            distances = _distances(_values(passes, model, x, training=training), plain)
            allowed = dict.fromkeys(distances, TOLERANCE)
            if torch.is_autocast_enabled(x.device.type):
                with torch.autocast(x.device.type, enabled=False):
                    rounding = _distances(plain, _values(None, model, x, training=training))
                allowed = {name: max(TOLERANCE, ROUNDINGS * rounding[name]) for name in distances}
    except Exception as error:
        _passes.pop(key, None)
        cause = getattr(error, "inner_exception", error)  # PyTorch wraps what its compilers raise
        reason = str(cause).strip().partition("\n")[0]
        raise NotCompiled(f"the network cannot be compiled here ({type(cause).__name__}: {reason})") from error
    worst = max(distances, key=lambda name: distances[name] / allowed[name])
    if not distances[worst] <= allowed[worst]:
        raise NotCompiled(
            f"the compiled network computes other {worst} than the plain one (relative distance "
            f"{distances[worst]:.2g}; dropout, or a forward that depends on more than weights and images?)"
        )
    return passes


def _compile(model: nn.Module, x: Tensor) -> CompiledPasses:
    def function(training: bool) -> Callable[[State, Tensor], Tensor]:
        template = copy.deepcopy(model).to("meta").train(training)  # its weights are always those that are given

        def logits(state: State, images: Tensor) -> Tensor:
            return functional_call(template, state, (images,))

        # On a GPU PyTorch's own CUDA graphs for the backward pass of an update alone: for each pass they copy all
        # weights into place. Searches have graphs of their own, see `graphs`.
        mode = "reduce-overhead" if training and x.device.type == "cuda" else None
        compiled: Callable[[State, Tensor], Tensor] = torch.compile(logits, dynamic=False, fullgraph=True, mode=mode)
        return compiled

    return CompiledPasses(tuple(x.shape), function(False), function(True), model, _around(x.device))


def _key(model: nn.Module, x: Tensor) -> Hashable:
    """Equal for models that may share what is compiled: a foreign model's text does not say all that it does."""
    known = all(type(module).__module__.startswith(("torch.nn.", "advprune_core.")) for module in model.modules())
    tensors = tuple((name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in _state(model).items())
    return (repr(model), None if known else id(model), tensors, tuple(x.shape), x.device, _around(x.device))


def _around(device: torch.device) -> Hashable:
    """Threads and arithmetic that PyTorch would compile anew for."""
    return (
        torch.get_num_threads(),
        torch.is_autocast_enabled(device.type),
        torch.get_float32_matmul_precision(),
    )


def _state(model: nn.Module) -> State:
    # Buffers as data: other graphs of a step may hold them, and a plain pass changes them unseen as well.
    return {**dict(model.named_parameters()), **{name: buffer.data for name, buffer in model.named_buffers()}}


def _where(state: State) -> Hashable:
    """Where a model's weights lie, and how."""
    return tuple((value.data_ptr(), value.stride()) for value in state.values())


def _laid_out(state: State) -> State:
    """Weights of convolutions as the processor likes them, channels last; a copy only where they are not."""
    return {
        name: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in state.items()
    }


def _dense(x: Tensor) -> Tensor:
    """Images in one layout: another one would be compiled anew."""
    return x.contiguous().flatten().view(x.shape)


Values = dict[str, list[Tensor]]


def _values(passes: CompiledPasses | None, model: nn.Module, x: Tensor, *, training: bool) -> Values:
    """Logits, gradients and statistics of compiled passes, or of plain ones; the model stays as it was."""

    def both(logits: Tensor, wanted: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        target = torch.arange(len(logits), device=logits.device) % logits.shape[1]
        gradients = torch.autograd.grad(F.cross_entropy(logits.float(), target), wanted)
        return [logits.detach().clone()], [torch.cat([gradient.flatten() for gradient in gradients])]

    def other_chances() -> None:
        if passes is not None:  # a network that draws numbers draws others in each pass
            torch.rand((), device=x.device)

    with torch.enable_grad(), no_trace(model):
        other_chances()
        images = x.detach().clone().requires_grad_()
        logits = model.forward(images) if passes is None else passes.searched(model, images)
        found = dict(zip(("logits", "gradients"), both(logits, [images]), strict=True))
    if training:
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with torch.enable_grad(), no_trace(model, "train"):
            other_chances()
            buffers = dict(model.named_buffers())
            if passes is None:
                logits = model.forward(x)
            else:
                buffers = {name: buffer.clone() for name, buffer in buffers.items()}
                logits = passes.update({**dict(model.named_parameters()), **buffers}, _dense(x))
            names = ("logits in training", "gradients in training")
            found |= dict(zip(names, both(logits, weights), strict=True))
            found["statistics in training"] = [buffer.clone() for buffer in buffers.values()]
    return found


def _distances(ours: Values, plain: Values) -> dict[str, float]:
    """Largest distance of each kind, relative to the plain norm."""

    def distance(a: Tensor, b: Tensor) -> float:
        return float((a - b).double().norm() / b.double().norm().clamp(min=1e-12))

    return {name: max(map(distance, ours[name], plain[name]), default=0.0) for name in ours}
