"""Records on disk to one tidy table: a row per run and evaluation, or per entry of a study."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from advprune_core.base.environment import results_root
from advprune_core.base.files import own_path
from advprune_core.study import columns
from advprune_core.study.manifest import ManifestEntry
from advprune_core.study.record_files import check_is_results
from advprune_core.study.records import Accuracy, EvaluationRecord, RunRecord, Timing
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import flat_values


def collect(*results: str | Path, study: str | None = None) -> pd.DataFrame:
    """Read every record under some results folders.

    Parameters
    ----------
    *results : path
        Results folders (each with ``runs/``), or exported studies; default: ``$ADVPRUNE_RESULTS``, or the project's.
    study : str, optional
        Only the entries of this study, each once though several folders may have it, with ``arm, variant, control,
        matched_fraction`` and ``study_seeds``: how many seeds it has of that arm at that fraction, of which some may
        have no run yet.

    Returns
    -------
    DataFrame
        ``key, seed`` and every setting by its flat name, among them ``fraction``: the share of the data
        that the run itself keeps, of a control 1 or what it really uses; ``matched_fraction``: the share
        that the run keeps which a control matches, of any other run its own; ``status``;
        ``clean, robust`` in [0, 1] with ``_low, _high``, and one
        ``robust_<attack>`` per attack; ``worst_class_clean, worst_class_robust``: the lowest of any class;
        ``outcomes``: whether each of ``test_images`` is right under all of them, packed;
        ``warnings`` of an evaluation whose numbers may say more than is true; ``passes_<phase>`` in
        forward-equivalents, ``seconds_<phase>, cpu_seconds_<phase>``; and `table_columns`.

    Raises
    ------
    ConfigError
        A folder without runs; no such study.
    """
    rows: list[dict[str, Any]] = []
    entries: dict[ManifestEntry, dict[str, Any]] = {}
    for folder in [own_path(folder) for folder in results] or [results_root(None)]:
        if study is None:  # of a study that has begun there may be no run yet
            check_is_results(folder)
        store = RunStore(folder, read_only=True)
        if study is None:
            rows += _all_rows(store)
            continue
        for entry, row in _study_rows(store, study):
            if "evaluation" not in entries.get(entry, {}):  # two copies of a run are not two seeds
                entries[entry] = row
    return pd.DataFrame([*rows, *entries.values()])


def collect_timings(*results: str | Path, study: str) -> pd.DataFrame:
    """Seconds of the runs of a study that were timed alone.

    Returns
    -------
    DataFrame
        ``key, arm, variant, fraction, seed, device, threads``, ``seconds`` and ``cpu_seconds`` of training
        and selection; one row for each repetition, once though several folders may have it.
    """
    rows: list[dict[str, Any]] = []
    for folder in results:
        store = RunStore(folder, read_only=True)
        for entry in store.manifest(study).entries:
            record = store.run(entry.key)
            if record is None or entry.control is not None:
                continue
            timings: list[RunRecord | Timing] = [record] if record.timed_alone else []
            for timing in timings + store.timings(record.key):
                row = {
                    **entry.model_dump(include={"key", "arm", "fraction", "seed", "variant"}),
                    "device": timing.environment.get("device"),
                    "threads": record.config.get("threads", 1),
                    **{
                        name: sum(getattr(timing, name).get(phase, 0.0) for phase in ("train", "select"))
                        for name in ("seconds", "cpu_seconds")
                    },
                }
                if row not in rows:
                    rows.append(row)
    return pd.DataFrame(rows)


def table_columns() -> dict[str, str]:
    """What each column of a run's measurements says, by its name."""
    return columns.descriptions(RunRecord)


def settings_of(record: RunRecord) -> dict[str, Any]:
    """Every setting of a run by its name, as a row of the table has it."""
    return {
        name: value if not isinstance(value, dict) else json.dumps(value, sort_keys=True)
        for name, value in flat_values(record.config).items()
    }


def _study_rows(store: RunStore, study: str) -> Iterator[tuple[ManifestEntry, dict[str, Any]]]:
    manifest = store.manifest(study)
    seeds = Counter((arm, fraction) for arm, fraction, _ in {(e.arm, e.fraction, e.seed) for e in manifest.entries})
    for entry in manifest.entries:
        record = store.run(entry.key)
        if record is not None:
            place = entry.model_dump(include={"arm", "variant", "seed", "control"})
            found = _row(record, store.evaluation(record.key, entry.evaluation))
            of_study = {"study": manifest.study, "study_seeds": seeds[entry.arm, entry.fraction]}
            yield entry, {**of_study, **found, **place, "matched_fraction": entry.fraction}


def _all_rows(store: RunStore) -> Iterator[dict[str, Any]]:
    for key in store.run_keys():
        record = store.run(key)
        if record is not None:
            yield from [_row(record, found) for found in store.evaluations(key)] or [_row(record, None)]


def _row(record: RunRecord, evaluation: EvaluationRecord | None) -> dict[str, Any]:
    row: dict[str, Any] = {"key": record.key, "status": record.status, **settings_of(record)}
    if evaluation is not None and record.trained:
        named: tuple[tuple[Literal["clean", "robust"], Accuracy], ...] = (
            ("clean", evaluation.clean),
            ("robust", evaluation.robust),
        )
        for name, accuracy in named:
            row |= {name: accuracy.accuracy, f"{name}_low": accuracy.low, f"{name}_high": accuracy.high}
            row[f"worst_class_{name}"] = evaluation.worst_class(name)
        for attack, accuracy in evaluation.attacks.items():
            row[f"robust_{attack}"] = accuracy.accuracy
        row |= {
            "evaluation": evaluation.key,
            "checkpoint": evaluation.config["checkpoint"],
            "test_images": evaluation.n,
            "outcomes": evaluation.robust.images,
            "warnings": "; ".join(evaluation.warnings),
        }
    for unit in ("passes", "seconds", "cpu_seconds"):
        row |= {f"{unit}_{phase}": value for phase, value in getattr(record, unit).items()}
    return row | columns.values(record)
