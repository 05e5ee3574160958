"""Seconds of pieces of work side by side: alternating, so that whatever drifts hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

Work = Callable[[], object]
Clock = Callable[[], float]
#: One round: its number, from 0 (the warm-up), to an amount for every contender.
Round = Callable[[int], Mapping[str, float]]


def seconds(work: Work, clock: Clock = time.process_time) -> float:
    """What a piece of work takes; processor seconds, which a neighbour on the machine does not lengthen, by default."""
    start = clock()
    work()
    return clock() - start


def alternating(contenders: Mapping[str, Work], clock: Clock = time.process_time) -> Round:
    """A round is every contender once, in every second round backwards."""

    def measured(number: int) -> dict[str, float]:
        names = list(contenders)[:: -1 if number % 2 else 1]
        return {name: seconds(contenders[name], clock) for name in names}

    return measured


def medians(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Median amount of every contender over the rounds."""
    amounts: dict[str, list[float]] = {}
    for found in rounds:
        for name, amount in found.items():
            amounts.setdefault(name, []).append(amount)
    return {name: statistics.median(values) for name, values in amounts.items()}
