"""How far a grid is, by what its runs have written and by the passes that they are expected to take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tqdm import tqdm

from advprune_core.study.position import Left, Position
from tests.tiny import tiny_run


@pytest.fixture
def position() -> Position:
    return Position(tqdm(total=1000, disable=True))


def write_epochs(folder: Path, epochs: int, *, more: str = "") -> None:
    rows = [json.dumps({"epoch": epoch}) + "\n" for epoch in range(epochs)]
    (folder / "metrics.jsonl").write_text("".join(rows) + more)


def test_runs_under_way_count_by_their_share(position: Position, tmp_path: Path) -> None:
    config = tiny_run(epochs=4)  # 5 passes an image
    position.begin("a", "a run", config, tmp_path, images=20)
    assert (position.look()[0], position.under_way()) == (0.0, []), "nothing is written yet"
    write_epochs(tmp_path, 1, more='{"epoch": 1')  # a line that is being written
    assert position.look()[0] == 100.0
    assert [(run.name, len(run.epochs)) for run in position.under_way()] == [("a run", 1)]
    write_epochs(tmp_path, 3)
    assert position.look()[0] == 300.0
    assert "a" in position
    position.end("a", passes=400)
    position.trained("a", passes=400)
    assert (position.look()[0], "a" in position) == (400.0, False)


def test_what_a_run_goes_on_from_counts_once(position: Position, tmp_path: Path) -> None:
    """Two epochs on 20 images, 200 passes; then eight on a tenth of them."""
    config = tiny_run(epochs=10, pruner={"random": {"warmup_epochs": 2}}, fraction=0.1)
    position.begin("w", "warm-up of a", config, tmp_path, images=20)
    write_epochs(tmp_path, 1)
    assert position.look()[0] == 100.0
    position.end("w", passes=200)
    position.warmed_up(["a", "b"], passes=200)
    assert position.look()[0] == 200.0
    for number, key in enumerate("ab"):
        position.begin(key, key, config, tmp_path, images=20)
        for epochs in range(11):
            write_epochs(tmp_path, epochs)
            assert position.look()[0] == 200.0 + 80 * number + 10 * max(0, epochs - 2)
        position.end(key, passes=280)
        position.trained(key, passes=280)
    assert position.look()[0] == 360.0
    position.complete()
    assert position.look()[0] == 1000.0


def test_it_says_how_long_it_takes(position: Position, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]
    monkeypatch.setattr(position.throughput, "_clock", lambda: seconds[0])
    assert position.look()[1] == "", "nothing has begun"
    position.note = "timing a run alone"
    assert position.look()[1] == "timing a run alone"
    position.note, position.left = "", Left(3, 0, ["pgd"] * 3, 2)
    config = tiny_run(epochs=4)  # 100 passes an epoch
    write_epochs(tmp_path, 1)  # goes on from there
    position.begin("a", "a run", config, tmp_path, images=20)
    seconds[0] = 10.0
    assert position.look()[1] == "3 to train"
    write_epochs(tmp_path, 2)  # 100 in 10 seconds; of 1000 there are 200
    assert position.look()[1] == "about 00:40 left, 3 to train"
    seconds[0] = 30.0
    position.end("a", passes=400)
    position.trained("a", passes=400)  # 300 in 30 seconds
    position.throughput.tested("pgd", 20.0)
    seconds[0] = 1000.0  # tests take no time from training
    position.left = Left(2, 1, ["pgd"] * 3, 2)
    assert position.look()[1] == "about 01:00 left, 2 to train, 1 to test"
    position.lost(400)
    assert position.look()[1] == "about 00:40 left, 2 to train, 1 to test", "what failed takes no time"
    position.left = Left(0, 1, ["pgd"], 8)
    assert position.look()[1] == "about 00:20 left, 1 to test", "one worker, whoever else has nothing to do"
    position.left = None
    assert position.look()[1] == ""
