"""Weights from a file: what a state dict must be, and whether it fits a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from advprune_core.base.files import digest_of, own_path
from advprune_core.base.settings import ConfigError, Settings
from advprune_core.base.values import some

#: Where checkpoints keep the state dict of the network.
_UNDER = ("state_dict", "model_state_dict", "model")
#: What wrappers of networks (DataParallel, torch.compile) put before every name.
_WRAPPED = ("_orig_mod.", "module.")
#: Names shown of those that do not fit.
_SHOWN = 5


class InitialWeights(Settings):
    """Weights that training starts from, instead of random ones; a run's key has their content, not their path."""

    path: Annotated[str, Field(description="state dict saved by torch.save")]
    sha256: Annotated[
        str | None, Field(pattern="^[0-9a-f]{64}$", description="of the file; by default what it is now")
    ] = None
    fresh: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda names: (names,) if isinstance(names, str) else names),
        Field(description="modules that keep their random weights, such as fc: a head for other classes"),
    ] = ()

    @classmethod
    def parse(cls, spec: Any) -> Any:
        """A path alone as ``{path: ...}``."""
        return {"path": spec} if isinstance(spec, str) else spec

    @model_validator(mode="after")
    def _of_the_file(self) -> Self:
        if self.sha256 is None:
            self.__dict__["sha256"] = self.digest()  # the instance is frozen
        return self

    def canonical(self) -> dict[str, Any]:
        """What a key is hashed from: the content, and what of it is left out."""
        return {"sha256": self.sha256} | ({"fresh": sorted(set(self.fresh))} if self.fresh else {})

    def digest(self) -> str:
        """SHA-256 of the file as it is now.

        Raises
        ------
        ConfigError
            No such file.
        """
        path = own_path(self.path)
        if not os.path.isfile(path):
            raise ConfigError(f"there is no file {self.path!r}")
        found = path.stat()
        return _digest(path, found.st_mtime_ns, found.st_size)

    def check(self) -> None:
        """Refuse a file that is not there, or no longer the one that it was when it was named.

        Raises
        ------
        ConfigError
        """
        found = self.digest()
        if found != self.sha256:
            raise ConfigError(f"{self.path} has the SHA-256 {found}, not {self.sha256}: another file than was named")

    def load(self, model: nn.Module) -> None:
        """Put them into a network.

        Raises
        ------
        ConfigError
            See `load_weights`.
        """
        load_weights(model, own_path(self.path), fresh=self.fresh)


@lru_cache(maxsize=8)
def _digest(path: Path, time: int, size: int) -> str:
    return digest_of(path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, or from the checkpoint that has it as ``state_dict``; nothing is unpickled.

    Raises
    ------
    ConfigError
        What is no dictionary of tensors, or has some that are NaN.
    """
    what = f"{path} is not a state dict saved by torch.save"
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ConfigError(
            f"{what}: it holds Python objects, a whole model perhaps, which are not loaded because that may run code; "
            "save model.state_dict() alone"
        ) from None
    except Exception as error:  # whatever a damaged file makes of a reader
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{what}: {type(error).__name__}: {reason}") from None
    inside = [state[name] for name in _UNDER if _has_tensors(state.get(name))] if isinstance(state, dict) else []
    if inside:
        state = inside[0]  # of a checkpoint, with what else its training kept
    if not isinstance(state, dict):
        raise ConfigError(f"{what}: it holds a {type(state).__name__}")
    # A module may keep more than tensors there (`get_extra_state`).
    if state and not _has_tensors(state):
        raise ConfigError(
            f"{what}: under {some(list(state), _SHOWN)} it holds no tensors; save model.state_dict() alone"
        )
    if any(bool(value.isnan().any()) for value in state.values() if isinstance(value, Tensor)):
        raise ConfigError(f"{path} has weights that are not finite (NaN): they are of no use")
    return state


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network's state; a module may keep more there (`get_extra_state`)."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def finite_entries(model: nn.Module) -> set[str]:
    """Names of the parameters and buffers that are numbers throughout."""
    return {name for name, value in tensors(model).items() if bool(value.isfinite().all())}


def _has_tensors(state: Any) -> bool:
    return isinstance(state, dict) and any(isinstance(value, Tensor) for value in state.values())


def load_weights(model: nn.Module, path: Path, *, fresh: Sequence[str] = ()) -> None:
    """Load a state dict into a network, all of it but the modules (or parameters) named in `fresh`.

    Of a network that was saved in a wrapper (DataParallel, torch.compile), whose prefix is taken off.

    Raises
    ------
    ConfigError
        What `read_weights` refuses, or does not fit: missing or unexpected names, other shapes; a
        fresh module that the network has not.
    """
    state, own = read_weights(path), model.state_dict()
    for prefix in _WRAPPED * 2:  # either may be the outer one
        wrapped = bool(state) and all(str(name).startswith(prefix) for name in state)
        if wrapped and not any(name.startswith(prefix) for name in own):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    for module in fresh:
        if not any(_is_in(module, name) for name in own):
            outermost = dict.fromkeys(name.split(".")[0] for name in own)
            raise ConfigError(f"init.fresh: the model has no {module!r}; its outermost modules: {some([*outermost])}")
        state = {name: value for name, value in state.items() if not _is_in(module, name)}
        state |= {name: value for name, value in own.items() if _is_in(module, name)}
    # What a module keeps besides tensors is not in a state that training has left.
    state = {name: value for name, value in own.items() if not isinstance(value, Tensor)} | state
    shapes = [
        f"{name} is {_shape(state[name])}, the model's {_shape(own[name])}"
        for name in own
        if name in state and _shape(state[name]) != _shape(own[name])
    ]
    wrong = {
        "it lacks": [name for name in own if name not in state],
        "it has, and the model has not,": [name for name in state if name not in own],
        "of other shapes:": shapes,
    }
    if told := "; ".join(f"{what} {some(names, _SHOWN)}" for what, names in wrong.items() if names):
        hint = "; modules that shall stay random, a head for other classes, are named in init.fresh" if shapes else ""
        raise ConfigError(f"{path} does not fit the model: {told}{hint}")
    # A mask of minus infinity is one in the network, too.
    numbers = [name for name in finite_entries(model) if isinstance(state[name], Tensor)]
    if lost := [name for name in numbers if not bool(state[name].isfinite().all())]:
        raise ConfigError(
            f"{path} has weights that are not finite (infinity): {some(lost, _SHOWN)}: they are of no use"
        )
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:  # a module with rules of its own
        raise ConfigError(f"{path} does not fit the model: {' '.join(str(error).split())}") from None


def with_weights(model: nn.Module, path: Path) -> nn.Module:
    """Load a state dict into a network, and put it in eval mode.

    Raises
    ------
    ConfigError
        See `load_weights`.
    """
    load_weights(model, path)
    return model.eval()


def _is_in(module: str, name: str) -> bool:
    """Whether a parameter is of a module, or is named by it."""
    return name == module or name.startswith(f"{module}.")


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
