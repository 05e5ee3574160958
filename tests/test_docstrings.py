"""Every public method is documented, where it is defined or where it is overridden from."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import FunctionType

import pytest

import advprune_core

MODULES = [module.name for module in pkgutil.walk_packages(advprune_core.__path__, "advprune_core.")]


def undocumented(cls: type) -> list[str]:
    """Public methods and properties that a class defines, and no class of its line explains."""
    return [
        name
        for name, value in vars(cls).items()
        if isinstance(value, FunctionType | property | classmethod | staticmethod)
        and not name.startswith("_")
        and not any(getattr(vars(base).get(name), "__doc__", None) for base in cls.__mro__)
    ]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_method_has_or_inherits_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == name]
    public = {cls.__name__: undocumented(cls) for cls in classes if not cls.__name__.startswith("_")}
    assert {name: found for name, found in public.items() if found} == {}


def test_what_is_undocumented_is_found() -> None:
    class Base:
        def told(self) -> None:
            """Something."""

    class Derived(Base):
        def told(self) -> None:
            pass

        def untold(self) -> None:
            pass

    assert (undocumented(Base), undocumented(Derived)) == ([], ["untold"])
