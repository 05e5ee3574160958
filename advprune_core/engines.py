"""Where runs are carried out: in this process, or one per core.

An engine is an executor: ``submit(function, *arguments)`` gives a future. Results do not depend
on which one it is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, Literal

from advprune_core.settings import ConfigError

EngineName = Literal["serial", "processes"]


class SerialExecutor(Executor):
    """Carries out each call at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` now; an interruption is raised here, any other exception by the future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group; the driver decides what happens to its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _PARENT.append(os.getppid())


_PARENT: list[int] = []


def stop_if_orphaned() -> None:
    """End a worker whose driver was killed; what it had saved is taken up by the next one."""
    if _PARENT and os.getppid() != _PARENT[0]:
        os._exit(1)


def default_workers() -> int:
    """One worker for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def engine(name: EngineName, workers: int) -> Iterator[Executor]:
    """An executor of `workers` workers; on an interruption its workers are ended."""
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    if name == "serial":
        yield SerialExecutor()
        return
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=workers, timeout=60, initializer=_start_worker)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, kill_workers=True)
        raise
