"""Engines: futures, errors, interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import psutil
import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.study.engines import SerialEngine, default_workers, engine
from tests.processes import is_worker, running, wait_until


def fail() -> None:
    raise ValueError("no")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_serial_calls_at_once() -> None:
    executor = SerialEngine()
    assert executor.submit(pow, 2, 3).result() == 8
    assert isinstance(executor.submit(fail).exception(), ValueError)
    with pytest.raises(KeyboardInterrupt):
        executor.submit(interrupt)


@pytest.mark.slow
def test_processes_are_other_processes_and_end_with_an_interruption() -> None:
    with engine("processes", 2) as executor:
        pids = {executor.submit(os.getpid).result() for _ in range(4)}
        assert os.getpid() not in pids
        assert isinstance(executor.submit(fail).exception(), ValueError)

    def stop() -> None:
        with engine("processes", 2) as executor:
            executor.submit(os.getpid).result()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    with engine("processes", 2) as executor:
        assert executor.submit(pow, 2, 2).result() == 4

    def kill() -> None:
        with engine("processes", 2) as executor:
            executor.submit(os._exit, 1).result()

    with pytest.raises(BrokenExecutor):
        kill()
    with engine("processes", 2) as executor:
        assert executor.submit(pow, 2, 2).result() == 4


def test_workers_are_at_least_one() -> None:
    assert default_workers() >= 1
    with pytest.raises(ConfigError, match="at least 1"), engine("serial", 0):
        pass


#: A driver with two workers that import PyTorch, tell that they are there and give 10 MB back when they may.
ORPHANS = """
import sys, time
from pathlib import Path

from advprune_core.study.engines import engine

if __name__ == "__main__":
    folder = Path(sys.argv[1])

    def work(number):
        import torch

        (folder / f"busy{number}").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        (folder / f"back{number}").touch()
        return torch.zeros(10_000_000, dtype=torch.uint8).numpy()

    with engine("processes", 2) as executor:
        for future in [executor.submit(work, number) for number in range(2)]:
            future.result()
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["starting", "importing", "busy", "giving back"])
def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path, moment: str) -> None:
    (tmp_path / "driver.py").write_text(ORPHANS)
    driver = psutil.Popen([sys.executable, tmp_path / "driver.py", str(tmp_path)], stderr=subprocess.DEVNULL)

    def workers() -> list[psutil.Process]:
        return list(filter(is_worker, driver.children()))

    def maps(name: str) -> bool:
        return any(name in mapped.path for worker in workers() for mapped in worker.memory_maps())

    wait_until(lambda: len(workers()) == 2)
    if moment == "importing":
        wait_until(lambda: maps("libtorch"))
    elif moment != "starting":
        wait_until(lambda: len(list(tmp_path.glob("busy*"))) == 2)
    if moment == "giving back":
        driver.suspend()  # no one reads the pipe
        (tmp_path / "go").touch()
        wait_until(lambda: len(list(tmp_path.glob("back*"))) == 2)
    left = driver.children()  # the trackers of their semaphores as well
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    try:
        wait_until(lambda: not running(left))
    finally:
        for process in running(left):
            process.kill()
