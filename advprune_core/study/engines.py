"""Where runs are carried out: in this process, one per core, or on a Ray cluster.

An engine is an executor: ``submit(function, *arguments)`` gives a future. Results do not depend
on which one it is. The one of a Ray cluster is in `cluster`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal
from weakref import WeakSet

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.study.sharing import SharedDataset, forget, opened, share

EngineName = Literal["serial", "processes", "ray"]
#: By how many bytes a worker may grow before it is replaced: compiled passes and a data set take more than loky allows
#: by itself, and a new worker compiles anew.
_LEAK = "LOKY_MAX_MEMORY_LEAK_SIZE"


#: Executors whose worker processes wait for what comes next.
_KEPT: WeakSet[Executor] = WeakSet()


@contextmanager
def no_workers_left() -> Iterator[None]:
    """End the worker processes that are kept, when a block ends.

    A process that ends by itself waits for them, and for ever where one of them was killed while it took
    the lock on what they are to do.
    """
    try:
        yield
    finally:
        for executor in list(_KEPT):
            executor.shutdown(kill_workers=True)  # type: ignore[call-arg]  # loky's own
        _KEPT.clear()


class Engine(Executor):
    """An executor that knows how many tasks may be under way at once."""

    @property
    def width(self) -> int:
        """Tasks at once, as far as is known now."""
        return 1


class SerialEngine(Engine):
    """Carries out each call at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` now; an interruption is raised here, any other exception by the future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ProcessEngine(Engine):
    """Worker processes of this machine; data sets among the arguments are shared by all of them."""

    def __init__(self, workers: int) -> None:
        from loky import get_reusable_executor

        self._workers = workers
        self._processes = get_reusable_executor(
            max_workers=workers,
            timeout=60,
            initializer=_started_by(os.getpid()),
            env={_LEAK: os.environ.get(_LEAK, "4e9")},
        )
        _KEPT.add(self._processes)
        self._shared: dict[int, SharedDataset] = {}

    @property
    def width(self) -> int:
        return self._workers

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` in a worker."""
        return self._processes.submit(_with_shared, fn, *map(self._in_file, args), **kwargs)

    def _in_file(self, argument: Any) -> Any:
        if not isinstance(argument, Dataset):
            return argument
        if id(argument) not in self._shared:
            self._shared[id(argument)] = share(argument)
        return self._shared[id(argument)]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Forget what is shared; workers stay a while for what comes next, unless they are to be ended."""
        for shared in self._shared.values():
            forget(shared)
        self._shared.clear()
        if cancel_futures:
            self._processes.shutdown(wait=wait, kill_workers=True)


def _with_shared(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return fn(*(opened(argument) if isinstance(argument, SharedDataset) else argument for argument in args), **kwargs)


@cache
def _started_by(driver: int) -> Callable[[], None]:
    """What every worker of the process `driver` calls first: from then on it ends with its driver.

    A function within a function travels by value, so that a worker is watched before it imports
    this package and PyTorch, which takes seconds. One for each driver, so that workers are reused.
    """

    def start() -> None:
        import os
        import signal
        import threading
        import time

        # A terminal's signals reach the whole process group; the driver decides what becomes of its workers.
        for name in ("SIGINT", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)

        def watch() -> None:
            # Whatever the worker is busy with, be it a pipe that no one reads any more. What it has
            # saved is taken up by whoever goes on with the run.
            while os.getppid() == driver:
                time.sleep(0.5)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()

    return start


def default_workers() -> int:
    """One worker for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def engine(name: EngineName, workers: int | None, **cluster: Any) -> Iterator[Engine]:
    """An engine with `workers` workers (None: as many as fit); on an interruption they are ended.

    Parameters
    ----------
    cluster
        Keywords of `RayEngine`, for the engine of that kind.
    """
    if name == "ray":
        from advprune_core.study.cluster import RayEngine

        with RayEngine(workers, **cluster) as ray:
            yield ray
        return
    workers = default_workers() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    executor = SerialEngine() if name == "serial" else ProcessEngine(workers)
    try:
        yield executor
    except BaseException:
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()
