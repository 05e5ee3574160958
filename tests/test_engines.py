"""Engines: futures, errors, interruptions."""

from __future__ import annotations

import os

import pytest

from advprune_core.engines import SerialExecutor, default_workers, engine
from advprune_core.settings import ConfigError


def fail() -> None:
    raise ValueError("no")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_serial_calls_at_once() -> None:
    executor = SerialExecutor()
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


def test_workers_are_at_least_one() -> None:
    assert default_workers() >= 1
    with pytest.raises(ConfigError, match="at least 1"), engine("serial", 0):
        pass
