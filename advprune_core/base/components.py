"""Named, swappable parts of a run, and the registries that find them.

A part that can be swapped by name (a pruner, an attack, a model, ...) is a `Component`, and each family of components
has a `Registry` that finds its members by importing every module of its package: a new file is all that a new method
needs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BeforeValidator, PlainSerializer

from advprune_core.base.settings import ConfigError, Settings, check_names
from advprune_core.base.sources import source_hash
from advprune_core.base.values import shown


class Component(Settings):
    """A named, swappable part of a run: frozen settings plus what they do.

    The first line of the docstring is what `advprune list` prints. `version` is raised when the
    meaning of the same settings changes, so that old results are not taken for new ones. Class
    variables are given without an annotation, as in ``name = "random"``.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    #: Whether a registry knows the class by its name.
    registered: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a class variable of another type than the one that it takes the place of.

        Raises
        ------
        ConfigError
            With both types.
        """
        super().__pydantic_init_subclass__(**kwargs)
        for variable in cls.__class_vars__ & vars(cls).keys():
            own, base = vars(cls)[variable], getattr(super(cls, cls), variable, None)
            if isinstance(base, str | bool | int) and not isinstance(own, property) and type(own) is not type(base):
                wanted, found = type(base).__name__, type(own).__name__
                raise ConfigError(f"{cls.__qualname__}.{variable} = {shown(own)} must be of type {wanted}, not {found}")

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    def spec(self) -> str | dict[str, Any]:
        """The shortest specification of this component: its name, or ``{name: settings}``.

        A class of your own that is not registered is ``"module:Class"``, so that it can be found.
        """
        settings, cls = self.model_dump(mode="json", exclude_defaults=True), type(self)
        known = self.registered or cls.__module__ == "__main__"
        name = self.name if known else f"{cls.__module__}:{cls.__qualname__}"
        return {name: settings} if settings else name

    def raised(self) -> bool:
        """Whether its meaning, or that of a component among its settings, has changed since its first version."""
        return self.version != 1 or super().raised()

    def canonical(self) -> dict[str, Any]:
        """What a key is hashed from: name, settings, version, and the source if it is not ours."""
        identity: dict[str, Any] = {"name": self.name}
        if settings := super().canonical():
            identity["settings"] = settings
        if self.version != 1:
            identity["version"] = self.version
        if not type(self).__module__.startswith("advprune_core."):
            identity["source"] = source_hash(type(self))
        return identity


def import_object(path: str) -> Any:
    """Import ``"module:attribute"``: code of your own, which runs when it is imported.

    Raises
    ------
    ConfigError
        What cannot be imported; a module of Python itself, which has no part of a run in it.
    """
    module, _, attribute = path.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"cannot import {path!r}: {module} is a part of Python; name code of your own")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        reason = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"cannot import {path!r}: {reason}") from None


C = TypeVar("C", bound=Component)


class Registry(Generic[C]):
    """The components of one family, by name, found in the modules of one package."""

    def __init__(self, noun: str, package: str) -> None:
        self.noun = noun
        self._package = package
        self._classes: dict[str, type[C]] = {}
        self._loaded = False
        self._family: type[Component] = Component

    def family(self, cls: type[C]) -> type[C]:
        """Class decorator: `cls` is the base class of this family."""
        self._family = cls
        return cls

    @property
    def _one(self) -> str:
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    def register(self, cls: type[C]) -> type[C]:
        """Class decorator: make `cls` available under ``cls.name``.

        Defining a class again, as a notebook cell does, replaces it; another class may not take its name.
        """
        if not cls.name or ":" in cls.name:
            raise ConfigError(f"{cls.__qualname__} needs a name without a colon to be registered: name = 'its_name'")
        known = self._classes.get(cls.name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(f"the {self.noun} {cls.name!r} exists: {known.__module__}:{known.__qualname__}")
        self._classes[cls.name] = cls
        cls.registered = True
        return cls

    def classes(self) -> dict[str, type[C]]:
        """Every registered class, by name, in alphabetical order."""
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
                importlib.import_module(f"{self._package}.{module.name}")
        return dict(sorted(self._classes.items()))

    def parse(self, spec: Any) -> Any:
        """Turn a specification into a component.

        Parameters
        ----------
        spec : Component, str or mapping
            A component, its name, ``{name: settings}``, or ``"module:Class"`` for one of your own.
        """
        if isinstance(spec, Component):
            if not isinstance(spec, self._family):
                raise ConfigError(f"{shown(spec)} is not {self._one}")
            return spec
        if inspect.isclass(spec) and issubclass(spec, self._family):
            own = spec.__qualname__
            raise ConfigError(f"{own} is a class, where {self._one} is an object of one: {own}(...), or its name")
        name: Any = spec
        settings: Any = {}
        if isinstance(spec, Mapping) and len(spec) == 1:
            name, settings = next(iter(spec.items()))
        if not isinstance(name, str) or not isinstance(settings, Mapping | None):
            own = f"; one of your own is an object of a subclass of {self._family.__name__}" if callable(spec) else ""
            raise ConfigError(f"{self._one} is a name or {{name: {{setting: value}}}}, not {shown(spec)}{own}")
        settings = dict(settings or {})
        if any(not isinstance(key, str) for key in settings):
            raise ConfigError(f"{self.noun} {name}: settings have names, not {list(settings)}")
        if ":" in name:
            cls = import_object(name)
            if not (inspect.isclass(cls) and issubclass(cls, self._family)):
                raise ConfigError(f"{name!r} is not the class of {self._one}")
        else:
            check_names([name], self.classes(), what=self.noun)
            cls = self._classes[name]
        try:
            return cls.create(**settings)
        except ConfigError as error:
            raise ConfigError(f"{self.noun} {name}: {error}") from None


def component_field(registry: Registry[Any]) -> Any:
    """Annotations that let a pydantic field take a component of `registry` by name or spec."""
    return (
        BeforeValidator(registry.parse),
        PlainSerializer(lambda component: component.spec()),
    )
