"""How long the rest takes, by a clock that is set by hand."""

from __future__ import annotations

import pytest

from advprune_core.study.pace import Pace


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


def test_nobody_can_tell_before_anything_was_seen(pace: Pace, clock: Clock) -> None:
    assert pace.seconds_left(100, ["pgd"], workers=1) is None
    assert pace.seconds_left(0, ["pgd"], workers=1) is None
    pace.tested("pgd", 5)
    assert pace.seconds_left(100, ["pgd"], workers=1) is None, "of training nothing was seen"
    assert pace.seconds_left(0, ["pgd"] * 4, workers=2) == 10
    pace.begin("a", passes=0)
    clock.now = 60
    assert pace.seconds_left(100, [], workers=1, there={"a": 0}) is None, "no epoch is over"


def test_training_goes_on_as_it_went(pace: Pace, clock: Clock) -> None:
    """Two workers, 1 and 3 passes a second each; what was done before they began counts for nothing."""
    pace.begin("a", passes=1000)
    pace.begin("b", passes=0)
    clock.now = 10
    assert pace.seconds_left(80, [], workers=2, there={"a": 1010, "b": 30}) == 20, "2 a second each"
    pace.end("a", passes=1010)
    clock.now = 20  # b alone goes on: 60 in 20 seconds, so 70 in 30 of one worker
    assert pace.seconds_left(70, [], workers=1, there={"b": 60}) == 30
    pace.begin("c", passes=0)
    clock.now = 30
    pace.end("c", passes=None)  # it failed, or somebody else did it
    pace.end("b", passes=90)  # 100 in 40 seconds
    assert pace.seconds_left(100, [], workers=1) == 40


def test_tests_take_what_their_kind_took_lately(pace: Pace, clock: Clock) -> None:
    pace.begin("a", passes=0)
    clock.now = 10
    pace.end("a", passes=10)
    assert pace.seconds_left(20, ["pgd"], workers=1) == 20, "how long a test takes is not known"
    pace.tested("pgd", 2)
    pace.tested("autoattack", 100)
    assert pace.seconds_left(20, ["pgd", "pgd", "autoattack"], workers=2) == (20 + 2 + 2 + 100) / 2
    assert pace.seconds_left(0, ["square"], workers=1) == 51, "one not met yet: as the others"
    for _ in range(20):
        pace.tested("autoattack", 10)  # the machine has nothing else to do now
    assert pace.seconds_left(0, ["autoattack"], workers=1) == 10
