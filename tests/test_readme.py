"""The README: its code runs, its table is that of the committed records, its links exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from advprune_core.data import load_dataset
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.statistics import markdown, paired_difference, printable, summary
from advprune_core.table import collect

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


def test_the_table_is_that_of_the_committed_records() -> None:
    between = TEXT.split("<!-- table: results/reference/digits -->")[1].split("<!-- end of table -->")[0]
    table = collect(ROOT / "results" / "reference" / "digits", study="digits")
    assert between.strip() == markdown(printable(table))


def test_what_is_said_of_the_study_is_what_its_records_show() -> None:
    table = collect(ROOT / "results" / "reference" / "digits", study="digits")
    assert "at 60 % and less it loses more than a shorter run" in TEXT
    worse = {f: paired_difference(table, "random", "same_cost(random)", fraction=f) for f in (0.8, 0.6, 0.4, 0.2)}
    assert [fraction for fraction, difference in worse.items() if difference.high < 0] == [0.6, 0.4, 0.2]
    full = summary(table).query("arm == 'random'").set_index("fraction")["robust"]
    assert (full.drop(1.0) < full[1.0]).all()


def test_links_and_targets_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make (\w+)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"test", "cluster", "bench"} <= set(extras)
