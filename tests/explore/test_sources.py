"""Which studies there are to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.explore import overview, sources
from advprune_core.explore.sources import Source, name_of
from advprune_core.study.store import RunStore
from tests.made_up import evaluation_record, run_record, write_finished, write_manifest
from tests.reference import STUDIES


def test_own_studies_and_those_of_the_checkout(tmp_path: Path) -> None:
    for study in ("digits", "begun"):
        write_manifest(tmp_path, study, [("random", 1.0, 0, None, study, "b")])
    tested = evaluation_record("b", "digits", [1, 1], {"pgd": [1, 0]})
    write_finished(RunStore(tmp_path), run_record("digits"), tested)
    write_finished(RunStore(tmp_path), run_record("begun"))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    known = sources.sources(tmp_path)
    assert list(known) == ["digits", *(f"{study} (reference)" for study in STUDIES)]
    assert known["digits"].folder == tmp_path
    assert name_of("digits", known) == "digits"
    assert name_of("trainers", known) == "trainers (reference)"
    with pytest.raises(ConfigError, match=r"unknown study 'trainer' \(did you mean 'trainers"):
        name_of("trainer", known)
    table = overview(tmp_path)
    assert table.loc["digits", "arms and fractions"] == 1
    assert table.loc["trainers (reference)", "seeds"] == 20
    assert table.loc["freshness (reference)", "data set"] == "fashion_mnist"


def test_without_any_study_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "REFERENCE", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"there is no study in .* of which a run is tested: carry one out"):
        sources.sources(tmp_path)


def test_runs_that_are_not_tested_are_left_out(tmp_path: Path) -> None:
    source = Source(tmp_path, "mine")
    write_manifest(tmp_path, "mine", [("random", 1.0, seed, None, key, "e") for seed, key in enumerate("ab")])
    for key in "ab":
        write_finished(source.store, run_record(key))
    with pytest.raises(ConfigError, match=r"no run of the study 'mine' .* is finished and tested yet"):
        source.table  # noqa: B018
    source.store.write_evaluation(evaluation_record("e", "b", [1, 1], {"pgd": [1, 0]}))
    assert source.table["key"].tolist() == ["b"]
