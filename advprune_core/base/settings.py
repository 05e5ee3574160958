"""Frozen settings, and the errors people meet when one is wrong.

Everything that can be configured is a `Settings` object: immutable, typed, validated.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from advprune_core.base.values import as_meant, ratio, shown


class AdvpruneError(ValueError):
    """What the package refuses, in one sentence that says what is allowed: the base of all its errors."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the sentence, without the frames that it went through."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(AdvpruneError):
    """A setting, name or value that cannot be run; the message says what is allowed."""


def near_miss(name: str, allowed: Iterable[str], *, inner: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return ``"(did you mean 'x'?) allowed: a, b, x"`` for an unknown `name`.

    `inner` are names that would be known elsewhere, each with its path.
    """
    known = sorted(allowed)
    close = difflib.get_close_matches(name, [*known, *inner], n=1, cutoff=0.6)
    hint = f" (did you mean {inner.get(close[0], close[0])!r}?)" if close else ""
    apart = "; " if any("," in name for name in known) else ", "
    return f"{hint}; allowed: {apart.join(known)}" if known else "; there is none"


def check_names(
    names: Iterable[str], allowed: Iterable[str], *, what: str, inner: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Raise `ConfigError` naming the first of `names` that is not `allowed`; `inner` as for `near_miss`."""
    known = list(allowed)
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown {what} {name!r}{near_miss(name, known, inner=inner)}")


#: A length in pixel units of [0, 1]: a number, or a ratio in a string such as "8/255".
Pixels = Annotated[float, BeforeValidator(ratio)]
#: What random numbers are keyed by; below 2^32, as for numpy.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _ClassOfModels
else:
    _ClassOfModels = type(BaseModel)  # public, and the same


class _Explained(_ClassOfModels):
    """Classes whose constructor says in a sentence what is wrong; inside other settings pydantic asks them itself."""

    def __call__(cls, /, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise ConfigError(explain(error, cast(type[BaseModel], cls))) from None


class Settings(BaseModel, metaclass=_Explained):
    """A frozen group of settings; unknown names are refused with the near miss named.

    Values have the type of their field: neither true nor 1.0 nor "1" is a whole number.

    Raises
    ------
    ConfigError
        An unknown name, a value that is not allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        return as_meant(value, cls.model_fields[str(info.field_name)])

    @classmethod
    def create(cls, /, **values: Any) -> Self:
        """The constructor, for values as people and files give them ("8/255", a list), which its types don't allow."""
        return cls(**values)

    @classmethod
    def known(cls, name: str, *, also: Sequence[str] = ()) -> str:
        """What is said of an unknown setting `name`: the near miss, and what is allowed, some names `also`."""
        return near_miss(name, [*cls.model_fields, *also], inner=_inner(cls))

    def replace(self, /, **values: Any) -> Self:
        """Return a copy with some values changed, validated again."""
        current = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).create(**{**current, **values})

    def canonical(self) -> dict[str, Any]:
        """Values that differ from their defaults, as JSON data: what a key is hashed from.

        Leaving defaults out lets a new field keep old keys; a default that is a component of a
        raised `version` is not left out, because its old results no longer hold.
        """
        values = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            raised = isinstance(value, Settings) and value.raised()
            if raised or value != field.get_default(call_default_factory=True):
                values[name] = value.canonical() if isinstance(value, Settings) else value
        return values

    def raised(self) -> bool:
        """Whether a component of a raised version is among them."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return any(isinstance(value, Settings) and value.raised() for value in values)

    def with_paths(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with settings at dotted paths changed, all at once: ``{"steps.count": 3}``.

        At once, because two changes may be valid only together.
        """
        values = {path: value for path, value in changes.items() if "." not in path}
        groups: dict[str, dict[str, Any]] = {}
        for path, value in changes.items():
            if "." in path:
                name, _, rest = path.partition(".")
                groups.setdefault(name, {})[rest] = value
        for name, inner in groups.items():
            check_names([name], type(self).model_fields, what="group")
            group = self._parsed(name, values[name]) if name in values else getattr(self, name)
            if not isinstance(group, Settings):
                raise ConfigError(f"{name!r} is one value, it has no setting {next(iter(inner))!r}")
            try:
                values[name] = group.with_paths(inner)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
        return self.replace(**values)

    def _parsed(self, name: str, value: Any) -> Any:
        """A setting by its own field alone, because what it is valid with may be among other changes."""
        field = type(self).model_fields[name]
        try:
            kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            return TypeAdapter(kind).validate_python(as_meant(value, field))
        except ValidationError:
            return getattr(self.replace(**{name: value}), name)  # which says what is wrong


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn a pydantic error into lines that name the setting, the value and what is allowed."""
    lines = []
    items = error.errors()
    for item in items:
        # An item that was refused also leaves its list short, which explains nothing.
        if item["type"] == "too_short" and any(other["loc"][:-1] == item["loc"] for other in items):
            continue
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            owner: type[BaseModel] = model
            for part in item["loc"][:-1]:
                field = owner.model_fields.get(str(part))
                if field is not None and inspect.isclass(field.annotation):
                    owner = cast(type[BaseModel], field.annotation)
            leaf = name.split(".")[-1]
            hint = owner.known(leaf) if issubclass(owner, Settings) else near_miss(leaf, owner.model_fields)
            lines.append(f"unknown setting {name!r}{hint}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "tuple_type":
                message = f"a list is meant, as [{_bare(item['input'])}]"
            lines.append(f"{name} = {shown(item['input'])}: {message}" if name else message)
    return "\n".join(lines)


def _bare(value: Any) -> str:
    """A value as an item of a list: a number that came as text is meant as a number."""
    number = isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit()
    return value.strip() if number else shown(value)


def _inner(owner: type[BaseModel]) -> dict[str, str]:
    """The settings of the groups of settings that `owner` has, each with its path."""
    groups = {name: field.annotation for name, field in owner.model_fields.items()}
    return {
        leaf: f"{name}.{leaf}"
        for name, group in groups.items()
        if inspect.isclass(group) and issubclass(group, Settings)
        for leaf in group.model_fields
    }
