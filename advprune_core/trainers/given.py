"""The network that a run was given, as it can be known again: a checkpoint belongs to no other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from advprune_core.base.settings import ConfigError
from advprune_core.base.sources import is_installed, source_hash

#: Where an object lies in memory, in what it says of itself.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class Given:
    """A network as a run was given it.

    Its weights are no part of this: where nobody sets a seed, a script that was killed and runs again has others, and
    those of the checkpoint take their place. Of buffers and plain attributes those are that training leaves alone.

    Attributes
    ----------
    structure : str
        Hash of its modules, of the source of one's own among them, and of names, types and shapes of its weights.
    facts : mapping of str to str
        Each of its buffers, hashed, and plain attributes, by name.
    """

    structure: str
    facts: Mapping[str, str]

    @classmethod
    def of(cls, model: nn.Module) -> Given:
        """As it is now."""
        told = [_ADDRESS.sub("", repr(model)), *_own_sources(model)]
        told += [
            f"{name} {x.dtype} {tuple(x.shape)}" for name, x in [*model.named_parameters(), *model.named_buffers()]
        ]
        return cls(hashlib.sha256("\n".join(told).encode()).hexdigest()[:16], dict(_facts(model)))

    def kept(self, model: nn.Module) -> dict[str, Any]:
        """What a checkpoint has of it: the structure, and the facts that are still so."""
        now = dict(_facts(model))
        return {"structure": self.structure, "facts": {k: v for k, v in self.facts.items() if now.get(k) == v}}

    def fits(self, kept: Mapping[str, Any] | None) -> bool:
        """Whether a checkpoint that has kept this is of this network; one of an earlier version has kept nothing."""
        if kept is None:
            return True
        alike = all(self.facts.get(name) == value for name, value in kept["facts"].items())
        return bool(kept["structure"] == self.structure) and alike


def _facts(model: nn.Module) -> Iterator[tuple[str, str]]:
    for name, value in model.named_buffers():
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        yield name, hashlib.sha256(flat.numpy().tobytes()).hexdigest()[:16]
    for place, module in model.named_modules():
        for name, attribute in vars(module).items():
            if isinstance(attribute, bool | int | float | str) and name != "training":
                yield f"{place}.{name}", repr(attribute)


def _own_sources(model: nn.Module) -> Iterator[str]:
    """Of the classes of its modules that are somebody's own, where they can be read."""
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        yield kind.__qualname__
        if not is_installed(kind.__module__):
            with suppress(ConfigError):
                yield source_hash(kind)
