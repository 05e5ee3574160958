"""The first seed's runs, timed with nothing beside them: their seconds are what training takes."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from advprune_core.base.environment import environment
from advprune_core.base.failures import message_of
from advprune_core.base.machine import machine_error
from advprune_core.datasets.splits import Dataset
from advprune_core.study.driver import Driver
from advprune_core.study.engines import SerialEngine
from advprune_core.study.grid import Entry, timed_entries
from advprune_core.study.records import Timing
from advprune_core.study.store import RunStore
from advprune_core.study.tasks import Task, TrainTask, carry_out, warm_up
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.state import SCOUT


def time_alone(driver: Driver) -> None:
    """Train the first seed's runs of a grid with nothing beside them, and repeat what is asked for."""
    repeats, grid = driver.execution.timed_repeats, driver.grid
    timed = timed_entries(grid.entries, repeats)
    timed = [entry for entry in timed if grid.found(entry.config, entry.evaluation) == entry.config]
    pending = [(entry, timings_lacking(driver.store, grid.key(entry.config), repeats)) for entry in timed]
    pending = [(entry, missing) for entry, missing in pending if missing > 0]
    for entry, _ in pending:
        if _warmed_up(entry.config, grid.dataset(entry.config)):
            break
    for entry, missing in pending:
        again = missing - (driver.tasks.training(grid.key(entry.config)) is not None)
        driver.bar.total += again * grid.passes(entry.config)
    for repeat in range(repeats):
        for entry, missing in pending:
            if repeat < missing:
                driver.position.note = f"timing {entry.describe()} alone"
                _time_once(driver, entry)
    driver.position.note = ""


def timings_lacking(store: RunStore, key: str, repeats: int) -> int:
    """How many timings alone, of those that are asked for, a run has not; its training may be one of them."""
    record = store.finished(key)
    there = 0 if record is None else int(record.timed_alone) + len(store.timings(key))
    return max(0, repeats - there)


def _warmed_up(config: RunConfig, dataset: Dataset) -> bool:
    """Train a few batches; False where that is not possible, as the run itself will say when its turn has come.

    Raises
    ------
    Exception
        The machine's, which stops everything.
    """
    try:
        warm_up(config, dataset)
    except Exception as error:
        if machine_error(error) is not None:
            raise
        return False
    return True


def _time_once(driver: Driver, entry: Entry) -> None:
    """Train a run that is not there yet, timed; or time one that is, and keep only the time."""
    key, number = driver.grid.key(entry.config), driver.grid.entries.index(entry)
    if (task := driver.tasks.training(key)) is not None:
        # What a checkpoint left by other company brings along is no time alone.
        work = driver.store.work(key)
        alone = not any((folder / "checkpoint.pt").exists() for folder in (work, work / SCOUT))
        driver.tasks.remove(task)
        driver.begin(number, task)
        driver.done(number, task, _alone(driver, task), timed_alone=alone)
    elif driver.store.finished(key) is not None:
        task = TrainTask(entry.config, key, None)
        future = _alone(driver, task)
        if (error := future.exception()) is not None:
            driver.failed[f"timing of {entry.describe()}"] = message_of(error)
            return
        times = {name: future.result()[0].ledger[name] for name in ("seconds", "cpu_seconds")}
        driver.timed += 1
        driver.store.write_timing(key, Timing(**times, environment=environment(entry.config.device)))
        driver.position.trained(key, passes=driver.grid.passes(entry.config))


def _alone(driver: Driver, task: Task) -> Future[Any]:
    driver.timing = True
    try:
        return SerialEngine().submit(carry_out, task, driver.grid.dataset(task.config))
    finally:
        driver.timing = False
