"""Another value for every setting of every component, and what each component does with it.

`test_components` proves that a change is seen in what the component does, `test_config` that it
changes a run's key. A new component or field needs an entry here; the tests say which.
"""

from __future__ import annotations

from typing import Any

from advprune_core.attacks import ATTACKS
from advprune_core.base.settings import Component, Registry
from advprune_core.datasets.base import DATASETS
from advprune_core.models.base import MODELS
from advprune_core.objectives.base import OBJECTIVES, TRAINERS
from advprune_core.objectives.starts import STARTS
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

_SMOOTHING: dict[str, list[Any]] = {"label_smoothing": [0.1, 0.5]}
_RESCHEDULED: dict[str, list[Any]] = {"warmup_epochs": [2, 15], "every": [2, 3]}
_LOOKING: dict[str, list[Any]] = {**_RESCHEDULED, "score_epochs": [3]}
_SCORED: dict[str, list[Any]] = {**_LOOKING, "balanced": [True]}
_GRADIENT: dict[str, list[Any]] = {**_LOOKING, "steps": [7], "head": ["3"], "half_features": [True]}
_WEIGHTING: dict[str, list[Any]] = {**_GRADIENT, "weights": ["matched", "none"]}
_FEATURES: dict[str, list[Any]] = {**_LOOKING, "steps": [7, None], "head": ["3"]}
_KEEP: list[Any] = ["middle", {"stratified": {"hard_cutoff": 0.2}}]

#: Family/name to {field: [other values]}; each alone must change what the component does.
ALTERNATIVES: dict[str, dict[str, list[Any]]] = {
    "pruner/full": {},
    "pruner/random": {**_RESCHEDULED, "balanced": [True]},
    "pruner/oracle": dict(_RESCHEDULED),
    "pruner/redraw": {**_RESCHEDULED, "balanced": [True], "in_turn": [True]},
    "pruner/forgetting": {**_SCORED, "keep": ["lowest", *_KEEP]},
    "pruner/aum": {**_SCORED, "keep": ["highest", *_KEEP], "of": ["probabilities"]},
    "pruner/dynamic_uncertainty": {
        **_SCORED,
        "warmup_epochs": [15],
        "score_epochs": [12],
        "keep": ["lowest", *_KEEP],
        "window": [4],
    },
    "pruner/tdds": {
        **_SCORED,
        "warmup_epochs": [15],
        "score_epochs": [12],
        "keep": ["lowest", *_KEEP],
        "window": [4],
        "decay": [0.2],
    },
    "pruner/loss_top": {},
    "pruner/infobatch": {"full_at_end": [0.95, 0.0], "max_ratio": [0.2]},
    "pruner/keep_easy": _SCORED,
    "pruner/keep_hard": _SCORED,
    "pruner/keep_middle": _SCORED,
    "pruner/keep_fragile": {**_SCORED, "steps": [5]},
    "pruner/score": {
        **_SCORED,
        "score": ["margin", "entropy", "el2n", "grand", "steps_to_break"],
        "keep": ["lowest", *_KEEP],
        "steps": [7, 0],
        "head": ["3"],
    },
    "pruner/grad_match": {**_WEIGHTING, "per_class": [False], "lam": [0.0, 50.0], "block": [10]},
    "pruner/grad_match_pb": {**_WEIGHTING, "batch_size": [4], "lam": [10.0], "block": [3]},
    "pruner/glister": {**_GRADIENT, "eta": [5.0], "greedy": ["naive"]},
    "pruner/craig": _WEIGHTING,
    "pruner/herding": _FEATURES,
    "pruner/k_center": _FEATURES,
    "pruner/moderate": {**_FEATURES, "balanced": [True]},
    "pruner/d2": {**_FEATURES, "neighbours": [2], "gamma": [0.1]},
    "pruner/aign": {**_SCORED, "keep": ["highest", *_KEEP]},
    "keep_rule/highest": {},
    "keep_rule/lowest": {},
    "keep_rule/middle": {"center": ["median"]},
    "keep_rule/stratified": {"strata": [5], "hard_cutoff": [0.3]},
    "attack/fgsm": {"loss": ["margin"]},
    "attack/pgd": {
        "steps": [3, 10],
        "step_size": [0.01, "3/255"],
        "restarts": [2],
        "random_start": [False],
        "uniform": ["volume"],
        "loss": ["margin", "kl"],
    },
    "attack/apgd": {"loss": ["dlr"], "steps": [3, 20], "restarts": [2], "precision": ["bfloat16"]},
    "attack/apgd_t": {"steps": [3, 20], "targets": [1], "precision": ["bfloat16"], "give_up": [True]},
    "attack/fab_t": {"steps": [1, 3], "targets": [1], "precision": ["bfloat16"], "give_up": [True]},
    "attack/square": {"queries": [1, 100], "precision": ["bfloat16"], "give_up": [True]},
    "attack/autoattack": {
        "attacks": ["apgd", ["fgsm", {"pgd": {"steps": 3}}]],
        "precision": ["bfloat16"],
        "give_up": [False],
    },
    "objective/standard": _SMOOTHING,
    "objective/pgd_at": _SMOOTHING,
    "objective/trades": {**_SMOOTHING, "beta": [0.0, 1.0]},
    "objective/mart": {**_SMOOTHING, "beta": [0.0, 1.0]},
    "objective/fgsm_pgi": {**_SMOOTHING, "lam": [0.0, 1.0]},
    "objective/free": {**_SMOOTHING, "replays": [1, 8]},
    "objective/grad_align": {**_SMOOTHING, "lam": [0.0, 1.0]},
    "start/random": {"uniform": ["volume"]},
    "start/corner": {},
    "start/noise": {"radius": [1.0]},
    "start/carried": {"first": ["clean", {"near": {"sigma": 0.01}}], "reset_every": [1, 2], "momentum": [0.5]},
    "start/clean": {},
    "start/near": {"sigma": [0.01, "1/255"]},
    "steps/fixed": {"count": [1, 10], "step_size": [0.01, "3/255"], "step_factor": [0.5, 1.25]},
    "steps/bullet": {
        "boundary": [1, 7],
        "robust": [0, 5],
        "boundary_step_size": [0.01, "3/255"],
        "robust_step_size": [0.01, "3/255"],
        "gamma": [0.5],
        "momentum": [0.0, 0.5],
    },
    "schedule/one_cycle": {"peak_at": [0.5], "start_factor": [0.0, 0.5]},
    "schedule/cosine": {"warmup": [0.2]},
    "schedule/piecewise": {"at": [(0.25, 0.75)], "factors": [(0.5, 0.01), (0.1, 0.0)], "linear": [True]},
    "schedule/constant": {},
    "model/small_cnn": {"width": [4]},
    "model/mnist_cnn": {"width": [4]},
    "model/preact_resnet18": {"width": [4]},
    "model/preact_resnet": {"width": [4], "blocks": [2], "stem": ["3x3"]},
    "model/resnet18": {"width": [4]},
    "model/wrn_28_10": {"width": [1]},
}

#: What else a run needs so that a component fits into it.
COMPANIONS: dict[str, dict[str, Any]] = {
    "objective/fgsm_pgi": {"attack": {"steps": 1}},
    "objective/free": {"attack": {"start": "clean", "steps": 1}},
    "objective/grad_align": {"attack": {"steps": 1}},
    "start/carried": {"objective": "fgsm_pgi", "attack": {"steps": 1}},  # for its momentum
}

#: Settings without a default, for those components that have one.
REQUIRED: dict[str, dict[str, Any]] = {"dataset/npz": {"path": "a.npz"}, "dataset/folder": {"path": "a"}}

#: Another value for every field of a run that a flat name can set.
RUN_OPTIONS: dict[str, Any] = {
    "dataset": {"digits": {"limit": 500}},
    "model": {"small_cnn": {"width": 4}},
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


def changes(families: dict[str, Registry[Any]]) -> list[tuple[str, str, str, Any]]:
    """(family, name, field, value) for every entry of the table, and for every field that lacks one."""
    rows = []
    for family, name in components(families):
        table = ALTERNATIVES.get(f"{family}/{name}", {})
        for field in ALL_FAMILIES[family].classes()[name].model_fields:
            rows += [(family, name, field, value) for value in table.get(field, [MISSING])]
    return rows


MISSING = "no other value listed"


def demand(family: str, name: str, field: str, value: Any) -> None:
    """Fail with the place to edit if the table has no value for a field."""
    assert value is not MISSING, f"add another value of {field!r} to tests/alternatives.py under '{family}/{name}'"
