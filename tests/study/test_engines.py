"""Engines: futures, errors, interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import psutil
import pytest
import torch

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.study.engines import SerialEngine, default_workers, engine
from advprune_core.study.sharing import forget, opened, share
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


KEPT: list[bytes] = []


def grow(megabytes: int) -> int:
    """Hold on to so much more; after a while, as a worker looks at its memory once a second."""
    KEPT.append(b"x" * (megabytes * 2**20))
    time.sleep(1.1)
    return os.getpid()


@pytest.mark.slow
def test_a_worker_that_has_taken_what_compiled_passes_take_goes_on() -> None:
    """A new one would compile anew."""
    with engine("processes", 1) as executor:
        assert len({executor.submit(grow, more).result() for more in (1, 600, 1, 1)}) == 1


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


@pytest.mark.slow
def test_a_process_ends_though_its_workers_do_not() -> None:
    """As those that wait for a lock which was killed with another one."""
    script = (
        "import psutil\n"
        "from advprune_core.study.engines import engine, no_workers_left\n"
        "from tests.processes import is_worker\n"
        "with no_workers_left():\n"
        "    with engine('processes', 2) as executor:\n"
        "        assert executor.submit(pow, 2, 3).result() == 8\n"
        "    for worker in filter(is_worker, psutil.Process().children()):\n"
        "        worker.suspend()\n"
        "print('ended', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


def test_workers_are_at_least_one() -> None:
    assert default_workers() >= 1
    with pytest.raises(ConfigError, match="at least 1"), engine("serial", 0):
        pass


#: A driver with two workers that import PyTorch, tell that they are there and give 10 MB back when they may.
ORPHANS = """
import sys, time
from pathlib import Path

from advprune_core.datasets.splits import Dataset
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


def test_processes_share_what_is_in_a_data_set(digits: Dataset) -> None:
    """The same images, in pages of a file that is gone afterwards, and that no one can write to."""
    shared = share(digits)
    copy = opened(shared)
    for name in ("train", "val_select", "val_stop", "test"):
        mine, its = getattr(digits, name), getattr(copy, name)
        assert torch.equal(mine.images, its.images)
        assert torch.equal(mine.labels, its.labels)
        assert its.labels.data_ptr() % 64 == 0
    assert (copy.train_hash, copy.mean, copy.true_labels) == (digits.train_hash, digits.mean, None)
    assert copy.train.images.dtype == digits.train.images.dtype
    mapped = [m for m in psutil.Process().memory_maps(grouped=False) if m.path == shared.path]
    assert mapped
    address = int(mapped[0].addr.split("-")[0], 16)
    assert address <= copy.train.images.data_ptr() < int(mapped[0].addr.split("-")[1], 16)
    forget(shared)
    assert not Path(shared.path).exists()
    assert torch.equal(digits.test.images, copy.test.images), "who has it open keeps it"
    with engine("processes", 2) as executor:
        found = [executor.submit(count, digits) for _ in range(3)]
        assert {future.result() for future in found} == {(len(digits.train), True)}


def count(dataset: Dataset) -> tuple[int, bool]:
    """How many images, and whether they lie in a file."""
    pointer = dataset.train.images.data_ptr()
    maps = psutil.Process().memory_maps(grouped=False)
    ranges = [tuple(int(end, 16) for end in m.addr.split("-")) for m in maps if "advprune-" in m.path]
    return len(dataset.train), any(begin <= pointer < end for begin, end in ranges)
