"""Carries runs out: what is finished is not run again, what was interrupted goes on.

The driver is the only writer of records. It keeps as many tasks under way as there are workers;
what becomes possible when one ends (the evaluation of a run, the control that matches it) joins
the queue.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from advprune_core.attacks.compiled import NotCompiled
from advprune_core.base.failures import message_of
from advprune_core.base.files import digest_of
from advprune_core.base.machine import machine_error, machine_errors
from advprune_core.base.progress import following
from advprune_core.base.settings import ConfigError
from advprune_core.study.elsewhere import lacks_weights
from advprune_core.study.engines import Engine, engine
from advprune_core.study.finished import (
    drop_left_over,
    evaluation_record,
    finish,
    finish_evaluation,
    finish_failed,
    run_record,
)
from advprune_core.study.position import Left, Position, UnderWay
from advprune_core.study.records import RunRecord
from advprune_core.study.resolution import Resolution
from advprune_core.study.tasks import EvaluateTask, Task, TrainTask, WarmupTask, carry_out
from advprune_core.study.waiting import Waiting
from advprune_core.study.warmups import SharedWarmups
from advprune_core.trainers.config import RunConfig


class Driver:
    """A grid under way.

    Parameters
    ----------
    grid : Resolution
        The entries, their data, where their runs lie, and how they are carried out.
    bar : tqdm
        Counts forward-equivalents of training.
    on_key : callable
        Called when the keys of runs, and later of controls, have become known, before they are trained.
    first : callable
        Called when the runs are known, before any worker has one: it may carry some out alone (see `alone`).

    Attributes
    ----------
    failed : dict of str to str
        Message of each run that failed, by what it was.
    trained, evaluated : int
        How much was done now, and by this driver: what another one has written meanwhile is not counted.
    timed : int
        How many finished runs were trained once more, each time counted, for their seconds alone.
    without_weights : list of str
        What could not be tested, because its weights are not here and it was not to be trained again.
    position : Position
        How far it is.
    tasks : Waiting
        What waits for a worker.
    timing : bool
        Whether a run is being timed alone, so that nothing else should keep this process busy.
    """

    def __init__(
        self,
        grid: Resolution,
        bar: tqdm[Any],
        on_key: Callable[[Driver], None] = lambda driver: None,
        *,
        first: Callable[[Driver], None] = lambda driver: None,
    ) -> None:
        self.grid, self.store, self.execution = grid, grid.store, grid.execution
        self.bar, self.on_key, self.first = bar, on_key, first
        self.position = Position(bar)
        self.failed: dict[str, str] = {}
        self.trained = self.evaluated = self.timed = 0
        self.without_weights: list[str] = []
        self.timing = False
        self.tasks = Waiting()
        self._controls: dict[str, list[int]] = {}  # by the run that they wait for
        self._sharing: dict[str, list[int]] = {}
        self._tested: set[tuple[str, str]] = set()
        self._warmups = SharedWarmups(self.tasks, self.store, self.position, grid.dataset)

    def run(self) -> None:
        """Carry everything out.

        Raises
        ------
        MachineError
            A killed worker, a full disk, a limit on files: no run's own failure, so everything stops.
        """
        with machine_errors():
            self._run()

    def _run(self) -> None:
        for number, entry in enumerate(self.grid.entries):
            config = self.grid.found(entry.config, entry.evaluation)
            key = self.grid.key(config)
            if not entry.derived:
                self._add_run(number, config, key)
                continue
            record = self.store.finished(key)
            if record is None:
                self._controls.setdefault(key, []).append(number)
            else:
                self._add_control(number, record)
        self.on_key(self)
        with following(self.bar, self.position.look):
            self.first(self)
            self._work_through()
            if not self.failed:
                self.position.complete()

    def under_way(self) -> list[UnderWay]:
        """The runs that are being trained and have got through an epoch."""
        return self.position.under_way()

    def _expected(self, task: Task) -> float:
        """Forward-equivalents that a run or a warm-up ends with."""
        if isinstance(task, WarmupTask):
            return self._warmups.passes(task)
        return self.grid.passes(task.config)

    def _add_control(self, number: int, record: RunRecord) -> None:
        """Resolve a control from the finished record that it matches."""
        entry = self.grid.entries[number]
        try:
            config = entry.resolved(record)
        except ConfigError as error:  # of this control alone; the others go on
            self.failed[entry.describe()] = str(error)
            self.position.lost(self.grid.control_passes(number))
            return
        assert config is not None  # there is a record
        config = self.grid.found(config, entry.evaluation)
        self._add_run(number, config, self.grid.key(config))

    def _add_run(self, number: int, config: RunConfig, key: str) -> None:
        """Queue what a run still needs; a run that several entries share is queued once."""
        self.grid.keys[number] = key
        self._sharing.setdefault(key, []).append(number)
        record = self.store.finished(key)
        if len(self._sharing[key]) > 1:  # queued already; it may be tested in another way
            if record is not None and key not in self.position and self.tasks.training(key) is None:
                self._add_evaluations(key, config, record)
        elif record is None:
            self._queue_training(number, config, key)
        elif self.store.damaged(record):
            self._queue_again(number, config, key)
        else:
            drop_left_over(self.store, key)
            self._finished(number, config, record)

    def _finished(self, number: int, config: RunConfig, record: RunRecord) -> None:
        """Take a run as done, now or earlier: test it, or say why that is not possible."""
        if record.status == "diverged":
            self.failed[self.grid.entries[number].describe()] = "diverged: the loss is not finite"
        self.position.trained(record.key, passes=self.grid.passes(config))
        self._add_evaluations(record.key, config, record)

    def _queue_training(self, number: int, config: RunConfig, key: str, *, again: bool = False) -> None:
        ex = self.execution
        task = TrainTask(config, key, str(ex.root), ex.checkpoint_seconds, again)
        self.tasks.push(task, number, part=self.grid.entries[number].part, cost=self.grid.passes(config))

    def _queue_again(self, number: int, config: RunConfig, key: str) -> None:
        """Queue a finished run for the files that its record names; should it come out otherwise, all its tests too."""
        self._tested = {tested for tested in self._tested if tested[0] != key}
        self.bar.total += self.grid.passes(config)
        self._queue_training(number, config, key, again=True)

    def _add_evaluations(self, key: str, config: RunConfig, record: RunRecord) -> None:
        """Queue the tests of a trained run that are not there: one for each way that its entries ask for."""
        if record.status == "diverged":
            return
        for number in self._sharing[key]:
            evaluation = self.grid.evaluation(number)
            its_key = evaluation.key(self.grid.dataset(config).test_hash)
            if (key, its_key) in self._tested:
                continue
            done = self.store.evaluation(key, its_key)
            if done is None and self.execution.retrain and lacks_weights(record, evaluation, self.store):
                self._queue_again(number, config, key)  # and then the tests that are left
                return
            self._tested.add((key, its_key))
            if done is not None:
                self.position.throughput.tested(its_key, sum(done.seconds.values()))
                continue
            weights, ex = self.store.file(record, f"{evaluation.checkpoint}.pt"), self.execution
            if weights is None:
                self.without_weights.append(self.grid.entries[number].describe())
                continue
            here = config.replace(device=self.grid.entries[number].config.device)
            task = EvaluateTask(here, key, evaluation, its_key, str(ex.root), str(weights), steps=record.steps)
            self.tasks.push(task, number)

    def begin(self, number: int, task: Task) -> None:
        """The task of an entry in a place is under way."""
        name, images = self.grid.entries[number].describe(), len(self.grid.dataset(task.config).train)
        if isinstance(task, TrainTask):
            self.position.begin(task.key, name, task.config, self.store.work(task.key), images=images)
        elif isinstance(task, WarmupTask):
            name = f"warm-up of {name}"
            self.position.begin(task.key, name, task.config, self.store.warmup(task.key), images=images)

    def _work_through(self) -> None:
        if not self.tasks:
            return  # no cluster is asked for nothing
        under_way: dict[Future[Any], tuple[int, Task]] = {}
        with self._engine() as executor:
            if self.execution.engine != "ray":  # whose nodes need not see each other's files
                self._warmups.share(self.execution.checkpoint_seconds)
            self.position.left = self._left((), executor.width)
            while self.tasks or under_way:
                while len(under_way) < executor.width and (first := self.tasks.pop(self.store)) is not None:
                    number, task = first
                    self.begin(number, task)
                    under_way[executor.submit(carry_out, task, self.grid.dataset(task.config))] = (number, task)
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    number, task = under_way.pop(future)
                    self.done(number, task, future)
                self.position.left = self._left([task for _, task in under_way.values()], executor.width)

    def _left(self, under_way: Sequence[Task], workers: int) -> Left:
        """What is left: what is under way or waits, the tests of what will be trained, controls that wait for a run."""
        tasks = [*under_way, *self.tasks.tasks]
        trainings = [task for task in tasks if isinstance(task, TrainTask)]
        tests = [task.number for task in tasks if isinstance(task, EvaluateTask)]
        testing, controls = len(tests), [number for waiting in self._controls.values() for number in waiting]
        for task in trainings:
            tests += {self.grid.evaluation_key(number) for number in self._sharing[task.key]}
        for entry in (self.grid.entries[number] for number in controls):
            tests.append(entry.evaluation.key(self.grid.dataset(entry.config).test_hash))
        return Left(len(trainings) + len(controls), testing, tests, workers)

    def _engine(self) -> AbstractContextManager[Engine]:
        ex = self.execution
        if ex.engine == "ray":
            cluster = {"root": ex.root, "address": ex.address, "resources": ex.resources}
            return engine(ex.engine, ex.workers, **cluster, threads=max(e.config.threads for e in self.grid.entries))
        possible = len(self.tasks) + sum(len(numbers) for numbers in self._controls.values())
        return engine(ex.engine, min(ex.worker_count, possible))

    def done(self, number: int, task: Task, future: Future[Any], *, timed_alone: bool = False) -> None:
        """Write what came back, and queue what it makes possible."""
        error, key = future.exception(), self.grid.keys[number]
        done_here = error is None and (isinstance(task, WarmupTask) or future.result()[0] is not None)
        self.position.end(task.key, passes=self._expected(task) if done_here else None)
        if error is not None and (refused := machine_error(error)) is not None:
            raise refused from error
        if isinstance(task, WarmupTask):
            self._warmups.trained(task, error)
            return
        name = self.grid.entries[number].describe()
        if isinstance(task, TrainTask):
            self._warmups.gone_beyond(task)
            if error is None:
                self._trained(number, task, *future.result(), timed_alone=timed_alone)
                return
            self.failed[name] = message_of(error)
            finish_failed(self.store, run_record(key, task.config, self.grid.dataset(task.config), message_of(error)))
            self.position.lost(self.grid.passes(task.config), key=key)
            for waiting in self._controls.pop(key, []):
                self.failed[self.grid.entries[waiting].describe()] = "the run it matches failed"
                self.position.lost(self.grid.control_passes(waiting))
            return
        if error is None:
            self._tested_now(task, *future.result())
        elif isinstance(error, NotCompiled):  # with these weights, or where this worker is
            warnings.warn(f"{error}: {name} is tested by an exact evaluation", stacklevel=2)
            self.grid.test_plainly(number)
            record = self.store.finished(key)
            assert record is not None
            self._add_evaluations(key, task.config, record)
            self.on_key(self)
        else:
            self.failed[f"evaluation of {name}"] = message_of(error)

    def _tested_now(self, task: EvaluateTask, outcome: Any, where: dict[str, Any]) -> None:
        """Write an evaluation, unless another process did it meanwhile."""
        if outcome is None:
            return
        dataset, weights = self.grid.dataset(task.config), digest_of(Path(task.weights))
        found = evaluation_record(
            task.key, task.config, task.evaluation, dataset, *outcome, weights=weights, where=where
        )
        self.evaluated += finish_evaluation(self.store, found)
        self.position.throughput.tested(task.number, sum(found.seconds.values()))

    def _trained(
        self, number: int, task: TrainTask, result: Any, where: dict[str, Any], *, timed_alone: bool = False
    ) -> None:
        """Write a trained run; evaluate it; resolve the controls that waited for it."""
        config, key = task.config, task.key
        if result is not None:
            record = run_record(key, config, self.grid.dataset(config), result, timed_alone=timed_alone, where=where)
            self.trained += finish(self.store, record, result, again=task.again)
        finished = self.store.finished(key)
        assert finished is not None
        self._finished(number, config, finished)
        controls = self._controls.pop(key, [])
        for waiting in controls:
            self._add_control(waiting, finished)
        if controls:
            self.on_key(self)
