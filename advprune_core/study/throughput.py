"""How fast the workers of a grid are, and so how long the rest of it takes."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

#: Of a kind of test so many are remembered: the machine may have become faster or slower since.
_REMEMBERED = 8


class Throughput:
    """What a worker gets done in a second: training since this session began, tests also of earlier ones.

    One thread may ask while another one tells.

    Parameters
    ----------
    clock : callable
        Seconds that pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[str, tuple[float, float]] = {}  # when, and the passes that were there
        self._seconds = self._passes = 0.0
        self._tests: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def begin(self, key: str, *, passes: float) -> None:
        """A worker begins to train a run, of which so many forward-equivalents are done already."""
        self._begun[key] = (self._clock(), passes)

    def end(self, key: str, *, passes: float | None) -> None:
        """It has got to so many; None: it failed, or another process did it, which says nothing of the pace."""
        begun, before = self._begun.pop(key)
        if passes is not None:
            self._seconds += self._clock() - begun
            self._passes += passes - before

    def tested(self, kind: str, seconds: float) -> None:
        """A test of some kind took so long."""
        self._tests[kind].append(seconds)

    def seconds_left(
        self, passes: float, tests: Sequence[str], *, workers: int, there: Mapping[str, float] = {}
    ) -> float | None:
        """How long training of so many forward-equivalents and tests of these kinds take together.

        A kind of test that was not met yet is as long as the others on the mean; where none was, they are left out.

        Parameters
        ----------
        there : mapping of str to float
            Forward-equivalents of the runs under way, by key.

        Returns
        -------
        float or None
            Where training is left and nothing of it was seen, or only tests, and none was seen: nobody can tell.
        """
        now, under_way = self._clock(), list(self._begun.items())
        seconds = self._seconds + sum(now - begun for _, (begun, _) in under_way)
        done = self._passes + sum(max(0.0, there.get(key, 0.0) - before) for key, (_, before) in under_way)
        if passes > 0 and not done:
            return None
        training = passes * seconds / done if passes > 0 else 0.0
        means = {kind: mean(list(found)) for kind, found in list(self._tests.items())}
        if not means:
            return training / workers if training else None
        each = (means.get(kind, mean(means.values())) for kind in tests)
        return (training + sum(each)) / workers
