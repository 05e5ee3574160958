"""Tiny runs and studies that several tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advprune_core.study.study import StudyConfig, study_config
from advprune_core.trainers.config import RunConfig

DATASET = {"digits": {"limit": 300, "test_limit": 100}}
MODEL = {"small_cnn": {"width": 4}}
#: Settings of the smallest run that still trains, by flat name.
TINY: dict[str, Any] = {"dataset": DATASET, "model": MODEL, "epochs": 1, "steps": 1, "batch_size": 16}
#: A study of runs like these: two fractions, two seeds, one control.
STUDY: dict[str, Any] = TINY | {
    "study": "tiny",
    "epochs": 2,
    "fractions": [1.0, 0.4],
    "seeds": [0, 1],
    "evaluation": [{"pgd": {"steps": 2}}],
    "engine": "serial",
}
#: The least of it that still has a control, for tests of what is around a study.
TINY_STUDY: dict[str, Any] = STUDY | {"epochs": 1, "fractions": [1.0, 0.5], "seeds": [0], "timed_repeats": 0}


def tiny_run(**options: Any) -> RunConfig:
    """A run of a fraction of a second: 254 images, 3 epochs, PGD-1."""
    return RunConfig.flat(**TINY | {"epochs": 3} | options)


def tiny_study(results: Path, **parameters: Any) -> StudyConfig:
    """A study of runs like `tiny_run`: two fractions, two seeds, one control."""
    return study_config(STUDY | {"timed_repeats": 0, "results": str(results)} | parameters)
