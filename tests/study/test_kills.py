"""Thirty kills at random times of drivers and workers: no process stays, no run is lost, the records are equal."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from advprune_core.study.notebooks import DEFAULT_NOTEBOOKS
from advprune_core.study.store import RunStore
from tests.made_up import study_options
from tests.processes import is_worker, marked, running, wait_until

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
KILLS = 30
MARK = "ADVPRUNE_KILLED_STUDY"
#: What loky says of a worker whose driver is killed before it has sent what the worker is to do.
NEVER_BEGUN = re.compile(
    r"LokyProcess-\d+ failed with traceback: *\n-+\nTraceback [^\n]*\n *File [^\n]*popen_loky_posix[^\n]*\n"
    r" *prep_data = [^\n]*\n[ ^]*\nEOFError: Ran out of input\n"
)
SIGNALS = {"driver": (signal.SIGKILL, signal.SIGTERM, signal.SIGINT), "worker": (signal.SIGKILL, signal.SIGTERM)}


def command(results: Path) -> list[str]:
    """A tiny study in two processes: two runs with a warm-up in common, and a control of each."""
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    change: dict[str, Any] = {"engine": "processes", "workers": 2, "seeds": [0], "fractions": [0.6, 0.3], "epochs": 3}
    change["pruners"] = [{"random": {"warmup_epochs": 1}}]
    notebooks = [str(NOTEBOOKS / name) for name in DEFAULT_NOTEBOOKS]
    main = [sys.executable, "-c", f"{start}from advprune_core.cli import main; main()", "study"]
    return [*main, *notebooks, *study_options(results, **change), "--shard", "1/1"]


def records(results: Path) -> dict[str, Any]:
    """All that a study comes to, time and memory aside."""
    store = RunStore(results)
    found: dict[str, Any] = {}
    for key in store.run_keys():
        record = store.run(key)
        assert record is not None
        found[key] = record.comparable()
        found |= {f"{key}/{evaluation.key}": evaluation.comparable() for evaluation in store.evaluations(key)}
    return found


def finished(results: Path) -> dict[Path, bytes]:
    """What has been written for good."""
    files = [*results.glob("runs/*/record.json"), *results.glob("runs/*/evaluations/*.json")]
    return {path: path.read_bytes() for path in files}


@pytest.mark.slow(seconds=200)
def test_kills_at_random_times_leave_nothing_behind(tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    start = time.monotonic()
    subprocess.run(command(undisturbed), capture_output=True, check=True)
    whole = time.monotonic() - start
    expected, chance = records(undisturbed), random.Random(0)
    assert len(expected) == 8
    number, logs = 0, []
    for kill in range(KILLS):
        results, log = tmp_path / f"killed{number}", tmp_path / f"log{kill}"
        before = finished(results)
        with log.open("w") as file:
            driver = psutil.Popen(
                command(results),
                stdout=file,
                stderr=file,
                env=os.environ | {MARK: str(tmp_path)},
                start_new_session=True,
            )
            time.sleep(chance.uniform(0, whole))
            workers = list(filter(is_worker, marked(MARK, str(tmp_path))))
            target = chance.choice(["driver", "worker"]) if workers else "driver"
            victim = driver if target == "driver" else chance.choice(workers)
            if running([victim]):
                victim.send_signal(chance.choice(SIGNALS[target]))
            code = driver.wait(timeout=120)
        try:
            wait_until(lambda: not marked(MARK, str(tmp_path)))
        finally:
            for process in marked(MARK, str(tmp_path)):
                process.kill()
        logs.append(log.read_text())
        after = finished(results)
        assert before.items() <= after.items(), f"lost or changed by kill {kill}"
        if code == 0:
            assert records(results) == expected
            number += 1
    results = tmp_path / f"killed{number}"
    subprocess.run(command(results), capture_output=True, check=True)
    assert records(results) == expected
    for folder in (undisturbed, results):
        assert not list((folder / "cache" / "warmups").iterdir()), "no run goes on from it any more"
    # Of loky's own: its tracker may find that a semaphore of a killed worker is gone already, and a worker that is
    # just beginning that there is nobody any more who tells it what to do.
    logs = [NEVER_BEGUN.sub("", log) for log in logs]
    lines = [line for log in logs for line in log.splitlines() if "resource_tracker" not in line]
    assert [line for line in lines if "Error" in line] == []
    assert any("a worker process was killed" in log for log in logs)
    assert any("interrupted; what is finished is kept" in log for log in logs)
