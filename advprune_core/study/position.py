"""How far a grid is: what is done, what is under way, what is left, and what its bar shows of that."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from advprune_core.study.throughput import Throughput
from advprune_core.trainers.config import RunConfig


@dataclass(frozen=True)
class UnderWay:
    """A run that is being trained: its key, what it is, and the metrics of its epochs so far."""

    key: str
    name: str
    epochs: list[dict[str, Any]]


@dataclass(frozen=True)
class Left:
    """What is left: runs to train, tests to make now, the kinds of all tests that will be made, and workers."""

    training: int
    testing: int
    tests: Sequence[str]
    workers: int


@dataclass(frozen=True)
class _Begun:
    """A run that is being trained, the folder that its metrics are read from, the number of its training images."""

    name: str
    config: RunConfig
    folder: Path
    images: int

    def epochs(self) -> list[dict[str, Any]]:
        """Metrics of the epochs so far; of the last line only when it is whole."""
        try:
            text = (self.folder / "metrics.jsonl").read_text()
            return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        except (OSError, ValueError):
            return []

    def passes(self) -> float:
        """Forward-equivalents that it has got to."""
        return self.config.passes_done(self.images, self.epochs())


class Position:
    """How far a grid is, in forward-equivalents of training.

    Parameters
    ----------
    bar : tqdm
        Its total is what the grid is expected to take, less where runs share a warm-up.

    Attributes
    ----------
    done : float
        What finished training was expected to take.
    throughput : Throughput
        How fast it goes.
    left : Left, optional
        What is left; None before anything has begun.
    note : str
        What is shown instead of it.
    """

    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar, self.done, self.throughput = bar, 0.0, Throughput()
        self.left: Left | None = None
        self.note = ""
        self._begun: dict[str, _Begun] = {}
        self._lost = 0.0  # of what failed
        self._before: dict[str, float] = {}  # what a run goes on from, and does not train itself

    def __contains__(self, key: str) -> bool:
        """Whether a run is being trained."""
        return key in self._begun

    def begin(self, key: str, name: str, config: RunConfig, folder: Path, *, images: int) -> None:
        """A run, or a warm-up, is being trained on so many images, with metrics in a folder."""
        self._begun[key] = begun = _Begun(name, config, folder, images)
        self.throughput.begin(key, passes=max(begun.passes(), self._before.get(key, 0.0)))

    def end(self, key: str, *, passes: float | None) -> None:
        """It is not any more; it was expected to take so many passes, None: it failed, or another process did it."""
        if self._begun.pop(key, None) is not None:
            self.throughput.end(key, passes=passes)

    def trained(self, key: str, *, passes: float) -> None:
        """A run is finished that was expected to take so many passes."""
        self.done += passes - self._before.pop(key, 0.0)

    def lost(self, passes: float, *, key: str | None = None) -> None:
        """A run of so many passes will not be trained: it failed, or what it waits for."""
        self._lost += passes - (self._before.pop(key, 0.0) if key else 0.0)

    def warmed_up(self, keys: Collection[str], *, passes: float) -> None:
        """A warm-up is trained that these runs go on from."""
        self.done += passes
        self._before |= dict.fromkeys(keys, passes)

    def complete(self) -> None:
        """Everything is done: what runs were expected to cost is not quite what they did."""
        self.done = self.bar.total

    def under_way(self) -> list[UnderWay]:
        """The runs that are being trained and have got through an epoch."""
        seen = [UnderWay(key, run.name, run.epochs()) for key, run in list(self._begun.items())]
        return [run for run in seen if run.epochs]

    def look(self) -> tuple[float, str]:
        """Forward-equivalents that are done, runs under way included; how long it will take, and what is left.

        Both at once: each reads what the runs under way have written.
        """
        there = {key: run.passes() for key, run in list(self._begun.items())}
        now = self.done + sum(max(0.0, passes - self._before.get(key, 0.0)) for key, passes in there.items())
        return now, self._says(now, there)

    def _says(self, now: float, there: dict[str, float]) -> str:
        if self.note or self.left is None:
            return self.note
        left = self.left
        if not left.training and not left.testing:
            return ""
        passes = max(0.0, self.bar.total - now - self._lost) if left.training else 0.0
        workers = max(1, min(left.workers, left.training + left.testing))
        seconds = self.throughput.seconds_left(passes, left.tests, workers=workers, there=there)
        parts = [f"about {tqdm.format_interval(seconds)} left"] if seconds is not None else []
        parts += [f"{left.training} to train"] if left.training else []
        parts += [f"{left.testing} to test"] if left.testing else []
        return ", ".join(parts)
