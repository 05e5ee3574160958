"""Values as people give them: which stand for a number, and which are refused with a sentence."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any, get_args

import numpy as np
import pytest
from annotated_types import BaseMetadata, Ge, Gt, Le, Lt
from pydantic import Field
from pydantic.fields import FieldInfo

import advprune_core
from advprune_core.base.keys import content_key
from advprune_core.base.settings import ConfigError, Pixels, Seed, Settings
from advprune_core.base.values import as_ratio, ratio, shown, some
from advprune_core.trainers.config import RunConfig
from tests.reference import committed_records


class Sample(Settings):
    seed: Seed = 0
    lr: Annotated[float, Field(gt=0, le=100)] = 0.1
    eps: Annotated[Pixels | None, Field(gt=0)] = None
    steps: Annotated[int | None, Field(ge=0)] = 0
    flip: bool = False
    folder: str | None = None
    seeds: tuple[Seed, ...] = ()
    any: Any = None
    word: str = "word"


ACCEPTED: list[tuple[str, Any, Any]] = [
    ("seed", 7, 7),
    ("seed", np.int64(7), 7),
    ("seed", np.uint8(7), 7),
    ("seed", 2**32 - 1, 2**32 - 1),
    ("lr", 1, 1.0),
    ("lr", np.float32(0.5), 0.5),
    ("lr", np.int64(2), 2.0),
    ("eps", "8/255", 8 / 255),
    ("eps", "5.5/16", 5.5 / 16),
    ("eps", "1e-3", 1e-3),
    ("eps", "none", None),
    ("eps", "None", None),
    ("eps", None, None),
    ("steps", "none", None),
    ("folder", "none", None),
    ("any", "none", None),
    ("word", "none", "none"),
    ("seeds", [0, 1], (0, 1)),
    ("seeds", range(2), (0, 1)),
    ("seeds", np.arange(2), (0, 1)),
    ("seeds", list(np.arange(2)), (0, 1)),
    ("flip", np.bool_(True), True),
]


@pytest.mark.parametrize(("field", "value", "meant"), ACCEPTED)
def test_what_stands_for_a_value(field: str, value: Any, meant: Any) -> None:
    found = getattr(Sample.create(**{field: value}), field)
    assert found == meant
    assert type(found) is type(meant)


REFUSED: list[tuple[str, Any]] = [
    *(("seed", value) for value in (True, 1.0, "1", "1_0", "１", " 1", 10**30, -1, 2**32, None, [], "none", 10**5000)),
    *(("seed", value) for value in (float("nan"), np.float64(1), np.bool_(True), np.array([1]))),
    *(("lr", value) for value in (True, "0.1", "1_0", float("inf"), float("nan"), 1e400, 10**400, 1e30, 0, "12:30")),
    *(("eps", value) for value in (True, "８/255", "8/0", "1_0/255", "12:30", "", " ", "/", "1e999", "inf", "8/2/2")),
    *(("eps", value) for value in ("9" * 10_000, "1/" + "9" * 10_000, "1e99999999/3")),
    *(("flip", value) for value in (0, 1, "yes", "true", "on", None, 1.0)),
    *(("seeds", value) for value in ([True], [1.0], ["1"], "01", 5, {0: 1}, [[0]], [2**32])),
]


@pytest.mark.parametrize(("field", "value"), REFUSED, ids=[f"{f}-{shown(v, 12)}" for f, v in REFUSED])
def test_what_is_no_value_is_refused_with_its_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{field}.* = .*: .{{10}}") as error:
        Sample.create(**{field: value})
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("above", ["0", "1", "-3", "+4.5", ".25", "8."])
@pytest.mark.parametrize("below", ["1", "255", "0.5", "-2"])
def test_ratios_are_exact_until_the_last_rounding(above: str, below: str) -> None:
    assert ratio(f"{above}/{below}") == ratio(f"{above} / {below}") == float(Fraction(above) / Fraction(below))


def test_names_that_python_has_a_use_for_are_settings_like_others() -> None:
    for name in ("cls", "self", "values", "model_config", "__init__"):
        with pytest.raises(ConfigError, match=f"unknown setting '{name}'"):
            Sample.create(**{name: 1})
        with pytest.raises(ConfigError, match=f"unknown setting '{name}'"):
            Sample().replace(**{name: 1})
        with pytest.raises(ConfigError, match=f"unknown parameter '{name}'"):
            RunConfig.flat(**{name: 1})


def settings_classes(base: type[Settings] = Settings) -> Iterator[type[Settings]]:
    """Every group of settings of the package."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("advprune_core."):
            yield cls
            yield from settings_classes(cls)


def numbers(annotation: Any, metadata: list[Any]) -> Iterator[list[Any]]:
    """What is said of each number inside an annotation."""
    if hasattr(annotation, "__metadata__"):
        yield from numbers(get_args(annotation)[0], [*metadata, *annotation.__metadata__])
    elif annotation in (int, float):
        yield metadata
    else:
        for inner in get_args(annotation):
            yield from numbers(inner, metadata)


def bounds(metadata: list[Any]) -> Iterator[BaseMetadata]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from bounds(item.metadata)
        elif isinstance(item, BaseMetadata):
            yield item


def test_every_number_has_bounds() -> None:
    for module in pkgutil.walk_packages(advprune_core.__path__, "advprune_core."):
        importlib.import_module(module.name)
    seen = set()
    for cls in settings_classes():
        for name, field in cls.model_fields.items():
            for metadata in numbers(field.annotation, field.metadata):
                kinds = {type(bound) for bound in bounds(metadata)}
                assert kinds & {Gt, Ge}, f"{cls.__name__}.{name} has no lower bound"
                assert kinds & {Lt, Le}, f"{cls.__name__}.{name} has no upper bound"
                seen.add(name)
    assert {"lr", "epochs", "seeds", "fractions", "eps", "step_size", "limit", "factors"} <= seen


def test_every_committed_record_can_be_read() -> None:
    """A bound, or the type of a number, that a finished run does not fit would lose it."""
    checked = 0
    records = committed_records()
    for record in records:
        config = RunConfig.create(**record.config)
        assert RunConfig.create(**json.loads(config.model_dump_json())) == config, record.key
        # Records of earlier versions of a part have keys of their own, which nothing today makes.
        checked += content_key(config.identity(record.dataset["train_hash"])) == record.key
    assert len(records) > 100
    assert checked, "no committed record is of today's code: make them again"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4 / 255, "4/255"),
        (float(np.float64(8 / 255)), "8/255"),
        (1.5 / 255, "1.5/255"),
        (128 / 255, "128/255"),
        (0.1, "0.1"),
        (1 / 16, "0.0625"),
        (0.5, "0.5"),
        (1.0, "1"),
        (1 / 7, repr(1 / 7)),
    ],
)
def test_a_radius_reads_as_it_was_given(value: float, text: str) -> None:
    assert as_ratio(value) == text
    assert ratio(text) == value


def test_a_long_list_is_cut() -> None:
    assert some(list(range(10))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert some(list(range(12))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert some("abc", 2) == "a, b and 1 more"
