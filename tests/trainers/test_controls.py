"""Controls: what each resolves to, from records with round numbers."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.objectives.steps import FixedSteps
from advprune_core.pruners import budget
from advprune_core.pruners.random import Full
from advprune_core.pruners.random_steps import RandomSteps
from advprune_core.study.finished import run_record
from advprune_core.study.grid import grid
from advprune_core.study.records import RunRecord
from advprune_core.trainers.checks import check_run
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.controls import (
    CONTROLS,
    OF_ALL_DATA,
    Control,
    check_control,
    control_arm,
    control_of,
    expected_passes,
    matched_arm,
    resolve,
)
from advprune_core.trainers.loop import train
from advprune_core.trainers.schedules import OneCycle, rate_at
from tests.tiny import MODEL, tiny_run


def record(
    config: RunConfig,
    *,
    n: int,
    visited: int,
    per_image: int,
    select: int = 0,
    kept: list[int] | None = None,
    step_ratio: float | None = 1.5,
) -> RunRecord:
    """A finished run that visited so many images, and kept so many in each epoch (all the same by default)."""
    rows = kept or [budget(config.fraction, n)] * math.ceil(config.optimisation.epochs)
    return RunRecord(
        key="0" * 16,
        config=config.model_dump(mode="json"),
        dataset={},
        status="ok",
        passes={"train": visited * per_image, "select": select, "validate": 12345},
        n=n,
        kept=rows[-1],
        images_visited=visited,
        step_ratio=step_ratio,
        epochs=[{"epoch": epoch, "kept": count} for epoch, count in enumerate(rows)],
    )


def matched(**options: Any) -> RunConfig:
    return RunConfig.flat(
        **{"pruner": {"random": {"balanced": True}}, "fraction": 0.2, "seed": 3, "epochs": 10} | options
    )


BY_HAND = [
    # 1,000 images, 200 kept, 10 epochs: 2,000 images of 2 * 7 + 3 = 17 passes.
    ("same_cost", {}, {"visited": 2000, "per_image": 17}, 2.0),
    # Selection that costs as much as training: twice the epochs.
    ("same_cost", {}, {"visited": 2000, "per_image": 17, "select": 34000}, 4.0),
    ("same_cost", {"trainer": "standard"}, {"visited": 2000, "per_image": 3}, 2.0),
    # Steps that cost 8 an image cost the full run as much: the epochs are the same.
    ("same_cost", {}, {"visited": 2000, "per_image": 8}, 2.0),
    ("same_steps", {}, {"visited": 2000, "per_image": 17}, 50.0),
    ("same_steps", {"epochs": 4}, {"visited": 800, "per_image": 17}, 20.0),
    ("same_steps", {"fraction": 0.5}, {"visited": 5000, "per_image": 17}, 20.0),
    # 2 epochs of warm-up and 8 of 200 images draw 3,600 of 10,000: 6,400 / 200 = 32 epochs more.
    ("same_steps", {}, {"visited": 3600, "per_image": 17, "kept": [1000] * 2 + [200] * 8}, 42.0),
    ("same_steps", {"epochs": 2.5}, {"visited": 500, "per_image": 17}, 12.5),
    # PGD-2 costs 7 an image: 34,000 / 7 / 1,000 epochs.
    ("cheaper_attack", {}, {"visited": 2000, "per_image": 17}, 34000 / 7000),
    ("cheaper_attack", {}, {"visited": 2000, "per_image": 17, "select": 1000}, 5.0),
    ("cheaper_attack", {"trainer": "trades"}, {"visited": 2000, "per_image": 27}, 54000 / 11000),
    ("carried_attack", {}, {"visited": 2000, "per_image": 17}, 34000 / 5000),
]


@pytest.mark.parametrize("arm", ["random", "TRADES, warm start: grad_match every=7", "score keep=stratified(cut=0.1)"])
def test_an_arm_says_which_control_it_is_and_what_it_matches(arm: str) -> None:
    assert (control_of(arm), matched_arm(arm)) == (None, arm)
    for control in CONTROLS:
        assert (control_of(control_arm(control, arm)), matched_arm(control_arm(control, arm))) == (control, arm)


@pytest.mark.parametrize(("control", "options", "cost", "epochs"), BY_HAND)
def test_epochs_by_hand(control: Control, options: dict[str, Any], cost: dict[str, int], epochs: float) -> None:
    config = matched(**options)
    resolved = resolve(control, config, record(config, n=1000, **cost))
    assert resolved.optimisation.epochs == pytest.approx(epochs, abs=1e-6)


@pytest.mark.parametrize("control", get_args(Control))
def test_a_control_changes_one_thing(control: Control) -> None:
    config = matched(ema=0.9, schedule="cosine", batch_size=50, lr=0.05)
    resolved = resolve(control, config, record(config, n=1000, visited=2000, per_image=17))
    changed = {name for name in RunConfig.model_fields if getattr(resolved, name) != getattr(config, name)}
    assert (
        changed
        == {
            "same_cost": {"pruner", "fraction", "optimisation"},
            "same_steps": {"optimisation"},
            "same_step_size": {"pruner"},
            "cheaper_attack": {"pruner", "fraction", "optimisation", "attack"},
            "carried_attack": {"pruner", "fraction", "optimisation", "attack"},
        }[control]
    )
    assert resolved.optimisation.replace(epochs=10, lr=0.05) == config.optimisation
    assert (control in OF_ALL_DATA) == (resolved.fraction == 1)
    if control == "same_step_size":
        # Drawn when random draws: before the first epoch, once.
        assert resolved.pruner == RandomSteps(ratio=1.5, warmup_epochs=0, every=0)
    elif control != "same_steps":
        assert (resolved.pruner, resolved.fraction) == (Full(), 1.0)
    if control == "cheaper_attack":
        assert resolved.attack == config.attack.replace(steps=2)
        assert resolved.attack.steps == FixedSteps(count=2)
    if control == "carried_attack":
        assert resolved.attack == config.attack.replace(start="carried", steps=1)


@pytest.mark.parametrize("control", ["same_cost", "same_step_size", "cheaper_attack", "carried_attack"])
@pytest.mark.parametrize("asked", [{"warm_start": 0.5}, {"equal_cost": True}], ids=str)
def test_a_control_is_of_the_run_whatever_its_length_followed_from(control: Control, asked: dict[str, Any]) -> None:
    config = matched(fraction=0.4, **asked)
    given = matched(fraction=0.4, pruner=config.pruner, epochs=config.optimisation.epochs)
    resolved = [resolve(control, run, record(run, n=1000, visited=2000, per_image=17)) for run in (config, given)]
    assert resolved[0] == resolved[1]


BULLET: dict[str, Any] = {"steps": {"bullet": {"boundary": 2, "robust": 0}}}
# Refused because of what, and what is possible instead.
REFUSED = [
    *(
        (control, {"trainer": trainer}, f"objective '{trainer}' has no attack", "same_cost, same_steps")
        for control in ("cheaper_attack", "carried_attack")
        for trainer in ("standard", "fgsm_pgi", "free", "grad_align", "sora")
    ),
    # PGD-2 costs 7 an image; FGSM with a random start 5, as one carried step does.
    ("cheaper_attack", {"trainer": "fast"}, "cost 7 passes an image, no less .* \\(5\\)", "same_cost, same_steps"),
    ("carried_attack", {"trainer": "fast"}, "cost 5 .* \\(5\\)", "same_cost, same_steps"),
    ("carried_attack", {"trainer": "atta"}, "cost 5 .* \\(5\\)", "same_cost, same_steps"),  # the very same
    ("cheaper_attack", {"steps": 2}, "cost 7 .* \\(7\\)", "same_cost, same_steps, carried_attack"),
    ("cheaper_attack", {"trainer": "trades", "steps": 1}, "cost 11 .* \\(9\\)", "same_cost, same_steps"),
    # 0.4 of the images at the boundary: 1 + 1.6 + 3.
    ("cheaper_attack", BULLET, "cost 7 .* \\(5.6\\)", "same_cost, same_steps, carried_attack"),
    ("same_steps", {"cost_budget": 90_000}, "cost_budget", "same_cost, cheaper_attack, carried_attack"),
    ("same_steps", {"pruner": "infobatch"}, "'infobatch'", "same_cost, cheaper_attack, carried_attack"),
    # Its own length is not that of the run on all data.
    *(
        ("same_steps", {"pruner": "random", **options}, "its own length", "same_cost, cheaper_attack, carried_attack")
        for options in ({"equal_cost": True}, {"warm_start": 0.5, "fraction": 0.5})
    ),
]


@pytest.mark.parametrize(("control", "options", "reason", "possible"), REFUSED)
def test_what_is_no_control_is_refused(control: Control, options: dict[str, Any], reason: str, possible: str) -> None:
    config, full = matched(**options), matched(**options | {"pruner": "full", "fraction": 1.0})
    with pytest.raises(ConfigError, match=f"'{control}' .*{reason}.*; possible here: {possible}"):
        check_control(control, config, full=full)
    pruner = options.get("pruner", "random")
    with pytest.raises(ConfigError, match=reason):
        grid(full, pruners=[pruner], fractions=[0.5], seeds=[0], controls=[control])
    for other in possible.split(", "):
        check_control(other, config, full=full)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"trainer": "trades"}, {"steps": 3}, {"awp": 0.01}, {"steps": "bullet"}])
def test_a_cheaper_attack_costs_less(options: dict[str, Any]) -> None:
    config = matched(**options)
    for control in ("cheaper_attack", "carried_attack"):
        check_control(control, config, full=config)  # type: ignore[arg-type]
        resolved = resolve(control, config, record(config, n=1000, visited=2000, per_image=17))  # type: ignore[arg-type]
        assert resolved.passes_per_image < config.passes_per_image
        assert resolved.attack != config.attack


def images(config: RunConfig, n: int) -> int:
    """Images that a run draws: whole epochs, and the rounded part of a last one."""
    kept = budget(config.fraction, n)
    whole = math.floor(config.optimisation.epochs)
    return whole * kept + round((config.optimisation.epochs - whole) * kept)


CASES = [
    (n, f, size, epochs) for n in (1000, 1100) for f in (0.8, 0.6, 0.4, 0.2) for size, epochs in ((64, 30), (50, 7))
]


@pytest.mark.parametrize(("n", "fraction", "size", "epochs"), CASES)
def test_costs_come_out_as_they_were_matched(n: int, fraction: float, size: int, epochs: int) -> None:
    """Of the images drawn, those in whole batches are trained on: the matched cost is met to a batch."""
    config = matched(fraction=fraction, batch_size=size, epochs=epochs)
    visited = images(config, n) // size * size
    done = record(config, n=n, visited=visited, per_image=17)
    assert images(resolve("same_cost", config, done), n) // size * size == visited
    cheaper = images(resolve("cheaper_attack", config, done), n) // size * size
    assert 0 <= 17 * visited - 7 * cheaper < 7 * size + 7


@pytest.mark.parametrize(("n", "fraction", "size", "epochs"), CASES)
def test_same_steps_takes_as_many_batches_as_the_full_run(n: int, fraction: float, size: int, epochs: int) -> None:
    config = matched(fraction=fraction, batch_size=size, epochs=epochs)
    done = record(config, n=n, visited=images(config, n) // size * size, per_image=17)
    assert images(resolve("same_steps", config, done), n) // size == n * epochs // size


def test_same_steps_counts_updates_not_candidates() -> None:
    """Each update of `loss_top` draws 1 / fraction times as many images as it trains on."""
    config = matched(pruner="loss_top", fraction=0.25)
    done = record(config, n=1000, visited=2500, per_image=17, kept=[1000] * 10)
    assert resolve("same_steps", config, done).optimisation.epochs == 40


def test_same_steps_of_a_run_that_was_stopped_early() -> None:
    config = matched()
    whole, stopped = (record(config, n=1000, visited=2000, per_image=17, kept=[200] * count) for count in (10, 3))
    assert resolve("same_steps", config, stopped) == resolve("same_steps", config, whole)


@pytest.mark.parametrize("trainer", ["pgd_at", "trades"])
def test_a_cost_that_shows_only_in_training_is_a_budget(trainer: str) -> None:
    config = matched(trainer=trainer, steps="bullet")
    done = record(config, n=1000, visited=2000, per_image=11)
    resolved = resolve("same_cost", config, done)
    assert resolved.optimisation.cost_budget == 22_000
    # No image costs less than its forward passes and the full backward pass: PGD-AT 1 + 3, TRADES 1 + 6.
    assert resolved.optimisation.epochs * 1000 * {"pgd_at": 4, "trades": 7}[trainer] > 22_000
    # One more than the cost can pay for; a plain phase, which costs less, counts only in a run that has one.
    assert resolved.optimisation.epochs == {"pgd_at": 7, "trades": 5}[trainer]
    assert resolved.passes(1000) == 22_000
    # With a known number of steps the epochs say it all.
    for control in ("cheaper_attack", "carried_attack"):
        assert resolve(control, config, done).optimisation.cost_budget is None
    assert resolve("same_cost", matched(cost_budget=34_000), record(matched(), n=1000, visited=2000, per_image=17)) == (
        resolve("same_cost", matched(), record(matched(), n=1000, visited=2000, per_image=17))
    )


#: 254 images; what is trained on them in batches of 16.
FEW: dict[str, Any] = {"dataset": {"digits": {"limit": 300}}, "model": MODEL, "batch_size": 16, "fraction": 0.3}


@pytest.mark.parametrize(
    "options",
    [
        {"trainer": "pgd_at", "pruner": "random"},
        {"trainer": "trades", "pruner": "random"},
        {"trainer": "pgd_at", "pruner": "redraw", "awp": 0.01},
        {"trainer": "pgd_at", "pruner": "loss_top"},
        {"trainer": "pgd_at", "pruner": {"keep_hard": {"every": 1}}},
    ],
)
def test_a_control_costs_what_was_measured(options: dict[str, Any]) -> None:
    """With BulletTrain, where the images left are attacked longer or shorter than all of them are."""
    config = matched(**FEW | options, steps={"bullet": {"boundary": 4}}, epochs=3)
    data = load_dataset(config.dataset)
    done = run_record(config.train_key(data), config, data, train(config, data))
    control = resolve("same_cost", config, done)
    result = train(control, data)
    cost = result.ledger["passes"]["train"] + result.ledger["passes"].get("select", 0)
    # The nearest batch: no image costs more than 1 + 2 * 4 + 6 passes.
    dearest = 16 * 15
    assert abs(cost - done.cost) <= dearest / 2
    assert cost == result.metrics[-1]["cost"]
    assert len(result.metrics) < control.optimisation.epochs
    # The schedule is at its end, but for what is left of it before the last batch.
    assert result.metrics[-1]["lr"] <= rate_at(OneCycle(), 1 - 1.5 * dearest / cost, peak=config.optimisation.lr)


@pytest.mark.parametrize("steps", [3, {"bullet": {"boundary": 4}}])
def test_a_control_of_a_run_with_a_plain_phase_has_it_and_costs_the_same(steps: Any) -> None:
    warm = {"pruner": {"random": {"warmup_epochs": 1}}, "plain_epochs": 1}
    config = matched(**FEW | warm, steps=steps, epochs=4)
    data = load_dataset(config.dataset)
    done = run_record(config.train_key(data), config, data, train(config, data))
    control = resolve("same_cost", config, done)
    assert control.optimisation.plain_epochs == 1
    result = train(control, data)
    assert [row["epoch"] for row in result.metrics if row.get("plain")] == [0]
    assert abs(result.ledger["passes"]["train"] - done.cost) <= 16 * 15


def test_a_plain_phase_on_all_data_that_costs_more_than_the_run_is_refused(digits: Dataset) -> None:
    config = matched(plain_epochs=9, steps=1, fraction=0.2, epochs=10, model=MODEL, batch_size=16)
    done = run_record(config.train_key(digits), config, digits, train(config, digits))
    with pytest.raises(ConfigError, match="9 epochs without an attack on all data, which cost more"):
        resolve("same_cost", config, done)


@pytest.mark.parametrize("control", get_args(Control))
def test_controls_are_runs_like_any_other(control: Control, digits: Dataset) -> None:
    config = matched()
    done = record(config, n=1100, visited=2176, per_image=17)
    resolved = resolve(control, config, done)
    check_run(resolved, digits)
    again = RunConfig.create(**resolved.model_dump(mode="json"))
    assert again.train_key(digits) == resolve(control, config, done).train_key(digits)
    assert resolved.train_key(digits) != config.train_key(digits)
    # The time and memory of the matched run are no part of what its control is.
    other = done.model_copy(update={"seconds": {"train": 9.0}, "peak_memory": 7, "timed_alone": True})
    assert resolve(control, config, other) == resolved


@pytest.mark.parametrize("control", get_args(Control))
def test_validation_is_no_part_of_the_cost(control: Control) -> None:
    config = matched()
    done = record(config, n=1000, visited=2000, per_image=17)
    without = done.model_copy(update={"passes": {"train": 34000}})
    assert resolve(control, config, done) == resolve(control, config, without)


@pytest.mark.parametrize(
    ("control", "passes"), [("same_cost", 34000), ("cheaper_attack", 34000), ("same_steps", 170000)]
)
def test_costs_expected_before_the_run(control: Control, passes: float) -> None:
    assert expected_passes(control, matched(), 1000) == pytest.approx(passes)


def test_every_control_is_described() -> None:
    assert set(CONTROLS) == set(get_args(Control))
    assert all(CONTROLS.values())


#: (pruner, step ratio, the random subset that stands for it, the ratio it is given)
STEP_SIZES: list[tuple[Any, float, dict[str, Any], float]] = [
    ("grad_match", 2.5, {"warmup_epochs": 5, "every": 10}, 2.5),
    ({"grad_match_pb": {"warmup_epochs": 0, "every": 3}}, 1.25, {"warmup_epochs": 0, "every": 3}, 1.25),
    ({"craig": {"score_epochs": 2}}, 0.98, {"score_epochs": 2}, 0.98),  # before the run, once
    ({"glister": {"steps": 1, "half_features": True}}, 1 / 3, {"steps": 1, "half_features": True}, 0.333333),
]


@pytest.mark.parametrize(("pruner", "ratio", "alike", "given"), STEP_SIZES)
def test_steps_as_long_as_the_runs(pruner: Any, ratio: float, alike: dict[str, Any], given: float) -> None:
    config = matched(pruner=pruner, epochs=30)
    check_control("same_step_size", config, full=config)
    done = record(config, n=1000, visited=2000, per_image=17, step_ratio=ratio)
    resolved = resolve("same_step_size", config, done)
    assert resolved.pruner == RandomSteps(ratio=given, **alike)
    assert resolved.replace(pruner=config.pruner) == config
    assert expected_passes("same_step_size", config, 1000) == config.passes(1000)


def test_random_steps_beside_rcs_without_attacks_make_none() -> None:
    """RCS attacks its held-out images whatever the objective; random steps have no use for its steps."""
    config = matched(pruner={"rcs": {"steps": 3}}, objective="standard")
    resolved = resolve("same_step_size", config, record(config, n=1000, visited=2000, per_image=3))
    assert isinstance(resolved.pruner, RandomSteps)
    assert resolved.pruner.steps is None


@pytest.mark.parametrize("pruner", ["random", "score", "keep_fragile", "infobatch", "loss_top", "d2"])
def test_step_sizes_that_nobody_measures_are_refused(pruner: str) -> None:
    with pytest.raises(ConfigError, match=f"same_step_size.*'{pruner}' does not measure.*grad_match"):
        check_control("same_step_size", matched(pruner=pruner), full=matched())
    with pytest.raises(ConfigError, match="does not measure"):
        grid(RunConfig.flat(), pruners=[pruner], fractions=[0.5], seeds=[0], controls=["same_step_size"])


def test_at_fraction_one_any_control_is_the_full_run() -> None:
    entries = grid(
        RunConfig.flat(), pruners=["grad_match"], fractions=[1.0, 0.5], seeds=[0], controls=["same_step_size"]
    )
    assert [entry.derived for entry in entries] == [False, False, False, True]


def test_a_record_without_a_ratio_is_refused() -> None:
    config = matched(pruner="grad_match")
    done = record(config, n=1000, visited=2000, per_image=17, step_ratio=None)
    with pytest.raises(ConfigError, match=r"step ratio of the run 0{16}.*has none.*trained again"):
        resolve("same_step_size", config, done)


def test_a_control_of_the_same_step_size_is_trained() -> None:
    """From a real run to a real control: as many images, other ones, in steps as long, from the same warm-up."""
    made = tiny_run(pruner={"grad_match": {"warmup_epochs": 1, "per_class": False}}, epochs=2, fraction=0.4)
    dataset = load_dataset(made.dataset)
    result = train(made, dataset)
    done = run_record(made.train_key(dataset), made, dataset, result)
    assert done.step_ratio == result.selections[1].step_ratio
    control = resolve("same_step_size", made, done)
    again = train(control, dataset)
    assert (again.steps, again.images_visited, again.ledger["passes"]) == (
        result.steps,
        result.images_visited,
        result.ledger["passes"],
    )
    assert again.step_ratio == pytest.approx(done.step_ratio, rel=1e-5)
    assert again.metrics[0]["train_loss"] == result.metrics[0]["train_loss"]
    assert set(again.selections[1].indices) != set(result.selections[1].indices)


def test_a_run_that_ended_before_any_attack_has_no_control_of_its_cost() -> None:
    config = matched(plain_epochs=2)
    done = record(config, n=1000, visited=400, per_image=3)
    rows = [{"epoch": epoch, "kept": 200, "images": 200, "plain": True} for epoch in range(2)]
    with pytest.raises(ConfigError, match="ended before an attack did"):
        resolve("same_cost", config, done.model_copy(update={"epochs": rows}))
