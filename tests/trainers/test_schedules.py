"""Learning-rate schedules against torch's own, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PrivateAttr
from torch.optim import lr_scheduler

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.trainers.checks import check_training
from advprune_core.trainers.schedules import SCHEDULES, Constant, Cosine, OneCycle, Piecewise, Schedule, rate_at
from tests.tiny import tiny_run

STEPS = 97


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """The rates that a scheduler of torch sets, with a peak of 1."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimiser)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


def factors(schedule: Any, steps: int, last: int) -> list[float]:
    return [schedule.factor(step / last) for step in range(steps)]


@pytest.mark.parametrize("peak_at", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("division", [25, 10, 1])
def test_one_cycle_is_torchs(peak_at: float, division: float) -> None:
    # torch ends its rise at step pct_start * total - 1 and the fall at total - 1; ours at progress peak_at and 1.
    share = (peak_at * (STEPS - 1) + 1) / STEPS
    expected = torch_rates(
        lambda optimiser: lr_scheduler.OneCycleLR(
            optimiser, 1.0, STEPS, pct_start=share, div_factor=division, final_div_factor=1e12, cycle_momentum=False
        ),
        STEPS - 1,
    )
    mine = factors(OneCycle(peak_at=peak_at, start_factor=1 / division), STEPS - 1, STEPS - 1)
    assert mine == pytest.approx(expected, abs=1e-9)


def test_one_cycle_defaults_are_torchs() -> None:
    assert OneCycle() == OneCycle(peak_at=0.3, start_factor=1 / 25)


def test_cosine_is_torchs() -> None:
    expected = torch_rates(lambda optimiser: lr_scheduler.CosineAnnealingLR(optimiser, STEPS), STEPS)
    assert factors(Cosine(), STEPS, STEPS) == pytest.approx(expected, abs=1e-9)


def test_cosine_warms_up_along_a_line() -> None:
    schedule, steps = Cosine(warmup=0.2), 50
    rise = [schedule.factor(p) for p in np.linspace(0, 0.2, steps)]
    assert rise == pytest.approx(np.linspace(0, 1, steps))
    fall = [schedule.factor(0.2 + 0.8 * step / STEPS) for step in range(STEPS)]
    assert fall == pytest.approx(factors(Cosine(), STEPS, STEPS))


def test_piecewise_is_torchs_multi_step() -> None:
    expected = torch_rates(lambda optimiser: lr_scheduler.MultiStepLR(optimiser, [50, 75], 0.1), 100)
    assert factors(Piecewise(), 100, 100) == pytest.approx(expected)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True), st.data())
def test_piecewise_lines_interpolate(points: list[float], more: st.DataObject) -> None:
    at = sorted(points)
    heights = more.draw(st.lists(st.floats(0, 2), min_size=len(at), max_size=len(at)))
    schedule = Piecewise(at=tuple(at), factors=tuple(heights), linear=True)
    for progress in np.linspace(0, 1, 41):
        expected = np.interp(progress, [0.0, *at], [1.0, *heights])
        assert schedule.factor(float(progress)) == pytest.approx(expected, abs=1e-9)


def test_piecewise_points_at_both_ends() -> None:
    schedule = Piecewise(at=(0.0, 1.0), factors=(0.5, 0.25))
    assert [schedule.factor(p) for p in (0.0, 0.5, 1.0)] == [0.5, 0.5, 0.25]


ENDS = [
    (OneCycle(), 0.04, 0.0),
    (OneCycle(start_factor=0.0), 0.0, 0.0),
    (OneCycle(peak_at=0.7), 0.04, 0.0),
    (Cosine(), 1.0, 0.0),
    (Cosine(warmup=0.1), 0.0, 0.0),
    (Piecewise(), 1.0, 0.01),
    (Piecewise(at=(0.4, 1.0), factors=(1.0, 0.0), linear=True), 1.0, 0.0),
    (Constant(), 1.0, 1.0),
]


@pytest.mark.parametrize(("schedule", "start", "end"), ENDS, ids=repr)
def test_starts_and_ends(schedule: Any, start: float, end: float) -> None:
    assert schedule.factor(0.0) == pytest.approx(start, abs=1e-12)
    assert schedule.factor(1.0) == pytest.approx(end, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES.classes())
def test_factors_are_shares_of_the_peak(name: str) -> None:
    values = factors(SCHEDULES.parse(name), 1001, 1000)
    assert min(values) >= 0
    assert max(values) == pytest.approx(1, abs=1e-5)


BAD: list[tuple[type[Any], dict[str, Any], str]] = [
    (OneCycle, {"peak_at": 0}, "peak_at"),
    (OneCycle, {"peak_at": 1}, "peak_at"),
    (OneCycle, {"start_factor": 1.5}, "start_factor"),
    (OneCycle, {"peak": 0.5}, "did you mean 'peak_at'"),
    (Cosine, {"warmup": 1}, "warmup"),
    (Cosine, {"warmup": -0.1}, "warmup"),
    (Piecewise, {"at": (0.5, 0.4)}, "must rise"),
    (Piecewise, {"at": (0.5, 0.5)}, "must rise"),
    (Piecewise, {"at": (0.5,)}, "one factor for each"),
    (Piecewise, {"at": (0.5, 1.1)}, "less than or equal to 1"),
    (Piecewise, {"factors": (0.1, -0.1)}, "factors.*greater than or equal to 0"),
    (Piecewise, {"factors": (0.1, float("nan"))}, "factors"),
]


@pytest.mark.parametrize(("cls", "settings", "message"), BAD)
def test_bad_settings_are_refused(cls: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls.create(**settings)


class Own(Schedule):
    """Whatever is given."""

    name = "own"
    _given: Any = PrivateAttr()

    def factor(self, progress: float) -> Any:
        return self._given


def own(factor: Any) -> Own:
    schedule = Own()
    schedule._given = factor
    return schedule


@pytest.mark.parametrize("factor", [0.5, torch.tensor(0.5), np.float32(0.5), np.array(0.5)], ids=repr)
def test_a_rate_is_a_number_whatever_is_one(factor: Any) -> None:
    rate = rate_at(own(factor), 0.3, peak=0.2)
    assert (type(rate), rate) == (float, pytest.approx(0.1))


@pytest.mark.parametrize("factor", [-0.1, float("nan"), float("inf"), None, "half", torch.ones(2)], ids=repr)
def test_a_factor_that_is_no_rate_is_refused_before_training(factor: Any) -> None:
    config = tiny_run(schedule=own(factor))
    with pytest.raises(
        ConfigError, match=r"'own' gives the factor .* at 0 of the training: a finite number .* at least 0"
    ):
        check_training(config, load_dataset(config.dataset))
