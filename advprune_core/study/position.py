"""How far a grid is: what is done, what is under way, what is left, and what its bar shows of that."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from tqdm import tqdm

from advprune_core.study.tasks import EvaluateTask, Task, TrainTask
from advprune_core.trainers.config import RunConfig


@dataclass(frozen=True)
class UnderWay:
    """A run that is being trained: its key, what it is, and the metrics of its epochs so far."""

    key: str
    name: str
    epochs: list[dict[str, Any]]


@dataclass(frozen=True)
class _Begun:
    """The same, with the folder that its metrics are read from and the number of its training images."""

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
    """

    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar, self.done = bar, 0.0
        self._begun: dict[str, _Begun] = {}
        self._before: dict[str, float] = {}  # what a run goes on from, and does not train itself
        self._testing: list[float] = []

    def __contains__(self, key: str) -> bool:
        """Whether a run is being trained."""
        return key in self._begun

    def begin(self, key: str, name: str, config: RunConfig, folder: Path, *, images: int) -> None:
        """A run, or a warm-up, is being trained on so many images, with metrics in a folder."""
        self._begun[key] = _Begun(name, config, folder, images)

    def end(self, key: str) -> None:
        """It is not any more."""
        self._begun.pop(key, None)

    def trained(self, key: str, *, passes: float) -> None:
        """A run is finished that was expected to take so many passes."""
        self.done += passes - self._before.pop(key, 0.0)

    def warmed_up(self, keys: Collection[str], *, passes: float) -> None:
        """A warm-up is trained that these runs go on from."""
        self.done += passes
        self._before |= dict.fromkeys(keys, passes)

    def tested(self, seconds: float) -> None:
        """A test took so long."""
        self._testing.append(seconds)

    def complete(self) -> None:
        """Everything is done: what runs were expected to cost is not quite what they did."""
        self.done = self.bar.total

    def under_way(self) -> list[UnderWay]:
        """The runs that are being trained and have got through an epoch."""
        seen = [UnderWay(key, run.name, run.epochs()) for key, run in list(self._begun.items())]
        return [run for run in seen if run.epochs]

    def now(self) -> float:
        """Forward-equivalents that are done, runs under way included."""
        there = {key: run.config.passes_done(run.images, run.epochs()) for key, run in list(self._begun.items())}
        return self.done + sum(max(0.0, passes - self._before.get(key, 0.0)) for key, passes in there.items())

    def say_what_is_left(self, tasks: Sequence[Task], workers: int) -> None:
        """The bar counts training; tests of what is trained come last, and take their time as well."""
        training = sum(isinstance(task, TrainTask) for task in tasks)
        left = [f"{training} to train"] if training else []
        if tests := sum(isinstance(task, EvaluateTask) for task in tasks):
            seconds = mean(self._testing or [0.0]) * math.ceil(tests / workers)
            about = f", about {tqdm.format_interval(seconds)}" if seconds and not training else ""
            left += [f"{tests} to test{about}"]
        self.bar.set_postfix_str(", ".join(left), refresh=False)
