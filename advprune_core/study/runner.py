"""Grids and studies carried out from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import pandas as pd

from advprune_core.attacks.compiled import compile_cache
from advprune_core.base.files import check_writable
from advprune_core.base.progress import progress_bar
from advprune_core.base.settings import ConfigError
from advprune_core.pruners.base import PRUNERS
from advprune_core.study.alone import time_alone
from advprune_core.study.compiling import checked_entries, settle_speed
from advprune_core.study.driver import Driver
from advprune_core.study.execution import Execution
from advprune_core.study.grid import Datasets, Entry, study_grid
from advprune_core.study.manifest import Manifest, ManifestEntry
from advprune_core.study.record_files import read_manifest
from advprune_core.study.resolution import Resolution
from advprune_core.study.store import RunStore
from advprune_core.study.study import StudyConfig
from advprune_core.study.table import collect
from advprune_core.trainers.controls import expected_passes

#: What goes on beside a driver's work, from its beginning to its end: somebody watches it, say.
Beside = Callable[[Driver], AbstractContextManager[object]]


def expected_total(entries: Sequence[Entry], datasets: Datasets) -> float:
    """Forward-equivalents that training a grid is expected to take."""
    unique = {}
    for entry in entries:
        n = len(datasets[entry.config.dataset].train)
        passes = entry.config.passes(n)
        if entry.control is not None and entry.derived:
            passes = expected_passes(entry.control, entry.config, n)
        unique[entry.identity()] = passes
    return sum(unique.values())


def run_entries(
    entries: Sequence[Entry],
    *,
    execution: Execution,
    name: str = "runs",
    progress: bool = True,
    on_key: Callable[[Driver], None] = lambda driver: None,
    beside: Beside = nullcontext,
) -> Driver:
    """Carry out any grid.

    Raises
    ------
    ConfigError
        What cannot be run, before any work; a results folder that is not writable.
    """
    check_writable(execution.root)
    entries, datasets = checked_entries(entries, execution)
    store = RunStore(execution.root)
    settled = settle_speed(entries, datasets, store, execution)
    grid = Resolution(settled.entries, datasets, store, execution, plain_tests=settled.plain_tests)
    total = expected_total(settled.entries, datasets)
    with compile_cache(execution.root), progress_bar(name, total, show=progress) as bar:
        driver = Driver(grid, bar, on_key, first=time_alone)
        with beside(driver):
            driver.run()
    return driver


@dataclass(frozen=True)
class StudyResult:
    """What a study gives: its table (see `collect`), what did not work, and what was done now (see `Driver`)."""

    table: pd.DataFrame
    failed: dict[str, str] = field(default_factory=dict)
    trained: int = 0
    evaluated: int = 0
    without_weights: list[str] = field(default_factory=list)
    timed: int = 0


def execution_of(config: StudyConfig, *, shard: tuple[int, int] | None = None, retrain: bool = False) -> Execution:
    """How a study, or a part of it, is carried out.

    Jobs of an array, and of a cluster, share machines: their seconds would not be those of runs alone.
    """
    execution = config.execution.replace(retrain=retrain)
    return execution.replace(timed_repeats=0) if shard is not None or execution.engine == "ray" else execution


def run_study(
    config: StudyConfig,
    *,
    progress: bool = True,
    shard: tuple[int, int] | None = None,
    retrain: bool = False,
    only: Collection[tuple[str, float]] | None = None,
    beside: Beside = nullcontext,
) -> StudyResult:
    """Carry a study out, or take up where it stopped.

    Parameters
    ----------
    config : StudyConfig
    progress : bool
        Show a bar, in forward-equivalents, with the time left.
    shard : (i, n), optional
        Only the i-th of n parts (from 1), for job arrays, of which none is timed. A last call without it makes the
        table, and trains the first seed's runs once more to time them alone, unless `timed_repeats` is 0.
    retrain : bool
        Train runs again whose weights are not here, where a test needs them (those of an imported study).
    only : collection of (str, float), optional
        Of the grid, the arms at the shares of the data that were chosen elsewhere.
    beside : callable
        From the driver to a context that its work is done in.

    Raises
    ------
    ConfigError
        What cannot be run, before any work; an arm of `only` that the grid does not have; a results folder that
        is not writable.
    """
    entries = study_grid(config, shard=shard)
    if only is not None:
        places = {(entry.arm, entry.fraction) for entry in entries}
        if absent := sorted(set(only) - places):
            raise ConfigError(f"only: the study {config.study!r} has no {absent}; it has {sorted(places)}")
        entries = [entry for entry in entries if (entry.arm, entry.fraction) in only]
    driver = run_entries(
        entries,
        execution=execution_of(config, shard=shard, retrain=retrain),
        name=config.study,
        progress=progress,
        on_key=partial(write_manifest, config, shard=shard, only=only),
        beside=beside,
    )
    table = collect(config.execution.root, study=config.study) if shard is None else pd.DataFrame()
    return StudyResult(table, driver.failed, driver.trained, driver.evaluated, driver.without_weights, driver.timed)


def write_manifest(
    config: StudyConfig,
    driver: Driver,
    *,
    shard: tuple[int, int] | None = None,
    only: Collection[tuple[str, float]] | None = None,
) -> None:
    """Say which runs a study, or a part of it, consists of, and which it used to have."""
    entries = []
    for number, key in sorted(driver.grid.keys.items()):
        entry = driver.grid.entries[number]
        place = {name: getattr(entry, name) for name in ("arm", "variant", "fraction", "seed", "control")}
        entries.append(ManifestEntry(**place, key=key, evaluation=driver.grid.evaluation_key(number)))
    pruners = [PRUNERS.parse(spec).spec() for spec in config.pruners]
    settings = config.model_dump(
        mode="json", exclude={"results", "data", "engine", "workers", "address", "resources", "pruners"}
    )
    name = "manifest.json" if shard is None else f"manifest-{shard[0]}of{shard[1]}.json"
    try:
        earlier = read_manifest(config.folder / name)
        former = {entry.key for entry in earlier.entries} | set(earlier.former)
    except (ConfigError, FileNotFoundError):
        former = set()
    manifest = Manifest(
        study=config.study,
        config={**settings, "pruners": pruners},
        entries=entries,
        former=sorted(former - {entry.key for entry in entries}),
        only=None if only is None else sorted(only),
    )
    RunStore(config.execution.root).write_manifest(manifest, config.folder, name=name)
