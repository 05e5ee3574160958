"""Options that several commands have, those made from a run's settings, and the values people type for them."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from advprune_core.base.components import Component
from advprune_core.base.settings import ConfigError
from advprune_core.base.values import shown
from advprune_core.base.yaml_files import parse_yaml

Out = Annotated[str | None, typer.Option("--out", help="Results folder [default: $ADVPRUNE_RESULTS or ./results]")]
Data = Annotated[str | None, typer.Option("--data", help="Folder of downloads [default: $ADVPRUNE_DATA]")]
Retrain = Annotated[
    bool,
    typer.Option("--retrain", help="Train runs again whose weights are not here, where a test needs them"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the grid and the estimated cost, and stop.")]


class RunCommand(TyperCommand):
    """A command with the options of a run, which are looked up when it is asked for; ``ctx.obj`` has what was typed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The run's options, then the command's own."""
        return [*run_options(), *super().get_params(ctx)]

    def invoke(self, ctx: Any) -> Any:
        """Keep the run's options from the command's arguments."""
        ctx.obj = {option.name: ctx.params.pop(option.name) for option in run_options()}
        return super().invoke(ctx)


@cache
def run_options() -> list[Any]:
    """One option for each field of `RunConfig`, described by the field, and its preset."""
    from advprune_core.trainers.config import RunConfig, flat_fields

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
        told = f"{text} [default: {default}]" if default is not None else text
        option = typer.Option(f"--{name.replace('_', '-')}", help=told, show_default=False)
        annotation = Annotated[str | None, option]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def holder(**typed: str | None) -> None: ...

    holder.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(holder)
    return typer.main.get_command(app).params


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


def put_over(parameters: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A profile's parameters with what was given over them; of ``settings.precision`` the other settings stay."""
    merged = dict(parameters)
    for name, value in given.items():
        group, dot, setting = name.partition(".")
        settings = merged.get(group, {})
        if group == "settings" and dot and isinstance(settings, dict):
            merged[group] = {**settings, setting: value}
        else:
            merged[name] = value
    return merged


def shard_of(text: str | None) -> tuple[int, int] | None:
    """``"1/4"`` to ``(1, 4)``."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None:
        raise ConfigError(f"--shard must be i/n, such as 1/4, not {shown(text)}")
    return int(found[1]), int(found[2])
