"""Records to one tidy table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.findings import accuracy_findings
from advprune_core.analysis.plots import accuracy_vs_fraction
from advprune_core.analysis.summaries import printable
from advprune_core.attacks.evaluate import unpack_bits
from advprune_core.base.settings import ConfigError
from advprune_core.study.records import Timing
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect, collect_timings
from advprune_core.trainers.config import RunConfig, flat_fields
from tests.made_up import evaluation_record, run_record, write_finished, write_manifest
from tests.tiny import TINY

#: Other values than the defaults, by flat name.
UNUSUAL: dict[str, Any] = {
    **TINY,
    "norm": "l2",
    "eps": 0.25,
    "collapse_drop": 0.1,
    "awp": 0.01,
    "on_collapse": "stop",
    "start": "clean",
    "steps": 3,
    "attack_mode": "train",
    "pruner": {"random": {"balanced": True}},
    "fraction": 0.5,
    "epochs": 2.5,
    "plain_epochs": 1,
    "cost_budget": 50_000,
    "lr": 0.05,
    "momentum": 0.8,
    "weight_decay": 0.001,
    "schedule": "cosine",
    "schedule_span": "full_run",
    "ema": 0.9,
    "crop_padding": 1,
    "flip": True,
    "best_every": 2,
    "seed": 7,
    "threads": 2,
    "precision": "bfloat16",
    "min_per_class": 2,
    "speed": "compiled",
}

#: What is not set here, or is carried out where the run is made.
RESOLVED: dict[str, Any] = {"objective": "pgd_at", "warm_start": 0.0, "equal_cost": False, "init": None}


def outcome(right: int, n: int = 10) -> np.ndarray:
    return np.arange(n) < right


def test_one_row_for_each_run_and_evaluation_in_all_folders(tmp_path: Path) -> None:
    first, second = RunStore(tmp_path / "a"), RunStore(tmp_path / "b")
    write_finished(first, run_record("none"))
    write_finished(first, run_record("one"), evaluation_record("e1", "one", outcome(9), {"pgd": outcome(6)}))
    write_finished(
        second,
        run_record("two"),
        evaluation_record("e1", "two", outcome(8), {"pgd": outcome(5), "margin": outcome(4)}),
        evaluation_record("e2", "two", outcome(8), {"fgsm": outcome(7)}),
    )
    table = collect(first.results, str(second.results))
    assert list(zip(table["key"], table["evaluation"].fillna(""), strict=True)) == [
        ("none", ""),
        ("one", "e1"),
        ("two", "e1"),
        ("two", "e2"),
    ]
    assert table["clean"].tolist()[1:] == [0.9, 0.8, 0.8]
    assert table["robust"].tolist()[1:] == [0.6, 0.4, 0.7]
    assert table["robust_pgd"].tolist()[1:3] == [0.6, 0.5]
    assert table["robust_margin"].dropna().tolist() == [0.4]
    assert table["robust_fgsm"].dropna().tolist() == [0.7]
    assert table["test_images"].dropna().tolist() == [10, 10, 10]
    left = [unpack_bits(text, 10).tolist() for text in table["outcomes"].dropna()]
    assert left == [outcome(right).tolist() for right in (6, 4, 7)], "right under every attack"
    assert np.isnan(table["clean"][0])
    assert np.isnan(table["robust"][0])
    scored = table[1:]
    assert (scored["clean_low"] < scored["clean"]).all()
    assert (scored["robust"] < scored["robust_high"]).all()


def test_a_folder_without_runs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nothing is not a results folder: it has no runs/"):
        collect(tmp_path / "nothing")
    write_finished(RunStore(tmp_path / "a"), run_record("one"))
    monkeypatch.setenv("ADVPRUNE_RESULTS", str(tmp_path / "a"))
    assert collect()["key"].tolist() == ["one"]


def test_costs_are_those_of_the_record(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    passes = {"train": 700, "select": 30, "validate": 11}
    write_finished(store, run_record("a", passes=passes, unique_images=9, n=21, kept=11, timed_alone=True))
    store.write_run(run_record("b", status="failed", error="no luck", passes={}))
    row, failed = (row for _, row in collect(tmp_path).iterrows())
    assert row["cost"] == 700 + 30
    assert row["cost_seconds"] == 2.0 + 0.25  # processor time, without validation and saving
    assert {phase: row[f"passes_{phase}"] for phase in passes} == passes
    assert (row["seconds_train"], row["cpu_seconds_select"]) == (3.0, 0.25)
    assert (row["unique_images"], row["n"], row["kept"], row["timed_alone"]) == (9, 21, 11, True)
    assert (failed["status"], failed["error"]) == ("failed", "no luck")
    assert np.isnan(failed["cost"]), "what did not get to its end has no cost of training"
    assert np.isnan(failed["cost_seconds"])


def test_every_setting_is_a_column_by_its_flat_name(tmp_path: Path) -> None:
    config = RunConfig.flat(**UNUSUAL)
    write_finished(RunStore(tmp_path), run_record("a", config=config.model_dump(mode="json"), steps=12345))
    row = collect(tmp_path).iloc[0]
    assert set(flat_fields()) <= {*UNUSUAL, *RESOLVED, "device"}, "give the new field a value in UNUSUAL"
    wrong = {}
    for name in flat_fields():
        expected = {**RESOLVED, "device": config.device, **UNUSUAL}[name]
        found = row[name]
        if isinstance(expected, dict):
            found = json.loads(found)
        if found != expected:
            wrong[name] = found
    assert wrong == {}


def study_folder(results: Path) -> RunStore:
    store = RunStore(results)
    half = RunConfig.flat(**TINY, pruner="random", fraction=0.5).model_dump(mode="json")
    write_finished(store, run_record("full"), evaluation_record("e", "full", outcome(9), {"pgd": outcome(8)}))
    for key, config in (("half", half), ("ctrl", None)):
        evaluation = evaluation_record("e", key, outcome(7), {"pgd": outcome(5)})
        write_finished(store, run_record(key, config=config), evaluation)
    store.write_evaluation(evaluation_record("later", "half", outcome(7), {"pgd": outcome(1)}))
    write_finished(store, run_record("unrelated"))
    entries = [
        ("random", 1.0, 0, None, "full", "e"),
        ("same_cost(random)", 1.0, 0, "same_cost", "full", "e"),
        ("random", 0.5, 0, None, "half", "e"),
        ("same_cost(random)", 0.5, 0, "same_cost", "ctrl", "e"),
        ("random", 0.5, 1, None, "missing", "e"),
    ]
    write_manifest(results, "mine", entries)
    return store


def test_study_rows_have_arms_and_the_matched_fraction(tmp_path: Path) -> None:
    study_folder(tmp_path)
    table = collect(tmp_path, study="mine")
    found = table[["key", "arm", "fraction", "matched_fraction", "control", "robust"]].astype(object)
    assert found.where(found.notna(), None).to_numpy().tolist() == [
        ["full", "random", 1.0, 1.0, None, 0.8],
        ["full", "same_cost(random)", 1.0, 1.0, "same_cost", 0.8],
        ["half", "random", 0.5, 0.5, None, 0.5],
        ["ctrl", "same_cost(random)", 1.0, 0.5, "same_cost", 0.5],  # of full data, beside the run it matches
    ]
    every = collect(tmp_path).drop_duplicates("key").set_index("key")["fraction"]
    assert all(every[key] == own for key, own in zip(table["key"], table["fraction"], strict=True)), "in every table"
    assert table["pruner"].tolist() == ["full", "full", "random", "full"]
    assert set(table["study"]) == {"mine"}
    assert table["study_seeds"].tolist() == [1, 1, 2, 1], "of each arm at each fraction"


def test_what_several_folders_have_of_a_study_counts_once(tmp_path: Path) -> None:
    """Also where one is an exported copy, and where what is tested in one of them is not in another."""
    stores = [study_folder(tmp_path / name) for name in "ab"]
    for store in stores:
        write_finished(store, run_record("full", timed_alone=True))
    one, times = collect(tmp_path / "a", study="mine"), collect_timings(tmp_path / "a", study="mine")
    (tmp_path / "b" / "mine" / "manifest.json").rename(tmp_path / "b" / "manifest.json")
    entries = stores[0].manifest("mine").entries
    untested = next(entry for entry in entries if entry.key == "half")
    stores[0].evaluation_file(untested.key, untested.evaluation).unlink()
    both = collect(tmp_path / "a", tmp_path / "b", study="mine")
    pd.testing.assert_frame_equal(both, one)
    pd.testing.assert_frame_equal(collect_timings(tmp_path / "a", tmp_path / "b", study="mine"), times)
    moved = [entry.model_copy(update={"seed": 9}) for entry in entries]
    stores[1].write_manifest(stores[1].manifest("mine").model_copy(update={"entries": moved}), tmp_path / "b")
    assert len(collect(tmp_path / "a", tmp_path / "b", study="mine")) == 2 * len(one), "another place in the grid"


@pytest.mark.parametrize("study", [None, "mine"])
def test_damaged_record_is_left_out_with_a_warning(tmp_path: Path, study: str | None) -> None:
    store = study_folder(tmp_path)
    path = store.folder("half") / "record.json"
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match=f"{path} is damaged"):
        table = collect(tmp_path, study=study)
    assert "half" not in set(table["key"])
    assert {"full", "ctrl"} <= set(table["key"])


def test_timings_count_the_record_and_the_repetitions(tmp_path: Path) -> None:
    store = study_folder(tmp_path)
    write_finished(store, run_record("full", timed_alone=True))  # train 2 + select 0.25, wall 3 + 0.5
    for number in (1, 2):
        times = {"train": 10.0 * number, "select": 1.0, "validate": 99.0, "save": 99.0}
        wall = {**times, "train": 20.0 * number}
        store.write_timing("half", Timing(seconds=wall, cpu_seconds=times, environment={"device": "another"}))
    timings = collect_timings(tmp_path, study="mine")
    columns = ["key", "arm", "fraction", "seed", "device", "threads", "cpu_seconds", "seconds"]
    assert timings[columns].to_numpy().tolist() == [
        ["full", "random", 1.0, 0, "some processor", 1, 2.25, 3.5],
        ["half", "random", 0.5, 0, "another", 1, 11.0, 21.0],
        ["half", "random", 0.5, 0, "another", 1, 21.0, 41.0],
    ]


def test_no_timings_is_an_empty_table(tmp_path: Path) -> None:
    study_folder(tmp_path)
    assert len(collect_timings(tmp_path, study="mine")) == 0


@pytest.mark.parametrize("read", [collect, collect_timings])
def test_unknown_study_names_the_near_miss(tmp_path: Path, read: Any) -> None:
    study_folder(tmp_path)
    write_manifest(tmp_path, "cifar", [])
    with pytest.raises(ConfigError, match=r"no study 'mime'.*did you mean 'mine'.*allowed: cifar, mine"):
        read(tmp_path, study="mime")


@pytest.mark.parametrize("read", [printable, accuracy_findings, accuracy_vs_fraction])
def test_a_study_of_which_nothing_could_be_tested_can_be_read(tmp_path: Path, read: Any) -> None:
    store, entries = RunStore(tmp_path), []
    for seed in (0, 1):
        for fraction, kept in ((1.0, {}), (0.5, {"pruner": "random", "fraction": 0.5})):
            key, config = f"{fraction}-{seed}", RunConfig.flat(**TINY, **kept, seed=seed)
            write_finished(store, run_record(key, config=config.model_dump(mode="json"), status="diverged"))
            entries.append(("random", fraction, seed, None, key, "e"))
    write_manifest(tmp_path, "mine", entries)
    read(collect(tmp_path, study="mine"))
    plt.close("all")
