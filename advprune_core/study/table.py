"""Records on disk to one tidy table: a row per run and evaluation, or per entry of a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from advprune_core.study.records import Accuracy, EvaluationRecord, RunRecord, Timing
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import flat_fields
from advprune_core.trainers.sentinel import depth


def collect(*results: str | Path, study: str | None = None) -> pd.DataFrame:
    """Read every record under some results folders.

    Parameters
    ----------
    *results : path
        Results folders (each with ``runs/``).
    study : str, optional
        Only the entries of this study, with ``arm, variant, control`` and ``matched_fraction``.

    Returns
    -------
    DataFrame
        ``key, seed`` and every setting by its flat name, among them ``fraction``: the share of the data
        that the run itself keeps, of a control 1 or what it really uses; ``matched_fraction``: the share
        that the run keeps which a control matches, of any other run its own; ``status``;
        ``clean, robust`` in [0, 1] with ``_low, _high``, and one
        ``robust_<attack>`` per attack; ``worst_class_clean, worst_class_robust``: the lowest of any class;
        ``outcomes``: whether each of ``test_images`` is right under all of them, packed;
        ``cost`` (training + selection) and ``passes_<phase>`` in forward-equivalents;
        ``seconds_<phase>, cpu_seconds_<phase>`` with ``timed_alone``, and ``cost_seconds``: processor
        seconds of training + selection, which count what no forward pass does (the pursuit of gradient
        matching); ``unique_images``, ``step_ratio``, ``wrong_labels`` (see `RunRecord`), ...;
        ``val_pgd_best, val_pgd_last``: PGD-10 on val_stop at its best epoch and at the end, whose
        difference is robust overfitting; ``collapse_epoch`` of a run that collapsed, and
        ``collapse_depth`` of any run with checks: the fall of that accuracy from its best check to the
        lowest later one (images of val_stop are no test: see `DatasetSource.held_out`); ``warnings``
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
        for entry in store.manifest(study).entries:
            record = store.run(entry.key)
            if record is None or entry.control is not None:
                continue
            timings: list[RunRecord | Timing] = [record] if record.timed_alone else []
            for timing in timings + store.timings(record.key):
                rows.append(
                    {
                        **entry.model_dump(include={"key", "arm", "fraction", "seed", "variant"}),
                        "device": timing.environment.get("device"),
                        "threads": record.config.get("threads", 1),
                        **{
                            name: sum(getattr(timing, name).get(phase, 0.0) for phase in ("train", "select"))
                            for name in ("seconds", "cpu_seconds")
                        },
                    }
                )
    return pd.DataFrame(rows)


def _study_rows(store: RunStore, study: str) -> Iterator[dict[str, Any]]:
    manifest = store.manifest(study)
    for entry in manifest.entries:
        record = store.run(entry.key)
        if record is not None:
            place = entry.model_dump(include={"arm", "variant", "seed", "control"})
            found = _row(record, store.evaluation(record.key, entry.evaluation))
            yield {"study": manifest.study, **found, **place, "matched_fraction": entry.fraction}


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
        columns: tuple[tuple[Literal["clean", "robust"], Accuracy], ...] = (
            ("clean", evaluation.clean),
            ("robust", evaluation.robust),
        )
        for name, accuracy in columns:
            row |= {name: accuracy.accuracy, f"{name}_low": accuracy.low, f"{name}_high": accuracy.high}
            row[f"worst_class_{name}"] = evaluation.worst_class(name)
        for name, accuracy in evaluation.attacks.items():
            row[f"robust_{name}"] = accuracy.accuracy
        row |= {
            "evaluation": evaluation.key,
            "checkpoint": evaluation.config["checkpoint"],
            "test_images": evaluation.n,
            "outcomes": evaluation.robust.images,
            "warnings": "; ".join(evaluation.warnings),
        }
    # What a run that did not get to its end has cost is no cost of training.
    row["cost"] = record.cost if record.trained else np.nan
    row["cost_seconds"] = record.cost_seconds if record.trained else np.nan
    for name in ("passes", "seconds", "cpu_seconds"):
        row |= {f"{name}_{phase}": value for phase, value in getattr(record, name).items()}
    for name in (
        "timed_alone",
        "peak_memory",
        "n",
        "kept",
        "n_filled",
        "step_ratio",
        "wrong_labels",
        "unique_images",
        "images_visited",
        "best_epoch",
        "collapse_epoch",
        "state_bytes",
        "error",
    ):
        row[name] = getattr(record, name)
    held_out = [check["val_pgd"] for check in record.epochs if "val_pgd" in check]
    row |= {"val_pgd_best": max(held_out, default=np.nan), "val_pgd_last": held_out[-1] if held_out else np.nan}
    row["collapse_depth"] = depth(record.epochs)
    row["optimiser_steps"] = record.steps
    row["run_device"] = record.environment.get("device")
    return row
