"""A column is declared once, and reaches records, table and description."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from advprune_core.datasets.base import load_dataset
from advprune_core.pruners.selection import Selection
from advprune_core.study import columns
from advprune_core.study.columns import Column, derived, descriptions, measured, values
from advprune_core.study.finished import run_record
from advprune_core.study.records import RunRecord
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect, table_columns
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.result import TrainResult
from tests.made_up import TINY
from tests.made_up import run_record as made_up


def result(selections: dict[int, Selection], metrics: list[dict[str, Any]]) -> TrainResult:
    phases: dict[str, Any] = {"passes": {"train": 10}, "seconds": {"train": 1.0}, "cpu_seconds": {"train": 0.5}}
    ledger = {**phases, "peak_memory": 99}
    return TrainResult("ok", metrics, selections, ledger, {}, None, 1, None, 17, 330, 20, 8, np.arange(1))


def test_a_new_column_is_one_declaration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Longer(RunRecord):
        batches: Annotated[int, Column("Batches of an epoch", of=lambda result, data: result.steps // 2)] = 0

    monkeypatch.setattr(columns, "_DERIVED", dict(columns._DERIVED))

    @derived
    def twice_the_cost(record: RunRecord) -> float:
        """Two runs of it."""
        return 2 * record.cost

    dataset = load_dataset(RunConfig.flat(**TINY).dataset)
    found = measured(Longer, result({}, []), dataset)
    assert found["batches"] == 17 // 2
    told = descriptions(Longer)
    assert (told["batches"], told["twice_the_cost"]) == ("Batches of an epoch", "Two runs of it.")
    assert values(Longer(**made_up("a").model_dump() | {"batches": 3}))["batches"] == 3
    RunStore(tmp_path).write_run(made_up("a"), last={})
    row = collect(tmp_path).iloc[0]
    assert row["twice_the_cost"] == 2 * row["cost"]
    assert "twice_the_cost" in table_columns()


@pytest.mark.parametrize("pruned", [False, True])
def test_a_record_has_what_was_measured(pruned: bool) -> None:
    config = RunConfig.flat(**TINY)
    dataset = load_dataset(config.dataset)
    first, last = (Selection(np.arange(k), np.ones(k, np.float32), k // 2, 1.5) for k in (6, 4))
    metrics = [{"epoch": 0}, {"epoch": 1, "step_ratio": 2.0}, {"epoch": 2, "step_ratio": 4.0}]
    trained = result({0: first, 3: last} if pruned else {}, metrics)
    record = run_record(config.train_key(dataset), config, dataset, trained, timed_alone=True)
    expected = {
        "kept": 4 if pruned else len(dataset.train), "n_filled": 2 if pruned else 0, "n": len(dataset.train),
        "step_ratio": 3.0, "wrong_labels": None, "unique_images": 20, "images_visited": 330, "steps": 17,
        "best_epoch": 1, "collapse_epoch": None, "state_bytes": 8, "peak_memory": 99, "timed_alone": True,
        "passes": {"train": 10}, "status": "ok", "epochs": metrics,
    }  # fmt: skip
    assert {name: getattr(record, name) for name in expected} == expected


def test_every_measurement_of_a_record_is_a_column() -> None:
    """What is neither what a run was (settings, data, circumstances) nor a list by phase or epoch."""
    other = {"schema_version", "provenance", "key", "canonical", "config", "dataset", "status", "passes", "seconds"}
    other |= {"cpu_seconds", "epochs", "environment", "git", "files"}
    fields = {name for name in RunRecord.model_fields if name not in other}
    assert {"optimiser_steps" if name == "steps" else name for name in fields} <= set(table_columns())
    assert all(text and not text.startswith("None") for text in table_columns().values())
