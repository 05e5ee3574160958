"""The README: its code runs, its table is that of the committed records, its links exist."""

from __future__ import annotations

import importlib
import re
import runpy
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from advprune_core.analysis.findings import accuracy_findings
from advprune_core.analysis.summaries import after_attacks, markdown, printable, printable_ways
from advprune_core.analysis.verdicts import BETTER, BETTER_HERE, WORSE, WORSE_HERE, compare, judge
from advprune_core.datasets.base import load_dataset
from advprune_core.objectives.base import OBJECTIVES
from advprune_core.objectives.steps import STEPS
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.study.table import collect, collect_timings
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train

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


def test_the_own_objective_and_attack_policy_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (OBJECTIVES, STEPS):
        monkeypatch.setattr(registry, "_classes", dict(registry.classes()))
    # As files of their own: the source of what is trained with is part of a run's key.
    for number, block in enumerate(BLOCKS[2:4]):
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


def trainers(table: pd.DataFrame) -> pd.DataFrame:
    return printable_ways(table, collect_timings(ROOT / "results" / "reference" / "trainers", study="trainers"))


@pytest.mark.parametrize(
    ("study", "shown"), [("digits", printable), ("trainers", trainers), ("digits_autoattack", after_attacks)]
)
def test_tables_are_those_of_the_committed_records(study: str, shown: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    between = TEXT.split(f"<!-- table: results/reference/{study} -->")[1].split("<!-- end of table -->")[0]
    table = collect(ROOT / "results" / "reference" / study, study=study)
    assert between.strip() == markdown(shown(table))


def test_the_comparison_of_autoattack_is_the_committed_one() -> None:
    folder = ROOT / "results" / "reference" / "autoattack"
    tables = [pd.read_csv(folder / f"{name}.csv") for name in ("comparison", "seeds")]
    between = TEXT.split("<!-- table: results/reference/autoattack -->")[1].split("<!-- end of table -->")[0]
    script = runpy.run_path(str(ROOT / "benchmarks" / "autoattack.py"))
    assert between.strip() == markdown(script["printable"](*tables))


def test_findings_are_those_of_the_committed_records() -> None:
    between = TEXT.split("<!-- findings: results/reference/freshness -->")[1].split("<!-- end of findings -->")[0]
    table = collect(ROOT / "results" / "reference" / "freshness", study="freshness")
    assert between.strip() == accuracy_findings(table)
    assert table["seed"].nunique() >= 8
    arms = {way: (f"{way}: random", f"{way}: same_cost(random)") for way in table["variant"].unique()}
    verdicts = judge({way: compare(table, *pair, fraction=0.1) for way, pair in arms.items()})
    says = verdicts["carried, 1 step"].says
    heading = re.search(r"\*\*Where pruning wins at equal cost(.*?)\.\*\*", TEXT)
    assert heading is not None
    assert says in (BETTER, BETTER_HERE)
    assert heading[1] == (", on these test images" if says == BETTER_HERE else "")


def test_what_is_said_of_the_study_is_what_its_records_show() -> None:
    table = collect(ROOT / "results" / "reference" / "digits", study="digits")
    fractions = (0.8, 0.6, 0.4, 0.2)
    loss = {("full", f): compare(table, "random", "random", fraction=f, reference_fraction=1.0) for f in fractions}
    control = {("control", f): compare(table, "random", "same_cost(random)", fraction=f) for f in fractions}
    verdicts = judge(loss | control)
    assert all(verdict.comparison.difference.mean < 0 for verdict in verdicts.values())
    said = {WORSE: "beyond chance", WORSE_HERE: "on these test images"}
    shown = {key: said[verdict.says] for key, verdict in verdicts.items() if verdict.says in said}
    text = " ".join(TEXT.split())
    assert "A static random subset loses robustness, beyond chance at 60 % and less." in text
    assert {f: told for (rival, f), told in shown.items() if rival == "full"} == dict.fromkeys(
        (0.6, 0.4, 0.2), "beyond chance"
    )
    assert "loses less: beyond chance at 20 %, on these test images at 60 %." in text
    assert {f: told for (rival, f), told in shown.items() if rival == "control"} == {
        0.2: "beyond chance",
        0.6: "on these test images",
    }


def test_links_and_targets_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make (\w+)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"test", "cluster", "bench"} <= set(extras)
