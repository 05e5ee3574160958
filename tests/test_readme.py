"""The README: its code runs, what it shows is what the committed records say, its links exist."""

from __future__ import annotations

import importlib
import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pandas as pd
import pytest

from advprune_core import attacks, objectives
from advprune_core.analysis.comparisons import Comparison
from advprune_core.analysis.estimates import Estimate
from advprune_core.attacks.base import ATTACKS
from advprune_core.attacks.evaluate import evaluate
from advprune_core.datasets.base import load_dataset
from advprune_core.models.base import MODELS, build_model
from advprune_core.objectives.base import OBJECTIVES
from advprune_core.objectives.steps import STEPS
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.study.notebooks import find_notebook, find_profile, is_profile
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from benchmarks import autoattack
from tests.committed import answer_rows, paid
from tests.first_screens import ANSWERS, FIRST_CELLS
from tests.front_page import SHOWN, filled
from tests.reference import REFERENCE, STUDIES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_library_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    digits = load_dataset({"digits": {"limit": 600, "test_limit": 100}})
    names = {
        "x_train": digits.train.images.numpy(),
        "y_train": digits.train.labels.numpy(),
        "x_test": digits.test.images.numpy(),
        "y_test": digits.test.labels.numpy(),
    }
    exec(BLOCKS[0], names)
    output = capsys.readouterr().out
    assert re.search(r"clean 0\.\d+, robust 0\.\d+", output)
    assert len(BLOCKS[0].strip().splitlines()) <= 15


def test_the_own_pruner_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PRUNERS, "_classes", dict(PRUNERS.classes()))
    names: dict[str, object] = {}
    exec(BLOCKS[1], names)
    digits = load_dataset("digits")
    context = Context(dataset=digits, fraction=0.3, seed=0)
    selection = PRUNERS.parse("brightest").select(context)
    assert len(selection) == context.k
    light = digits.train.images.mean((1, 2, 3))
    assert light[selection.indices].mean() > light.mean()
    body = BLOCKS[1][BLOCKS[1].index("@PRUNERS") :].strip().splitlines()
    assert len(body) <= 15


def test_the_own_objective_and_steps_of_their_page_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (OBJECTIVES, STEPS):
        monkeypatch.setattr(registry, "_classes", dict(registry.classes()))
    # As files of their own: the source of what is trained with is part of a run's key.
    examples = re.findall(r"::\n\n((?:    .*\n|\n)+)", str(objectives.__doc__))
    assert len(examples) == 2
    for number, block in enumerate(map(dedent, examples)):
        source = tmp_path / f"own_part_{number}.py"
        source.write_text(block)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.import_module(source.stem)
        assert len(block[block.index("@") :].strip().splitlines()) <= 15
    config = RunConfig.flat(objective="hinge", start="carried", steps="curriculum", epochs=7)
    dataset = load_dataset({"digits": {"limit": 600, "test_limit": 100}})
    result = train(config, dataset)
    assert result.status == "ok"
    # Five epochs of one step, two of two; 2k + 3 an image.
    drawn = [row["images"] for row in result.metrics]
    assert result.ledger["passes"]["train"] == pytest.approx(5 * sum(drawn[:5]) + 7 * sum(drawn[5:]), rel=0.03)
    assert result.metrics[-1]["train_loss"] < 0.5 * result.metrics[0]["train_loss"]


def test_the_own_attack_of_its_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ATTACKS, "_classes", dict(ATTACKS.classes()))
    (block,) = re.findall(r"::\n\n((?:    .*\n|\n)+)", str(attacks.__doc__))
    (tmp_path / "own_attack.py").write_text(dedent(block))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_attack")
    digits = load_dataset({"digits": {"limit": 600, "test_limit": 100}})
    result = train(RunConfig.flat(trainer="fgsm", epochs=3), digits)
    model = build_model(MODELS.parse("small_cnn"), digits)
    model.load_state_dict(result.last)
    weak, strong = (
        evaluate(model, digits.test, [spec], eps=2 / 16).robust.mean() for spec in ("fgsm", {"twice": {"steps": 5}})
    )
    assert strong < weak


@pytest.mark.parametrize(
    "path",
    [
        # The front page is made of all the studies.
        pytest.param(path, marks=pytest.mark.slow(seconds=100) if path == ROOT / "README.md" else ())
        for path in SHOWN
    ],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_what_is_shown_is_what_records_and_code_say(path: Path) -> None:
    assert filled(path) == path.read_text(), "write it again: `python -m tests.front_page`"


def test_every_experiment_with_a_published_study_answers_its_question() -> None:
    assert {path.stem for path in FIRST_CELLS} >= set(ANSWERS)
    published = {path.name for path in REFERENCE.glob("*/*.ipynb")}
    assert {f"{name}.ipynb" for name in ANSWERS} == published
    for name in set(ANSWERS) - {"runtime"}:  # the range of its timings is no interval over seeds
        assert re.search(r"\[[-+]?[0-9.]+, [-+]?[0-9.]+\]", ANSWERS[name]()), name


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(TEXT.splitlines()) <= 160


def test_the_comparison_of_autoattack_is_the_committed_one() -> None:
    tables = [pd.read_csv(REFERENCE / "autoattack" / f"{name}.csv") for name in ("comparison", "seeds")]
    assert (REFERENCE / "autoattack" / "README.md").read_text() == autoattack.page(*tables)


def test_every_notebook_and_result_is_in_the_table() -> None:
    for path in [*ROOT.glob("notebooks/*.ipynb"), *(path for path in REFERENCE.iterdir() if path.is_dir())]:
        assert f"]({path.relative_to(ROOT)})" in TEXT, path
    named = [name for cell in re.findall(r"\.ipynb\): ([^|;]+)", TEXT) for name in re.findall(r"`(\w+)`", cell)]
    assert {"digits", "pruners", "convergence_reliability"} <= set(named)
    for name in named:
        if is_profile(name):
            assert (f"`{name}` (not run yet)" in TEXT) == (name not in STUDIES), name
        assert (find_profile if is_profile(name) else find_notebook)(name).exists(), name


def test_links_and_targets_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make (\w+)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"test", "cluster", "bench"} <= set(extras)


def test_a_second_look_at_the_seeds_of_a_row_counts() -> None:
    known = Comparison(Estimate(0.01, 0.0, 0.02, 20), 20, p=0.02, p_images=0.7)
    for name, looks in (("digits, least", 2), ("digits, L2, least", 1)):
        found = paid(name, known)
        assert (found.p, found.p_images) == (pytest.approx(0.02 * looks), pytest.approx(min(1.0, 0.7 * looks)))
        unknown = paid(name, replace(known, p_images=float("nan")))
        assert math.isnan(unknown.p_images)
    row = answer_rows()["digits, least"]
    assert row.verdict.p >= 2 * row.case.comparison.p_images > 0
