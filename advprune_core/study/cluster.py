"""Runs on a Ray cluster. A node is handed all that a task needs, and gives back all that it makes.

Images lie in the cluster's object store, once; weights to test travel with the task. Where a node sees
the results folder, a run keeps its checkpoints there, and goes on from them on any node; elsewhere it
keeps them in a folder of the node. What Ray has to say goes to ``cache/ray.log`` of the results folder.
"""

from __future__ import annotations

import getpass
import logging
import math
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from advprune_core.base.settings import AdvpruneError, ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.study.engines import Engine
from advprune_core.study.finished import drop_work
from advprune_core.study.store import RunStore
from advprune_core.study.tasks import EvaluateTask, Task
from advprune_core.trainers.checks import check_machine

#: How often a task is begun again whose node or worker was lost.
RETRIES = 3


class LostTask(AdvpruneError):
    """A task whose node or worker was lost, again and again."""


def connect(address: str | None, cores: int | None = None) -> Any:
    """Ray, connected to the cluster at `address` or ``RAY_ADDRESS``, else to one of this machine.

    That has as many `cores` as are said (None: as there are), whatever the machine has.

    Raises
    ------
    ConfigError
        Ray is not installed, or no cluster is there.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("the engine 'ray' needs Ray: pip install 'advprune[cluster]'") from None
    address = _address(address)
    _check_answer(address)
    local: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # of what kind depends on the kind of address
        raise _no_cluster(address, error) from None
    return ray


def _address(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _check_answer(address: str) -> None:
    """Ray itself would try for minutes to reach what is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # auto, local
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> ConfigError:
    reason = str(error).partition("\n")[0]
    return ConfigError(
        f"no Ray cluster answers at {address!r} ({reason}); `ray start --head` starts one, and prints its address"
    )


def cluster_device(address: str | None) -> Literal["cpu", "cuda"] | None:
    """What ``device: auto`` means on a cluster; None where it is this machine alone, which looks for itself."""
    if address is None and "RAY_ADDRESS" not in os.environ:
        return None
    return "cuda" if connect(address).cluster_resources().get("GPU", 0) > 0 else "cpu"


class RayEngine(Engine):
    """Tasks on a Ray cluster.

    Parameters
    ----------
    workers : int or None
        Tasks under way at once; None: as many as fit on the nodes that are there.
    root : path
        Results folder.
    address : str, optional
        See `connect`.
    resources : mapping of str to float
        What a run takes, instead of a core for each of its threads and, on a GPU, one of those:
        ``{"GPU": 0.5, "my_nodes": 1}``.
    threads : int
        The most that a run has, so that a cluster of this machine has room for all workers.
    """

    def __init__(
        self,
        workers: int | None,
        *,
        root: Path,
        address: str | None = None,
        resources: Mapping[str, float] | None = None,
        threads: int = 1,
    ) -> None:
        self._workers, self._resources = workers, dict(resources or {})
        self._nodes_may_come = workers is not None and _address(address) != "local"
        cores = None if workers is None else math.ceil(workers * self._resources.get("CPU", threads)) or 1
        self._root, self._images = root.resolve(), dict[int, Any]()
        self._needs: dict[str, float] = {"CPU": 1.0}
        self._nodes: set[str] = set()
        with ExitStack() as stack:
            log = stack.enter_context(_logged(self._root / "cache" / "ray.log"))
            self._ray = connect(address, cores)
            stack.callback(self._ray.shutdown)
            self._sign = self._root / "cache" / f".ray-{uuid.uuid4().hex}"
            self._sign.touch()
            stack.callback(self._sign.unlink, missing_ok=True)
            self._stack = stack.pop_all()
        alive, total = self._alive(), self._ray.cluster_resources()
        cores, gpus = (round(total.get(name, 0)) for name in ("CPU", "GPU"))
        self._say(f"Ray: nodes {len(alive)}, cores {cores}, GPUs {gpus}; its own messages go to {log}")

    @property
    def width(self) -> int:
        """Tasks like the last one that fit on the nodes which are there now; those that were lost are told of."""
        alive = self._alive()
        if lost := self._nodes - alive.keys():
            self._say(f"Ray: {len(lost)} of {len(self._nodes)} nodes lost; what ran there is done again elsewhere")
        self._nodes = set(alive)
        if self._workers is not None:
            return self._workers
        return max(1, sum(fitting(resources, self._needs) for resources in alive.values()))

    def _alive(self) -> dict[str, dict[str, float]]:
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def _say(self, sentence: str) -> None:
        tqdm.write(sentence, file=sys.stderr)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Send ``fn(task, dataset)`` to the cluster.

        Raises
        ------
        ConfigError
            Nowhere on the cluster is what the task needs, and `workers` does not say that nodes will come, as to one of
            this machine alone none does.
        """
        task, dataset = args
        self._needs = needs(task, self._resources)
        if not self._nodes_may_come and not any(fitting(node, self._needs) for node in self._alive().values()):
            there = [{name: node.get(name, 0.0) for name in self._needs} for node in self._alive().values()]
            raise ConfigError(
                f"a run needs {self._needs}, and no node of the cluster has that: {there}; "
                "set resources, or workers if nodes are still to come"
            )
        weights = b""
        if isinstance(task, EvaluateTask):
            weights = Path(task.weights).read_bytes()
            task = replace(task, weights=str(Path(task.weights).resolve()))  # a node has another current folder
        options: dict[str, Any] = {
            "num_cpus": self._needs["CPU"],
            "num_gpus": self._needs.get("GPU", 0),
            "resources": {name: need for name, need in self._needs.items() if name not in ("CPU", "GPU")},
            "max_retries": RETRIES,
        }
        remote = self._ray.remote(**options)(_on_node)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        found = remote.remote(fn, task, self._held(dataset), weights, str(self._root), self._sign.name)
        found.future().add_done_callback(lambda inner: _hand_on(inner, future))
        return future

    def _held(self, dataset: Dataset) -> Any:
        """A data set in the object store, where it is put once."""
        if id(dataset) not in self._images:
            self._images[id(dataset)] = self._ray.put(dataset)
        return self._images[id(dataset)]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, or end the local one."""
        self._images.clear()
        self._stack.close()


def needs(task: Task, resources: Mapping[str, float]) -> dict[str, float]:
    """What a task takes of a node."""
    usual = {"CPU": float(task.config.threads)} | ({"GPU": 1.0} if task.config.device == "cuda" else {})
    return usual | dict(resources)


def fitting(node: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How many tasks of these needs a node with these resources has room for."""
    shares = [node.get(name, 0.0) / need for name, need in needs.items() if need > 0]
    return math.floor(min(shares, default=1.0) + 1e-9)


def _on_node(
    fn: Callable[..., Any], task: Task, dataset: Dataset, weights: bytes, root: str, sign: str
) -> tuple[Any, Exception | None]:
    """What ``fn(task, dataset)`` gives or raises on this node, which the folder `root` with `sign` may be seen from."""
    try:
        check_machine(task.config)
        shared = (Path(root) / "cache" / sign).exists()
        results = Path(root) if shared else _own_folder()
        task = replace(task, results=str(results))
        if shared:
            return fn(task, dataset), None
        with tempfile.NamedTemporaryFile(suffix=".pt") as file:
            if isinstance(task, EvaluateTask):
                Path(file.name).write_bytes(weights)
                task = replace(task, weights=file.name)
            try:
                return fn(task, dataset), None
            finally:
                drop_work(RunStore(results), task.key)  # what a driver does where it can
    except Exception as error:
        return None, error


def _own_folder() -> Path:
    """A folder of this node for checkpoints and for what is compiled, of this user alone.

    Raises
    ------
    ConfigError
        It is somebody else's.
    """
    folder = Path(tempfile.gettempdir()) / f"advprune-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} of a node belongs to somebody else; set TMPDIR to a folder of yours")
    return folder


def _hand_on(inner: Future[Any], outer: Future[Any]) -> None:
    try:
        value, error = inner.result()
    except Exception as lost:  # Ray's own, with pages of what it saw
        sentence = f"its worker or node was lost, {RETRIES + 1} times ({type(lost).__name__}, see cache/ray.log)"
        logging.getLogger("ray").error("%s", lost)
        value, error = None, LostTask(sentence)
    if error is None:
        outer.set_result(value)
    else:
        outer.set_exception(error)


@contextmanager
def _logged(path: Path) -> Iterator[Path]:
    """Ray's logger, and what it prints to standard output, in a file during a block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("ray")
    handlers, propagate = logger.handlers, logger.propagate
    with open(path, "a", buffering=1) as file, redirect_stdout(file):
        logger.handlers, logger.propagate = [logging.StreamHandler(file)], False
        try:
            yield path
        finally:
            logger.handlers, logger.propagate = handlers, propagate
