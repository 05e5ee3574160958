"""The command in a process of its own: own modules, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from advprune_core.study.notebooks import DEFAULT_NOTEBOOKS
from tests.made_up import QUICK, RUN, study_options
from tests.processes import is_worker, running, wait_until

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
OWN = """
import torch


def network():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""


@pytest.mark.slow
def test_own_model_beside_the_shell(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    start = "import sys; sys.path.remove(''); from advprune_core.cli import main; main()"  # as an installed script
    command = [sys.executable, "-c", start, *RUN, *QUICK, "--model", "mine:network", "--out", "r"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


# Ctrl-C reaches the whole process group, as from a terminal; so does a closed terminal; `kill` the driver alone.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "number"),
    [("serial", signal.SIGHUP), ("processes", signal.SIGINT), ("processes", signal.SIGTERM)],
)
def test_interruption_keeps_finished_runs_and_the_same_command_goes_on(
    tmp_path: Path, engine: str, number: signal.Signals
) -> None:
    results, seeds = tmp_path / "results", [0, 1, 2, 3]
    change = {"engine": engine, "workers": 2, "seeds": seeds, "fractions": [1.0], "controls": [], "epochs": 40}
    # A parent that ignores signals (nohup, a shell in the background) hands that on; a terminal does not.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    command = [sys.executable, "-c", f"{start}from advprune_core.cli import main; main()", "study"]
    notebooks = [str(NOTEBOOKS / name) for name in DEFAULT_NOTEBOOKS]
    command += [*notebooks, *study_options(results, **change), "--shard", "1/1"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = psutil.Popen(command, stdout=file, stderr=file, start_new_session=True)
        while not list(results.glob("runs/*/record.json")):
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        workers = list(filter(is_worker, process.children()))
        assert len(workers) == (2 if engine == "processes" else 0)
        (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
        assert process.wait() == 128 + number, log.read_text()
        assert running(workers) == [], "workers of the interrupted study are still there"
    assert "interrupted; what is finished is kept" in log.read_text()
    assert "Traceback" not in log.read_text()
    finished = {path: path.read_bytes() for path in results.glob("runs/*/record.json")}
    assert 1 <= len(finished) < len(seeds)
    assert not list(results.rglob(".record.json.*"))
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{len(seeds) - len(finished)} runs trained" in again.stdout
    assert len(list(results.glob("runs/*/record.json"))) == len(seeds)
    assert {path: path.read_bytes() for path in finished} == finished


CUT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Cut:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{number})

sys.meta_path.insert(0, Cut())
from advprune_core.cli import main
main()
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("pydantic", ["--help"]),
        ("typer", ["--help"]),
        ("torch", ["run", "--help"]),
        ("pandas", ["collect", "."]),
        ("advprune_core.study.executed", ["study", "digits"]),
    ],
)
def test_interruption_of_an_import_is_one_sentence(
    tmp_path: Path, module: str, arguments: list[str], number: str
) -> None:
    command = [sys.executable, "-c", CUT.format(module=module, number=number), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr.strip() == "advprune: interrupted; what was written before is kept"
    assert done.returncode == 128 + getattr(signal, number)


ENDLESS = """
from pathlib import Path
from typing import ClassVar

from advprune_core.pruners.base import Pruner


class Endless(Pruner):
    name: ClassVar[str] = "endless"

    def select(self, context):
        Path("begun").touch()
        while True:
            pass
"""


IN_DEL = """
import os, signal, sys, time
from advprune_core.cli.interrupts import interruptible, listen

class Gone:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        for _ in range(100_000):  # here it is raised, and dropped
            pass

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
listen()
with interruptible():
    thing = Gone()
    del thing
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_something_is_tidied_up_is_heard(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_DEL, str(int(number))], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 128 + number
    assert done.stderr == "\nadvprune: interrupted; what is finished is kept, and the same command goes on from here\n"


@pytest.mark.slow
def test_a_selection_stops_at_once(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    np.savez(tmp_path / "mine.npz", y=np.arange(100) % 2)
    # A parent that ignores signals (nohup, a shell in the background) hands that on; a terminal does not.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    command = [sys.executable, "-c", f"{start}from advprune_core.cli import main; main()", "select", "mine.npz"]
    command += ["--pruner", "endless:Endless", "--fraction", "0.5"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until((tmp_path / "begun").exists)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said.strip() == "advprune: interrupted; no selection was written"
    assert not (tmp_path / "selection.npz").exists()
