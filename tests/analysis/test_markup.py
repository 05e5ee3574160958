"""Names that are no markup: in Markdown and HTML, by a renderer of its own, and in figures."""

from __future__ import annotations

import html
import re
from io import BytesIO

import mistune
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from advprune_core.analysis.findings import accuracy_findings, pair_findings
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.plots import accuracy_vs_fraction, robust_vs_cost
from advprune_core.analysis.summaries import markdown
from advprune_core.analysis.trainer_findings import trainer_findings

NASTY = [
    "a|b",
    "*bold* _it_ __b__ ~~gone~~",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[here](javascript:alert(1))",
    "![picture](http://example.org/x.png)",
    "`code` & &lt; \\ \\| \\\\",
    "$x^2$ and $\\frac{",
    "two\nlines",
    "same_cost(random)",
]


def shown(text: str) -> str:
    """What a reader sees of Markdown, whose HTML a browser has read."""
    rendered = str(mistune.create_markdown(escape=False, plugins=["table", "strikethrough"])(text))
    assert not re.search(r"<(script|img|a|del|code)\b", rendered), rendered
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", rendered)).split())


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_shown_as_it_is(name: str) -> None:
    assert shown(f"about {escape(name)} and more") == f"about {name} and more".replace("\n", " ")
    table = markdown(pd.DataFrame({"arm": [name, "b"], "x": ["1", "2"]}))
    assert len({line.replace(r"\|", "").count("|") for line in table.splitlines()}) == 1
    assert name.replace("\n", " ") in shown(table)


@pytest.mark.parametrize("name", ["PGD-AT [7 steps]", "a]", "[", "_x_", "a: b"])
def test_an_arm_begins_with_its_way_of_training(name: str) -> None:
    """By that the arms of a way, and their controls, are found."""
    named = with_names(pd.DataFrame({"arm": [f"{name}: same_cost(random)"], "variant": [name]}), escape).iloc[0]
    assert named["arm"] == f"{named['variant']}: same_cost(random)"


@settings(max_examples=200, derandomize=True)
@given(st.text(alphabet="ab1_ *|<>&$~`\\[]()!:#-.\n/", min_size=1).filter(lambda name: name.strip()))
def test_no_name_is_markup(name: str) -> None:
    assert shown(f"about {escape(name)} and more") == " ".join(f"about {name} and more".split())


def test_what_is_in_use_stays_readable() -> None:
    for name in (
        "same_cost(random)",
        "random balanced=True",
        "PGD-AT, 10 steps: grad_match lam=0.5",
        "97.3 [96.9, 97.6]",
    ):
        assert escape(name) == name


def table(name: str) -> pd.DataFrame:
    """A study of two ways of training, one of them of that name."""
    rows = [
        {
            "arm": f"{way}: {arm}",
            "variant": way,
            "pruner": "random" if fraction < 1 else "full",
            "fraction": fraction,
            "matched_fraction": fraction,
            "seed": seed,
            "control": None,
            "status": "ok",
            "key": f"{way}{arm}{fraction}{seed}",
            "clean": 0.9 + 0.01 * seed,
            "robust": 0.5 + 0.02 * seed + 0.1 * fraction,
        }
        for way in (name, "PGD-AT")
        for arm in ("random",)
        for fraction in (1.0, 0.5)
        for seed in range(3)
    ]
    facts = {"cost": 100.0, "n": 10, "objective": "pgd_at", "dataset": "digits", "model": "small_cnn"}
    return pd.DataFrame(rows).assign(**facts, norm="linf", eps=0.1, robust_pgd=0.5, val_pgd_best=0.5)


@pytest.mark.parametrize("name", NASTY)
def test_findings_and_figures_show_names(name: str) -> None:
    known = table(name)
    said = [
        accuracy_findings(known),
        trainer_findings(known),
        pair_findings(known, [(f"{name}: random", "PGD-AT: random")]),
    ]
    for text in said:
        assert name.replace("\n", " ") in shown(text)
    for figure in (accuracy_vs_fraction(known), robust_vs_cost(known)):
        assert isinstance(figure, Figure)
        figure.savefig(BytesIO(), format="svg")


def test_specifications_stay_what_they_are() -> None:
    cell = '{"mine:_Own": {"file": "~/$s"}}'
    assert with_names(pd.DataFrame({"arm": ["_a_"], "pruner": [cell]}), escape)["pruner"].tolist() == [cell]


def test_dollars_are_no_formula() -> None:
    assert plain("$x$") == r"\$x\$"
    assert with_names(pd.DataFrame({"arm": ["$a$", None], "x": ["$", "$"]}), plain)["x"].tolist() == ["$", "$"]


def test_what_is_missing_is_empty() -> None:
    table = pd.DataFrame({"arm": ["a", "b"], "x": ["1.0", None], "y": [float("nan"), 2.5]})
    assert markdown(table).splitlines()[2:] == ["| a | 1.0 |  |", "| b |  | 2.5 |"]
