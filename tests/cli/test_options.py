"""Options made from the settings, and values as people type them."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from advprune_core.base.components import Component
from advprune_core.base.settings import ConfigError, Settings
from advprune_core.cli.options import RunCommand, assignments, put_over, shard_of, value_of
from advprune_core.trainers.config import RunConfig


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("8/255", "8/255"),
        ("random", "random"),
        ("module:factory", "module:factory"),
        ("true", True),
        ("null", None),
        ("[1, 0.5]", [1, 0.5]),
        ("{random: {balanced: true}}", {"random": {"balanced": True}}),
        ("{'digits': {limit: 300}}", {"digits": {"limit": 300}}),
        ("", None),
    ],
)
def test_values_are_read_as_yaml(text: str, value: Any) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


@pytest.mark.parametrize("text", ["{a: ", "[1, 2", "'open", "!!python/object/apply:os.getcwd []"])
def test_what_yaml_cannot_read_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"the value .* cannot be read: line 1: ") as error:
        value_of(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("texts", "pairs"),
    [
        ([], {}),
        (["a=1", "b=[2]"], {"a": 1, "b": [2]}),
        (["a=1", "a=2"], {"a": 2}),
        ([" optimisation.ema = 0.9"], {"optimisation.ema": 0.9}),
        (["path=a=b"], {"path": "a=b"}),
    ],
)
def test_assignments(texts: list[str], pairs: dict[str, Any]) -> None:
    assert assignments(texts) == pairs


@pytest.mark.parametrize(
    ("profile", "given", "merged"),
    [
        ({}, {"epochs": 3}, {"epochs": 3}),
        ({"epochs": 9, "lr": 1}, {"epochs": 3}, {"epochs": 3, "lr": 1}),
        ({}, {"settings.precision": "bfloat16"}, {"settings": {"precision": "bfloat16"}}),
        (
            {"settings": {"optimisation.flip": True, "optimisation.ema": 0.9}},
            {"settings.optimisation.ema": 0.99},
            {"settings": {"optimisation.flip": True, "optimisation.ema": 0.99}},
        ),
        ({"settings": {"precision": "float32"}}, {"settings": {}}, {"settings": {}}),
        ({"settings": 3}, {"settings.precision": "float32"}, {"settings": 3, "settings.precision": "float32"}),
        ({}, {"seeds.first": 1}, {"seeds.first": 1}),
    ],
)
def test_one_setting_is_put_over_those_of_a_profile(
    profile: dict[str, Any], given: dict[str, Any], merged: dict[str, Any]
) -> None:
    before = repr(profile)
    assert put_over(profile, given) == merged
    assert repr(profile) == before


@pytest.mark.parametrize("text", ["a", "", "a:1"])
def test_what_is_no_assignment_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="must be NAME=VALUE"):
        assignments(["b=1", text])


@pytest.mark.parametrize(("text", "shard"), [(None, None), ("1/4", (1, 4)), ("4/4", (4, 4)), ("1/1", (1, 1))])
def test_shards(text: str | None, shard: Any) -> None:
    assert shard_of(text) == shard


@pytest.mark.parametrize("text", ["", "1", "1/2/3", "a/b", "1.5/2", "one/two"])
def test_wrong_shards_say_what_is_right(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard must be i/n, such as 1/4"):
        shard_of(text)


def leaves(model: type[Settings]) -> list[str]:
    """Names of all settings, those of plain groups in place of the group."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        group = isinstance(default, Settings) and not isinstance(default, Component)
        found += leaves(type(default)) if group else [name]
    return found


SEEN: dict[str, Any] = {}


def make() -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command(cls=RunCommand)
    def command(ctx: typer.Context, *, extra: int = 3) -> None:
        SEEN.update({"extra": extra, **ctx.obj})

    return app


def options_of(app: typer.Typer) -> dict[str, Any]:
    """Name of each option to what the command-line parser knows of it."""
    command: Any = typer.main.get_command(app)
    return {option.name: option for option in command.get_params(command.make_context("command", []))}


def test_every_setting_of_a_run_is_an_option() -> None:
    options = options_of(make())
    assert set(options) == {*leaves(RunConfig), "trainer", "extra", "help"}
    for name in (*leaves(RunConfig), "trainer"):
        assert options[name].opts == [f"--{name.replace('_', '-')}"]
        assert len(options[name].help) > 5, f"{name} has no help"


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ([], {"extra": 3}),
        (["--extra", "4", "--seed", "5"], {"extra": 4, "seed": "5"}),
        (["--batch-size", "16", "--eps=8/255"], {"extra": 3, "batch_size": "16", "eps": "8/255"}),
        (["--trainer", "standard"], {"extra": 3, "trainer": "standard"}),
    ],
)
def test_only_what_was_typed_is_given(arguments: list[str], seen: dict[str, Any]) -> None:
    SEEN.clear()
    assert CliRunner().invoke(make(), arguments).exit_code == 0
    assert {name: value for name, value in SEEN.items() if value is not None} == seen
    assert set(SEEN) == {*leaves(RunConfig), "trainer", "extra"}


@pytest.mark.parametrize(
    ("name", "default"),
    [("dataset", "digits"), ("epochs", "30.0"), ("schedule", "one_cycle"), ("seed", "0"), ("flip", "False")],
)
def test_help_shows_the_default(name: str, default: str) -> None:
    assert f"[default: {default}]" in options_of(make())[name].help
