"""Another value for every setting of every component, found by its type and bounds.

`test_components` proves that a change is seen in what the component does, `test_config_keys` that it
changes a run's key. A new component needs nothing here, unless the tests say that a field of it does.
"""

from __future__ import annotations

import operator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from advprune_core.attacks import ATTACKS
from advprune_core.base.components import Component, Registry
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import DATASETS
from advprune_core.models.base import MODELS
from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective
from advprune_core.objectives.starts import STARTS, Start
from advprune_core.objectives.steps import STEPS
from advprune_core.pruners import PRUNERS
from advprune_core.pruners.keep_rules import KEEP_RULES
from advprune_core.trainers.schedules import SCHEDULES

#: Families whose settings change what a run or an evaluation computes.
FAMILIES: dict[str, Registry[Any]] = {
    "pruner": PRUNERS,
    "keep_rule": KEEP_RULES,
    "attack": ATTACKS,
    "objective": OBJECTIVES,
    "start": STARTS,
    "steps": STEPS,
    "schedule": SCHEDULES,
    "model": MODELS,
}
#: These as well are components, but what they do needs files, or is data alone.
ALL_FAMILIES = FAMILIES | {"dataset": DATASETS, "trainer": TRAINERS}

#: Other values of ``family/name/field``, or of a field of a whole family, where those derived from its type
#: and bounds do not fit or show nothing.
LISTED: dict[str, list[Any]] = {
    "pruner/head": ["3"],
    "attack/autoattack/attacks": ["apgd", ["fgsm", {"pgd": {"steps": 3}}]],
    "objective/sora/slack": [0.001],
    "schedule/piecewise/at": [(0.25, 0.75)],
    "schedule/piecewise/factors": [(0.5, 0.01), (0.1, 0.0)],
}

#: What else a component must be set to for ``family/name/field`` to be of any effect.
BESIDE: dict[str, dict[str, Any]] = {"pruner/score/head": {"score": "grand"}}

#: Settings without a default, for those components that have one.
REQUIRED: dict[str, dict[str, Any]] = {"dataset/npz": {"path": "a.npz"}, "dataset/folder": {"path": "a"}}

#: Another value for every field of a run that a flat name can set.
RUN_OPTIONS: dict[str, Any] = {
    "dataset": {"digits": {"limit": 500}},
    "model": {"small_cnn": {"width": 4}},
    "init": {"path": "weights.pt", "sha256": 64 * "a", "fresh": ["fc"]},
    "objective": "standard",
    "norm": "l2",
    "eps": "1/16",
    "start": "clean",
    "steps": 3,
    "attack_mode": "train",
    "pruner": "redraw",
    "fraction": 0.5,
    "epochs": 2.5,
    "plain_epochs": 1,
    "warm_start": 0.9,
    "equal_cost": True,
    "cost_budget": 50_000,
    "batch_size": 32,
    "lr": 0.05,
    "momentum": 0.5,
    "weight_decay": 0,
    "schedule": "cosine",
    "schedule_span": "full_run",
    "ema": 0.99,
    "awp": 0.01,
    "crop_padding": 1,
    "flip": True,
    "min_per_class": 3,
    "best_every": 1,
    "collapse_drop": 0.3,
    "on_collapse": "stop",
    "seed": 1,
    "device": "cuda",
    "threads": 2,
    "precision": "bfloat16",
    "speed": "compiled",
}


def components(families: dict[str, Registry[Any]]) -> list[tuple[str, str]]:
    """(family, name) of every component of the package, tests' own ones aside."""
    return [
        (family, name)
        for family, registry in families.items()
        for name, cls in registry.classes().items()
        if cls.__module__.startswith("advprune_core.")
    ]


def component(family: str, name: str, **settings: Any) -> Component:
    """A component with settings, and what it requires."""
    return ALL_FAMILIES[family].classes()[name].create(**{**REQUIRED.get(f"{family}/{name}", {}), **settings})


def companions(part: Component) -> dict[str, Any]:
    """What else a run needs so that a component fits into it."""
    if isinstance(part, Objective) and part.single_step:
        return {"attack": {"steps": 1, **({"start": "clean"} if part.own_start else {})}}
    if isinstance(part, Start) and part.needs_gradient:
        return {"objective": "fgsm_pgi", "attack": {"steps": 1}}
    return {}


#: What a bound of a field says of its values.
BOUNDS = {"ge": operator.ge, "gt": operator.gt, "lt": operator.lt, "le": operator.le}


def derived(info: FieldInfo) -> list[list[Any]]:
    """Other values of a field, by its type and bounds: any of a list may be taken for one change."""
    kinds = get_args(info.annotation) if get_origin(info.annotation) in (Union, UnionType) else (info.annotation,)
    registry = next((found for item in info.metadata if (found := registry_of(item)) is not None), None)
    if registry is not None:
        return [[name] for name, cls in registry.classes().items() if cls.__module__.startswith("advprune_core.")]
    groups: list[list[Any]] = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            groups += [[value] for value in get_args(kind)]
        elif kind is bool:
            groups += [[False], [True]]
        elif (number := get_args(kind)[0] if get_origin(kind) is Annotated else kind) in (int, float):
            groups.append(numbers(number, info))
    return groups


def registry_of(item: Any) -> Registry[Any] | None:
    """The registry that a field's validator parses by."""
    owner = getattr(getattr(item, "func", None), "__self__", None)
    return owner if isinstance(owner, Registry) else None


def numbers(kind: type, info: FieldInfo) -> list[Any]:
    """Numbers within a field's bounds: the least, and some beside the default."""
    bounds = [(name, getattr(item, name)) for item in info.metadata for name in BOUNDS if hasattr(item, name)]
    least = [end for name, end in bounds if name == "ge"]
    default = info.default if isinstance(info.default, int | float) else 0
    beside = [default + 1, default + 2, 2 * default, default // 2, 10]
    if kind is float:
        beside = [0.01, default / 2, 2 * default, 0.5, default + 1]
    found = dict.fromkeys(kind(value) for value in (*least, *beside))
    return [value for value in found if all(BOUNDS[name](value, end) for name, end in bounds)]


def changes(families: dict[str, Registry[Any]]) -> list[tuple[str, str, str, list[Any]]]:
    """(family, name, field, values): one change of a field, for which any of the values may be taken.

    Values that the component refuses, or that are its own, are left out. A field of which nothing is left
    has one row without values: see `demand`.
    """
    rows = []
    for family, name in components(families):
        for field, info in ALL_FAMILIES[family].classes()[name].model_fields.items():
            listed = LISTED.get(f"{family}/{name}/{field}", LISTED.get(f"{family}/{field}"))
            groups = derived(info) if listed is None else [[value] for value in listed]
            able = [[value for value in group if _differs(family, name, field, value)] for group in groups]
            rows += [(family, name, field, group) for group in [g for g in able if g] or [[]]]
    return rows


def beside(family: str, name: str, field: str, **changed: Any) -> Component:
    """The component that a field has an effect on, with what is `changed` of it."""
    return component(family, name, **BESIDE.get(f"{family}/{name}/{field}", {}) | changed)


def _differs(family: str, name: str, field: str, value: Any) -> bool:
    try:
        return beside(family, name, field, **{field: value}) != beside(family, name, field)
    except ConfigError:
        return False


def demand(family: str, name: str, field: str, values: list[Any]) -> None:
    """Fail with the place to edit if there is no other value for a field."""
    assert values, f"add other values of '{family}/{name}/{field}' to LISTED in tests/alternatives.py"
