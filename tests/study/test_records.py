"""Records on disk: what goes in comes out, nothing is half-written, nothing is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from advprune_core.base.environment import environment, git_state, results_root
from advprune_core.base.files import write_atomically
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.pruners import Selection
from advprune_core.study.finished import finish
from advprune_core.study.finished import run_record as record_of
from advprune_core.study.records import Accuracy, EvaluationRecord, Timing
from advprune_core.study.runs import load_model, load_run
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from tests.made_up import evaluation_record, run_record, write_finished
from tests.tiny import TINY

KEY = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "results")


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("status", ["ok", "collapsed", "diverged", "failed"])
def test_run_record_round_trip(store: RunStore, status: str) -> None:
    epochs = [{"epoch": 0, "loss": 0.1 + 0.2}, {"epoch": 1, "loss": float(np.nextafter(1, 2))}]
    record = run_record(KEY, status=status, error="what?" if status == "failed" else None, epochs=epochs)
    store.write_run(record)
    assert store.run(KEY) == record
    assert store.run_keys() == [KEY]
    assert json.loads((store.folder(KEY) / "record.json").read_text())["schema_version"] == 2


@pytest.mark.parametrize("n", [1, 7, 8, 100])
def test_evaluation_round_trip_keeps_every_image(store: RunStore, n: int) -> None:
    rng = np.random.default_rng(n)
    clean = rng.random(n) < 0.8
    attacks = {"pgd40": clean & (rng.random(n) < 0.7), "margin": clean & (rng.random(n) < 0.5)}
    store.write_evaluation(evaluation_record("e", KEY, clean, attacks))
    found = store.evaluation(KEY, "e")
    assert found is not None
    outcome = found.outcome()
    np.testing.assert_array_equal(outcome.clean, clean)
    for name, right in attacks.items():
        np.testing.assert_array_equal(outcome.attacks[name], right)
        assert found.attacks[name].accuracy == pytest.approx(right.sum() / n)
    assert found.robust.accuracy == pytest.approx((attacks["pgd40"] & attacks["margin"]).sum() / n)
    assert [record.key for record in store.evaluations(KEY)] == ["e"]
    assert store.evaluation(KEY, "other") is None


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 10), (10, 10), (373, 497)])
def test_accuracy_has_the_wilson_interval(right: int, n: int) -> None:
    """Against the closed formula: the roots of (p - q)^2 = z^2 q (1 - q) / n in q."""
    z, p = 1.959963984540054, right / n
    roots = np.roots([1 + z**2 / n, -(2 * p + z**2 / n), p**2])
    found = Accuracy.of(np.arange(n) < right)
    assert (found.accuracy, found.low, found.high) == pytest.approx((p, min(roots), max(roots)), abs=1e-9)


def test_selections_round_trip(store: RunStore) -> None:
    weights = np.array([0.5, 2.25, 0.0, 1e-3], np.float32)
    written = {
        0: Selection(np.array([20, 3, 7, 0]), weights),
        5: Selection(np.array([1, 2]), step_ratio=1.75),
        12: Selection(np.arange(21)),
    }
    store.write_run(run_record(KEY, n=21), selections=written)
    read = store.selections(KEY)
    assert set(read) == set(written)
    assert read[0].indices.tolist() == [0, 3, 7, 20]
    assert read[0].weights.tolist() == pytest.approx([1e-3, 2.25, 0.0, 0.5])  # each weight beside its image
    for epoch, selection in written.items():
        np.testing.assert_array_equal(read[epoch].indices, selection.indices)
        np.testing.assert_array_equal(read[epoch].weights, selection.weights)
        assert read[epoch].step_ratio == selection.step_ratio
    assert store.selections("f" * 16) == {}


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(store: RunStore, tmp_path: Path) -> None:
    crater = tmp_path / "crater"
    store.write_run(run_record(KEY), selections={0: Selection(np.arange(3))})
    np.savez(store.folder(KEY) / "selections.npz", kept_0=np.array([Bomb(crater)], dtype=object))
    torch.save({"weight": Bomb(crater)}, tmp_path / "bomb.pt")
    with pytest.warns(UserWarning, match="SHA-256"):
        assert store.selections(KEY) == {}
    config, dataset = RunConfig.flat(**TINY), load_dataset(TINY["dataset"])
    with pytest.raises((pickle.UnpicklingError, ConfigError)):
        load_model(config, dataset, tmp_path / "bomb.pt")
    assert not crater.exists()


def spoiled(text: str) -> dict[str, str]:
    """Ways in which a record can be wrong, from a right one."""
    data = json.loads(text)
    return {
        "empty": "",
        "truncated": text[: len(text) // 2],
        "not json": "hello",
        "other schema": json.dumps({**data, "schema_version": 3}),
        "field missing": json.dumps({k: v for k, v in data.items() if k != "key"}),
        "field unknown": json.dumps({**data, "colour": "red"}),
    }


HOW = ["empty", "truncated", "not json", "field missing", "field unknown"]


def test_a_record_of_another_version_is_not_damaged(store: RunStore) -> None:
    store.write_run(run_record(KEY))
    path = store.folder(KEY) / "record.json"
    path.write_text(spoiled(path.read_text())["other schema"])
    with pytest.raises(ConfigError, match="schema version 3"):
        store.run(KEY)
    assert path.exists()


def test_reading_for_a_table_renames_nothing(store: RunStore) -> None:
    path = store.folder(KEY) / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    with pytest.warns(UserWarning, match="left out"):
        assert RunStore(store.results, read_only=True).run(KEY) is None
    assert path.exists()


@pytest.mark.parametrize("how", HOW)
def test_damaged_run_is_named_and_set_aside(store: RunStore, how: str) -> None:
    write_finished(store, run_record(KEY))
    assert store.finished(KEY) is not None
    path = store.folder(KEY) / "record.json"
    wrong = spoiled(path.read_text())[how]
    path.write_text(wrong)
    with pytest.warns(UserWarning, match=f"{path} is damaged"):
        assert store.finished(KEY) is None
    assert not path.exists()
    assert path.with_name("record.json.damaged").read_text() == wrong
    assert store.run_keys() == []
    write_finished(store, run_record(KEY))
    assert store.finished(KEY) is not None


@pytest.mark.parametrize("how", HOW)
def test_damaged_evaluation_is_named_and_set_aside(store: RunStore, how: str) -> None:
    write_finished(store, run_record(KEY))
    for name in ("bad", "good"):
        store.write_evaluation(evaluation_record(name, KEY, [True], {"pgd": [False]}))
    path = store.folder(KEY) / "evaluations" / "bad.json"
    path.write_text(spoiled(path.read_text())[how])
    with pytest.warns(UserWarning, match=f"{path} is damaged"):
        assert [record.key for record in store.evaluations(KEY)] == ["good"]
    assert store.evaluation(KEY, "bad") is None
    assert store.finished(KEY) is not None


def test_damaged_timing_is_named_and_set_aside(store: RunStore) -> None:
    timings = [Timing(seconds={"train": float(i)}, cpu_seconds={"train": 0.5}) for i in range(3)]
    for timing in timings[:2]:
        store.write_timing(KEY, timing)
    path = store.folder(KEY) / "timings" / "1.json"
    path.write_text(path.read_text()[:9])
    with pytest.warns(UserWarning, match=f"{path} is damaged"):
        assert store.timings(KEY) == timings[1:2]
    store.write_timing(KEY, timings[2])  # and must not replace the one that is left
    assert store.timings(KEY) in (timings[1:], timings[:0:-1])


@pytest.mark.parametrize(
    ("status", "weights", "finished"),
    [
        ("ok", True, True),
        ("ok", False, True),  # its weights may be on another machine
        ("collapsed", True, True),
        ("diverged", True, True),
        ("failed", True, False),
    ],
)
def test_finished(store: RunStore, status: str, weights: bool, finished: bool) -> None:
    store.write_run(run_record(KEY, status=status), last={} if weights else None)
    assert (store.finished(KEY) is not None) == finished


@pytest.mark.parametrize(
    ("prefix", "found"),
    [("a1", "a1000"), ("a1000", "a1000"), ("b", "b3000"), ("a", "2 runs begin"), ("c", "no run"), ("a10000", "no run")],
)
def test_load_run_by_prefix(store: RunStore, prefix: str, found: str) -> None:
    for key in ("a1000", "a2000", "b3000"):
        write_finished(store, run_record(key))
    if found.endswith("000"):
        assert load_run(prefix, store.results).record.key == found
        return
    with pytest.raises(ConfigError, match=found) as error:
        load_run(prefix, store.results)
    assert repr(prefix) in str(error.value)


def test_a_run_on_disk_has_its_evaluations_and_selections(store: RunStore) -> None:
    found, kept = evaluation_record("e", KEY, [True, False], {"pgd": [False, False]}), Selection(np.arange(3))
    store.write_run(run_record(KEY), last={}, selections={2: kept})
    store.write_evaluation(found)
    run = load_run(KEY, store.results)
    assert run.evaluations == [found]
    assert {epoch: selection.indices.tolist() for epoch, selection in run.selections.items()} == {2: [0, 1, 2]}


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_model_gives_the_logits_of_the_trained_weights(store: RunStore, checkpoint: str) -> None:
    """Against the network written out by hand on the weights that training returned."""
    config = RunConfig.flat(**TINY, best_every=1, seed=3)
    dataset = load_dataset(config.dataset)
    result = train(config, dataset)
    key = config.train_key(dataset)
    finish(store, record_of(key, config, dataset, result), result)
    weights = {"last": result.last, "best": result.best}[checkpoint]
    assert weights is not None
    mean, std, w1, b1, w2, b2, w3, b3, w4, b4 = weights.values()
    x = dataset.test.images.float()
    h = F.conv2d((x - mean) / std, w1, b1, padding=1).relu()
    h = F.conv2d(h, w2, b2, stride=2, padding=1).relu().flatten(1)
    expected = F.linear(F.linear(h, w3, b3).relu(), w4, b4)
    run = load_run(key, store.results)
    assert run.config == config
    model = run.model(dataset, checkpoint)
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(run.model(checkpoint=checkpoint)(x), model(x), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"unknown checkpoint 'lats' \(did you mean 'last'\?\); allowed: best, last"):
        run.weights("lats")
    (store.folder(key) / f"{checkpoint}.pt").unlink()
    with pytest.raises(ConfigError, match=f"the weights of run {key} are not in"):
        run.model(dataset, checkpoint)


def test_a_run_of_a_gpu_is_read_where_there_is_none(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = RunConfig.flat(**TINY, device="cuda")
    store.write_run(run_record(KEY, config=json.loads(config.model_dump_json())))
    assert load_run(KEY, store.results).config == config


def test_results_root_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "notebooks" / "course").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    elsewhere.mkdir()
    for folder in (project, project / "notebooks", project / "notebooks" / "course"):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("ADVPRUNE_RESULTS", str(tmp_path / "named"))
        assert results_root(tmp_path / "given") == tmp_path / "given"
        assert results_root() == tmp_path / "named"
        monkeypatch.delenv("ADVPRUNE_RESULTS")
        assert results_root() == project / "results"
    monkeypatch.chdir(elsewhere)
    assert results_root() == elsewhere / "results"
    assert results_root("~/r") == Path.home() / "r"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_interrupted_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    def half(file: Any) -> None:
        file.write(b"half of")
        raise error

    path = tmp_path / "sub" / "a.json"
    with pytest.raises(error):
        write_atomically(path, half)
    assert files_below(tmp_path) == []
    write_atomically(path, lambda file: file.write(b"whole"))
    with pytest.raises(error):
        write_atomically(path, half)
    assert files_below(tmp_path) == ["sub/a.json"]
    assert path.read_bytes() == b"whole"


def test_interruption_right_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(source: Any, target: Any) -> None:
        Path(source).rename(target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.json", lambda file: file.write(b"whole"))
    assert files_below(tmp_path) == ["a.json"]


@pytest.mark.parametrize(("module", "function"), [(torch, "save"), (np, "savez_compressed")])
def test_no_record_where_its_files_could_not_be_written(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, module: Any, function: str
) -> None:
    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, function, full_disk)
    with pytest.raises(OSError, match="no space"):
        store.write_run(run_record(KEY), last={"w": torch.ones(2)}, selections={0: Selection(np.arange(3))})
    assert set(files_below(store.results)) <= {f"runs/{KEY}/last.pt"}
    assert store.finished(KEY) is None


def test_environment_names_versions_but_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "secret-name")
    monkeypatch.setattr(socket, "gethostname", lambda: "secret-name")
    found = environment("cpu")
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert found["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    words = set(json.dumps(found).replace('"', " ").split())
    assert not words & {"secret-name", os.uname().nodename, str(Path.home()), str(Path.cwd())}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("state", ["clean", "untracked file", "changed file", "not tracked", "no checkout", "no git"])
def test_git_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    module = sys.modules[git_state.__module__]
    source = tmp_path / "base" / Path(str(module.__file__)).name
    source.parent.mkdir()
    (tmp_path / "__init__.py").write_text("a = 1\n")
    (tmp_path / "other.py").write_text("b = 1\n")
    if state != "no checkout":
        git("init", "--quiet")
        git("add", "other.py" if state == "not tracked" else ".")
        git("commit", "--quiet", "-m", "first")
    if state == "untracked file":
        (tmp_path / "notes.txt").touch()
    if state == "changed file":
        (tmp_path / "other.py").write_text("b = 2\n")
    expected: dict[str, Any] = {}
    if state in ("clean", "untracked file", "changed file"):
        expected = {"commit": git("rev-parse", "HEAD"), "dirty": state != "clean"}
    if state == "no git":
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(module, "__file__", str(source))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    git_state.cache_clear()
    try:
        assert git_state() == expected
    finally:
        git_state.cache_clear()


def test_warnings_of_an_evaluation_come_back(tmp_path: Path) -> None:
    store, plain = RunStore(tmp_path), evaluation_record("e", "r", [True, False], {"pgd": [False, False]})
    assert plain.outcome().warnings == ()
    record = plain.model_copy(update={"warnings": ["gradients are masked", "beware"]})
    write_finished(store, run_record("r"), record)
    found = store.evaluation("r", "e")
    assert found is not None
    assert found.outcome().warnings == ("gradients are masked", "beware")
    assert collect(tmp_path)["warnings"].tolist() == ["gradients are masked; beware"]
    old = record.model_dump(mode="json")
    del old["warnings"]  # as records were before
    assert EvaluationRecord.model_validate(old).warnings == []
