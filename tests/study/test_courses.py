"""Courses and lifetimes of a study's runs, against their records."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from advprune_core.analysis.convergence import convergence_figure, convergence_findings
from advprune_core.study.courses import collect_courses, collect_lifetimes
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from tests.reference import REFERENCE
from tests.tiny import tiny_study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("courses")
    settings = {"best_every": 1, "collapse_drop": 0.001}
    run_study(tiny_study(folder, settings=settings, epochs=4, seeds=[0], fractions=[1.0, 0.5]), progress=False)
    return folder


def test_courses_are_the_checks_of_the_records(results: Path) -> None:
    courses, store = collect_courses(results, study="tiny"), RunStore(results)
    points = courses[["arm", "fraction"]].drop_duplicates().values.tolist()
    assert points == [["random", 1.0], ["random", 0.5], ["same_cost(random)", 0.5]], "a full run is its own control"
    for (key, fraction), rows in courses.groupby(["key", "fraction"]):
        record = store.run(str(key))
        assert record is not None
        epochs = 2 if rows["arm"].iloc[0].startswith("same_cost") else 4
        assert rows["epoch"].tolist() == list(range(1, epochs + 1))
        assert rows["val_pgd"].tolist() == [row["val_pgd"] for row in record.epochs]
        assert rows["pert_align"].tolist() == [row["pert_align"] for row in record.epochs], "PGD-1 has one step"
        assert rows["steps"].iloc[-1] == record.steps
        assert rows["cost"].iloc[-1] == pytest.approx(record.cost)
        # PGD-1 costs 5 an image; an epoch leaves less than a batch to the next.
        assert rows["cost"].iloc[0] == 5 * record.epochs[0]["images"]
        full = courses[courses["fraction"] == 1]
        assert set(rows["full_cost"]) == {full["cost"].max()}
        assert full["val_pgd"].iloc[-1] <= 0.11, "four tiny epochs teach nothing"
        assert rows["full_val_pgd"].isna().all(), "and nothing is no bar"
        assert rows["cost"].max() / rows["full_cost"].max() == pytest.approx(float(fraction), abs=0.05)  # type: ignore[arg-type]


def test_the_bar_is_the_full_runs_last_check(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr("advprune_core.study.courses.as_constant", lambda *told: asked.append(told))
    courses = collect_courses(results, study="tiny")
    last = courses[courses["fraction"] == 1]["val_pgd"].iloc[-1]
    assert set(courses["full_val_pgd"]) == {last}
    assert set(asked) == {(last, 10)}


def test_steps_are_those_of_the_optimiser(tmp_path: Path) -> None:
    """Free trains on each batch several times."""
    settings = {"best_every": 1, "collapse_drop": 0.001}
    run_study(
        tiny_study(tmp_path, trainer="free", steps=None, settings=settings, seeds=[0], controls=[]),
        progress=False,
    )
    courses, store = collect_courses(tmp_path, study="tiny"), RunStore(tmp_path)
    for key, rows in courses.groupby("key"):
        record = store.run(str(key))
        assert record is not None
        assert rows["steps"].iloc[-1] == record.steps == 4 * sum(row["images"] for row in record.epochs) / 16
    lifetimes = collect_lifetimes(tmp_path, study="tiny")
    assert not (lifetimes["collapse_steps"] > lifetimes["optimiser_steps"]).any()


def test_plain_epochs_cost_what_they_cost(tmp_path: Path) -> None:
    settings = {"best_every": 1, "optimisation.plain_epochs": 2}
    config = tiny_study(tmp_path, settings=settings, epochs=4, seeds=[0], fractions=[1.0], controls=[])
    run_study(config, progress=False)
    courses, store = collect_courses(tmp_path, study="tiny"), RunStore(tmp_path)
    record = store.run(courses["key"].iloc[0])
    assert record is not None
    images = np.cumsum([row["images"] for row in record.epochs])
    plain, attacked = 3, 5  # passes of an image: forward and backward; one step before
    costs = [plain * count if epoch < 2 else plain * images[1] + attacked * (count - images[1])
             for epoch, count in enumerate(images)]  # fmt: skip
    assert courses["cost"].tolist() == pytest.approx(costs)
    assert courses["cost"].iloc[-1] == record.cost


def test_runs_whose_attack_has_several_steps_have_no_alignment() -> None:
    """Nor have records of earlier versions, which say nothing of it either."""
    courses = collect_courses(REFERENCE / "collapse", study="collapse")
    assert courses.loc[courses["variant"] == "PGD-AT", "pert_align"].isna().all()
    assert not courses[courses["variant"] == "PGD-AT"].empty


def test_lifetimes_end_with_the_epoch_of_the_collapse(results: Path) -> None:
    lifetimes, store = collect_lifetimes(results, study="tiny"), RunStore(results)
    arms = lifetimes[["arm", "fraction"]].values.tolist()
    assert arms == [["random", 1.0], ["random", 0.5], ["same_cost(random)", 0.5]], "a full run is its own control"
    for _, row in lifetimes.iterrows():
        record = store.run(row["key"])
        assert record is not None
        assert row["optimiser_steps"] == record.steps
        assert row["val_pgd_best"] == max(epoch["val_pgd"] for epoch in record.epochs)
        if record.collapse_epoch is None:
            assert np.isnan(row["collapse_steps"])
        else:
            images = [epoch["images"] for epoch in record.epochs if epoch["epoch"] <= record.collapse_epoch]
            assert row["collapse_steps"] == sum(images) / 16


def test_a_study_without_checks_has_tables_without_rows(tmp_path: Path) -> None:
    run_study(tiny_study(tmp_path, seeds=[0], fractions=[0.5]), progress=False)
    courses = collect_courses(tmp_path, study="tiny")
    assert courses.empty
    assert "best_every" in convergence_findings(courses)
    convergence_figure(courses)
    for folder in (tmp_path / "runs").iterdir():
        shutil.rmtree(folder)
    lifetimes = collect_lifetimes(tmp_path, study="tiny")
    assert lifetimes.empty
    assert {"arm", "collapse_steps"} <= set(lifetimes.columns)
