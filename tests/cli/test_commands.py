"""The command `advprune`, as people use it: what it prints and writes."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from advprune_core.attacks import ATTACKS
from advprune_core.cli.app import app
from advprune_core.datasets.base import DATASETS
from advprune_core.models.base import MODELS
from advprune_core.objectives.base import OBJECTIVES, TRAINERS
from advprune_core.pruners import PRUNERS
from advprune_core.study import runner
from advprune_core.study.manifest import Manifest
from advprune_core.study.notebooks import DEFAULT_NOTEBOOKS
from advprune_core.study.packed import read_packed, write_packed
from advprune_core.study.runner import StudyResult, run_study
from advprune_core.study.store import RunStore
from advprune_core.study.study import study_config
from advprune_core.trainers.config import flat_fields
from advprune_core.trainers.controls import CONTROLS
from tests.made_up import QUICK, RUN, Command, entry_point, refused, study_options
from tests.tiny import TINY_STUDY

COMMANDS = sorted(typer.main.get_command(app).commands)
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture
def advprune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return entry_point(monkeypatch, capsys)


def snapshot(folder: Path) -> dict[str, int]:
    """When each file was last written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(command: str | None) -> None:
    result = CliRunner().invoke(app, [*([command] if command else []), "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
    for name in [] if command else COMMANDS:
        assert re.search(rf"^ *{name} +\w+", result.output, re.MULTILINE), f"{name} is not described"


def test_version(advprune: Command) -> None:
    code, out, _ = advprune("--version")
    assert (code, out) == (0, f"advprune {importlib.metadata.version('advprune')}\n")


def test_the_commands() -> None:
    assert {"run", "study", "advise", "list", "collect", "evaluate", "export", "gc"} <= set(COMMANDS)


def test_advise_times_this_machine_and_leaves_nothing(advprune: Command, tmp_path: Path) -> None:
    code, out, _ = advprune("advise", "--cost", "0.3", "--dataset", "{digits: {limit: 400}}")
    assert code == 0
    assert re.search(r"Budget: 0\.3 of a full run .* takes \S+ \w+ to \S+ \w+ on this machine", out)
    assert "Do not prune: all the data, trainer n_fgsm (1 attack step" in out
    assert list(tmp_path.iterdir()) == []
    refused(*advprune("advise", "--budget", "20"), "'20' is no length of time: a number and a unit")
    refused(*advprune("advise"), "name one budget")


def test_help_of_run_mentions_every_setting() -> None:
    text = CliRunner().invoke(app, ["run", "--help"]).output
    for name in [*flat_fields(), "trainer", "control", "evaluation", "out", "set", "dry-run"]:
        assert re.search(rf"--{name.replace('_', '-')}\b", text), f"{name} is missing"


FAMILIES: dict[str, Any] = {
    "pruners": PRUNERS,
    "attacks": ATTACKS,
    "trainers": TRAINERS,
    "objectives": OBJECTIVES,
    "models": MODELS,
    "datasets": DATASETS,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_list_has_a_line_for_every_component(advprune: Command, family: str) -> None:
    code, everything, _ = advprune("list")
    assert code == 0
    code, out, _ = advprune("list", family)
    assert code == 0
    for name, component in FAMILIES[family].classes().items():
        for text in (everything, out):
            lines = [line for line in text.splitlines() if line.split()[:1] == [name] and component.summary() in line]
            assert lines, f"{name} is not listed"
        for field in component.model_fields:
            assert re.search(rf"^ {{6}}{field} = ", out, re.MULTILINE), f"{name} does not show {field}"


def test_a_control_of_a_pruner_with_settings_is_planned(advprune: Command) -> None:
    pruned = ["--pruner", "random", "--fraction", "0.4", "--epochs", "5", "--set", "pruner.warmup_epochs=2"]
    code, out, err = advprune("run", *pruned, "--control", "same_cost", "--dry-run")
    assert (code, err) == (0, "")
    assert "same_cost(random warmup_epochs=2)" in out


@pytest.mark.parametrize("length", [["--equal-cost", "true"], ["--warm-start", "0.5"]])
def test_what_has_an_option_may_be_set(advprune: Command, length: list[str]) -> None:
    """A length that follows from epochs follows from those that are asked for, in whatever form."""
    pruned = ["run", "--pruner", "random", "--fraction", "0.4", *length, "--dry-run"]
    costs = [
        re.search(r"at most 1 to train: ([\d,]+) forward", advprune(*pruned, *given)[1])
        for given in (["--epochs", "10"], ["--set", "optimisation.epochs=10"])
    ]
    assert all(costs)
    assert costs[0][1] == costs[1][1]


def test_one_step_may_be_set(advprune: Command) -> None:
    code, _, err = advprune("run", "--objective", "fgsm_pgi", "--set", "attack.steps=1", "--dry-run")
    assert (code, err) == (0, "")


def test_list_has_the_controls(advprune: Command) -> None:
    _, out, _ = advprune("list", "controls")
    for name, text in CONTROLS.items():
        assert re.search(rf"{name} +{re.escape(text)}", out)


def test_dry_run_creates_nothing(advprune: Command, tmp_path: Path) -> None:
    pruned = ["--pruner", "random", "--fraction", "0.5", "--control", "same_cost"]
    code, out, _ = advprune(*RUN, *pruned, "--dry-run")
    assert code == 0
    assert "2 entries" in out
    assert "forward-equivalents" in out
    notebooks = [str(NOTEBOOKS / name) for name in DEFAULT_NOTEBOOKS]
    code, out, _ = advprune("study", *notebooks, *study_options(tmp_path / "r"), "--dry-run")
    assert code == 0
    assert "4 entries" in out
    assert list(tmp_path.iterdir()) == []


def test_timings_are_planned_and_told(advprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebooks = [str(NOTEBOOKS / name) for name in DEFAULT_NOTEBOOKS]
    command = ["study", *notebooks, *study_options(tmp_path / "r", fractions=[1.0], timed_repeats=2)]
    assert "1 trainings more, to time runs alone" in advprune(*command, "--dry-run")[1]
    assert "to time runs alone" not in advprune(*command, "--dry-run", "--shard", "1/1")[1], "a part times nothing"
    made = StudyResult(pd.DataFrame(), trained=1, timed=2)
    monkeypatch.setattr(runner, "run_study", lambda *_, **__: made)
    said = "1 runs trained and 0 evaluated now, and 2 trained once more to be timed alone; the rest was there"
    assert said in advprune(*command, "--shard", "1/1")[1]


def test_what_is_wrong_with_a_later_notebook_is_said_before_any_work(advprune: Command, tmp_path: Path) -> None:
    def notebook(name: str, **options: Any) -> str:
        lines = "\n".join(f"{key} = {value!r}" for key, value in {**TINY_STUDY, **options, "results": None}.items())
        cells = [nbformat.v4.new_code_cell(lines, metadata={"tags": ["parameters"]})]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / name)
        return str(tmp_path / name)

    first, twin = notebook("a.ipynb"), notebook("twin.ipynb")
    command = ["study", first, twin, "--out", str(tmp_path / "r")]
    twice = [{"fractions": [1.0]}, {"fractions": [1.0], "evaluation": ["fgsm"]}]
    refused(*advprune(*command, notebook("b.ipynb", study="b", parts=twice)), "part 1 and part 2 both have")
    same_name = r"a\.ipynb and c\.ipynb have different grids of one name, study = 'tiny'.*-p study=NAME"
    for more in ([], ["--dry-run"], ["--shard", "1/2"]):
        refused(*advprune(*command, notebook("c.ipynb", fractions=[1.0]), *more), same_name)
    assert not (tmp_path / "r").exists()


def test_init_lays_out_what_a_study_finds_by_name(
    advprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = advprune("init", str(tmp_path / "mine"))
    assert code == 0
    course = NOTEBOOKS / "course"
    count = len([*NOTEBOOKS.rglob("[!.]*.ipynb"), *NOTEBOOKS.glob("profiles/*.yaml"), *course.glob("[Re]*.*")])
    assert out.startswith(f"{count} files written to {tmp_path / 'mine' / 'notebooks'}\n")
    code, out, _ = advprune("init", str(tmp_path / "mine"))
    assert (code, f"; {count} were there already and stay as they are\n" in out) == (0, True)
    monkeypatch.chdir(tmp_path / "mine")
    (tmp_path / "mine" / "notebooks" / "profiles" / "own.yaml").write_text("seeds: [7]\n")
    for named in (["own"], ["-f", "own"], ["runtime.ipynb", "own"], ["runtime", "-f", "own"], ["runtime", "own"]):
        code, out, _ = advprune("study", *named, *study_options(tmp_path / "r", fractions=[1.0]), "--dry-run")
        assert code == 0
        assert "2 entries" in out
    (tmp_path / "file").touch()
    refused(*advprune("init", str(tmp_path / "file")), "file/notebooks.* cannot be made .*name another folder")


def test_run_trains_once_and_prints_the_same_again(advprune: Command, tmp_path: Path) -> None:
    pruned = ["--pruner", "random", "--fraction", "0.5", "--control", "same_cost", *QUICK]
    code, first, _ = advprune(*RUN, *pruned)
    assert code == 0
    before = snapshot(tmp_path)
    assert sum(name.endswith("record.json") for name in before) == 2
    passes = re.findall(r"status ok, ([\d,]+) forward-equivalents", first)
    assert passes == ["560", "560"]  # 7 batches of 16, PGD-1 costs 5 an image
    assert len(re.findall(r"clean +\d+\.\d % \[\d+\.\d, \d+\.\d\]", first)) == 2
    assert f"\nsame_cost of random 50 % seed 0 ({CONTROLS['same_cost']}): status ok" in first
    ours, theirs = (float(shown) for shown in re.findall(r"pgd\S* +(\d+\.\d) %", first))
    said = re.search(r"robust accuracy: (\S+) points (\[\S+, \S+\] )?against same_cost over \d+ test images", first)
    assert said is not None
    assert float(said[1]) == pytest.approx(ours - theirs, abs=0.11)
    code, second, _ = advprune(*RUN, *pruned)
    assert (code, second) == (0, first)
    assert snapshot(tmp_path) == before


def test_run_says_how_many_classes_a_rule_left_without_an_image(advprune: Command, tmp_path: Path) -> None:
    """A network as it is drawn ranks images by class."""
    untrained = ["--pruner", "keep_hard", "--set", "pruner.warmup_epochs=0", "--fraction", "0.2"]
    code, out, _ = advprune(*RUN, *untrained, *QUICK)
    (line,) = re.findall(r"keeps (\d+) of (\d+) images, (\d+) of them not by its own rule", out)
    kept, n, filled = map(int, line)
    (key,) = (store := RunStore(tmp_path / "results")).run_keys()
    record = store.run(key)
    assert record is not None
    assert (code, kept, n, filled) == (0, record.kept, record.n, record.n_filled)
    assert 0 < filled < 10
    assert "own rule" not in advprune(*RUN, "--pruner", "random", "--fraction", "0.2", *QUICK)[1]


def test_collect_prints_and_writes_tables(advprune: Command, tmp_path: Path) -> None:
    (tmp_path / "results" / "runs").mkdir(parents=True)
    assert advprune("collect")[:2] == (0, "no runs\n")
    for seed in ("0", "1"):
        assert advprune(*RUN, "--seed", seed, *QUICK, "--out", str(tmp_path / seed))[0] == 0
    folders = [str(tmp_path / "0"), str(tmp_path / "1")]
    code, out, _ = advprune("collect", *folders)
    assert code == 0
    assert len(out.splitlines()) == 3
    for suffix in ("csv", "tex"):
        path = tmp_path / f"all.{suffix}"
        code, out, _ = advprune("collect", *folders, "--out", str(path))
        assert (code, out) == (0, f"2 rows in {path}\n")
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert sorted(row["seed"] for row in rows) == ["0", "1"]
    assert r"\end{tabular}" in (tmp_path / "all.tex").read_text()
    refused(*advprune("collect", *folders, "--out", "all.pdf"), r"must end in \.csv or \.tex")


def test_damaged_record_is_named_and_made_again(advprune: Command, tmp_path: Path) -> None:
    _, first, _ = advprune(*RUN, *QUICK)
    (record,) = tmp_path.rglob("record.json")
    content = record.read_text()
    record.write_text(content[:200])
    with pytest.warns(UserWarning, match=f"{record} is damaged"):
        code, again, _ = advprune(*RUN, *QUICK)
    assert (code, again) == (0, first)
    assert record.with_name("record.json.damaged").read_text() == content[:200]


BROKEN = """
import torch

class Broken(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            raise RuntimeError("out of luck")
        return self.layer(x.flatten(1))
"""


def test_failed_run_is_recorded_and_gives_1(advprune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_network.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = advprune(*RUN, "--model", "broken_network:Broken", *QUICK)
    assert code == 1
    assert "FAILED" in err
    assert "out of luck" in err
    code, out, _ = advprune("collect")
    assert "failed" in out
    monkeypatch.delitem(sys.modules, "broken_network")
    (tmp_path / "broken_network.py").write_text(BROKEN.replace("if self.training", "if False"))
    assert advprune(*RUN, "--model", "broken_network:Broken", *QUICK)[0] == 0


def test_gc_says_first_and_moves_when_told(advprune: Command, tmp_path: Path) -> None:
    advprune(*RUN, *QUICK)
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert advprune("gc")[1] == "nothing to put away\n", "a run that was asked for by itself is nobody's garbage"
    (folder / ".asked_for").unlink()
    code, out, _ = advprune("gc", "--yes")
    assert (code, folder.exists()) == (0, True)
    assert "1 runs stay that no study here names" in out
    manifest = Manifest(study="mine", config={}, entries=[], former=[folder.name])
    RunStore(tmp_path / "results").write_manifest(manifest, tmp_path / "results" / "mine")
    code, out, _ = advprune("gc")
    assert (code, folder.exists()) == (0, True)
    assert f"would move to trash: {folder}" in out
    code, out, _ = advprune("gc", "--yes")
    assert (code, folder.exists()) == (0, False)
    (moved,) = (tmp_path / "results" / "trash").glob("*/runs/*/record.json")
    assert moved.parent.name == folder.name
    assert advprune("gc")[1] == "nothing to put away\n"
    (mine := tmp_path / "results" / "trash" / "thesis.txt").write_text("mine")
    code, out, _ = advprune("gc", "--empty")
    assert (code, moved.exists(), mine.exists()) == (0, False, True)
    assert f"1 folders deleted from {tmp_path / 'results' / 'trash'}; {mine} stays" in out
    (elsewhere := tmp_path / "elsewhere" / "trash" / "2026-01-01_00-00-00").mkdir(parents=True)
    refused(*advprune("gc", "--empty", "--out", str(tmp_path / "elsewhere")), "is not a results folder")
    assert elsewhere.exists()


def test_check_says_what_was_altered(advprune: Command, tmp_path: Path) -> None:
    advprune(*RUN, *QUICK)
    assert advprune("check")[:2] == (0, f"{tmp_path / 'results'}: 1 runs, all as they were written\n")
    (record,) = tmp_path.rglob("record.json")
    record.write_text(record.read_text().replace('"status": "ok"', '"status": "collapsed"'))
    code, out, _ = advprune("check")
    assert code == 1
    assert f"{record}: its content is not the one" in out
    assert "trained again" in out


def test_import_brings_an_export_back(advprune: Command, tmp_path: Path) -> None:
    config = study_config({**TINY_STUDY, "results": str(tmp_path / "results")})
    run_study(config, progress=False)
    code, out, _ = advprune("export", "tiny", str(tmp_path / "copy"))
    assert (code, out) == (0, f"3 runs of tiny in {tmp_path / 'copy'}\n")
    assert "static random subset, 50 %" in (tmp_path / "copy" / "README.md").read_text()
    assert advprune("collect", str(tmp_path / "copy"), "--study", "tiny")[1].count("random") >= 4
    code, out, _ = advprune("import", str(tmp_path / "copy"), "--out", str(tmp_path / "other"))
    assert (code, out) == (0, f"3 runs imported into {tmp_path / 'other'}\n")
    store = RunStore(tmp_path / "other")
    manifest = store.manifest("tiny")
    moved = [entry.model_copy(update={"seed": 7}) for entry in manifest.entries]
    store.write_manifest(manifest.model_copy(update={"entries": moved}), store.results / "tiny")
    out = advprune("import", str(tmp_path / "copy"), "--out", str(tmp_path / "other"))[1]
    assert f"{store.results / 'tiny' / 'manifest.json'} stays as it is" in out
    (run, *_) = sorted((tmp_path / "other" / "runs").iterdir())
    again = ["evaluate", run.name, "--attack", "fgsm", "--out", str(tmp_path / "other")]
    refused(*advprune(*again), "advprune evaluate --retrain")
    assert advprune(*again, "--retrain")[0] == 0
    packed = tmp_path / "copy" / "records.jsonl.gz"
    records = {name: json.loads(text) for name, text in read_packed(packed).items()}
    write_packed(packed, {**records, f"runs/{run.name}/record.json": {}})
    code, _, told = advprune("import", str(tmp_path / "copy"), "--out", str(tmp_path / "third"))
    assert code == 1
    assert "REFUSED" in told


@pytest.mark.slow
def test_study_executes_its_notebooks_and_prints_the_table(advprune: Command, tmp_path: Path) -> None:
    options = {**TINY_STUDY, "fractions": [1.0], "colour": "blue"}
    lines = "\n".join(f"{name} = None" for name in [*options, "results"])
    cells = [nbformat.v4.new_code_cell(lines, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("colour")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(options))
    command = ["study", str(tmp_path / "mine.ipynb"), str(tmp_path / "p.yaml"), "--out", str(tmp_path / "r")]
    code, out, _ = advprune(*command)
    assert code == 0
    assert "1 runs trained and 1 evaluated" in out
    assert re.search(r"random +100 % +1 ", out)
    executed = nbformat.read(tmp_path / "r" / "tiny" / "mine.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == "'blue'"
    code, again, _ = advprune(*command)
    assert code == 0
    assert "0 runs trained and 0 evaluated" in again
    assert again.splitlines()[:3] == out.splitlines()[:3]


CHOOSING = {
    "variants": {name: {"optimisation.lr": lr} for name, lr in (("a", 0.01), ("b", 0.1), ("c", 0.2))},
    "settings": {"optimisation.cost_budget": 3000},
    "epochs": 100,
    "fractions": [1.0],
    "controls": [],
    "choice_seeds": [7],
    "top": 1,
    "textbook": ["a: random"],
    "goals": [0.5],
}


@pytest.mark.slow(seconds=20)
def test_a_study_that_chooses_trains_only_what_it_has_chosen(advprune: Command, tmp_path: Path) -> None:
    """Not its whole grid with the seeds of the test, which is what choosing is to save."""
    profile = tmp_path / "p.yaml"
    profile.write_text(yaml.safe_dump({**TINY_STUDY, **CHOOSING, "notebooks": ["speedrun"], "seeds": [0, 1]}))
    command = ["study", str(profile), "--out", str(tmp_path / "r")]
    code, planned, _ = advprune(*command, "--dry-run")
    assert code == 0
    ranking, then = planned.split("Then the first places of the ranking, of:")
    assert "3 entries, at most 3 to train" in ranking
    assert "6 entries, at most 6 to train" in then
    assert not (tmp_path / "r").exists()
    code, out, _ = advprune(*command)
    assert code == 0
    ranked, tested = (RunStore(tmp_path / "r").manifest(name) for name in ("tiny_choice", "tiny"))
    assert [(entry.arm[0], entry.seed) for entry in ranked.entries] == [("a", 7), ("b", 7), ("c", 7)]
    arms = {entry.arm[0] for entry in tested.entries}
    assert "a" in arms
    assert len(arms) < 3
    assert {entry.seed for entry in tested.entries} == {0, 1}
    assert f"{len(tested.entries)} runs trained and {len(tested.entries)} evaluated now" in out
    assert (tmp_path / "r/tiny/speedrun.ipynb").exists()
    _, planned, _ = advprune(*command, "--dry-run")
    assert planned.count("at most 0 to train") == 2, "what was not chosen is not to do"
    _, planned, _ = advprune(*command, "--dry-run", "-p", "settings.optimisation.cost_budget=4000")
    assert "at most 3 to train" in planned
    assert "at most 6 to train" in planned, "another ranking has chosen nothing yet"


def test_what_chooses_is_not_carried_out_in_parts_nor_tested(advprune: Command, tmp_path: Path) -> None:
    profile = tmp_path / "p.yaml"
    profile.write_text(yaml.safe_dump({**TINY_STUDY, **CHOOSING, "notebooks": ["speedrun"]}))
    command = ["study", str(profile), "--out", str(tmp_path / "r")]
    refused(*advprune(*command, "--shard", "1/2"), "--shard: speedrun.ipynb chooses by its first runs")
    refused(*advprune(*command, "-p", "choice_seeds=[0]"), r"choice_seeds: \[0\] are among the seeds")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow(seconds=15)
def test_own_photographs_a_torchvision_network_and_weights_to_start_from(advprune: Command, tmp_path: Path) -> None:
    """README's command, on images of mixed sizes; then once more from what it has learnt."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("test", 5)):
        for label in range(3):
            folder = tmp_path / "mine" / part / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.zeros((*rng.integers(20, 60, 2), 3), np.uint8)
                pixels[..., label] = rng.integers(100, 200)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    model = "{torchvision.models:resnet18: {num_classes: 3}}"
    brief = ["--epochs", "1", "--steps", "1", "--evaluation", "{pgd: {steps: 2}}", "--out", str(tmp_path / "r")]
    data = {size: f"{{folder: {{path: {tmp_path / 'mine'}, size: {size}, fit: pad}}}}" for size in (32, 64)}
    with pytest.warns(UserWarning, match="batch_size = 64, but there are only 26 training images"):
        code, out, _ = advprune("run", "--dataset", data[32], "--model", model, "--lr", "1e-9", *brief)
    assert code == 0
    (doubt,) = [line for line in out.splitlines() if "in doubt: clean accuracy is at chance" in line]
    assert doubt.endswith("only 1 step: train for more epochs, or with a smaller --batch-size")  # it has learnt nothing
    (weights,) = (tmp_path / "r" / "runs").glob("*/last.pt")
    start = ["--init", str(weights), "--batch-size", "13"]
    code, out, _ = advprune("run", "--dataset", data[64], "--model", model, *start, *brief)
    assert (code, "status ok" in out) == (0, True)
    refused(
        *advprune("run", "--dataset", data[32], "--init", str(weights), *brief, "--batch-size", "26"),
        "does not fit the model: it lacks",
    )
    refused(
        *advprune("run", "--dataset", data[32], "--model", "torchvision.models:resnet18", "--batch-size", "26"),
        "num_classes: 3",
    )
