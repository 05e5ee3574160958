"""Warm-ups that several runs of a grid go on from, while the grid is carried out."""

from __future__ import annotations

from collections.abc import Callable

from advprune_core.datasets.splits import Dataset
from advprune_core.study.finished import drop_warmup
from advprune_core.study.position import Position
from advprune_core.study.store import RunStore
from advprune_core.study.tasks import TrainTask, WarmupTask
from advprune_core.study.waiting import Waiting, is_shared, runs_by_warmup
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.warmups import warmup_passes


class SharedWarmups:
    """Holds runs that begin alike back until their warm-up is trained, and drops it after the last of them.

    Parameters
    ----------
    tasks : Waiting
        What is to be done.
    store : RunStore
    position : Position
        How far the grid is, whose bar counts a warm-up once.
    dataset : callable
        From a run to its data.
    """

    def __init__(
        self, tasks: Waiting, store: RunStore, position: Position, dataset: Callable[[RunConfig], Dataset]
    ) -> None:
        self._tasks, self._store, self._position, self._dataset = tasks, store, position, dataset
        self._keys: dict[str, set[str]] = {}  # runs that are still to go on from each

    def share(self, checkpoint_seconds: float) -> None:
        """Let the runs to be trained that begin alike wait for a training of what they share.

        A warm-up that a killed study has left, and that all of its runs have gone beyond, is dropped.
        """
        trainings = [task for task in self._tasks.tasks if isinstance(task, TrainTask)]
        runs = {task.key: (task.config, self._dataset(task.config)) for task in trainings}
        for warmup, keys in runs_by_warmup(runs).items():
            if not is_shared(warmup, keys, self._store):
                if self._store.warmup(warmup).exists():
                    drop_warmup(self._store, warmup)
                continue
            task = WarmupTask(runs[keys[0]][0], warmup, str(self._store.results), checkpoint_seconds)
            self._tasks.hold(keys, until=task)
            self._keys[warmup] = set(keys)
            self._position.bar.total -= self.passes(task) * (len(keys) - 1)

    def passes(self, task: WarmupTask) -> float:
        """Forward-equivalents of a warm-up."""
        return warmup_passes(task.config, len(self._dataset(task.config).train))

    def trained(self, task: WarmupTask, error: BaseException | None) -> None:
        """Begin the runs of a warm-up; what kept it from being trained, each of them meets by itself."""
        self._tasks.release(task.key, trained=error is None)
        keys, each = self._keys[task.key], self.passes(task)
        if error is None:
            self._position.warmed_up(keys, passes=each)
        else:
            self._position.bar.total += each * (len(keys) - 1)
            drop_warmup(self._store, task.key)

    def gone_beyond(self, task: TrainTask) -> None:
        """Drop the warm-up of a run when no other needs it."""
        if task.warmup is not None:
            self._keys[task.warmup].discard(task.key)
            if not self._keys[task.warmup]:
                drop_warmup(self._store, task.warmup)
