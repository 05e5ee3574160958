"""What a study leaves beside its runs."""

from __future__ import annotations

import json
from pathlib import Path

from advprune_core.study.study import StudyConfig, study_config
from tests.tiny import TINY_STUDY


def test_the_manifest_names_the_whole_study(trained: Path) -> None:
    manifest = json.loads((trained / "tiny" / "manifest.json").read_text())
    arms = [(entry["arm"], entry["fraction"]) for entry in manifest["entries"]]
    assert arms == [(arm, f) for f in (1.0, 0.5) for arm in ("random", "same_cost(random)")]
    assert study_config(manifest["config"]) == StudyConfig(**{**TINY_STUDY, "engine": "processes"})
    assert str(trained) not in json.dumps(manifest)
