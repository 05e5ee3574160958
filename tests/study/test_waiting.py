"""Runs of a grid that begin alike: one training of what they share, the same records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from advprune_core.study import finished
from advprune_core.study.driver import Driver
from advprune_core.study.grid import study_grid
from advprune_core.study.plans import plan
from advprune_core.study.runner import run_entries, run_study
from advprune_core.study.store import RunStore
from advprune_core.study.study import StudyConfig
from advprune_core.study.tasks import WarmupTask
from advprune_core.study.upkeep import collect_garbage
from advprune_core.study.warmups import SharedWarmups
from advprune_core.trainers.run import SCOUT, Run
from tests.study.test_driver import contents
from tests.tiny import tiny_study

PRUNERS = [{"random": {"warmup_epochs": 2}}, {"keep_hard": {"warmup_epochs": 2}}, "random"]


def grid_with_warmups(results: Path, **parameters: Any) -> StudyConfig:
    """For each of two seeds a full run, two runs of 3 epochs without a warm-up, four with the same of two epochs."""
    wanted: dict[str, Any] = {"pruners": PRUNERS, "fractions": [1.0, 0.6, 0.4], "controls": [], "epochs": 3}
    return tiny_study(results, **wanted | parameters)


@pytest.fixture
def epochs_trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs that are trained in this process, one after the other."""
    trained: list[int] = []
    one = Run._epoch

    def noted(run: Any, epoch: int, **more: Any) -> Any:
        trained.append(epoch)
        return one(run, epoch, **more)

    monkeypatch.setattr(Run, "_epoch", noted)
    return trained


def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run train its own warm-up."""
    monkeypatch.setattr("advprune_core.study.waiting.warmup_key", lambda config, dataset: None)


def test_a_warmup_is_trained_once_for_all_that_share_it_and_nothing_else_is_different(
    tmp_path: Path, epochs_trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_study(grid_with_warmups(tmp_path / "shared"), progress=False)
    assert (result.trained, result.failed) == (14, {})
    assert sorted(epochs_trained) == sorted(2 * (3 * [0, 1, 2] + [0, 1] + 4 * [2]))
    assert not list((tmp_path / "shared" / "cache" / "warmups").iterdir())
    unshared(monkeypatch)
    run_study(grid_with_warmups(tmp_path / "alone"), progress=False)
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_an_interrupted_study_goes_on_from_its_warmups(
    tmp_path: Path, epochs_trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = grid_with_warmups(tmp_path / "shared", pruners=PRUNERS[:2], fractions=[0.6, 0.4], seeds=[0])
    finish = finished.finish

    def interrupted(*arguments: Any, **more: Any) -> bool:
        finish(*arguments, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr("advprune_core.study.driver.finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(config, progress=False)
    assert epochs_trained == [0, 1, 2]
    assert len(list((tmp_path / "shared" / "cache" / "warmups").iterdir())) == 1
    told = plan(study_grid(config), config.execution)
    epochs_trained.clear()  # what a plan times
    monkeypatch.setattr("advprune_core.study.driver.finish", finish)
    run_study(config, progress=False)
    assert epochs_trained == [2, 2, 2]
    assert "2 runs share a warm-up with another" in told
    assert not list((tmp_path / "shared" / "cache" / "warmups").iterdir())


def test_a_warmup_is_dropped_that_an_interrupted_study_has_gone_beyond(
    tmp_path: Path, epochs_trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last run has checkpoints of its own, so that none begins with it any more."""
    config = grid_with_warmups(tmp_path, pruners=PRUNERS[:1], fractions=[0.6, 0.4], epochs=4, seeds=[0])
    noted, entries = Run._epoch, study_grid(config)
    options: dict[str, Any] = {"execution": config.execution.replace(checkpoint_seconds=0.0), "progress": False}

    def interrupted(run: Any, epoch: int, **more: Any) -> Any:
        if epochs_trained.count(3) == 1 and epoch == 3:
            raise KeyboardInterrupt
        return noted(run, epoch, **more)

    monkeypatch.setattr(Run, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_entries(entries, name="tiny", **options)
    assert epochs_trained == [0, 1, 2, 3, 2]
    assert len(list(tmp_path.glob("cache/warmups/*"))) == 1
    monkeypatch.setattr(Run, "_epoch", noted)
    assert run_entries(entries, name="tiny", **options).trained == 1
    assert epochs_trained == [0, 1, 2, 3, 2, 3]
    assert not list(tmp_path.glob("cache/warmups/*"))


@pytest.mark.parametrize(
    ("parameters", "shared"),
    [
        ({}, 2 * 3),
        ({"timed_repeats": 1}, 3),  # the first seed's are trained alone, from beginning to end
        ({"pruners": PRUNERS[1:], "fractions": [0.4]}, 0),
        ({"pruners": [{"aum": {"warmup_epochs": 2}}, {"random": {"warmup_epochs": 2}}], "fractions": [0.4]}, 0),
        ({"engine": "ray"}, 0),
    ],
)
def test_a_plan_counts_a_warmup_once(parameters: dict[str, Any], shared: int, tmp_path: Path) -> None:
    config = grid_with_warmups(tmp_path, **parameters)
    text = plan(study_grid(config), config.execution)
    assert ("share a warm-up" in text) == bool(shared)
    images = 300 - 2 * (300 // 13)
    less = re.search(r"\(([\d,]+) less than by themselves: (\d+) runs", text)
    found = (int(less[1].replace(",", "")), int(less[2])) if less else (0, 0)
    assert found == (shared * 2 * images * 5, shared)


def test_the_bar_ends_where_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of a warm-up count once, whether it is under way, done, or what a run went on from."""
    seen: list[tuple[float, float]] = []
    done = Driver.done

    def position(driver: Driver, *arguments: Any, **more: Any) -> None:
        done(driver, *arguments, **more)
        seen.append((driver.position.look()[0], driver.bar.total))

    monkeypatch.setattr(Driver, "done", position)
    run_study(grid_with_warmups(tmp_path, seeds=[0]), progress=False)
    images, kept = 254, (round(0.6 * 254), round(0.4 * 254))
    whole = 3 * images + 3 * sum(kept) + 2 * images + 2 * sum(kept)
    assert {total for _, total in seen} == {5.0 * whole}
    assert [position for position, _ in seen] == sorted(position for position, _ in seen)
    assert seen[-1][0] == 5.0 * whole


def test_what_keeps_a_warmup_from_being_trained_its_runs_meet_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("no warm-up today")

    monkeypatch.setattr("advprune_core.study.tasks.train_warmup", fails)
    result = run_study(grid_with_warmups(tmp_path / "failing"), progress=False)
    assert (result.trained, result.failed) == (14, {})
    assert not list((tmp_path / "failing").glob("cache/warmups/*"))
    unshared(monkeypatch)
    run_study(grid_with_warmups(tmp_path / "alone"), progress=False)
    assert contents(tmp_path / "failing") == contents(tmp_path / "alone")


def test_a_warmup_that_another_study_has_dropped_is_trained_again(
    tmp_path: Path, epochs_trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two shards has runs of it; whoever is done with it first cannot know of the other."""
    config = grid_with_warmups(tmp_path, pruners=PRUNERS[:2], fractions=[0.6, 0.4], seeds=[0])
    warmed_up = SharedWarmups.trained

    def meanwhile(warmups: SharedWarmups, task: WarmupTask, error: BaseException | None) -> None:
        warmed_up(warmups, task, error)
        finished.drop_warmup(RunStore(tmp_path), task.key)

    monkeypatch.setattr(SharedWarmups, "trained", meanwhile)
    result = run_study(config, progress=False)
    assert (result.trained, result.failed) == (4, {})
    assert epochs_trained == [0, 1, 0, 1, 2, 2, 2, 2]
    assert not list(tmp_path.glob("cache/warmups/*"))


def test_a_warmup_is_garbage_when_no_run_is_left_to_go_on_from_it(tmp_path: Path) -> None:
    config = grid_with_warmups(tmp_path, pruners=PRUNERS[:1], fractions=[0.4], seeds=[0])
    run_study(config, progress=False)
    folder = RunStore(tmp_path).warmup("left")
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"12345")
    with FileLock(folder / ".lock"):
        assert collect_garbage(tmp_path).paths == [], "somebody trains it"
    record = next(tmp_path.glob("runs/*/record.json"))
    record.rename(tmp_path / "record.json")
    assert collect_garbage(tmp_path).paths == [], "a run may go on from it"
    (tmp_path / "record.json").rename(record)
    assert collect_garbage(tmp_path, remove=True).paths == [(folder, 5)]
    assert not folder.exists()


@pytest.mark.slow
def test_workers_share_warmups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_study(grid_with_warmups(tmp_path / "shared", engine="processes", workers=2), progress=False)
    unshared(monkeypatch)
    run_study(grid_with_warmups(tmp_path / "alone"), progress=False)
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_what_training_left_over_stays_while_somebody_trains_the_run_anew(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    scout = store.work("0" * 16) / SCOUT
    scout.mkdir(parents=True)
    for folder in (scout, scout.parent):
        (folder / "checkpoint.pt").write_bytes(b"12345")
    with store.lock("0" * 16):
        finished.drop_left_over(store, "0" * 16)
        assert (scout / "checkpoint.pt").exists()
        assert (scout.parent / "checkpoint.pt").exists()
    finished.drop_left_over(store, "0" * 16)
    assert not scout.parent.exists()
