"""The committed studies: every record is as it was written, and tables and pages say what the records say."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from advprune_core.analysis.budgets import budget_findings
from advprune_core.analysis.convergence import convergence_findings
from advprune_core.analysis.findings import accuracy_findings, pruner_findings
from advprune_core.analysis.pages import page
from advprune_core.analysis.ranking import CHOICE, Ranking, ranked
from advprune_core.analysis.rivals import equal_cost_findings
from advprune_core.analysis.speedrun import speedrun_findings
from advprune_core.analysis.summaries import printable, pruner_table
from advprune_core.analysis.survival import survival_findings
from advprune_core.analysis.trainer_findings import trainer_findings
from advprune_core.base.keys import content_key
from advprune_core.study.courses import collect_courses, collect_lifetimes
from advprune_core.study.executed import parameters_of
from advprune_core.study.grid import study_grid
from advprune_core.study.packed import PACKED
from advprune_core.study.store import RunStore
from advprune_core.study.study import StudyConfig, read_profile, study_config
from advprune_core.study.table import collect
from advprune_core.study.upkeep import check_results
from tests.committed import of
from tests.executed import cells, machine_paths, told, undrawn
from tests.front_page import derived
from tests.reference import REFERENCE, STUDIES

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(REFERENCE.glob("*/*.ipynb"))
#: Studies of which more runs are to come.
UNDER_WAY: set[str] = set()
#: About how many seconds one look at all the records of a large study takes.
LARGE = {
    "collapse_by_fraction": 50,
    "collapse_by_fraction_large": 45,
    "collapse_by_fraction_l2": 45,
    "pruners": 50,
    "convergence_reliability": 40,
}
LARGE |= {"digits_20_seeds": 40, "when_pruning_wins": 30, "trainers": 25, "cifar10_cpu": 20, "gradient_matching": 20}
LARGE |= {"digits_n_fgsm": 15, "when_pruning_wins_l2": 15}
#: The studies for tests that look at all records.
WHOLE = [
    pytest.param(study, marks=pytest.mark.slow(seconds=LARGE[study]) if study in LARGE else ()) for study in STUDIES
]


def test_there_are_studies_and_each_is_one_file_of_records() -> None:
    assert {"digits", "trainers", "pruners", "freshness"} <= set(STUDIES)
    for study in STUDIES:
        assert (REFERENCE / study / PACKED).is_file()
        assert not (REFERENCE / study / "runs").exists()


def test_every_study_is_a_profile_that_make_carries_out() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    lists = re.findall(r"^(DIGITS|FASHION_MNIST|CIFAR_CPU|CIFAR100_CPU|CIFAR_GPU) := (.*)$", makefile, re.MULTILINE)
    made = [study for _, studies in lists for study in studies.split()]
    assert all((ROOT / "notebooks" / "profiles" / f"{study}.yaml").is_file() for study in made)
    assert {study.removesuffix(CHOICE) for study in STUDIES} <= set(made)


@pytest.mark.parametrize("study", WHOLE)
def test_records_are_as_they_were_written(study: str) -> None:
    found = check_results(REFERENCE / study)
    if study in UNDER_WAY:
        found = [finding for finding in found if finding.path.name != "manifest.json"]
    assert found == []


def todays(study: str) -> StudyConfig:
    """A study as its profile asks for it, where that says nothing as it was carried out."""
    own = study.removesuffix(CHOICE)
    config = study_config(RunStore(REFERENCE / own, read_only=True).manifest(own).config)
    parameters, _ = read_profile(ROOT / "notebooks" / "profiles" / f"{own}.yaml")
    of_study = {name: value for name, value in parameters.items() if name in StudyConfig.model_fields}
    asked = study_config({**config.model_dump(), **of_study, "timed_repeats": config.timed_repeats})
    return asked if own == study else Ranking.of(asked, choice_seeds=parameters["choice_seeds"]).config


@pytest.mark.parametrize("study", STUDIES)
def test_records_are_the_runs_that_todays_profile_would_make(study: str) -> None:
    """No setting, no component's version and no part of the grid has changed since."""
    store = RunStore(REFERENCE / study, read_only=True)
    manifest = store.manifest(study)
    config, points = study_config(manifest.config), manifest.entries
    changed = todays(study)
    if study not in UNDER_WAY:
        assert changed == config, "the profile asks for something else"
    today = {(entry.arm, entry.fraction, entry.seed): entry for entry in study_grid(changed)}
    for point in points:
        entry = today[point.arm, point.fraction, point.seed]
        record = store.run(point.key)
        if record is None:
            assert study in UNDER_WAY
            continue
        train_hash = record.dataset["train_hash"]
        own = entry.config.replace(device=record.config["device"], speed=record.config.get("speed", "exact"))
        # A control may match a run of another device (any_device).
        keys = [content_key(own.replace(device=device).identity(train_hash)) for device in (own.device, "cpu", "cuda")]
        matched = next(filter(None, map(store.finished, keys)), None)
        made = replace(entry, config=own).resolved(matched)
        assert made is not None
        assert content_key(made.identity(train_hash)) == point.key, entry.describe()
    asked = {
        place
        for place, entry in today.items()
        if entry.control is None and manifest.asks_for(entry.arm, entry.fraction)
    }
    assert asked <= {(point.arm, point.fraction, point.seed) for point in points}


@pytest.mark.parametrize("study", STUDIES)
def test_tables_say_what_the_records_say(study: str) -> None:
    folder = REFERENCE / study
    table = collect(folder, study=study)
    for name, found in {"table": table, **derived(study)}.items():
        written = pd.read_csv(folder / f"{name}.csv")
        pd.testing.assert_frame_equal(written, pd.read_csv(io.StringIO(found.to_csv(index=False))), rtol=1e-9)
    assert (folder / "table.tex").read_text() == printable(table).to_latex(index=False, escape=True)


@pytest.mark.parametrize("study", WHOLE)
def test_pages_say_what_the_records_say(study: str) -> None:
    written = (REFERENCE / study / "README.md").read_text()
    assert written == page(REFERENCE / study, study), "write it again: `python -m tests.front_page`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[f"{path.parent.name}/{path.name}" for path in NOTEBOOKS])
def test_executed_notebooks_show_their_figures_and_name_no_machine(path: Path) -> None:
    executed = json.loads(path.read_text())
    assert undrawn(executed) == []
    assert machine_paths(executed) == []


def _courses(study: str) -> pd.DataFrame:
    return collect_courses(REFERENCE / study, study=study)


def _lifetimes(study: str) -> pd.DataFrame:
    return collect_lifetimes(REFERENCE / study, study=study)


def _speedrun(study: str, given: dict[str, Any]) -> str:
    options = {name: given[name] for name in ("textbook", "goals")}
    return speedrun_findings(of(study), ranked(of(f"{study}{CHOICE}")), **options)


def _controlled(table: pd.DataFrame) -> pd.Series:
    """Rows of the ways of training that have a control."""
    return table.groupby("variant")["control"].transform(lambda values: values.notna().any())


#: What a notebook says of a study, given its parameters.
SAID: dict[str, list[Callable[[str, dict[str, Any]], str]]] = {
    "accuracy_vs_fraction": [lambda study, _: accuracy_findings(of(study))],
    "convergence_reliability": [
        lambda study, given: convergence_findings(_courses(study), share=given["share"]),
        lambda study, _: survival_findings(_lifetimes(study)),
    ],
    "gradient_matching": [lambda study, _: equal_cost_findings(of(study))],
    "pruners": [lambda study, _: pruner_findings(pruner_table(of(study)))],
    "runtime": [lambda study, _: budget_findings(of(study))],
    "speedrun": [_speedrun],
    "trainers": [
        lambda study, given: trainer_findings(of(study), reference=given["reference"]),
        lambda study, _: accuracy_findings(of(study)[_controlled(of(study))]),
    ],
    "when_pruning_wins": [lambda study, _: equal_cost_findings(of(study))],
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[f"{path.parent.name}/{path.name}" for path in NOTEBOOKS])
def test_executed_notebooks_say_what_the_records_beside_them_say(path: Path) -> None:
    """A run of the same key that another study has brought along may have come out elsewhere on another machine."""
    said = told(path)
    given = parameters_of(path) | parameters_of(path, tag="injected-parameters")
    texts = [tell(path.parent.name, given) for tell in SAID[path.stem]]
    assert any(texts)
    for text in texts:
        assert text in said, "execute it again, in a results folder of its own"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[f"{path.parent.name}/{path.name}" for path in NOTEBOOKS])
def test_executed_notebooks_are_those_of_today(path: Path) -> None:
    """Every code cell but the parameters of the study."""
    own = [cell for cell in cells(path) if "injected-parameters" not in cell["metadata"].get("tags", [])]
    source = cells(ROOT / "notebooks" / path.name)
    assert ["".join(cell["source"]) for cell in own] == ["".join(cell["source"]) for cell in source], "execute it again"
