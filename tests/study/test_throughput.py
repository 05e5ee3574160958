"""How long the rest takes, by a clock that is set by hand."""

from __future__ import annotations

import pytest

from advprune_core.study.throughput import Throughput


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
def throughput(clock: Clock) -> Throughput:
    return Throughput(clock)


def test_nobody_can_tell_before_anything_was_seen(throughput: Throughput, clock: Clock) -> None:
    assert throughput.seconds_left(100, ["pgd"], workers=1) is None
    assert throughput.seconds_left(0, ["pgd"], workers=1) is None
    throughput.tested("pgd", 5)
    assert throughput.seconds_left(100, ["pgd"], workers=1) is None, "of training nothing was seen"
    assert throughput.seconds_left(0, ["pgd"] * 4, workers=2) == 10
    throughput.begin("a", passes=0)
    clock.now = 60
    assert throughput.seconds_left(100, [], workers=1, there={"a": 0}) is None, "no epoch is over"


def test_training_goes_on_as_it_went(throughput: Throughput, clock: Clock) -> None:
    """Two workers, 1 and 3 passes a second each; what was done before they began counts for nothing."""
    throughput.begin("a", passes=1000)
    throughput.begin("b", passes=0)
    clock.now = 10
    assert throughput.seconds_left(80, [], workers=2, there={"a": 1010, "b": 30}) == 20, "2 a second each"
    throughput.end("a", passes=1010)
    clock.now = 20  # b alone goes on: 60 in 20 seconds, so 70 in 30 of one worker
    assert throughput.seconds_left(70, [], workers=1, there={"b": 60}) == 30
    throughput.begin("c", passes=0)
    clock.now = 30
    throughput.end("c", passes=None)  # it failed, or somebody else did it
    throughput.end("b", passes=90)  # 100 in 40 seconds
    assert throughput.seconds_left(100, [], workers=1) == 40


def test_tests_take_what_their_kind_took_lately(throughput: Throughput, clock: Clock) -> None:
    throughput.begin("a", passes=0)
    clock.now = 10
    throughput.end("a", passes=10)
    assert throughput.seconds_left(20, ["pgd"], workers=1) == 20, "how long a test takes is not known"
    throughput.tested("pgd", 2)
    throughput.tested("autoattack", 100)
    assert throughput.seconds_left(20, ["pgd", "pgd", "autoattack"], workers=2) == (20 + 2 + 2 + 100) / 2
    assert throughput.seconds_left(0, ["square"], workers=1) == 51, "one not met yet: as the others"
    for _ in range(20):
        throughput.tested("autoattack", 10)  # the machine has nothing else to do now
    assert throughput.seconds_left(0, ["autoattack"], workers=1) == 10
