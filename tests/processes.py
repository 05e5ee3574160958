"""Processes that tests start, wait for and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil


def wait_until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Poll; a condition that does not come true is a failure."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still do something: who has ended, but was not asked after, is not one of them."""
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def marked(name: str, value: str) -> list[psutil.Process]:
    """All processes that have inherited an environment variable."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value:
                found.append(process)
        except psutil.Error:
            continue
    return running(found)


def is_worker(process: psutil.Process) -> bool:
    """Whether it carries runs out."""
    try:
        return "popen_loky" in " ".join(process.cmdline())
    except psutil.Error:
        return False
