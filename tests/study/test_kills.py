"""Thirty kills of drivers and workers, two in the midst of it: no process stays, no run is lost, records are equal."""

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
#: A traceback: its frames, and the error that it ends in.
TRACEBACK = re.compile(r"^Traceback .*\n((?: .*\n)+)(\S.*)", re.MULTILINE)
SIGNALS = {"driver": (signal.SIGKILL, signal.SIGTERM, signal.SIGINT), "worker": (signal.SIGKILL, signal.SIGTERM)}
#: The first kills, as soon as there are workers, which have everything to do: whom, how, and what is said of it.
IN_THE_MIDST = (
    ("worker", signal.SIGKILL, "a worker process was killed"),
    ("driver", signal.SIGINT, "interrupted; what is finished is kept"),
)


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


def workers(folder: Path) -> list[psutil.Process]:
    """Those of a study that carries this mark."""
    return list(filter(is_worker, marked(MARK, str(folder))))


def errors(log: str) -> list[str]:
    """Errors of which the package printed a traceback; Ctrl-C may come while Python is just importing it."""
    ends = [end for frames, end in TRACEBACK.findall(log) if "advprune_core/" in frames]
    return [end for end in ends if not end.startswith("KeyboardInterrupt")]


def test_errors_of_the_package_are_told_from_those_of_others() -> None:
    trace = 'Traceback (most recent call last):\n  File "/x/{}/base.py", line 1, in f\n    f()\n{}\n'
    own, other = trace.format("advprune_core/study", "KeyError: 3"), trace.format("loky", "EOFError: Ran out")
    assert errors(f"said\n{other}{own}more\n{trace.format('advprune_core/cli', 'KeyboardInterrupt')}") == [
        "KeyError: 3"
    ]


@pytest.mark.slow(seconds=200)
def test_kills_at_random_times_leave_nothing_behind(tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    start = time.monotonic()
    subprocess.run(command(undisturbed), capture_output=True, check=True)
    whole = time.monotonic() - start
    expected, chance = records(undisturbed), random.Random(0)
    assert len(expected) == 8
    folder, logs = 0, []
    for kill in range(KILLS):
        results, log = tmp_path / f"killed{folder}", tmp_path / f"log{kill}"
        before = finished(results)
        with log.open("w") as file:
            driver = psutil.Popen(
                command(results),
                stdout=file,
                stderr=file,
                env=os.environ | {MARK: str(tmp_path)},
                start_new_session=True,
            )
            if kill < len(IN_THE_MIDST):
                wait_until(lambda: bool(workers(tmp_path)), seconds=120)
                target, number, _ = IN_THE_MIDST[kill]
            else:
                time.sleep(chance.uniform(0, whole))
                target = chance.choice(["driver", "worker"]) if workers(tmp_path) else "driver"
                number = chance.choice(SIGNALS[target])
            if victims := running([driver] if target == "driver" else workers(tmp_path)):
                chance.choice(victims).send_signal(number)
            code = driver.wait(timeout=120)
        try:
            wait_until(lambda: not marked(MARK, str(tmp_path)))
        finally:
            for process in marked(MARK, str(tmp_path)):
                process.kill()
        logs.append(log.read_text())
        # Of a driver: it says so, or was killed before it could; of a worker: the driver tells, if it still needed it.
        assert code in ({0, 1} if target == "worker" else {0, 128 + number, -number}), logs[-1]
        assert code != 1 or "a worker process was killed" in logs[-1], logs[-1]
        after = finished(results)
        assert before.items() <= after.items(), f"lost or changed by kill {kill}"
        if code == 0:
            assert records(results) == expected
            folder += 1
    results = tmp_path / f"killed{folder}"
    subprocess.run(command(results), capture_output=True, check=True)
    assert records(results) == expected
    for ended in (undisturbed, results):
        assert not list((ended / "cache" / "warmups").iterdir()), "no run goes on from it any more"
    assert [error for log in logs for error in errors(log)] == []
    for log, (*_, message) in zip(logs, IN_THE_MIDST, strict=False):
        assert message in log
