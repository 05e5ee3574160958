"""Alternating rounds and medians, by a clock that only goes when work is done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.timing import alternating, medians, seconds


class Clock:
    """Goes forward by what work says it takes, and notes who worked."""

    def __init__(self) -> None:
        self.now, self.seen = 0.0, list[str]()

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, takes: Callable[[], float]) -> None:
        self.seen.append(name)
        self.now += takes()


def test_seconds_are_those_of_the_work_alone() -> None:
    clock = Clock()
    clock.now = 100.0
    assert seconds(partial(clock.work, "ours", lambda: 2.5), clock) == 2.5


def test_every_second_round_is_backwards_and_each_contender_has_its_own_seconds() -> None:
    clock, taken = Clock(), {"a": 1.0, "b": 2.0, "c": 4.0}
    contenders = {name: partial(clock.work, name, partial(taken.__getitem__, name)) for name in taken}
    measure = alternating(contenders, clock)
    assert [measure(number) for number in range(4)] == [taken] * 4
    assert "".join(clock.seen) == "abc" + "cba" + "abc" + "cba"


def test_a_machine_that_grows_slower_favours_nobody() -> None:
    """The same work twice, while the clock runs faster and faster: over pairs of rounds both take the same."""
    clock = Clock()

    def slower() -> float:
        return 1.0 + len(clock.seen)

    measure = alternating({name: partial(clock.work, name, slower) for name in ("ours", "peer")}, clock)
    first, second = measure(0), measure(1)
    assert first["ours"] < first["peer"]
    assert first["ours"] + second["ours"] == first["peer"] + second["peer"]


def test_medians_ignore_an_outlier_and_rounds_may_lack_a_contender() -> None:
    rounds = [{"ours": 1.0, "peer": 3.0}, {"ours": 500.0}, {"ours": 2.0, "peer": 5.0}]
    assert medians(rounds) == {"ours": 2.0, "peer": 4.0}
    assert medians([]) == {}
