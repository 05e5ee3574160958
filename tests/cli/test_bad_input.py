"""Bad input on the command line: one clear message, exit code 2, nothing begun and nothing lost."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.made_up import RUN, Command, entry_point, refused
from tests.reference import REFERENCE

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture
def advprune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return entry_point(monkeypatch, capsys)


def data_file(path: Path, **change: Any) -> str:
    """An .npz of 4 x 30 images, 4 x 4 for the test, with some arrays changed; as `--dataset` takes it."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.random((120, 8, 8)),
        "y_train": np.repeat(np.arange(4), 30),
        "x_test": rng.random((16, 8, 8)),
        "y_test": np.repeat(np.arange(4), 4),
    }
    checksum = change.pop("sha256", None)
    np.savez(path, **{name: change.get(name, lambda old: old)(values) for name, values in arrays.items()})
    if checksum is not None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return str({"npz": {"path": str(path), "sha256": digest[::-1] if checksum == "wrong" else digest}})
    return str({"npz": {"path": str(path)}})


def with_nan(x: Any) -> Any:
    return np.where(np.arange(8) == 3, np.nan, x)


BAD_RUNS: dict[str, tuple[list[str], str]] = {
    "fraction 0": (["--fraction", "0"], "fraction = 0.*greater than 0"),
    "negative fraction": (["--fraction", "-0.5"], r"fraction = -0\.5.*greater than 0"),
    "fraction above 1": (["--fraction", "1.5"], r"fraction = 1\.5.*less than or equal to 1"),
    "fraction no number": (["--fraction", "half"], "fraction = 'half'.*number"),
    "not one batch": (["--fraction", "0.04"], "keeps 10 of 254 images: not one full batch of 16"),
    "no images": (["--fraction", "1e-9"], "keeps 0 of 254 images"),
    "full but not all": (["--pruner", "full"], "full.*advprune list pruners"),
    "pruner": (["--pruner", "randm"], "unknown pruner 'randm'.*did you mean 'random'.*allowed: .*full, .*random"),
    "pruner setting": (["--set", "pruner.balance=true"], "balance.*did you mean 'balanced'"),
    "dataset": (["--dataset", "digit"], "unknown dataset 'digit'.*did you mean 'digits'.*cifar10"),
    "model": (["--model", "small_cn"], "unknown model 'small_cn'.*did you mean 'small_cnn'"),
    "model setting": (["--model", "{small_cnn: {widht: 3}}"], "widht.*did you mean 'width'"),
    "own model": (["--model", "no_such_module:factory"], "no_such_module"),
    "trainer": (["--trainer", "pgdat"], "unknown trainer 'pgdat'.*did you mean 'pgd_at'.*standard"),
    "attack": (["--evaluation", "pdg"], "unknown attack 'pdg'.*did you mean 'pgd'.*fgsm"),
    "schedule": (["--schedule", "cosin"], "unknown schedule 'cosin'.*did you mean 'cosine'"),
    "norm": (["--norm", "l3"], "norm = 'l3'.*unknown norm 'l3'.*allowed: l2, linf"),
    "precision": (["--precision", "float16"], "'float32'.*'bfloat16'"),
    "eps": (["--eps", "8/x"], "eps = '8/x'.*8/255"),
    "epochs": (["--epochs", "0"], "epochs = 0.*greater than 0"),
    "control": (["--control", "same_costs"], "unknown control 'same_costs'.*did you mean 'same_cost'"),
    "option": (["--prunner", "random"], "No such option.*--prunner.*--pruner"),
    "setting": (["--set", "optimisation.emma=0.9"], "emma.*did you mean 'ema'.*momentum"),
    "group": (["--set", "optimisaton.ema=0.9"], "did you mean 'optimisation'"),
    "assignment": (["--set", "ema"], "'ema' must be NAME=VALUE"),
    "attack twice": (["--evaluation", "pgd", "--evaluation", "{pgd: {steps: 40}}"], "an attack is listed twice: pgd40"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_input_is_refused_before_any_work(advprune: Command, tmp_path: Path, case: str) -> None:
    given, message = BAD_RUNS[case]
    code, out, err = advprune(*RUN, "--pruner", "random", "--fraction", "0.5", *given)
    refused(code, out, err, message)
    assert list((tmp_path / "results").rglob("*")) == []


BAD_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "pixels above 1": ({"x_train": lambda x: 255 * x}, r"x_train has pixels in .*\[0, 1\]"),
    "pixels below 0": ({"x_test": lambda x: x - 0.5}, r"x_test has pixels in \[-0"),
    "NaN": ({"x_train": with_nan}, "x_train has pixels that are not finite"),
    "fewer labels": ({"y_train": lambda y: y[:-1]}, "120 images, y_train has 119 labels"),
    "label unknown": ({"y_test": lambda y: y + 1}, r"y_test has the label 4.*0\.\.3"),
    "labels no integers": ({"y_train": lambda y: y / 2}, "y_train must be a vector of class numbers"),
    "class left empty": ({"y_train": lambda y: np.where(np.arange(120) < 1, 3, y // 2)}, "would leave class 3"),
    "checksum": ({"sha256": "wrong"}, r"has the SHA-256 .*wrong or damaged"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused_before_any_work(advprune: Command, tmp_path: Path, case: str) -> None:
    change, message = BAD_DATA[case]
    dataset = data_file(tmp_path / "mine.npz", **change)
    splits = ["--set", "dataset.val_select=0", "--set", "dataset.val_stop=0"] if case == "class left empty" else []
    pruned = ["--pruner", "random", "--fraction", "0.15"]
    refused(*advprune(*RUN, "--dataset", dataset, *splits, *pruned), message)
    assert list((tmp_path / "results").rglob("*")) == []


@pytest.mark.parametrize("spoil", ["missing", "truncated", "text"])
def test_unreadable_data_is_named(advprune: Command, tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "mine.npz"
    dataset = data_file(path)
    {
        "missing": path.unlink,
        "truncated": lambda: path.write_bytes(path.read_bytes()[:1000]),
        "text": lambda: path.write_text("x_train"),
    }[spoil]()
    refused(*advprune(*RUN, "--dataset", dataset), re.escape(str(path)))


def test_results_folder_that_cannot_be_written(advprune: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "results"
    refused(*advprune(*RUN, "--out", str(out)), f"cannot be written to {out}.*--out or ADVPRUNE_RESULTS")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-f", "missing/p.yaml"], "missing/p.yaml cannot be read"),
        (["-f", "digts.yaml"], r"unknown profile 'digts.yaml' \(did you mean 'digits'"),
        (["digit"], r"unknown profile 'digit' \(did you mean 'digits'.*allowed: .*, pruners"),
        (["runtme.ipynb"], r"unknown notebook 'runtme.ipynb' \(did you mean 'runtime'"),
        (["nbs.yaml"], r"nbs.yaml: notebooks = 'trainers' is no list of names"),
        (["nb.yaml"], r"unknown notebook 'trianers' \(did you mean 'trainers'"),
        (["digits", "-f", "a.yaml"], "one profile at a time, not 2: digits, a.yaml"),
        (["broken.yaml"], "broken.yaml cannot be read: line 1: "),
        (["list.yaml"], "list.yaml must be"),
        (["a.yaml", "-f", "b.yaml"], "one profile at a time"),
        (["notes.txt"], "notes.txt is neither a notebook"),
        (["-p", "epocs=3"], "'epocs'.*did you mean 'epochs'"),
        (["misspelt.yaml"], "'fraction'.*did you mean 'fractions'"),
        (["-p", "fractions=[0.5, 2]"], r"fractions\.1 = 2.*less than or equal to 1"),
        (["-p", "pruners=[randm]"], "unknown pruner 'randm'.*did you mean 'random'"),
        (["-p", "controls=[same]"], "controls.0 = 'same'.*'same_cost'"),
        (["-p", "study=a/b"], "study = 'a/b'"),
        (["-p", "seeds=[]"], "seeds"),
        (["-p", "seeds=3"], r"seeds = 3: a list is meant, as \[3\]"),
        (["-p", "seeds='3'"], r"seeds = '3': a list is meant, as \[3\]"),
        (["--shard", "3/2"], r"part must be in 1\.\.2"),
        (["--shard", "2"], "--shard must be i/n"),
    ],
)
def test_bad_studies(
    advprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = {"broken": "{a: ", "list": "- 1", "misspelt": "fraction: 0.5"}
    texts |= {"nbs": "notebooks: trainers", "nb": "notebooks: [trianers]"}
    for name, text in texts.items():
        Path(f"{name}.yaml").write_text(text)
    Path("notes.txt").touch()
    Path("notebooks").symlink_to(NOTEBOOKS)
    refused(*advprune("study", *arguments), message)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "pruner"], "unknown family 'pruner'.*did you mean 'pruners'"),
        (["collect", "nowhere"], "nowhere is not a results folder: it has no runs/$"),
        (["collect", str(REFERENCE)], "the exported studies in it are, such as .*both_worlds_cifar10_cpu"),
        (["check", str(REFERENCE)], "the exported studies in it are, such as .*both_worlds_cifar10_cpu"),
        (["evaluate"], "either a run or --weights"),
        (["evaluate", "abc", "--weights", "w.pt"], "either a run or --weights"),
        (["evaluate", "abc"], "no run begins with 'abc'"),
        (["evaluate", "abc", "--model", "small_cnn"], "are of --weights; a run has its own"),
        (["evaluate", "abc", "--dataset", "digits"], "are of --weights; a run has its own"),
        (["evaluate", "--weights", "WEIGHTS", "--images", "1_0"], "images = '1_0'"),
        (["evaluate", "--weights", "WEIGHTS", "--images", "１"], "images = '１'"),
        (["export", "digits", "copy"], "no study 'digits'.*`advprune study` makes one there, `advprune import`"),
        (["report", "digits"], "no study 'digits'.*`advprune study` makes one there"),
        (["report", "elsewhere/digits"], "elsewhere/digits is no study: neither an exported one, nor a folder of one"),
        (["run", "--pruner", "random"], "--pruner random needs the share of the images to keep, as in --fraction 0.4"),
        (["run", "--pruner", "{keep_hard: {balanced: true}}", "--epochs", "2"], "needs the share"),
        (["select", "DATA", "--pruner", "craig", "--fraction", "0.5"], "name a model and its weights, or .* logits"),
        (["select", "DATA", "--pruner", "aum", "--fraction", "0.5"], "or the trajectory"),
        (["advise", "--cost", "30"], "cost = '30'.*less than or equal to 10"),
        (["select", "DATA", "--pruner", "random", "--fraction", "0.5", "--seed", "1_0"], "seed must be .*'1_0'"),
        (["select", "DATA", "--pruner", "random", "--fraction", "1_0"], "fraction must be .*'1_0'"),
        (["select", "DATA", "--pruner", "random", "--fraction", "0.5", "--steps", "true"], "not True"),
        (
            ["select", "DATA", "--pruner", "random", "--fraction", "0.5", "--picture", "p.png"],
            "no images that could",
        ),
        (["evaluate", "--weights", "WEIGHTS", "--checkpoint", "best"], "--checkpoint and --retrain are of a run"),
        (["evaluate", "--weights", "WEIGHTS", "--retrain"], "--checkpoint and --retrain are of a run"),
        (["collct"], "No such command.*collct"),
    ],
)
def test_other_bad_commands(advprune: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "w.pt").touch()
    np.savez(tmp_path / "d.npz", y=np.arange(20) % 2)
    places = {"WEIGHTS": str(tmp_path / "w.pt"), "DATA": str(tmp_path / "d.npz")}
    arguments = [places.get(name, name) for name in arguments]
    refused(*advprune(*arguments), message)
