"""Tiny runs and studies that several tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advprune_core.study.study import StudyConfig, study_config
from advprune_core.trainers.config import RunConfig

DATASET = {"digits": {"limit": 300, "test_limit": 100}}
MODEL = {"small_cnn": {"width": 4}}
STUDY: dict[str, Any] = {
    "study": "tiny",
    "dataset": DATASET,
    "model": MODEL,
    "epochs": 2,
    "steps": 1,
    "batch_size": 16,
    "fractions": [1.0, 0.4],
    "seeds": [0, 1],
    "evaluation": [{"pgd": {"steps": 2}}],
    "engine": "serial",
}


def tiny_run(**options: Any) -> RunConfig:
    """A run of a fraction of a second: 254 images, 3 epochs, PGD-1."""
    defaults: dict[str, Any] = {"dataset": DATASET, "model": MODEL, "epochs": 3, "steps": 1, "batch_size": 16}
    return RunConfig.flat(**defaults | options)


def tiny_study(results: Path, **parameters: Any) -> StudyConfig:
    """A study of runs like `tiny_run`: two fractions, two seeds, one control."""
    return study_config(STUDY | {"timed_repeats": 0, "results": str(results)} | parameters)
