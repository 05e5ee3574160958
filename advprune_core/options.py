"""Command-line options made from settings, and the values people type for them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from advprune_core.base.settings import Component, ConfigError
from advprune_core.base.values import shown
from advprune_core.base.yaml_files import parse_yaml
from advprune_core.trainers.config import RunConfig, flat_fields


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of `RunConfig`, described by the field."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    given = [parameter for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = []
    for name, path in {**flat_fields(), "trainer": "trainer"}.items():
        if name == "trainer":
            text, default = "preset of objective and training attack", None
        else:
            owner: Any = RunConfig
            for part in path.split(".")[:-1]:
                owner = owner.model_fields[part].annotation
            setting = owner.model_fields[path.split(".")[-1]]
            value = setting.get_default()
            default = value.spec() if isinstance(value, Component) else value
            text = setting.description or ""
        shown = f"{text} [default: {default}]" if default is not None else text
        option = typer.Option(f"--{name.replace('_', '-')}", help=shown, show_default=False)
        annotation = Annotated[str | None, option]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters + given)  # type: ignore[attr-defined]
    return command


def value_of(text: str) -> Any:
    """A value as YAML 1.2 reads it: numbers, lists, {name: {setting: value}}, plain words."""
    return parse_yaml(text, what=f"the value {shown(text)}")


def assignments(texts: list[str]) -> dict[str, Any]:
    """``["a=1", "b=[2]"]`` to ``{"a": 1, "b": [2]}``."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{shown(text)} must be NAME=VALUE")
        pairs[name.strip()] = value_of(value)
    return pairs


def shard_of(text: str | None) -> tuple[int, int] | None:
    """``"1/4"`` to ``(1, 4)``."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None:
        raise ConfigError(f"--shard must be i/n, such as 1/4, not {shown(text)}")
    return int(found[1]), int(found[2])
