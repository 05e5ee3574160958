"""What was altered is found, what is damaged is made again, and only what a study gave up is put away."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from advprune_core.base.files import write_sealed
from advprune_core.base.settings import ConfigError
from advprune_core.study.grid import study_grid
from advprune_core.study.plans import plan
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from advprune_core.study.upkeep import check_results, collect_garbage
from tests.made_up import evaluation_record, run_record, write_finished, write_manifest
from tests.study.test_archive import sealed_again
from tests.study.test_driver import contents
from tests.tiny import tiny_study

Harm = Callable[[Path], object]


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


#: Six ways in which a file goes bad.
HARM: dict[str, Harm] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "bit flipped": flipped,
    "another file": lambda path: path.write_bytes(b"PK\x03\x04 not what you think"),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n\x00trailing"),
    "zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
}
PATTERNS = ["record.json", "last.pt", "best.pt", "selections.npz", "evaluations/*.json", "timings/*.json"]
STUDY = {"seeds": [0], "timed_repeats": 2, "settings": {"best_every": 1}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with every kind of file."""
    results = tmp_path_factory.mktemp("results")
    run_study(tiny_study(results, **STUDY), progress=False)
    return results


@pytest.fixture
def results(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "results"))


def test_what_was_written_is_sound(sound: Path) -> None:
    assert check_results(sound) == []
    kinds = {pattern for pattern in PATTERNS for _ in sound.glob(f"runs/*/{pattern}")}
    assert kinds == set(PATTERNS)


@pytest.mark.parametrize("how", HARM)
@pytest.mark.parametrize("pattern", [*(f"runs/*/{name}" for name in PATTERNS), "tiny/manifest.json"])
def test_damage_is_named_and_made_good(results: Path, sound: Path, pattern: str, how: str) -> None:
    path = next(iter(sorted(results.glob(pattern))))
    HARM[how](path)
    assert any(finding.path == path for finding in check_results(results))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run_study(tiny_study(results, **STUDY), progress=False)
    assert result.failed == {}
    assert contents(results) == contents(sound)
    assert check_results(results) == []


@pytest.mark.parametrize("how", HARM)
@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.jsonl", "evaluation-*/*.npz"])
def test_damaged_state_begins_anew(tmp_path: Path, sound: Path, name: str, how: str) -> None:
    """A study killed in its training or its test; the state that it left is damaged before it goes on."""
    when = "testing" if "evaluation" in name else "training"
    command = [sys.executable, "-m", "tests.study.interrupted", str(tmp_path), when]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 9, done.stderr
    (path,) = tmp_path.glob(f"runs/*/work/{name}")
    HARM[how](path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run_study(tiny_study(tmp_path, **STUDY), progress=False)
    assert result.failed == {}
    assert contents(tmp_path) == contents(sound)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": "f" * 16}, "not the hash"),
        ({"status": "splendid"}, "status"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_forged_record_is_found(results: Path, changes: dict[str, object], reason: str) -> None:
    path = min(results.glob("runs/*/record.json"))
    sealed_again(path, **changes)
    assert reason in {finding.path: finding.reason for finding in check_results(results)}[path]


def test_accuracies_that_contradict_their_images_are_not_believed(results: Path, sound: Path) -> None:
    path = min(results.glob("runs/*/evaluations/*.json"))
    for accuracy in (0.99, 42):
        content = json.loads(path.read_text())
        sealed_again(path, robust={**content["robust"], "accuracy": accuracy})
        (finding, *_) = check_results(results)
        assert "its images say" in finding.reason
        with pytest.warns(UserWarning, match="its images say"):
            run_study(tiny_study(results, **STUDY), progress=False)
        assert contents(results) == contents(sound)


def test_another_run_s_files_are_not_believed(results: Path, sound: Path) -> None:
    one, two = sorted((results / "runs").iterdir())[:2]
    for name in ("record.json", "last.pt"):
        shutil.copyfile(two / name, one / name)
        assert check_results(results)
        with pytest.warns(UserWarning, match="is damaged"):
            run_study(tiny_study(results, **STUDY), progress=False)
        assert contents(results) == contents(sound)


def test_weights_that_are_not_finite_are_refused(results: Path) -> None:
    store = RunStore(results)
    key = store.run_keys()[0]
    weights = {name: torch.full_like(value, float("nan")) for name, value in _weights(store, key).items()}
    record = store.run(key)
    assert record is not None
    store.write_run(record, last=weights)
    result = run_study(tiny_study(results, **STUDY, evaluation=[{"pgd": {"steps": 3}}]), progress=False)
    assert any("not finite" in message for message in result.failed.values())


def _weights(store: RunStore, key: str) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(store.folder(key) / "last.pt", weights_only=True)
    return weights


def test_what_is_missing_is_named(results: Path) -> None:
    (one, two, _) = sorted(path for path in (results / "runs").iterdir())
    (one / "last.pt").unlink()
    (two / "record.json").unlink()
    told = [finding.text() for finding in check_results(results)]
    assert any(f"{one / 'last.pt'}: missing" in text and "--retrain" in text for text in told)
    assert any(f"{two / 'record.json'}: missing" in text and "trained again" in text for text in told)
    assert any("manifest.json" in text and two.name in text for text in told)


def test_check_needs_a_results_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a results folder"):
        check_results(tmp_path)


def test_only_what_a_study_gave_up_is_garbage(tmp_path: Path) -> None:
    run_study(tiny_study(tmp_path), progress=False)
    store, everything = RunStore(tmp_path), contents(tmp_path)
    write_finished(store, run_record("loose"))
    found = collect_garbage(tmp_path)
    assert (found.paths, [path.name for path in found.unaccounted]) == ([], ["loose"])
    run_study(tiny_study(tmp_path, seeds=[0]), progress=False)
    given_up = set(everything) - {entry.key for entry in store.manifest("tiny").entries}
    assert len(given_up) == 3
    wanted = min(given_up)
    store.ask_for(wanted)
    assert {path.name for path, _ in collect_garbage(tmp_path).paths} == given_up - {wanted}
    assert set(store.run_keys()) == {*everything, "loose"}, "without remove nothing is moved"
    (tmp_path / "tiny" / "manifest.json").rename(tmp_path / "away.json")
    assert collect_garbage(tmp_path, remove=True).paths == [], "without its manifest nobody knows"
    (tmp_path / "tiny" / "manifest.json").write_text("")
    with pytest.warns(UserWarning, match="tiny/manifest.json cannot be read .*: no run is put away"):
        assert collect_garbage(tmp_path, remove=True).paths == []
    (tmp_path / "away.json").rename(tmp_path / "tiny" / "manifest.json")
    collect_garbage(tmp_path, remove=True)
    assert set(store.run_keys()) == {*everything, "loose"} - given_up | {wanted}
    (trash,) = (tmp_path / "trash").iterdir()
    assert contents(trash) == {key: value for key, value in everything.items() if key in given_up - {wanted}}


def test_what_a_damaged_manifest_may_name_is_kept(tmp_path: Path) -> None:
    """Another study has given the same runs up."""
    run_study(tiny_study(tmp_path), progress=False)
    store = RunStore(tmp_path)
    manifest = store.manifest("tiny")
    store.write_manifest(manifest.model_copy(update={"study": "mine"}), tmp_path / "mine")
    run_study(tiny_study(tmp_path, seeds=[0]), progress=False)
    assert collect_garbage(tmp_path).paths == []
    flipped(tmp_path / "mine" / "manifest.json")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert collect_garbage(tmp_path, remove=True).paths == []
    assert len(store.run_keys()) == len({entry.key for entry in manifest.entries})


def test_a_run_that_diverged_is_tested_by_nothing(results: Path) -> None:
    store = RunStore(results)
    key = store.run_keys()[0]
    record = store.run(key)
    assert record is not None
    shutil.rmtree(store.folder(key) / "evaluations")
    assert check_results(results)
    store.keep_run(record.model_copy(update={"status": "diverged"}))
    assert check_results(results) == []


def test_to_look_for_garbage_a_folder_need_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_study(tiny_study(tmp_path), progress=False)
    run_study(tiny_study(tmp_path, seeds=[0]), progress=False)
    found = collect_garbage(tmp_path)
    assert len(found.paths) == 3

    def refused(lock: FileLock, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refused)
    assert collect_garbage(tmp_path) == found
    with pytest.raises(OSError, match="Read-only"):
        collect_garbage(tmp_path, remove=True)


def test_who_only_looks_sets_nothing_aside(results: Path) -> None:
    config = tiny_study(results, **STUDY)
    path = min(results.glob("runs/*/record.json"))
    path.write_text("{")
    before = sorted(file for file in results.rglob("*") if file.name != ".lock")
    for look in (lambda: collect_garbage(results), lambda: plan(study_grid(config), config.execution)):
        with pytest.warns(UserWarning, match=r"record\.json is damaged .*left out"):
            look()
        assert sorted(file for file in results.rglob("*") if file.name != ".lock") == before


def test_shards_say_what_is_theirs(tmp_path: Path) -> None:
    for part in (1, 2):
        run_study(tiny_study(tmp_path), shard=(part, 2), progress=False)
    found = collect_garbage(tmp_path, remove=True)
    assert (found.paths, found.unaccounted) == ([], [])


def test_state_under_way_is_not_garbage(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    write_finished(store, run_record("named"), evaluation_record("e", "named", [True], {"pgd": [True]}))
    write_manifest(tmp_path, "mine", [("random", 1.0, 0, None, "named", "e")])
    state = store.work("named") / "evaluation-1" / "state.npz"
    write_sealed(state, b"hours of AutoAttack")
    (store.work("named") / "checkpoint.pt").write_bytes(b"0" * 100)
    with store.lock("named"):
        assert collect_garbage(tmp_path).paths == [], "somebody works there"
    assert collect_garbage(tmp_path, remove=True).paths == [(store.work("named") / "checkpoint.pt", 100)]
    assert state.exists()


def test_what_a_kill_cut_off_while_it_was_written_is_garbage(tmp_path: Path) -> None:
    store, begun = RunStore(tmp_path), {}
    for key in ("done", "going"):
        begun[key] = store.folder(key) / ".last.pt.x7_k2"
        begun[key].parent.mkdir(parents=True)
        begun[key].write_bytes(b"0" * 50)
    write_finished(store, run_record("done"))
    assert collect_garbage(tmp_path, remove=True).paths == [(begun["done"], 50)], "the other may be written just now"
    assert begun["going"].exists()
    assert store.run("done") is not None


def test_selections_that_were_altered_are_not_read(results: Path) -> None:
    store = RunStore(results)
    path = min(results.glob("runs/*/selections.npz"))
    assert store.selections(path.parent.name)
    np.savez(path, kept_0=np.zeros(32, np.uint8))
    with pytest.warns(UserWarning, match="SHA-256"):
        assert store.selections(path.parent.name) == {}
    assert os.path.exists(f"{path}.damaged")
