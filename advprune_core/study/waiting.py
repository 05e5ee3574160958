"""What waits for a worker, in its order, and the warm-ups that several runs of a grid share."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from filelock import Timeout

from advprune_core.datasets.splits import Dataset
from advprune_core.study.store import RunStore
from advprune_core.study.tasks import Task, TrainTask, WarmupTask
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.warmups import warmup_key, warmup_passes


def runs_by_warmup(runs: Mapping[str, tuple[RunConfig, Dataset]]) -> dict[str, list[str]]:
    """Keys of the runs of each warm-up, of runs to be trained by key."""
    groups: dict[str, list[str]] = {}
    for key, (config, dataset) in runs.items():
        if (warmup := warmup_key(config, dataset)) is not None:
            groups.setdefault(warmup, []).append(key)
    return groups


def is_shared(warmup: str, keys: Collection[str], store: RunStore) -> bool:
    """Whether several of these runs, which have a warm-up in common, are to begin with it, or one and it is there."""
    begun = [(store.work(key) / "checkpoint.pt").exists() for key in keys]
    return begun.count(False) > 1 or (not all(begun) and store.warmup(warmup).exists())


def passes_saved(runs: Mapping[str, tuple[RunConfig, Dataset]], store: RunStore) -> dict[str, float]:
    """Forward-equivalents that a run need not train because another one of its warm-up does, by key."""
    return {
        key: warmup_passes(runs[key][0], len(runs[key][1].train))
        for warmup, own in runs_by_warmup(runs).items()
        if is_shared(warmup, own, store)
        for key in own[1:]
    }


def _taken(task: Task, store: RunStore) -> bool:
    """Whether another process is at a task: of a study that has a run in common, or is driven by two."""
    lock = store.warmup_lock(task.key) if isinstance(task, WarmupTask) else store.lock(task.key)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


#: Place in the order, number of the entry in the grid, task.
_Item = tuple[tuple[int, float], int, Any]


class Waiting:
    """Tasks in their order; runs that share a warm-up come when it is trained.

    Tests are first, so that what is trained is also judged if the machine goes away; then training part by
    part, of a part the longest first.
    """

    def __init__(self) -> None:
        self._ready: list[_Item] = []
        self._held: dict[str, list[_Item]] = {}

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def tasks(self) -> list[Task]:
        """All of them."""
        held = [item for items in self._held.values() for item in items]
        return [task for *_, task in [*self._ready, *held]]

    def push(self, task: Task, number: int, *, part: int = -1, cost: float = 0.0) -> None:
        """Add a task of the entry in a place of the grid."""
        self._insert(((part, -cost), number, task))

    def pop(self, store: RunStore) -> tuple[int, Task] | None:
        """Take the first that can be begun and that nobody else is at; if somebody is at each, wait for the first."""
        if not self._ready:
            return None
        free = (place for place, (*_, task) in enumerate(self._ready) if not _taken(task, store))
        _, number, task = self._ready.pop(next(free, 0))
        return number, task

    def training(self, key: str) -> TrainTask | None:
        """The training of a run that is not begun."""
        return next((task for task in self.tasks if isinstance(task, TrainTask) and task.key == key), None)

    def remove(self, task: Task) -> None:
        """Take a task that could be begun out of its turn."""
        self._ready = [item for item in self._ready if item[-1] is not task]

    def hold(self, keys: Collection[str], *, until: WarmupTask) -> None:
        """Put the training of a warm-up before the runs with these keys, and hold them back until it is done."""
        ready, own = self._ready, list[_Item]()
        self._ready = []
        for item in ready:
            (own if isinstance(item[-1], TrainTask) and item[-1].key in keys else self._ready).append(item)
        self._held[until.key] = own
        place, number, _ = own[0]
        self._insert((place, number, until))

    def release(self, warmup: str, *, trained: bool) -> None:
        """Let the runs of a warm-up be begun, from where it has left them if it could be trained."""
        for place, number, task in self._held.pop(warmup):
            self._insert((place, number, replace(task, warmup=warmup) if trained else task))

    def _insert(self, item: _Item) -> None:
        insort(self._ready, item, key=lambda item: item[0])
