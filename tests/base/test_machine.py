"""A full disk, a limit on files, a killed worker: a sentence, and the same again goes on."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advprune_core.base.files import write_atomically
from advprune_core.base.machine import MachineError, machine_error, machine_errors
from advprune_core.pruners.base import Context, ScheduledPruner
from advprune_core.pruners.selection import Selection
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from tests.made_up import study_options
from tests.tiny import TINY_STUDY, tiny_study

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "accuracy_vs_fraction.ipynb"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "too many files"),
        (errno.ENOMEM, "no memory"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.EROFS, "can only be read"),
        (errno.EIO, "reports an error"),
    ],
)
def test_what_is_wrong_where_and_what_is_kept(number: int, words: str) -> None:
    for error in (OSError(number, os.strerror(number), "some/file"), OSError(number, os.strerror(number))):
        found = machine_error(error, "some/file")
        assert found is not None
        assert words in str(found)
        assert "(some/file)" in str(found)
        assert "what is finished is kept" in str(found)
        assert str(pickle.loads(pickle.dumps(found))) == str(found), "as from a worker"
        assert machine_error(found) is found


@pytest.mark.parametrize("error", [ValueError("no"), FileNotFoundError(errno.ENOENT, "no such file"), MemoryError()])
def test_other_errors_pass(error: Exception) -> None:
    assert machine_error(error) is None
    with pytest.raises(type(error)), machine_errors():
        raise error


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(MachineError, match="worker process was killed"), machine_errors():
        raise BrokenExecutor("with 30 lines of advice for developers")


@pytest.mark.parametrize(
    "write",
    [
        lambda file: torch.save({"weights": torch.zeros(10_000)}, file),  # torch calls it an unexpected position
        lambda file: np.savez(file, a=np.zeros(10_000)),
        lambda file: file.write(b"x" * 40_000),
    ],
    ids=["torch", "numpy", "text"],
)
def test_a_file_that_may_not_grow(write: Callable[[Any], Any], tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(MachineError, match=r"so large .*last\.pt"):
            write_atomically(tmp_path / "last.pt", write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


class Filling(ScheduledPruner):
    """Fills the disk in its second selection, unless told otherwise by the environment."""

    name = "filling"
    uses_model = True  # so that it is not asked before training
    every: int = 1

    def select(self, context: Context) -> Selection:
        if context.epoch == 1 and "ADVPRUNE_TEST_ROOM" not in os.environ:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Selection(np.arange(context.k))


@pytest.mark.parametrize("timed", [0, 1])
def test_a_full_disk_stops_the_study_and_is_no_result(
    timed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_study(tmp_path, pruners=[Filling()], fractions=[1.0, 0.4], seeds=[0], timed_repeats=timed)
    with pytest.raises(MachineError, match="the disk is full"):
        run_study(config, progress=False)
    store = RunStore(tmp_path)
    assert all(store.finished(key) is not None for key in store.run_keys()), "a full disk is no run's failure"
    monkeypatch.setenv("ADVPRUNE_TEST_ROOM", "1")
    assert run_study(config, progress=False).failed == {}


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "value"), [("RLIMIT_FSIZE", 20_000), ("RLIMIT_NOFILE", 12)])
def test_the_command_says_it_and_exits_with_1(limit: str, value: int, tmp_path: Path) -> None:
    start = (
        f"import resource as r; r.setrlimit(r.{limit}, ({value}, {value}))\nfrom advprune_core.cli import main; main()"
    )
    options = study_options(tmp_path, **{**TINY_STUDY, "engine": "processes", "workers": 2})
    command = [sys.executable, "-c", start, "study", str(NOTEBOOK), *options, "--shard", "1/1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "advprune: a " in done.stderr
    assert "what is finished is kept" in done.stderr
    assert "Traceback" not in done.stderr
