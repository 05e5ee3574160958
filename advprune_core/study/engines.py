"""Where runs are carried out: in this process, one per core, or on a Ray cluster.

An engine is an executor: ``submit(function, *arguments)`` gives a future. Results do not depend
on which one it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

from advprune_core.base.settings import ConfigError

EngineName = Literal["serial", "processes", "ray"]


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


class RayExecutor(Executor):
    """Tasks on a Ray cluster, one core each: the one at ``RAY_ADDRESS``, else a local one.

    All nodes must see the results folder.
    """

    def __init__(self, workers: int) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("the engine 'ray' needs Ray: pip install 'advprune[cluster]'") from None
        self._ray = ray
        local: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers, "include_dashboard": False}
        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR, **local)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Send `fn` to the cluster."""

        def call() -> Any:
            return fn(*args, **kwargs)

        config = getattr(fn, "config", None)
        needs: dict[str, Any] = {
            "num_cpus": getattr(config, "threads", 1),
            "num_gpus": int(getattr(config, "device", "") == "cuda"),
        }
        future: Future[Any] = self._ray.remote(**needs, max_retries=0)(call).remote().future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, or end the local one."""
        self._ray.shutdown()


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
def engine(name: EngineName, workers: int) -> Iterator[Executor]:
    """An executor of `workers` workers; on an interruption its workers are ended."""
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    if name == "serial":
        yield SerialExecutor()
        return
    if name == "ray":
        with RayExecutor(workers) as executor:
            yield executor
        return
    from loky import get_reusable_executor

    processes = get_reusable_executor(max_workers=workers, timeout=60, initializer=_started_by(os.getpid()))
    try:
        yield processes
    except BaseException:
        processes.shutdown(wait=True, kill_workers=True)
        raise
