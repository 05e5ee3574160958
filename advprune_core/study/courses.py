"""The course of each run of a study: what its checks found, epoch after epoch, and what it had cost by then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from advprune_core.attacks.evaluate import as_constant
from advprune_core.study.manifest import ManifestEntry
from advprune_core.study.records import RunRecord, classes, collapse_depth, val_pgd_best, val_pgd_last
from advprune_core.study.store import RunStore
from advprune_core.study.table import settings_of
from advprune_core.trainers.config import RunConfig

#: What says which run a row is of; a table without rows has its columns too.
_PLACE = ("key", "arm", "variant", "fraction", "seed")
_SETTING = ("dataset", "model", "objective", "norm", "eps")
_COURSE = (*_PLACE, *_SETTING, "full_cost", "full_val_pgd", "epoch", "steps", "cost", "val_pgd", "pert_align")
_LIFETIME = (*_PLACE, *_SETTING, "status", "optimiser_steps", "collapse_steps", "val_pgd_best", "collapse_depth")


def collect_courses(*results: str | Path, study: str) -> pd.DataFrame:
    """Read the checks on val_stop of every run of a study that has any.

    Returns
    -------
    DataFrame
        ``key, arm, variant, fraction, seed`` of each run, and of the controls of pruned ones, with their
        ``dataset, model, objective, norm, eps``; one row for each check: ``epoch``
        (from 1), ``steps`` of the optimiser and ``cost`` in forward-equivalents by then (selection
        included from the start, training in proportion to the images seen, plain ones by themselves),
        ``val_pgd`` in [0, 1], ``pert_align`` in [-1, 1] (NaN where it was not measured; see `trainers.alignment`), and
        ``full_cost``, ``full_val_pgd``: cost and last check of the run on all the data of the same way
        of training and seed (NaN where there is none; the check also where it collapsed, or is no higher than a
        constant answer's). A control has the fraction of the run that it matches.
    """
    rows: list[dict[str, Any]] = []
    for store in (RunStore(folder, read_only=True) for folder in results):
        runs = list(_runs(store, study))
        full = {(entry.variant, entry.seed): record for entry, record in runs if entry.fraction == 1}
        for entry, record in runs:
            whole = full.get((entry.variant, entry.seed))
            place = _place(entry, record)
            place["full_cost"] = float("nan") if whole is None else whole.cost
            place["full_val_pgd"] = float("nan") if whole is None else _bar(whole)
            rows += [{**place, **check} for check in _checks(record)]
    return pd.DataFrame(rows, columns=_COURSE)


def _bar(whole: RunRecord) -> float:
    """The last check of a full run, which others are to get near to; NaN where there is nothing to get near to."""
    last = val_pgd_last(whole)
    return float("nan") if whole.status == "collapsed" or as_constant(last, classes(whole)) else last


def collect_lifetimes(*results: str | Path, study: str) -> pd.DataFrame:
    """How long each run of a study lasted before it overfitted catastrophically.

    Returns
    -------
    DataFrame
        What `collect_courses` has of each run; ``status``,
        ``optimiser_steps`` of the whole run, and ``collapse_steps``: those at the end of the epoch in which
        the sentinel saw a collapse (NaN: none); ``val_pgd_best``: the best check, in [0, 1], and
        ``collapse_depth``: how far the lowest later one lies below it (NaN: none).
    """
    rows: list[dict[str, Any]] = []
    for store in (RunStore(folder, read_only=True) for folder in results):
        for entry, record in _runs(store, study):
            before = record.epochs if record.collapse_epoch is None else record.epochs[: record.collapse_epoch + 1]
            steps = _steps(record, sum(row["images"] for row in before))
            rows.append(
                {
                    **_place(entry, record),
                    "status": record.status,
                    "optimiser_steps": record.steps,
                    "collapse_steps": float("nan") if record.collapse_epoch is None else steps,
                    "val_pgd_best": val_pgd_best(record),
                    "collapse_depth": collapse_depth(record),
                }
            )
    return pd.DataFrame(rows, columns=_LIFETIME)


def _runs(store: RunStore, study: str) -> Iterator[tuple[ManifestEntry, RunRecord]]:
    """Entries of a study with the records of those that were trained; of its controls those of pruned runs."""
    for entry in store.manifest(study).entries:
        asked = entry.control is None or entry.fraction < 1
        record = store.run(entry.key) if asked else None
        if record is not None and record.trained:
            yield entry, record


def _place(entry: ManifestEntry, record: RunRecord) -> dict[str, Any]:
    known = settings_of(record)
    return entry.model_dump(include=set(_PLACE)) | {name: known[name] for name in _SETTING}


def _checks(record: RunRecord) -> Iterator[dict[str, float]]:
    visited = 0
    for row, cost in zip(record.epochs, _costs(record), strict=True):
        visited += row["images"]
        if "val_pgd" in row:
            measured = {name: row.get(name, float("nan")) for name in ("val_pgd", "pert_align")}
            yield {"epoch": row["epoch"] + 1, "steps": _steps(record, visited), "cost": cost, **measured}


def _steps(record: RunRecord, visited: int) -> float:
    """Optimiser steps after so many images: not one for each batch where a batch is trained on several times."""
    return record.steps * visited / record.images_visited


def _costs(record: RunRecord) -> Iterator[float]:
    """What a run had cost after each epoch: an image as much as any other, with an attack or without one."""
    plain = sum(row["images"] for row in record.epochs if row.get("plain"))
    of_plain = RunConfig.create(**record.config).plain_passes_per_image if plain else 0.0
    attacked = max(record.images_visited - plain, 1)
    of_attacked = (record.passes["train"] - plain * of_plain) / attacked
    cost = float(record.passes.get("select", 0))
    for row in record.epochs:
        cost += row["images"] * (of_plain if row.get("plain") else of_attacked)
        yield row.get("cost", cost)
