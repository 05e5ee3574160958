"""Runs on Ray clusters of several nodes, one of which is lost; addresses, resources, widths."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import chdir
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from advprune_core.base.settings import ConfigError
from advprune_core.pruners.base import Context, ScheduledPruner
from advprune_core.pruners.selection import Selection
from advprune_core.study import cluster as clusters
from advprune_core.study.cluster import RayEngine, cluster_device, fitting, needs
from advprune_core.study.execution import Execution
from advprune_core.study.grid import study_grid
from advprune_core.study.runner import run_entries, run_study
from advprune_core.study.tasks import TrainTask
from tests.processes import wait_until
from tests.study.test_driver import contents
from tests.tiny import tiny_run, tiny_study

#: So that a dead node is noticed within a second or two.
ALERT = {"health_check_period_ms": 300, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}


class Noting(ScheduledPruner):
    """The first images; notes in a file, for each epoch of a run, which node it is on."""

    name: ClassVar[str] = "noting"
    uses_model: ClassVar[bool] = True  # so that it is not asked before training
    every: int = 1
    notes: str = ""

    def select(self, context: Context) -> Selection:
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        with open(self.notes, "a") as file:
            file.write(json.dumps([f"{context.fraction} {context.seed}", context.epoch, node]) + "\n")
        return Selection(np.arange(context.k))


def noted(path: Path) -> list[tuple[str, int, str]]:
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head with one core."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": ALERT})
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow(seconds=60)
@pytest.mark.parametrize(("nodes", "shared"), [(2, True), (4, False)])
def test_what_ran_on_a_lost_node_is_done_again_and_nothing_else(
    nodes: int,
    shared: bool,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    notes = tmp_path / "notes"
    options: dict[str, Any] = {
        "pruners": [Noting(notes=str(notes))],
        "fractions": [0.5, 0.4],
        "controls": [],
        "epochs": 60,
    }
    serial = tiny_study(tmp_path / "serial", **options)
    run_study(serial, progress=False)
    notes.unlink()
    if not shared:  # no node finds the sign of this driver in a results folder
        monkeypatch.setattr("advprune_core.study.cluster.Path.touch", lambda path: None)
    others = {}
    for number in range(1, nodes):
        monkeypatch.setenv("TMPDIR", str(tmp_path / f"node{number}"))  # as each machine has its own
        (tmp_path / f"node{number}").mkdir()
        node = cluster.add_node(num_cpus=1)
        others[node.node_id] = node
    monkeypatch.delenv("TMPDIR")
    cluster.wait_for_nodes()
    killed: list[str] = []

    def kill() -> None:
        wait_until(lambda: any(node in others and epoch >= 2 for _, epoch, node in noted(notes)), seconds=120)
        killed.append(next(node for _, epoch, node in noted(notes) if node in others and epoch >= 2))
        cluster.remove_node(others[killed[0]], allow_graceful=False)

    config = tiny_study(tmp_path / "ray", engine="ray", address=cluster.address, **options)
    thread = threading.Thread(target=kill)
    thread.start()
    driver = run_entries(study_grid(config), execution=config.execution.replace(checkpoint_seconds=0), progress=False)
    thread.join()
    assert (driver.failed, driver.trained, driver.evaluated) == ({}, 4, 4)
    assert contents(tmp_path / "ray") == contents(tmp_path / "serial")
    again = []
    for run in {run for run, *_ in noted(notes)}:
        course = [(epoch, node) for name, epoch, node in noted(notes) if name == run]
        where = list(dict.fromkeys(node for _, node in course))
        if len(where) == 1:
            assert [epoch for epoch, _ in course] == list(range(60)), "done once, from end to end"
            continue
        again.append(run)
        assert where[0] == killed[0]
        begun = next(epoch for epoch, node in course if node == where[1])
        assert begun >= 1 if shared else begun == 0
    assert len(again) == 1
    assert not list(tmp_path.glob("ray/runs/*/work"))
    assert shared or len(list(tmp_path.glob("node*/advprune-*/runs/*/work"))) <= 1, "of the node that was lost"
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.strip()]
    assert len(lines) == 2, lines
    assert f"nodes {nodes}, cores {nodes}" in lines[0]
    assert f"1 of {nodes} nodes lost" in lines[1]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ({"CPU": 1}, 4),
        ({"CPU": 3}, 1),
        ({"CPU": 5}, 0),
        ({"CPU": 1, "GPU": 0.25}, 4),
        ({"CPU": 0, "GPU": 0.1}, 10),
        ({"CPU": 1, "mine": 0.5}, 2),
        ({"CPU": 1, "theirs": 1}, 0),
    ],
)
def test_how_many_tasks_fit_on_a_node(wanted: dict[str, float], number: int) -> None:
    assert fitting({"CPU": 4, "GPU": 1, "mine": 1, "memory": 1e9}, wanted) == number


def which_gpus(task: TrainTask, images: Any) -> str:
    import os

    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.slow(seconds=60)
def test_resources_of_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Two runs of two cores fit on a node of four, none on one of one; the GPU goes to who asks for a share of it."""
    cluster.add_node(num_cpus=4, num_gpus=1, resources={"mine": 1})
    cluster.wait_for_nodes()
    task, options = TrainTask(tiny_run(), "k", None), {"root": tmp_path, "address": cluster.address}
    assert cluster_device(cluster.address) == "cuda"
    needed = {"CPU": 2, "GPU": 0.5, "mine": 0.25}
    with RayEngine(None, **options, resources=needed) as engine:
        assert engine.submit(which_gpus, task, "images").result() == "0"
        assert engine.width == 2
    with (
        RayEngine(None, **options, resources={"CPU": 8}) as engine,
        pytest.raises(ConfigError, match=r"a run needs .*CPU.*8.* no node"),
    ):
        engine.submit(which_gpus, task, "images")
    with RayEngine(7, **options, resources={"CPU": 8}) as engine:
        engine.submit(which_gpus, task, "images")  # waits for nodes that are to come
        assert engine.width == 7
    assert not list((tmp_path / "cache").glob(".ray-*"))


class Elsewhere:
    """What is used of Ray, with one node that works at once, in a current folder of its own."""

    def __init__(self, folder: Path, cores: float) -> None:
        self.folder, self.cores = folder, cores

    def remote(self, **_: Any) -> Any:
        return lambda fn: SimpleNamespace(remote=partial(self._work, fn))

    def _work(self, fn: Any, *arguments: Any) -> Any:
        done: Future[Any] = Future()
        with chdir(self.folder):
            done.set_result(fn(*arguments))
        return SimpleNamespace(future=lambda: done)

    def put(self, value: Any) -> Any:
        return value

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": "a", "Alive": True, "Resources": self.cluster_resources()}]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.cores}

    def shutdown(self) -> None:
        pass


def test_a_relative_results_folder_is_that_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "node"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(clusters, "connect", lambda *_: Elsewhere(tmp_path / "node", 4))
    config = tiny_study(Path("r"), epochs=1, seeds=[0], fractions=[1.0], controls=[], engine="ray")
    result = run_study(config, progress=False)
    assert (result.failed, result.trained, result.evaluated) == ({}, 1, 1)
    assert not list((tmp_path / "node").iterdir())


@pytest.mark.parametrize(
    ("workers", "threads", "resources", "cores"),
    [(1, 2, {}, 2), (3, 2, {}, 6), (3, 2, {"CPU": 0.5}, 2), (2, 1, {"CPU": 0}, 1), (None, 2, {}, None)],
)
def test_a_cluster_of_this_machine_has_room_for_its_workers(
    workers: int | None,
    threads: int,
    resources: dict[str, float],
    cores: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    asked: list[Any] = []

    def connected(*given: Any) -> Elsewhere:
        asked.append(given)
        return Elsewhere(tmp_path, given[1] or 1)

    monkeypatch.setattr(clusters, "connect", connected)
    with RayEngine(workers, root=tmp_path, resources=resources, threads=threads) as engine:
        assert asked == [(None, cores)]
        with pytest.raises(ConfigError, match=r"a run needs .*no node of the cluster has that"):  # to which none comes
            engine.submit(which_gpus, TrainTask(tiny_run(device="cuda"), "k", None), "images")


def test_needs_are_a_core_for_each_thread_and_a_gpu() -> None:
    run = tiny_run(threads=3)
    assert needs(TrainTask(run, "k", None), {}) == {"CPU": 3}
    on_gpu = TrainTask(run.replace(device="cuda"), "k", None)
    assert needs(on_gpu, {}) == {"CPU": 3, "GPU": 1}
    assert needs(on_gpu, {"GPU": 0.5, "mine": 1}) == {"CPU": 3, "GPU": 0.5, "mine": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "processes", "address": "auto"}, "engine = 'ray'"),
        ({"engine": "serial", "resources": {"GPU": 0.5}}, "engine = 'ray'"),
        ({"engine": "ray", "resources": {"GPU": 1.5}}, "above 1 they are whole"),
        ({"engine": "ray", "resources": {"GPU": -1}}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Execution.create(**options)
    with pytest.raises(ConfigError, match=message):
        tiny_study(tmp_path, **options)


def test_an_address_where_nothing_answers_is_a_sentence(tmp_path: Path) -> None:
    config = tiny_study(tmp_path, engine="ray", address="127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at '127.0.0.1:1' .*ray start --head"):
        run_study(config, progress=False)
