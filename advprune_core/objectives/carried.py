"""Carried perturbations: one long attack spread over the epochs, at the price of a step each."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advprune_core.attacks.geometry import Norm, ascend, project
from advprune_core.base.components import component_field
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.augmentation import apply, invert
from advprune_core.objectives.batch import Batch, PolicyState
from advprune_core.objectives.starts import STARTS, RandomStart, Start, where_images

_ROW, _CYCLE, _DELTA, _MOMENTUM = "carried.row", "carried.cycle", "carried.delta", "carried.momentum"
_NEVER = -1
_INT8 = 127


@STARTS.register
class CarriedStart(Start):
    """Each image goes on from its own perturbation of the last visit (ATTA, Zheng et al. 2020).

    One step from there costs what FGSM costs and reaches what several steps reach, because
    perturbations of neighbouring epochs transfer (1912.11969). It helps wherever images are
    visited often, the more so the fewer updates lie between two visits; perturbations grow stale
    where they are many. Works with any objective, pruner and policy of steps.

    A perturbation is kept by image id in the padded frame of the un-augmented image: crop and flip
    are undone before storing and redone before use, and what a crop leaves out is kept. int8 for
    L-inf (1/254 eps at most is rounded away), float16 for L2; only visited images take memory.

    Cost: as the same number of steps from any other start. Usual settings: 1 step; `reset_every`
    10 on CIFAR-10, none on MNIST.

    With `momentum` the next start leads ahead along the gradients of earlier visits (FGSM-MEP, Jia
    et al. 2022, 2207.08859); the objective `fgsm_pgi` alone hands over what that needs.
    """

    name = "carried"
    first: Annotated[
        Start, *component_field(STARTS), Field(description="where an image starts on its first visit, and on a reset")
    ] = RandomStart()
    reset_every: Annotated[
        int | None, Field(ge=1, le=100_000, description="forget the perturbations every so many epochs; none: never")
    ] = None
    momentum: Annotated[float, Field(ge=0, lt=1, description="decay of the gradients of earlier visits")] = 0.0

    @model_validator(mode="after")
    def _first_is_plain(self) -> CarriedStart:
        if isinstance(self.first, CarriedStart) or self.first.augments:
            raise ValueError(
                f"first = {self.first.name!r} cannot be carried on from; allowed: clean, corner, near, random"
            )
        return self

    @property
    def clean(self) -> bool:  # type: ignore[override]
        """Whether the first visit starts at the clean image."""
        return self.first.clean

    @property
    def needs_gradient(self) -> bool:  # type: ignore[override]
        """Whether the next start depends on the gradient at this one."""
        return self.momentum > 0

    def state(self, images: int) -> PolicyState:
        """A row of the store for each image that was visited, and the cycle of its last visit."""
        return {_ROW: torch.full((images,), _NEVER), _CYCLE: torch.full((images,), _NEVER)}

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """The image plus what is stored of it; a first visit starts at `first`, unrounded."""
        known = self._known(batch, state)
        carried = first = batch.x
        if known.any():
            carried = project(batch.x + _decode(_read(state, _DELTA, batch), eps), batch.x, norm=norm, eps=eps)
        if not known.all():
            first = self.first.begin(batch, norm=norm, eps=eps, key=key, state=state)
        return carried if known.all() else first if not known.any() else where_images(known, carried, first)

    def end(
        self,
        batch: Batch,
        x_adv: Tensor,
        *,
        norm: Norm,
        eps: float,
        state: PolicyState,
        attacked: Tensor | None = None,
        step: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Store the perturbation of each image that was attacked, in its own frame."""
        known = self._known(batch, state)
        attacked = torch.ones_like(known) if attacked is None else attacked
        if not attacked.any():
            return  # and perhaps no image has a row yet
        _make_room(state, batch, attacked)
        if self.momentum > 0:
            assert step is not None
            start, gradient = step
            # The paper's g / |g|_1, times the number of pixels: float16 can hold that.
            size = gradient.flatten(1).abs().mean(1).clamp(min=torch.finfo(gradient.dtype).tiny)
            direction = gradient / size.view(-1, 1, 1, 1)
            if _MOMENTUM in state:
                earlier = _read(state, _MOMENTUM, batch).float()
                direction = direction + self.momentum * where_images(known, earlier, torch.zeros_like(earlier))
            _write(state, _MOMENTUM, direction.clamp(-6e4, 6e4).half(), batch, known, attacked)
            x_adv = project(ascend(start, direction, norm=norm, step_size=eps), batch.x, norm=norm, eps=eps)
        _write(state, _DELTA, _encode(x_adv - batch.x, norm, eps), batch, known, attacked)
        state[_CYCLE][batch.ids[attacked]] = self._cycles(batch)[attacked]

    def _cycles(self, batch: Batch) -> Tensor:
        """Number of resets before each image's draw."""
        return batch.epochs // self.reset_every if self.reset_every else torch.zeros_like(batch.epochs)

    def _known(self, batch: Batch, state: PolicyState) -> Tensor:
        """Which images were attacked since the last reset, shape (B,)."""
        batch.need_ids("the start 'carried'")
        if _CYCLE not in state:
            raise ConfigError("the start 'carried' needs a state that it keeps: AttackPolicy.initial_state(images)")
        return state[_CYCLE][batch.ids] == self._cycles(batch)


def _encode(delta: Tensor, norm: Norm, eps: float) -> Tensor:
    """Perturbations as they are kept: int8 in units of eps / 127, or float16."""
    return (delta * (_INT8 / eps)).round_().clamp_(-_INT8, _INT8).to(torch.int8) if norm == "linf" else delta.half()


def _decode(kept: Tensor, eps: float) -> Tensor:
    """The inverse of `_encode`, up to rounding."""
    return kept.float() * (eps / _INT8) if kept.dtype == torch.int8 else kept.float()


def _make_room(state: PolicyState, batch: Batch, attacked: Tensor) -> None:
    """Give a row of the store to each attacked image that has none."""
    new = batch.ids[attacked & (state[_ROW][batch.ids] == _NEVER)]
    used = int(state[_ROW].max()) + 1
    state[_ROW][new] = torch.arange(used, used + len(new), device=new.device)


def _read(state: PolicyState, name: str, batch: Batch) -> Tensor:
    """What is stored of the images, under their crops; nonsense for images that have no row."""
    store = state[name]
    frames = store[state[_ROW][batch.ids].clamp(0, len(store) - 1)]
    read = frames if batch.crops is None else apply(frames, batch.crops)
    if read.shape != batch.x.shape:
        raise ConfigError(
            f"perturbations are kept for images of {tuple(read.shape[1:])}, these are {tuple(batch.x.shape[1:])}: "
            "the start 'carried' works with crops and flips, which it can undo, and with no other augmentation"
        )
    return read


def _write(state: PolicyState, name: str, values: Tensor, batch: Batch, known: Tensor, attacked: Tensor) -> None:
    """Put crops back into the frames of their images; images that were not known begin with 0."""
    margin = 0 if batch.crops is None else 2 * batch.crops.padding
    channels, height, width = values.shape[1:]
    frame = (channels, height + margin, width + margin)
    needed, images = int(state[_ROW].max()) + 1, len(state[_ROW])
    store = state.get(name, values.new_zeros((0, *frame)))
    if len(store) < needed:
        # Memory for the images that are visited, not for all: a subset is what pruning is about.
        room = min(images, max(needed, 2 * len(store)))
        state[name] = store.new_zeros((room, *store.shape[1:]))
        state[name][: len(store)] = store
        store = state[name]
    rows = state[_ROW][batch.ids]
    frames = where_images(known, store[rows.clamp(min=0)], torch.zeros_like(store[:1]))
    frames = values if batch.crops is None else invert(values, batch.crops, onto=frames)
    if attacked.all():  # without another copy
        store[rows] = frames
    else:
        store[rows[attacked]] = frames[attacked]
