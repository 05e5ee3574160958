"""A tiny study that is killed in the middle: ``python -m tests.study.interrupted RESULTS training|testing``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import advprune_core.attacks.ensemble
from advprune_core.study.grid import study_grid
from advprune_core.study.runner import run_entries
from advprune_core.trainers import run
from tests.tiny import tiny_study

if __name__ == "__main__":
    results, when = Path(sys.argv[1]), sys.argv[2]
    config = tiny_study(results, seeds=[0], settings={"best_every": 1}, timed_repeats=0)

    if when == "training":
        # At the second epoch's end, when the first one's checkpoint is there.
        validate = run.validate

        def killed(*args: Any, row: dict[str, Any], **more: Any) -> dict[str, float]:
            if row["epoch"] == 1:
                os._exit(9)
            return validate(*args, row=row, **more)

        run.validate = killed  # type: ignore[assignment]
    else:
        # When the first attack's outcome is kept.
        kept = advprune_core.attacks.ensemble.write_sealed

        def write(path: Path, payload: bytes) -> None:
            kept(path, payload)
            os._exit(9)

        advprune_core.attacks.ensemble.write_sealed = write  # type: ignore[attr-defined]
    execution = config.execution.replace(checkpoint_seconds=0)
    run_entries(study_grid(config), execution=execution, progress=False)
