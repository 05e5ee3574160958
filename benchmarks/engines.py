"""The digits study with one process per core against one process: wall time and equal records.

    python benchmarks/engines.py [EPOCHS]

Runs the grid of the digits profile (without timings alone) twice, each from an empty results
folder, compares the records, and prints both times and their ratio. Takes about ten minutes with
the profile's 30 epochs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from advprune_core.study.engines import default_workers
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from advprune_core.study.study import read_profile, study_config

PROFILE = Path(__file__).parents[1] / "notebooks" / "profiles" / "digits.yaml"


def main(epochs: float | None = None) -> None:
    seconds, records = {}, {}
    for engine in ("processes", "serial"):
        with tempfile.TemporaryDirectory() as folder:
            parameters = read_profile(PROFILE)[0] | {"engine": engine, "results": folder, "timed_repeats": 0}
            config = study_config(parameters | ({} if epochs is None else {"epochs": epochs}))
            start = time.perf_counter()
            run_study(config)
            seconds[engine] = time.perf_counter() - start
            store = RunStore(folder)
            records[engine] = {
                key: (
                    run.comparable(),
                    [evaluation.comparable() for evaluation in store.evaluations(key)],
                )
                for key in store.run_keys()
                if (run := store.run(key)) is not None
            }
    same = records["serial"] == records["processes"]
    print(
        f"{len(records['serial'])} runs; serial {seconds['serial']:.1f} s, {default_workers()} processes "
        f"{seconds['processes']:.1f} s: {seconds['serial'] / seconds['processes']:.2f} times as fast; "
        f"records {'equal' if same else 'DIFFER'} (time, memory, environment aside)"
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else None)
