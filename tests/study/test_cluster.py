"""Runs on Ray clusters of several nodes, one of which is lost; addresses, resources, widths."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from advprune_core.base.settings import ConfigError
from advprune_core.pruners.base import Context, ScheduledPruner, Selection
from advprune_core.study.cluster import RayEngine, cluster_device, needs
from advprune_core.study.grid import study_grid
from advprune_core.study.runner import run_entries, run_study
from advprune_core.study.study import Execution
from advprune_core.study.tasks import TrainTask
from tests.processes import wait_until
from tests.study.test_driver import contents
from tests.tiny import tiny_run, tiny_study

#: So that a dead node is noticed within a second or two.
ALERT = {"health_check_period_ms": 300, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}


class Noting(ScheduledPruner):
    """The first images; notes in a file, for each epoch of a run, which node it is on."""

    name: ClassVar[str] = "noting"
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
        monkeypatch.setenv("TMPDIR", str(tmp_path))
    others = {node.node_id: node for node in (cluster.add_node(num_cpus=1) for _ in range(nodes - 1))}
    cluster.wait_for_nodes()
    killed: list[str] = []

    def kill() -> None:
        wait_until(lambda: any(node in others and epoch >= 2 for _, epoch, node in noted(notes)), seconds=120)
        killed.append(next(node for _, epoch, node in noted(notes) if node in others and epoch >= 2))
        cluster.remove_node(others[killed[0]], allow_graceful=False)

    config = tiny_study(tmp_path / "ray", engine="ray", address=cluster.address, **options)
    thread = threading.Thread(target=kill)
    thread.start()
    driver = run_entries(
        study_grid(config), execution=config.execution.replace(checkpoint_seconds=0), progress=False
    )
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
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.strip()]
    assert len(lines) == 2, lines
    assert f"nodes {nodes}, cores {nodes}" in lines[0]
    assert f"1 of {nodes} nodes lost" in lines[1]
