"""What a study does not have yet, and what that takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from advprune_core.analysis.pages import page
from advprune_core.study.archive import export_study
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from advprune_core.study.unfinished import unfinished
from tests.made_up import run_record, write_manifest
from tests.tiny import tiny_study


def test_a_run_that_failed_is_missing(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    write_manifest(tmp_path, "mine", [("random", 0.5, seed, None, f"run{seed}", "test") for seed in (0, 1)])
    store.write_run(run_record("run0", status="failed", error="MemoryError"))
    store.write_run(run_record("run1", status="diverged"))  # a result, of which no test is asked
    found = export_study("mine", tmp_path / "copy", results=tmp_path)
    assert [text for text in found.missing if "random 50 %" in text] == ["random 50 % seed 0: failed"]
    assert "runs or their tests are missing (1 of these runs failed), and no" in page(tmp_path / "copy", "mine")


@pytest.mark.parametrize("steps", [3, "bullet"])
def test_what_a_missing_run_takes_at_least(steps: Any, tmp_path: Path) -> None:
    """Fixed steps cost what they cost; of steps by image there may be none: an update, and the logits that say so."""
    study = {"pruners": ["random"], "fractions": [1.0, 0.5], "seeds": [0], "controls": [], "epochs": 2}
    run_study(tiny_study(tmp_path, **study | {"settings": {"attack.steps": steps}}), progress=False)
    store = RunStore(tmp_path)
    manifest = store.manifest("tiny")
    run = next(entry for entry in manifest.entries if entry.fraction == 0.5)
    record = store.run(run.key)
    assert record is not None
    shutil.rmtree(store.folder(run.key))
    (missing,) = unfinished(store, manifest)
    assert (missing.arm, missing.fraction, missing.why) == ("random", 0.5, "not trained")
    assert missing.passes is not None
    each = 9 if steps == 3 else 4
    assert 0 <= missing.passes - each * record.images_visited < each * record.config["optimisation"]["batch_size"]
    if steps == 3:
        assert record.passes["train"] == each * record.images_visited
    else:
        assert record.passes["train"] > each * record.images_visited
