"""Grids and studies carried out from beginning to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd

from advprune_core.attacks.base import Attack
from advprune_core.controls import expected_passes
from advprune_core.driver import Driver
from advprune_core.files import check_writable, write_text
from advprune_core.progress import progress_bar
from advprune_core.pruners.base import PRUNERS
from advprune_core.study import Entry, Execution, StudyConfig, check_entries, study_grid
from advprune_core.table import collect
from advprune_core.tasks import PGD_40


def expected_total(entries: Sequence[Entry], n: int) -> float:
    """Forward-equivalents that training a grid with `n` training images is expected to take."""
    unique = {}
    for entry in entries:
        passes = entry.config.passes(n)
        if entry.control is not None and entry.derived:
            passes = expected_passes(entry.control, entry.config, n)
        unique[entry.identity()] = passes
    return sum(unique.values())


def run_entries(
    entries: Sequence[Entry],
    *,
    execution: Execution,
    attacks: tuple[Attack, ...] = PGD_40,
    name: str = "runs",
    progress: bool = True,
    on_key: Callable[[Driver], None] = lambda driver: None,
) -> Driver:
    """Carry out any grid on one data set.

    Raises
    ------
    ConfigError
        What cannot be run, before any work; a results folder that is not writable.
    """
    check_writable(execution.root)
    dataset = check_entries(entries, data=execution.data)
    total = expected_total(entries, len(dataset.train))
    with progress_bar(name, total, show=progress) as bar:
        driver = Driver(entries, dataset, attacks, execution, bar, on_key)
        driver.run()
    return driver


@dataclass(frozen=True)
class StudyResult:
    """What a study gives: its table (see `collect`), and what did not work."""

    table: pd.DataFrame
    failed: dict[str, str] = field(default_factory=dict)
    trained: int = 0
    evaluated: int = 0


def run_study(config: StudyConfig, *, progress: bool = True, shard: tuple[int, int] | None = None) -> StudyResult:
    """Carry a study out, or take up where it stopped.

    Parameters
    ----------
    config : StudyConfig
    progress : bool
        Show a bar, in forward-equivalents, with the time left.
    shard : (i, n), optional
        Only the i-th of n parts (from 1), for job arrays; a last call without it makes the table.

    Raises
    ------
    ConfigError
        What cannot be run, before any work; a results folder that is not writable.
    """
    entries = study_grid(config, shard=shard)
    # Jobs of an array share machines: their seconds would not be those of runs alone.
    execution = config.execution if shard is None else config.execution.replace(timed_repeats=0)
    driver = run_entries(
        entries,
        execution=execution,
        attacks=config.attacks,
        name=config.study,
        progress=progress,
        on_key=(lambda driver: None) if shard else partial(write_manifest, config),
    )
    table = collect(config.execution.root, study=config.study) if shard is None else pd.DataFrame()
    return StudyResult(table, driver.failed, driver.trained, driver.evaluated)


def write_manifest(config: StudyConfig, driver: Driver) -> None:
    """Say which runs a study consists of."""
    rows = []
    for number, key in sorted(driver.keys.items()):
        entry = driver.entries[number]
        evaluation = driver.evaluation(entry.config).key(driver.dataset.test_hash)
        place = {name: getattr(entry, name) for name in ("arm", "variant", "fraction", "seed", "control")}
        rows.append({**place, "key": key, "evaluation": evaluation})
    pruners = [PRUNERS.parse(spec).spec() for spec in config.pruners]
    circumstances = {"results", "data", "engine", "workers"}
    manifest = {
        "study": config.study,
        "config": {**config.model_dump(mode="json", exclude=circumstances | {"pruners"}), "pruners": pruners},
        "entries": rows,
    }
    write_text(config.folder / "manifest.json", json.dumps(manifest, indent=1))
