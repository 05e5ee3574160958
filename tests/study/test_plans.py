"""Plans: what is there, what the rest costs, and how long that will take, without compiling anything."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from advprune_core.datasets.base import load_dataset
from advprune_core.study import plans
from advprune_core.study.grid import study_grid
from advprune_core.study.plans import COMPILED, duration, measured_pace, plan
from advprune_core.study.records import RunRecord
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from advprune_core.study.study import study_config
from tests.tiny import TINY_STUDY, tiny_run, tiny_study


def counts(text: str) -> tuple[int, int, float]:
    """Entries, runs to train, and forward-equivalents, as a plan says them."""
    found = re.search(r"(\d+) entries, at most (\d+) to train: ([\d,]+) forward-equivalents", text)
    assert found is not None
    return int(found[1]), int(found[2]), float(found[3].replace(",", ""))


def test_plan_counts_runs_and_their_cost(tmp_path: Path) -> None:
    config = study_config({**TINY_STUDY, "seeds": [0, 1], "results": str(tmp_path / "none")})
    text = plan(study_grid(config), config.execution)
    images = 300 - 2 * (300 // 13)  # without the two validation splits
    per_image = 2 * 1 + 3  # PGD-1
    half = (images + 1) // 2
    assert counts(text) == (2 * 4, 2 * 3, 2 * per_image * (images + half + half))
    assert text.count("same_cost(random)") == 4
    assert not (tmp_path / "none").exists()


def test_plan_says_what_is_there(trained: Path) -> None:
    more = study_config({**TINY_STUDY, "fractions": [1.0, 0.5, 0.25], "controls": [], "results": str(trained)})
    text = plan(study_grid(more), more.execution)
    assert counts(text)[:2] == (3, 1)
    states = [line.split()[4] for line in text.splitlines()[1:4]]
    assert states == ["there", "there", "to"]


def test_a_plan_counts_what_is_trained_for_its_time_alone(tmp_path: Path) -> None:
    """As many as the study then trains: those that are there, or that are timed more than once."""
    config = tiny_study(tmp_path, epochs=1, seeds=[0], fractions=[1.0, 0.5], controls=[])
    run_study(config.replace(fractions=(1.0,)), progress=False)
    more = config.replace(timed_repeats=2)
    text = plan(study_grid(more), more.execution)
    full, half = (5 * images for images in (254, 127))
    assert counts(text) == (2, 1, 3 * full - full + 2 * half)
    assert f"({2 * full + half:,} of them for 3 trainings more, to time runs alone)" in text
    assert "about" in text
    result = run_study(more, progress=False)
    assert (result.trained, result.timed) == (1, 3)
    assert counts(plan(study_grid(more), more.execution)) == (2, 0, 0)


def test_plan_of_a_finished_study_has_nothing_to_do(trained: Path) -> None:
    config = study_config({**TINY_STUDY, "results": str(trained)})
    text = plan(study_grid(config), config.execution)
    assert counts(text) == (4, 0, 0)
    assert text.endswith("0 forward-equivalents")


def test_plan_says_which_controls_are_not_possible(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = RunStore.finished

    def diverged(store: RunStore, key: str) -> RunRecord | None:
        record = finished(store, key)
        return None if record is None else record.model_copy(update={"status": "diverged"})

    monkeypatch.setattr(RunStore, "finished", diverged)
    config = study_config({**TINY_STUDY, "results": str(trained)})
    text = plan(study_grid(config), config.execution)
    assert counts(text) == (4, 0, 0)
    assert [line.count("not possible") for line in text.splitlines()[1:5]] == [0, 0, 0, 1]
    reason = "is not possible: the control 'same_cost': the run it matches has the status 'diverged'"
    assert text.splitlines()[-1] == f"same_cost(random) 50 % seed 0 {reason}"


def test_plan_compiles_nothing_and_names_exact_runs(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled in a dry run")

    monkeypatch.setattr(torch, "compile", refuse)
    config = study_config({**TINY_STUDY, "settings": {"speed": "compiled"}, "results": str(trained)})
    text = plan(study_grid(config), config.execution)
    assert counts(text)[:2] == (4, 3)
    assert "not compiled" in text
    assert "\n2 of them are there as exact runs" in text  # the full one and the half; the control is not known yet


def test_the_ways_of_training_with_the_most_to_do_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    paces = {"trades": plans.Pace(3.0, 3.0, 16), "mart": plans.Pace(2.0, 4.0, 8), "pgd_at": plans.Pace(1.0, 9.0, 16)}

    def pace(config: Any, dataset: Any, *, seconds: float) -> plans.Pace:
        asked.append(config.objective.name)
        assert seconds == plans.TIMING / 3
        return paces[config.objective.name]

    monkeypatch.setattr(plans, "measured_pace", pace)
    ways = {
        "short": {"trainer": "fgsm"},
        "c": {"trainer": "pgd_at", "optimisation.epochs": 3},
        "a": {"trainer": "trades", "optimisation.epochs": 9},
        "b": {"trainer": "mart", "optimisation.epochs": 6},
    }
    config = study_config(
        {**TINY_STUDY, "variants": ways, "fractions": [1.0], "controls": [], "results": str(tmp_path)}
    )
    text = plan(study_grid(config), config.execution)
    assert asked == ["trades", "mart", "pgd_at"]
    entries = {entry.variant: entry for entry in study_grid(config)}
    n = 254
    passes = {way: entry.config.passes(n) for way, entry in entries.items()}
    low = 3 * passes["a"] + 2 * passes["b"] + 1 * passes["c"] + 1 * passes["short"]
    high = 3 * passes["a"] + 4 * passes["b"] + 9 * passes["c"] + 9 * passes["short"]
    assert f"between {duration(low)} and {duration(high)} of one worker" in text
    assert "by a few steps on 8 or 16 images" in text


def test_every_way_of_training_has_its_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def pace(config: Any, dataset: Any, *, seconds: float) -> plans.Pace:
        asked.append((config.objective.name, seconds))
        return plans.Pace(1.0, 4.0, 16)

    monkeypatch.setattr(plans, "measured_pace", pace)
    ways = {"a": {"trainer": "pgd_at"}, "b": {"trainer": "trades"}}
    config = study_config({**TINY_STUDY, "variants": ways, "seeds": [0, 1], "results": str(tmp_path)})
    text = plan(study_grid(config), config.execution)
    assert asked == [("trades", plans.TIMING / 2), ("pgd_at", plans.TIMING / 2)], "the longer one first"
    total = counts(text)[2]
    assert f"about {duration(2 * total)} of one worker" in text
    assert f"between {duration(total)} and {duration(4 * total)} of one worker" in text


@pytest.mark.parametrize(
    "settings",
    [{"best_every": 1, "on_collapse": "stop"}, {"optimisation.plain_epochs": 1}],
    ids=lambda s: next(iter(s)),
)
def test_what_needs_a_whole_run_is_left_out_of_the_timing(settings: dict[str, Any], tmp_path: Path) -> None:
    config = study_config({**TINY_STUDY, "epochs": 2, "settings": settings, "results": str(tmp_path)})
    assert counts(plan(study_grid(config), config.execution))[:2] == (4, 3)


FIXED, EACH = 0.1, 0.01  # of a step: seconds at any size, and for each image


@pytest.mark.parametrize("speed", ["exact", "compiled"])
@pytest.mark.parametrize("seconds", [0.0, 2.0, 3.5, 100.0])
def test_a_pace_is_measured_in_the_time_there_is(seconds: float, speed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def step(config: Any, dataset: Any, size: int) -> tuple[float, float]:
        sizes.append(size)
        return FIXED + EACH * size, FIXED + EACH * size

    monkeypatch.setattr(plans, "_step", step)
    config = tiny_run(batch_size=64, speed=speed)
    pace = measured_pace(config, load_dataset(config.dataset), seconds=seconds)
    spent = sum(FIXED + EACH * size for size in sizes[1:])
    assert spent <= max(seconds, FIXED + EACH * 2)
    assert pace.images == max(sizes) == {0.0: 2, 2.0: 16, 3.5: 32, 100.0: 64}[seconds]
    truth = FIXED / 64 + EACH
    for share in COMPILED if speed == "compiled" else (1.0,):
        assert share * truth < pace.high
        assert pace.low < share * truth or pace.images == 2  # which cannot tell what is fixed from what is not
    if pace.images == 64:
        assert pace.high / pace.low < 1.3 * (COMPILED[1] / COMPILED[0] if speed == "compiled" else 1)


@pytest.mark.parametrize(("device", "threads", "expected"), [("cpu", 1, 6.0), ("cpu", 2, 6.0), ("cuda", 1, 8.0)])
def test_a_step_on_a_cpu_is_processor_time(
    device: str, threads: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = {"seconds": {"train": 8.0}, "cpu_seconds": {"train": 6.0}, "passes": {"train": 5 * 4}}
    trained: list[Any] = []

    def train(config: Any, *_: Any, **__: Any) -> SimpleNamespace:
        trained.append(config)
        return SimpleNamespace(ledger=ledger)

    monkeypatch.setattr(plans, "train", train)
    config = tiny_run(device=device, threads=threads)
    assert plans._step(config, load_dataset(config.dataset), 4) == (pytest.approx(expected / 5), 8.0)
    assert trained[0].threads == 1, "several would wait for each other where the machine is busy"


@pytest.mark.parametrize(("threads", "low", "high"), [(1, 1, 1), (2, 1 / 2, 1), (4, 1 / 4, 1 / 2), (8, 1 / 4, 1 / 2)])
def test_several_threads_gain_half_of_their_number_to_all_of_it(
    threads: int, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_step", lambda config, dataset, size: (size * 0.001, size * 0.001))
    monkeypatch.setattr(plans.os, "cpu_count", lambda: 4)
    dataset = load_dataset(tiny_run().dataset)
    one, several = (measured_pace(tiny_run(threads=count), dataset) for count in (1, threads))
    assert several.low == pytest.approx(low * one.low)
    assert several.high == pytest.approx(high * one.high)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 seconds"),
        (4.2, "4.2 seconds"),
        (89, "89 seconds"),
        (90, "1.5 minutes"),
        (598, "10 minutes"),
        (33.7 * 60, "34 minutes"),
        (95 * 60, "1.6 hours"),
        (30 * 3600, "30 hours"),
        (36 * 3600, "1.5 days"),
        (26390 * 60, "18 days"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
