"""Keys of runs: everything that changes the weights changes the key, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advprune_core.attacks import ThreatModel
from advprune_core.base.keys import content_key
from advprune_core.base.settings import Settings
from advprune_core.datasets.base import DATASETS, DatasetSource, load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.objectives.base import TRAINERS
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.study.evaluations import EvaluationConfig
from advprune_core.trainers.config import RunConfig
from tests.alternatives import ALL_FAMILIES, RUN_OPTIONS, beside, changes, companions, component, components, demand

PRUNED = RunConfig(pruner="random", fraction=0.8, device="cpu")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_takes_a_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert RunConfig().device == "cuda"
    assert RunConfig().train_key(digits) == RunConfig(device="cuda").train_key(digits)
    assert RunConfig().train_key(digits) != RunConfig(device="cpu").train_key(digits)
    # Threads change the bits on a CPU only.
    assert RunConfig(threads=2).train_key(digits) == RunConfig().train_key(digits)


@pytest.mark.parametrize("name", [n for n in RUN_OPTIONS if n not in ("dataset", "device")])
def test_every_field_changes_the_key(name: str, digits: Dataset) -> None:
    options = {"pruner": "random", "fraction": 0.8}
    other = RunConfig.flat(**{**options, name: RUN_OPTIONS[name]})
    assert other.train_key(digits) != RunConfig.flat(**options).train_key(digits)


FIELD = {"start": "attack.start", "steps": "attack.steps", "schedule": "optimisation.schedule"}
IN_RUNS = {name: registry for name, registry in ALL_FAMILIES.items() if name not in ("attack", "dataset", "trainer")}


@pytest.mark.parametrize(("family", "name", "field", "values"), changes(IN_RUNS))
def test_every_setting_of_every_component_changes_the_key(
    family: str, name: str, field: str, values: list[Any], digits: Dataset
) -> None:
    demand(family, name, field, values)
    keys = set()
    for made in (beside(family, name, field), beside(family, name, field, **{field: values[0]})):
        group, _, part = FIELD.get(family, family).rpartition(".")
        given = {"pruner": "random", "fraction": 0.8, **companions(made)}
        given |= {group: {**given.get(group, {}), part: made}} if group else {part: made}
        given |= {"pruner": {"score": {"keep": given.pop("keep_rule")}}} if family == "keep_rule" else {}
        keys.add(RunConfig.create(**given).train_key(digits))
    assert len(keys) == 2


def test_components_have_different_keys() -> None:
    for family, registry in IN_RUNS.items():
        made = [component(family, name) for _, name in components({family: registry})]
        assert len({content_key(each.canonical()) for each in made}) == len(made)


#: Another value for every setting of a data set, and whether training can tell.
DATA = {
    "limit": (500, True),
    "test_limit": (50, False),
    "val_select": (20, True),
    "val_stop": (20, True),
    "label_noise": (0.1, True),
    "tested_on": ("val_stop", True),  # the same training, kept apart: what chooses is not what is tested
}


@pytest.mark.parametrize("field", DatasetSource.model_fields)
def test_data_settings_change_the_key_if_they_change_training(field: str, digits: Dataset) -> None:
    assert field in DATA, f"give the new data setting {field!r} another value in DATA"
    value, matters = DATA[field]
    source = {"digits": {field: value}}
    other = RunConfig(dataset=source).train_key(load_dataset(source))
    assert (other != RunConfig().train_key(digits)) == matters


def test_keys_are_of_content_not_of_names(tmp_path: Path, digits: Dataset) -> None:
    data = DATASETS.parse("digits").arrays(tmp_path)
    keys = []
    for name, images in (("same", data["x_train"]), ("reversed", data["x_train"][::-1])):
        np.savez(tmp_path / f"{name}.npz", **{**data, "x_train": images})
        source = {"npz": {"path": str(tmp_path / f"{name}.npz")}}
        keys.append(RunConfig(dataset=source, attack={"eps": "2/16"}).train_key(load_dataset(source)))
    assert keys[0] == RunConfig().train_key(digits)
    assert keys[1] != keys[0]


def everything(config: Settings) -> dict[str, Any]:
    """All values, defaults too, as plain data."""
    data: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Settings):
            inner = everything(value)
            value = {value.name: inner} if hasattr(value, "spec") else inner
        data[name] = value
    return data


def test_defaults_given_explicitly_keep_the_key(digits: Dataset) -> None:
    for config in (RunConfig(), PRUNED):
        explicit = RunConfig.create(**json.loads(json.dumps(everything(config))))
        assert explicit == config
        assert explicit.train_key(digits) == config.train_key(digits)


EQUAL = [
    ({"trainer": "standard"}, {"objective": "standard"}),
    ({"pruner": "random", "fraction": 1}, {"pruner": "full"}),
    ({"pruner": "redraw"}, {}),
    ({"trainer": "standard", "eps": 0.3}, {"trainer": "standard"}),
    ({"trainer": "standard", "steps": 3, "start": "clean"}, {"trainer": "standard"}),
    ({"eps": "2/16"}, {"eps": 0.125}),
    ({"device": "auto"}, {"device": "cpu"}),
    ({"epochs": 30}, {"epochs": 30.0}),
    ({"steps": {"fixed": {"count": 7}}}, {"steps": 7}),
]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_equal_runs_have_equal_keys(first: dict[str, Any], second: dict[str, Any], digits: Dataset) -> None:
    assert RunConfig.flat(**first).train_key(digits) == RunConfig.flat(**second).train_key(digits)


def test_the_radius_counts_where_the_checkpoint_is_chosen_by_it(digits: Dataset) -> None:
    keys = {RunConfig.flat(trainer="standard", best_every=1, eps=eps).train_key(digits) for eps in (0.1, 0.2)}
    assert len(keys) == 2


@pytest.mark.parametrize("name", TRAINERS.classes())
def test_a_trainer_is_its_objective_and_attack(name: str, digits: Dataset) -> None:
    preset = TRAINERS.classes()[name]
    named = RunConfig.flat(trainer=name)
    assert named == RunConfig(objective=preset.objective, attack=preset.attack)
    # What is said of the attack adds to it, in whatever form it is said.
    within = RunConfig.flat(trainer=name, eps=0.1)
    assert (
        within == RunConfig(trainer=name, attack=AttackPolicy(eps=0.1)) == RunConfig(trainer=name, attack={"eps": 0.1})
    )
    assert (within.attack.start, within.attack.steps) == (named.attack.start, named.attack.steps)
    assert RunConfig(trainer=name, attack=named.attack) == named
    assert RunConfig(trainer=name, attack=named.attack).eps_of_dataset


# The schedule lies in a group that equals its default, and must not be left out with it.
@pytest.mark.parametrize("path", ["model", "objective", "attack.start", "attack.steps", "optimisation.schedule"])
def test_a_raised_version_of_a_default_makes_new_keys(
    path: str, monkeypatch: pytest.MonkeyPatch, digits: Dataset
) -> None:
    part: Any = PRUNED
    for name in path.split("."):
        part = getattr(part, name)
    before = PRUNED.train_key(digits)
    monkeypatch.setattr(type(part), "version", 2)
    assert PRUNED.train_key(digits) != before


def test_a_raised_version_of_the_average_makes_new_keys_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, digits: Dataset
) -> None:
    plain, averaged = RunConfig(), RunConfig.flat(ema=0.9)
    before = plain.train_key(digits), averaged.train_key(digits)
    monkeypatch.setattr(type(plain.optimisation), "ema_version", 99)
    assert plain.train_key(digits) == before[0]
    assert averaged.train_key(digits) != before[1]


def test_only_l2_attacks_have_a_geometry_in_their_keys(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """L-inf looks at signs alone, so its results, and keys, are those of before."""
    runs = {
        name: RunConfig.flat(device="cpu", **options)
        for name, options in {
            "linf": {},
            "l2": {"norm": "l2"},
            "l2, never attacked": {"norm": "l2", "trainer": "standard"},
        }.items()
    }
    evaluations = {norm: EvaluationConfig(threat=ThreatModel(norm=norm)) for norm in ("linf", "l2")}

    def keys() -> dict[str, str]:
        trained = {name: config.train_key(digits) for name, config in runs.items()}
        return trained | {f"test {norm}": one.key("") for norm, one in evaluations.items()}

    before = keys()
    for module in ("trainers.identity", "study.evaluations"):
        monkeypatch.setattr(f"advprune_core.{module}.L2_VERSION", 99)
    after = keys()
    assert {name for name in before if before[name] != after[name]} == {"l2", "test l2"}


@pytest.mark.parametrize(
    ("options", "marks"),
    [
        ({"pruner": {"keep_hard": {"score_epochs": 2}}}, ["scout"]),
        ({"pruner": "keep_hard", "trainer": "sat"}, ["partial"]),
        ({"pruner": "infobatch", "schedule_span": "full_run"}, ["full_run"]),
        ({"pruner": "loss_top", "schedule_span": "full_run"}, ["full_run"]),
        ({"pruner": "random", "schedule_span": "full_run"}, None),
        ({"pruner": "random", "trainer": "sat"}, None),
        ({"pruner": "infobatch", "trainer": "sora"}, ["sora"]),
        ({"pruner": "keep_hard"}, None),
        ({"pruner": "infobatch", "min_per_class": 1}, ["infobatch"]),
        ({"pruner": "infobatch", "min_per_class": 1, "fraction": 1.0}, None),
        ({"pruner": "infobatch"}, None),
        ({"pruner": "loss_top", "min_per_class": 1}, None),
        # Steps to break, counted by 7 as those expected are fewer.
        ({"pruner": "keep_fragile", "steps": "bullet"}, ["breaks"]),
        ({"pruner": "keep_fragile", "steps": "bullet", "trainer": "standard"}, ["breaks"]),
        ({"pruner": {"score": {"score": "steps_to_break"}}, "steps": "bullet"}, ["breaks"]),
        ({"pruner": "keep_fragile", "steps": {"partial": {"count": 20}}}, ["partial", "breaks"]),
        ({"pruner": "keep_fragile", "steps": {"partial": {"count": 7}}}, ["partial"]),
        ({"pruner": "keep_fragile", "steps": {"partial": {"count": 20, "share": 1.0}}}, ["partial"]),
        ({"pruner": "keep_fragile", "steps": {"bullet": {"boundary": 7}}}, None),
        ({"pruner": "keep_fragile", "steps": 20}, None),
        ({"pruner": {"keep_fragile": {"steps": 9}}, "steps": "bullet"}, None),
        ({"pruner": "score", "steps": "bullet"}, None),
        ({"pruner": "random", "steps": "bullet"}, None),
        ({"pruner": "random", "trainer": "grad_align", "awp": 0.005}, ["aligned"]),
        ({"trainer": "grad_align", "awp": 0.005, "fraction": 1.0}, ["aligned"]),
        ({"pruner": "random", "trainer": "grad_align"}, None),
    ],
    ids=str,
)
def test_what_came_out_otherwise_before_has_another_key(options: dict[str, Any], marks: list[str] | None) -> None:
    identity = RunConfig.flat(**{"fraction": 0.5} | options).identity("data")
    assert identity.get("mended") == marks


@pytest.mark.parametrize(
    ("pruner", "told"),
    [
        ("random", False),
        ("loss_top", False),
        ({"aum": {"warmup_epochs": 5}}, False),
        ({"aum": {"score_epochs": 5, "keep": "highest"}}, True),
        ("keep_hard", True),
        ("grad_match", True),
    ],
)
def test_runs_whose_schedule_ran_ahead_by_what_choosing_costs_have_other_keys(pruner: Any, told: bool) -> None:
    options: dict[str, Any] = {"pruner": pruner, "fraction": 0.5}
    for budget in (None, 10**6):
        mended = RunConfig.flat(**options, cost_budget=budget).identity("").get("mended", [])
        assert ("budget" in mended) == (told and budget is not None)
