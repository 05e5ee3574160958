"""What a study leaves beside its runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.study.grid import study_grid
from advprune_core.study.plans import plan
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from advprune_core.study.study import StudyConfig, study_config
from advprune_core.study.unfinished import unfinished
from tests.tiny import TINY_STUDY


def test_the_manifest_names_the_whole_study(trained: Path) -> None:
    manifest = json.loads((trained / "tiny" / "manifest.json").read_text())
    arms = [(entry["arm"], entry["fraction"]) for entry in manifest["entries"]]
    assert arms == [(arm, f) for f in (1.0, 0.5) for arm in ("random", "same_cost(random)")]
    assert study_config(manifest["config"]) == StudyConfig(**{**TINY_STUDY, "engine": "processes"})
    assert str(trained) not in json.dumps(manifest)


def test_of_a_study_only_what_was_chosen(trained: Path) -> None:
    config = study_config({**TINY_STUDY, "study": "chosen", "results": str(trained)})
    result = run_study(config, progress=False, only=[("random", 0.5)])
    assert result.table[["arm", "fraction"]].values.tolist() == [["random", 0.5]]
    assert (result.trained, result.evaluated) == (0, 0), "it was there"
    store = RunStore(trained)
    manifest = store.manifest("chosen")
    assert manifest.only == [("random", 0.5)]
    assert unfinished(store, manifest) == [], "nobody waits for the rest of the grid"
    with pytest.raises(ConfigError, match=r"no \[\('random', 0.25\)\]; it has .*\('random', 1.0\)"):
        run_study(config, progress=False, only=[("random", 0.25)])


def test_what_is_finished_asks_nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that was made on a larger machine is read, planned and drawn on any."""
    study = study_config(TINY_STUDY | {"results": str(tmp_path), "threads": 8, "evaluation": ["fgsm"]})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert run_study(study, progress=False).trained > 0
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    again = run_study(study, progress=False)
    assert (again.trained, again.failed) == (0, {})
    assert len(again.table)
    assert "at most 0 to train" in plan(study_grid(study), study.execution)
    larger = study.replace(seeds=[*study.seeds, 7])
    refused = pytest.raises(ConfigError, match="threads = 8, but this machine has 1 cores")
    with refused:
        run_study(larger)
    with refused:
        plan(study_grid(larger), larger.execution)
