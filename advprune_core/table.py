"""Records on disk to one tidy table: a row per run and evaluation, or per entry of a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from advprune_core.config import flat_fields
from advprune_core.records import EvaluationRecord, RunRecord, RunStore, Timing
from advprune_core.settings import ConfigError, near_miss


def collect(*results: str | Path, study: str | None = None) -> pd.DataFrame:
    """Read every record under some results folders.

    Parameters
    ----------
    *results : path
        Results folders (each with ``runs/``).
    study : str, optional
        Only the entries of this study, with ``arm``, ``variant`` and the matched ``fraction`` of controls.

    Returns
    -------
    DataFrame
        ``key, arm, fraction, seed, control`` and every setting by its flat name; ``status``;
        ``clean, robust`` in [0, 1] with ``_low, _high`` and one ``robust_<attack>`` per attack;
        ``cost`` (training + selection) and ``passes_<phase>`` in forward-equivalents;
        ``seconds_<phase>, cpu_seconds_<phase>`` with ``timed_alone``; ``unique_images``, ...;
        ``val_pgd_best, val_pgd_last``: PGD-10 on val_stop at its best epoch and at the end, whose
        difference is robust overfitting; ``collapse_epoch`` of a run that collapsed; ``warnings``
        of an evaluation whose numbers may say more than is true.
    """
    rows: list[dict[str, Any]] = []
    for folder in results:
        store = RunStore(folder, read_only=True)
        rows += list(_study_rows(store, study) if study else _all_rows(store))
    return pd.DataFrame(rows)


def collect_timings(*results: str | Path, study: str) -> pd.DataFrame:
    """Seconds of the runs of a study that were timed alone.

    Returns
    -------
    DataFrame
        ``key, arm, variant, fraction, seed, device, threads``, ``seconds`` and ``cpu_seconds`` of training
        and selection; one row for each repetition.
    """
    rows = []
    for folder in results:
        store = RunStore(folder, read_only=True)
        for entry in read_manifest(store, study)["entries"]:
            record = store.run(entry["key"])
            if record is None or entry["control"] is not None:
                continue
            timings: list[RunRecord | Timing] = [record] if record.timed_alone else []
            for timing in timings + store.timings(record.key):
                rows.append(
                    {
                        **{name: entry[name] for name in ("key", "arm", "fraction", "seed")},
                        "variant": entry.get("variant", ""),
                        "device": timing.environment.get("device"),
                        "threads": record.config.get("threads", 1),
                        **{
                            name: sum(getattr(timing, name).get(phase, 0.0) for phase in ("train", "select"))
                            for name in ("seconds", "cpu_seconds")
                        },
                    }
                )
    return pd.DataFrame(rows)


def read_manifest(store: RunStore, study: str) -> dict[str, Any]:
    """The manifest of a study, in a results folder or in an exported copy of one."""
    path = store.results / study / "manifest.json"
    alone = store.results / "manifest.json"
    if not path.exists() and alone.exists():
        path = alone
    if not path.exists():
        known = [file.parent.name for file in store.results.glob("*/manifest.json")]
        raise ConfigError(f"no study {study!r} in {store.results}{near_miss(study, known)}")
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def _study_rows(store: RunStore, study: str) -> Iterator[dict[str, Any]]:
    manifest = read_manifest(store, study)
    for entry in manifest["entries"]:
        record = store.run(entry["key"])
        if record is not None:
            evaluation = store.evaluation(record.key, entry["evaluation"])
            place = {name: entry[name] for name in ("arm", "fraction", "seed", "control")}
            place["variant"] = entry.get("variant", "")
            yield {"study": manifest["study"], **_row(record, evaluation), **place}


def _all_rows(store: RunStore) -> Iterator[dict[str, Any]]:
    for key in store.run_keys():
        record = store.run(key)
        if record is not None:
            yield from [_row(record, found) for found in store.evaluations(key)] or [_row(record, None)]


def _row(record: RunRecord, evaluation: EvaluationRecord | None) -> dict[str, Any]:
    row: dict[str, Any] = {"key": record.key, "status": record.status}
    for name, path in flat_fields().items():
        value: Any = record.config
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        row[name] = value if not isinstance(value, dict) else json.dumps(value, sort_keys=True)
    if evaluation is not None:
        for name, accuracy in (("clean", evaluation.clean), ("robust", evaluation.robust)):
            row |= {name: accuracy.accuracy, f"{name}_low": accuracy.low, f"{name}_high": accuracy.high}
        for name, accuracy in evaluation.attacks.items():
            row[f"robust_{name}"] = accuracy.accuracy
        row |= {
            "evaluation": evaluation.key,
            "checkpoint": evaluation.config["checkpoint"],
            "test_images": evaluation.n,
            "warnings": "; ".join(evaluation.warnings),
        }
    # What a run that did not get to its end has cost is no cost of training.
    row["cost"] = record.cost if record.trained else np.nan
    for name in ("passes", "seconds", "cpu_seconds"):
        row |= {f"{name}_{phase}": value for phase, value in getattr(record, name).items()}
    for name in (
        "timed_alone",
        "peak_memory",
        "n",
        "kept",
        "n_filled",
        "unique_images",
        "images_visited",
        "best_epoch",
        "collapse_epoch",
        "state_bytes",
        "error",
    ):
        row[name] = getattr(record, name)
    checks = [check["val_pgd"] for check in record.epochs if "val_pgd" in check]
    row |= {"val_pgd_best": max(checks, default=np.nan), "val_pgd_last": checks[-1] if checks else np.nan}
    row["optimiser_steps"] = record.steps
    row["run_device"] = record.environment.get("device")
    return row
