"""How fast the workers of a grid are, and so how long the rest of it takes."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import mean

#: Of a kind of test so many are remembered: the machine may have become faster or slower since.
_REMEMBERED = 8


class Pace:
    """What a worker gets done in a second, by what was done since this session began.

    Parameters
    ----------
    clock : callable
        Seconds that pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[str, tuple[float, float]] = {}  # when, and the passes that were there
        self._seconds = self._passes = 0.0
        self._tests: dict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def begin(self, key: str, *, passes: float) -> None:
        """A worker begins to train a run, of which so many forward-equivalents are done already."""
        self._begun[key] = (self._clock(), passes)

    def end(self, key: str, *, passes: float) -> None:
        """It has got to so many."""
        if key in self._begun:
            begun, before = self._begun.pop(key)
            self._seconds += self._clock() - begun
            self._passes += max(0.0, passes - before)

    def tested(self, kind: Hashable, seconds: float) -> None:
        """A test of some kind took so long."""
        self._tests[kind].append(seconds)

    def seconds_left(
        self, passes: float, tests: Sequence[Hashable], *, workers: int, there: Mapping[str, float] = {}
    ) -> float | None:
        """How long training of so many forward-equivalents and tests of these kinds take together.

        A kind of test that was not met yet is as long as the others on the mean.

        Parameters
        ----------
        there : mapping of str to float
            Forward-equivalents of the runs under way, by key.

        Returns
        -------
        float or None
            Where training is left and nothing of it was seen, or only tests, and none was seen: nobody can tell.
        """
        now = self._clock()
        seconds = self._seconds + sum(now - begun for begun, _ in self._begun.values())
        done = self._passes + sum(max(0.0, there.get(key, 0.0) - before) for key, (_, before) in self._begun.items())
        if passes > 0 and not done:
            return None
        training = passes * seconds / done if passes > 0 else 0.0
        known = [second for found in self._tests.values() for second in found]
        if not known:
            return training / workers if training else None
        each = (mean(self._tests[kind]) if kind in self._tests else mean(known) for kind in tests)
        return (training + sum(each)) / workers
