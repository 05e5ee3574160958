"""`RunConfig`: names, ranges, what follows from what, keys, cost."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import torch

from advprune_core.base.settings import ConfigError, Settings
from advprune_core.objectives.grad_align import GradAlign
from advprune_core.objectives.partial import PartialSteps
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.starts import CleanStart, NearStart, RandomStart
from advprune_core.objectives.steps import FixedSteps
from advprune_core.pruners.random import Full, Random, Redraw
from advprune_core.trainers.config import RunConfig, flat_fields
from advprune_core.trainers.presets import trainer_name
from advprune_core.trainers.schedules import OneCycle, Piecewise
from tests.alternatives import RUN_OPTIONS

PRUNED = RunConfig(pruner="random", fraction=0.8, device="cpu")


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, False)


def leaf(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def test_the_table_has_every_field() -> None:
    assert set(RUN_OPTIONS) == set(flat_fields()), "give the new field another value in tests/alternatives.py"


@pytest.mark.parametrize("name", RUN_OPTIONS)
def test_every_flat_name_sets_its_field(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, True)
    pruned = {} if name in ("warm_start", "equal_cost") else {"pruner": "random", "fraction": 0.8}  # they carry it out
    config = RunConfig.flat(**{**pruned, name: RUN_OPTIONS[name]})
    path = flat_fields()[name]
    assert leaf(config, path) != leaf(PRUNED, path)
    dumped: Any = config.model_dump(mode="json")
    for part in path.split("."):
        dumped = dumped[part]
    assert dumped == {"eps": 1 / 16}.get(name, RUN_OPTIONS[name])


def test_flat_names_are_unique_over_the_groups() -> None:
    groups = [name for name in RunConfig.model_fields if isinstance(getattr(PRUNED, name), Settings)]
    plain = [n for n in groups if not hasattr(getattr(PRUNED, n), "spec")]
    assert plain == ["attack", "optimisation"]
    leaves = [n for n in RunConfig.model_fields if n not in plain]
    leaves += [field for group in plain for field in type(getattr(PRUNED, group)).model_fields]
    assert [name for name, count in Counter([*leaves, "trainer"]).items() if count > 1] == []
    assert set(leaves) == set(flat_fields())


BAD = [
    ({"epoch": 3}, "unknown parameter 'epoch' (did you mean 'epochs'?)"),
    ({"fractoin": 0.5}, "did you mean 'fraction'"),
    ({"pruner": "randm"}, "did you mean 'random'"),
    ({"dataset": "digit"}, "did you mean 'digits'"),
    ({"model": "smallcnn"}, "did you mean 'small_cnn'"),
    ({"trainer": "pgd-at"}, "did you mean 'pgd_at'"),
    ({"objective": "standrd"}, "did you mean 'standard'"),
    ({"schedule": "onecycle"}, "did you mean 'one_cycle'"),
    ({"start": "randon"}, "did you mean 'random'"),
    ({"steps": "fixd"}, "did you mean 'fixed'"),
    ({"pruner": {"random": {"balancd": True}}, "fraction": 0.5}, "did you mean 'balanced'"),
    ({"fraction": 0}, "fraction = 0"),
    ({"fraction": -0.2}, "fraction = -0.2"),
    ({"fraction": 1.2, "pruner": "random"}, "fraction = 1.2"),
    ({"fraction": float("nan")}, "fraction"),
    ({"fraction": 0.5}, "'full', which keeps everything"),
    ({"steps": 0}, "steps"),
    ({"steps": True}, "steps"),
    ({"steps": 2.5}, "steps"),
    ({"eps": 0}, "eps"),
    ({"eps": "8/0"}, "8/0"),
    ({"norm": "linfinity"}, "'linfinity' (did you mean 'linf'?)"),
    ({"epochs": 0}, "epochs"),
    ({"batch_size": 0}, "batch_size"),
    ({"lr": 0}, "lr"),
    ({"momentum": 1}, "momentum"),
    ({"ema": 1}, "ema"),
    ({"cost_budget": 0}, "cost_budget"),
    ({"cost_budget": 2.5}, "cost_budget"),
    ({"seed": -1}, "seed"),
    ({"threads": 0}, "threads"),
    ({"device": "tpu"}, "'auto', 'cpu' or 'cuda'"),
    ({"precision": "float16"}, "'float32' or 'bfloat16'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.flat(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainr": "pgd_at"}, "unknown setting 'trainr' (did you mean 'trainer'?)"),
        ({"eps": 0.1}, "(did you mean 'attack.eps'?)"),
        ({"eps": 0.1}, "; RunConfig.flat(eps=...) takes it as it is"),
        ({"epochs": 3}, "(did you mean 'optimisation.epochs'?)"),
        ({"limit": 3}, "(did you mean 'dataset.limit'?)"),
    ],
)
def test_unknown_settings_say_what_is_known(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig(**options)
    assert message in str(caught.value)
    assert ", trainer, " in str(caught.value)


RESOLVED = [
    ("attack.eps", {}, 2 / 16),
    ("attack.eps", {"norm": "l2"}, 0.5),
    ("attack.eps", {"dataset": "cifar10"}, 8 / 255),
    ("attack.eps", {"dataset": "fashion_mnist"}, 0.1),
    ("attack.eps", {"eps": "3/16"}, 3 / 16),
    ("device", {"device": "auto"}, "cpu"),
    ("pruner", {"pruner": "random", "fraction": 1}, Full()),
    ("pruner", {"pruner": {"redraw": {"warmup_epochs": 2}}}, Full()),
    ("pruner", {"pruner": {"random": {"balanced": True}}, "fraction": 0.4}, Random(balanced=True)),
    ("attack.steps", {"steps": 3}, FixedSteps(count=3)),
    ("attack.steps", {"trainer": "pgd_at", "steps": 2}, FixedSteps(count=2)),
    ("attack.start", {"trainer": "pgd_at", "start": "clean"}, CleanStart()),
    ("objective.name", {"trainer": "standard"}, "standard"),
    ("objective.name", {"trainer": "standard", "objective": "pgd_at"}, "pgd_at"),
    ("objective.name", {"trainer": None}, "pgd_at"),
]


@pytest.mark.parametrize(("path", "options", "expected"), RESOLVED)
def test_what_follows_from_the_rest(path: str, options: dict[str, Any], expected: Any) -> None:
    assert leaf(RunConfig.flat(**options), path) == expected


SET = [
    ({"pruner.balanced": True}, "pruner", Random(balanced=True)),
    ({"pruner.warmup_epochs": 2, "pruner.balanced": True}, "pruner", Random(balanced=True, warmup_epochs=2)),
    ({"pruner": {"redraw": {"every": 2}}}, "pruner", Redraw(every=2)),
    ({"optimisation.ema": 0.99}, "optimisation.ema", 0.99),
    ({"optimisation.schedule": "piecewise"}, "optimisation.schedule", Piecewise()),
    ({"optimisation.schedule.peak_at": 0.5}, "optimisation.schedule", OneCycle(peak_at=0.5)),
    ({"model.width": 8}, "model.width", 8),
    ({"dataset.limit": 500}, "dataset.limit", 500),
    ({"seed": 3}, "seed", 3),
    ({"attack.eps": "1/16"}, "attack.eps", 1 / 16),
    ({"attack.steps": 3}, "attack.steps", FixedSteps(count=3)),
    ({"attack.steps.step_size": 0.02}, "attack.steps", FixedSteps(step_size=0.02)),
    ({"attack.steps.count": 3}, "attack.steps", FixedSteps(count=3)),
    ({"attack.norm": "l2"}, "attack.eps", 0.5),
    ({"trainer": "standard"}, "objective.name", "standard"),
    # Valid with what is set beside it, and not with what was.
    ({"trainer": "grad_align", "objective.lam": 0.3}, "objective", GradAlign(lam=0.3)),
    ({"trainer": "fgsm_pgi", "objective.lam": 5.0}, "objective.lam", 5.0),
    ({"pruner": "redraw", "pruner.in_turn": True}, "pruner", Redraw(in_turn=True)),
    # What is given beside a trainer adds to it.
    ({"trainer": "trades", "attack": {"steps": 5}}, "attack.steps", FixedSteps(count=5)),
    ({"trainer": "trades", "attack": {"steps": 5}}, "attack.start", NearStart()),
    ({"trainer": "trades", "attack": {"start": "random"}}, "attack.steps", FixedSteps(count=10)),
    ({"trainer": "trades", "attack": AttackPolicy(start=RandomStart())}, "attack.start", RandomStart()),
    ({"trainer": "sat", "attack.steps": 10}, "attack.steps", PartialSteps(count=10)),
    ({"trainer": "sat", "attack.steps.share": 0.2}, "attack.steps", PartialSteps(share=0.2)),
    ({"trainer": "sat", "attack.steps": "bullet"}, "attack.steps.name", "bullet"),
]


@pytest.mark.parametrize(("settings", "path", "expected"), SET)
def test_dotted_settings(settings: dict[str, Any], path: str, expected: Any) -> None:
    assert leaf(PRUNED.with_settings(settings), path) == expected


@pytest.mark.parametrize("before", [PRUNED, RunConfig(), RunConfig.flat(trainer="fgsm")])
@pytest.mark.parametrize("name", ["trades", "fgsm_pgi", "pgd_at", "sat"])
def test_another_trainer_has_its_objective_and_its_attack(before: RunConfig, name: str) -> None:
    other = before.replace(trainer=name)
    assert other == before.with_settings({"trainer": name})
    assert trainer_name(other) == name
    assert other.fraction == before.fraction
    assert before.replace(trainer=name, seed=3) == other.replace(seed=3)
    assert before.replace(trainer=None) == before


def test_one_step_stays_one_step() -> None:
    for given in ({"attack.steps.count": 3}, {"attack.steps": 3}, {"attack": {"steps": 3}}):
        with pytest.raises(ConfigError, match="'fgsm' takes one step: steps = 3 does not fit"):
            PRUNED.with_settings({"trainer": "fgsm"} | given)


def test_a_radius_that_was_given_stays_and_the_usual_one_follows() -> None:
    given, usual = RunConfig.flat(eps="2/16"), RunConfig()
    assert given == usual
    for change in ({"dataset": "cifar10"}, {"dataset": "cifar10", "optimisation.ema": 0.9}):
        assert (given.with_settings(change).attack.eps, usual.with_settings(change).attack.eps) == (2 / 16, 8 / 255)
    longer = {"optimisation.ema": 0.9}
    assert (given.with_settings(longer).eps_of_dataset, usual.with_settings(longer).eps_of_dataset) == (False, True)
    assert given.with_settings(longer).replace(dataset="cifar10").attack.eps == 2 / 16
    assert usual.with_settings({"attack.norm": "l2"}).attack.eps == 0.5
    with pytest.raises(ConfigError, match=r"attack.norm = 'l2' needs its own attack.eps: 0.125 was given for linf"):
        given.with_settings({"attack.norm": "l2"})
    assert given.with_settings({"attack.norm": "l2", "attack.eps": 0.7}).attack.eps == 0.7


def test_a_speed_that_was_given_stays_and_an_automatic_one_follows() -> None:
    settings = {"dataset": "cifar10", "model": "preact_resnet", "epochs": 1, "device": "cpu"}
    longer = {"optimisation.epochs": 15}
    given, automatic = RunConfig.flat(**settings, speed="exact"), RunConfig.flat(**settings)
    assert given == automatic
    for made, speed in ((given, "exact"), (automatic, "compiled")):
        assert made.with_settings(longer).speed == speed
        assert made.replace(seed=1).with_settings(longer).speed == speed
    # Controls are made so, and are of the speed of what they match.
    assert automatic.replace(optimisation=automatic.optimisation.replace(epochs=15)).speed == "exact"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("optimization.ema", "did you mean 'optimisation'"),
        ("optimisation.emma", "did you mean 'ema'"),
        ("pruner.balancd", "did you mean 'balanced'"),
        ("modle", "did you mean 'model'"),
        ("attack.steps.cuont", "did you mean 'count'"),
        ("seed.x", "seed"),
        ("pruner.balanced.x", "balanced"),
        ("", "unknown"),
    ],
)
def test_unknown_paths_are_errors(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PRUNED.with_settings({path: 0.5})


@pytest.mark.parametrize("name", ["nothing", *RUN_OPTIONS])
def test_configs_survive_json(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, True)
    options = {"pruner": "random", "fraction": 0.8} | ({} if name == "nothing" else {name: RUN_OPTIONS[name]})
    config = RunConfig.flat(**options)
    assert RunConfig.create(**json.loads(json.dumps(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 30 * 1100 * 17),
        ({"pruner": "random", "fraction": 0.4}, 30 * 440 * 17),
        ({"trainer": "standard", "epochs": 2.5}, 2.5 * 1100 * 3),
        ({"steps": 2, "epochs": 1}, 1100 * 7),
    ],
)
def test_the_expected_cost(options: dict[str, Any], passes: float) -> None:
    assert RunConfig.flat(**options).passes(1100) == pytest.approx(passes)


def test_what_a_run_with_a_budget_is_expected_to_cost() -> None:
    config = RunConfig.flat(epochs=2, cost_budget=20_000)
    assert config.passes(1000) == 20_000  # 2 epochs of 1,000 images of 17 would be 34,000
    assert config.passes(100) == 3400


@pytest.mark.parametrize(
    ("options", "rows", "done"),
    [
        ({"epochs": 4}, [], 0),
        ({"epochs": 4}, [{}] * 3, 3 * 17_000),
        ({"epochs": 2.5}, [{}] * 3, 2.5 * 17_000),
        ({"epochs": 4, "pruner": {"random": {"warmup_epochs": 1}}, "fraction": 0.2}, [{}] * 3, 1.4 * 17_000),
        ({"epochs": 4, "pruner": {"keep_hard": {"score_epochs": 2}}, "fraction": 0.5}, [], 0),
        ({"epochs": 4, "pruner": {"keep_hard": {"score_epochs": 2}}, "fraction": 0.5}, [{}] * 3, 3.5 * 17_000),
        ({"epochs": 4, "plain_epochs": 1}, [{}] * 2, 3_000 + 17_000),
        ({"epochs": 40, "cost_budget": 1000}, [], 0),
        ({"epochs": 40, "cost_budget": 1000}, [{"cost": 100}, {"cost": 600}], 600),
        ({"epochs": 40, "cost_budget": 1000}, [{"cost": 1003}], 1000),
    ],
)
def test_how_far_a_run_is(options: dict[str, Any], rows: list[dict[str, Any]], done: float) -> None:
    config = RunConfig.flat(**options)
    assert config.passes_done(1000, rows) == pytest.approx(done)
    whole = [{"cost": 1000}] * 40
    assert config.passes_done(1000, whole) == config.passes(1000)
