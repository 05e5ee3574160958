"""A study of which several files ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from advprune_core.study.runner import run_study
from advprune_core.study.study import study_config
from tests.tiny import TINY_STUDY


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of a tiny study: full data, half of it, and the control of that."""
    results = tmp_path_factory.mktemp("results")
    run_study(study_config({**TINY_STUDY, "results": str(results)}), progress=False)
    return results
