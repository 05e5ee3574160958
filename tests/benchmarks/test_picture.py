"""The figure of the table can be printed, and shows every row, wherever its ratio lies."""

from __future__ import annotations

import pandas as pd

from advprune_core.analysis.style import GREY
from benchmarks.bench import known_ceilings
from benchmarks.picture import LABEL, draw, lines
from tests.analysis.figure_checks import faults
from tests.reference import REFERENCE

FOLDER = REFERENCE / "benchmarks"


def rows(*ratios: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "work": "PGD-10",
            "setting": [f"network {number}; exact" for number, _ in enumerate(ratios)],
            "peer": "ART",
            "ratio": ratios,
            "target": 2.0,
            "met": ["yes" if ratio >= 2.0 else "no" for ratio in ratios],
            "device": "a CPU",
        }
    )


def test_the_committed_table_can_be_printed() -> None:
    assert faults(draw(pd.read_csv(FOLDER / "benchmarks.csv"), known_ceilings(FOLDER))) == []


def test_ratios_far_from_their_targets_stay_inside() -> None:
    figure = draw(rows(0.01, 1.9, 2.0, 5000.0), known_ceilings(FOLDER))
    assert faults(figure) == []
    (axis,) = figure.axes
    marks = [
        (line.get_marker(), line.get_markerfacecolor()) for line in axis.lines if line.get_marker() not in ("None", "|")
    ]
    assert [mark for mark, _ in marks] == ["D", "D", "D", ">"]
    assert [face == "white" for _, face in marks] == [True, True, False, False], "what is not met is hollow"


def test_what_is_open_is_neither_met_nor_missed() -> None:
    (axis,) = draw(rows(1.9, 2.1).assign(met="after 1 rounds only"), known_ceilings(FOLDER)).axes
    assert {line.get_color() for line in axis.lines if line.get_marker() == "D"} == {GREY}


def test_works_are_headings() -> None:
    found = lines(rows(1.0, 2.0))
    assert [(label, own is None) for label, own in found] == [
        ("PGD-10", True),
        ("network 0; exact", False),
        ("network 1; exact", False),
    ]


def test_a_long_setting_has_all_its_words_on_as_many_lines_as_it_needs() -> None:
    setting = "word " * 30 + "; 20%"
    (_, (label, _)) = lines(rows(1.0).assign(setting=setting))
    assert label.split() == setting.split()
    assert max(map(len, label.splitlines())) <= LABEL
    figure = draw(pd.concat([rows(1.0, 2.0), rows(1.5).assign(setting=setting)]), known_ceilings(FOLDER))
    assert faults(figure) == []
