"""Functions of other people that a setting may name: what they must be before they are called."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from advprune_core.base.components import import_object
from advprune_core.base.settings import ConfigError
from advprune_core.base.sources import is_installed


def network_factory(path: str) -> Callable[..., Any]:
    """The class or function ``"module:factory"``, if calling it can only be meant to make a network.

    A profile may come from elsewhere, and what it names is called: it must not be able to name
    ``os:system`` or ``torch:load``.

    Raises
    ------
    ConfigError
        Anything but a class of networks, a function of your own, or a function of an installed
        package whose annotation says that it returns a network.
    """
    thing = import_object(path)
    allowed = f"{path!r} is not what makes a network: name a subclass of nn.Module, or a function of your own"
    if inspect.isclass(thing):
        if issubclass(thing, nn.Module):
            return thing
        raise ConfigError(f"{allowed}; it is another class")
    if not inspect.isfunction(thing):
        raise ConfigError(f"{allowed}; it is a {type(thing).__name__}")
    home = thing.__module__ or ""
    if home.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"{allowed}; it is a function of {home}, a part of Python")
    if is_installed(home) and not _returns_network(thing):
        raise ConfigError(f"{allowed}; it is a function of {home}, and does not say '-> nn.Module'")
    return thing


def _returns_network(function: Callable[..., Any]) -> bool:
    try:
        returned = inspect.signature(function, eval_str=True).return_annotation
    except (NameError, TypeError):  # an annotation that only type checkers can read
        return False
    return inspect.isclass(returned) and issubclass(returned, nn.Module)
