"""A run of a study: the command that repeats it, its cost."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from advprune_core.attacks.base import PGD, parse_attacks
from advprune_core.cli.options import value_of
from advprune_core.explore.runs import command, cost_by_phase, point_summary
from advprune_core.trainers.config import RunConfig
from tests.made_up import run_record, study_table
from tests.reference import committed_records
from tests.tiny import TINY


def typed(line: str) -> tuple[dict[str, Any], list[Any]]:
    """Options and attacks of a command, as the command itself reads them."""
    words = shlex.split(line)
    assert words[:2] == ["advprune", "run"]
    names = [name.removeprefix("--").replace("-", "_") for name in words[2::2]]
    pairs = list(zip(names, map(value_of, words[3::2]), strict=True))
    return {name: value for name, value in pairs if name != "evaluation"}, [v for n, v in pairs if n == "evaluation"]


@pytest.mark.slow
def test_the_command_of_every_committed_run_is_that_run() -> None:
    """One of those that differ by their seeds alone."""
    different = {json.dumps({**record.config, "seed": 0}): record for record in committed_records()}
    assert len(different) > 100
    for record in different.values():
        options, _ = typed(command(record.run_config))
        assert RunConfig.flat(**options) == record.run_config, record.key


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "advprune run"),
        ({"seed": 3, "pruner": "random", "fraction": 0.4}, "advprune run --pruner random --fraction 0.4 --seed 3"),
        ({"trainer": "fgsm"}, "advprune run --start clean --steps 1"),
        ({"flip": True}, "advprune run --flip true"),
    ],
)
def test_a_command_says_no_more_than_it_has_to(options: dict[str, Any], line: str) -> None:
    config = RunConfig.flat(**options)
    found, _ = typed(command(config))
    assert RunConfig.flat(**found) == config
    assert command(config) == line


def test_attacks_of_the_test_are_said_where_they_are_others() -> None:
    attacks = (PGD(steps=20), PGD(loss="margin"))
    _, found = typed(command(RunConfig.flat(**TINY), attacks))
    assert parse_attacks(found) == attacks


def test_cost_by_phase_and_a_points_summary() -> None:
    phases = cost_by_phase(run_record("a")).set_index("phase")
    assert phases.loc["select"].tolist() == [100, 0.25]
    assert phases.loc["validate"].tolist() == [7, 10.0]
    assert "save" not in phases.index, "a phase without passes"
    table = study_table({("random", 0.5): [(0.8, 0.5), (0.7, 0.6)]}).assign(n=10)
    table.loc[1, "status"] = "collapsed"
    rows = point_summary(table, ("random", 0.5)).set_index("measure")["mean over seeds, 95 % interval"]
    assert rows["clean"].startswith("75.0 [")
    assert rows["runs"] == "1 ok, 1 collapsed; seeds 0, 1"
    assert rows["forward-equivalents for each training image"] == "50"


def test_the_command_names_initial_weights(tmp_path: Path) -> None:
    weights = tmp_path / "start.pt"
    torch.save({}, weights)
    config = RunConfig.flat(init=str(weights))
    options, _ = typed(command(config))
    assert set(options) == {"init"}
    assert RunConfig.flat(**options) == config
