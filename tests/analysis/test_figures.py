"""Every committed figure, drawn from its records as notebooks and exports draw it, is fit to be printed."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.made_up import study_table, trainers_table

mpl.use("agg")

import matplotlib.pyplot as plt

from advprune_core.analysis.cells import settings, threat
from advprune_core.analysis.decomposition import decomposition_figure
from advprune_core.analysis.dots import accuracy_dots
from advprune_core.analysis.figures import FIGURES, figures_of, redraw
from advprune_core.analysis.gallery import gallery
from advprune_core.analysis.plots import accuracy_vs_fraction, robust_vs_cost
from advprune_core.analysis.report import _figures
from advprune_core.analysis.style import COLUMN, PAGE, canvas, in_lines, looks, pruner_look, styled, trainer_look, write
from advprune_core.datasets.splits import Split
from advprune_core.objectives.base import OBJECTIVES
from advprune_core.pruners.base import PRUNERS
from advprune_core.pruners.selection import Selection
from tests.analysis.figure_checks import as_deuteranopes_see, faults, texts
from tests.committed import answer_rows, asks, of
from tests.front_figure import gains
from tests.reference import REFERENCE, STUDIES

DRAWN = [(study, name) for study in STUDIES for name in figures_of(REFERENCE / study)]
PICTURES = sorted(REFERENCE.glob("**/*.png"))
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def says(figure: Any) -> str:
    return " ".join(" ".join(text.get_text() for text in texts(figure)).split())  # wherever a line ends


def check(figure: Any, table: pd.DataFrame) -> None:
    assert faults(figure) == []
    said = says(figure)
    assert all(threat(rows) in said for _, rows in settings(table)), "every threat model stands there"
    assert re.search(r"\bseeds?\b|of \d+ runs", said), "and how many runs"


@pytest.mark.parametrize(("study", "name"), DRAWN, ids=["/".join(place) for place in DRAWN])
def test_committed_figures_can_be_printed(study: str, name: str) -> None:
    check(FIGURES[name].draw(REFERENCE / study, study), of(study))


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_figures_of_a_report_can_be_printed(study: str) -> None:
    for draw in _figures(of(study)).values():
        check(draw(of(study)), of(study))


def test_the_figure_of_the_benchmark_can_be_printed() -> None:
    spec = importlib.util.spec_from_file_location("selection_benchmark", BENCHMARKS / "selection.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert faults(module.draw(pd.read_csv(REFERENCE / "selection" / "selection.csv"))) == []


def test_the_figure_of_the_front_page_has_every_row_of_its_table_with_its_verdict() -> None:
    rows = list(answer_rows().values())
    figure = gains(answer_rows())
    assert faults(figure) == []
    robust, clean = figure.axes
    drawn = [[line for line in axis.lines if line.get_marker() in "^ovD"] for axis in (robust, clean)]
    assert [line.get_xdata()[0] for line in drawn[0]] == [100 * row.case.comparison.difference.mean for row in rows]
    assert [line.get_xdata()[0] for line in drawn[1]] == [100 * row.case.clean.mean for row in rows]
    assert ["vo^".index(line.get_marker()) - 1 for line in drawn[0]] == [
        row.verdict.says.startswith("better") - row.verdict.says.startswith("worse") for row in rows
    ]
    bottom, top = robust.get_ylim()
    assert top < bottom, "the first row is at the top"
    heads = [tick.get_text() for tick in robust.get_yticklabels() if tick.get_fontweight() == "bold"]
    assert heads == list(dict.fromkeys(asks(name) for name in answer_rows()))
    assert len(heads) == 3, "a group has its rows together"


@pytest.mark.parametrize(("shape", "columns"), [((1, 8, 8), 6), ((3, 32, 32), 10), ((1, 12, 9), 1)])
def test_galleries_are_as_wide_as_a_page(shape: tuple[int, ...], columns: int) -> None:
    split = Split(torch.zeros(40, *shape), torch.arange(40) % 10)
    figure = gallery(split, Selection(np.arange(0, 40, 3)), columns=columns, title="keep_easy")
    assert faults(figure) == []
    assert figure.get_figwidth() == PAGE
    left, right = figure.axes
    for axis in (left, right):
        frame = axis.get_window_extent()
        assert frame.width > 0.8 * figure.bbox.width / 2, "images fill the page"


@pytest.mark.parametrize("path", PICTURES, ids=[f"{path.parent.name}/{path.name}" for path in PICTURES])
def test_committed_files_have_a_size_of_print_and_a_vector_beside_them(path: Path) -> None:
    with Image.open(path) as picture:
        width = picture.width / picture.info["dpi"][0]
    assert min(abs(width - named) for named in (COLUMN, PAGE)) < 0.01, f"{width} inches"
    for file in (path, path.with_suffix(".svg")):
        assert 1_000 < file.stat().st_size < 2_000_000
    assert path.stem in FIGURES or path.stem in ("selection", "benchmarks", "answer"), "nobody could draw it anew"


POINTS = {("random", f): [(0.9, base + d) for d in (0, 0.02, 0.04)] for f, base in ((1.0, 0.7), (0.5, 0.6))}
POINTS |= {("same_cost(random)", f): [(0.9, r + 0.01) for _, r in POINTS["random", f]] for f in (1.0, 0.5)}
WAYS = {
    ("PGD-AT", "pgd_at", 1.0): (17.0, [0.70, 0.74]),
    ("PGD-AT", "pgd_at", 0.4): (6.8, [0.62, 0.64]),
    ("TRADES", "trades", 1.0): (27.0, [0.71, 0.73]),
}


@pytest.mark.parametrize("letters", range(8, 24))
def test_no_line_parts_a_number_from_its_per_cent_sign(letters: int) -> None:
    text = "plain first, 20 % wrong: aum, 80 %"
    lines = in_lines(text, letters).split("\n")
    assert " ".join(lines) == text
    assert all(len(line) <= letters for line in lines)
    assert not any(line.startswith("%") for line in lines)
    assert in_lines("a random fifth (20 seeds)", 10 + letters).endswith("(20 seeds)")


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (accuracy_vs_fraction, study_table(POINTS)),
        (accuracy_dots, study_table(POINTS)),
        (decomposition_figure, study_table(POINTS).assign(pruner="random")),
        (robust_vs_cost, trainers_table(WAYS)),
    ],
    ids=["accuracy_vs_fraction", "accuracy_dots", "decomposition", "robust_vs_cost"],
)
def test_no_panel_has_two_threat_models(draw: Callable[[pd.DataFrame], Any], table: pd.DataFrame) -> None:
    """Robust accuracies are above one half at the one radius, and below it at the other."""
    hard = table.assign(eps=0.1875, robust=table["robust"] - 0.5, key=table["key"] + " hard")
    hard = hard.assign(robust_pgd40=hard["robust"])
    if "variant" in table:
        hard = hard.assign(arm="hard " + hard["arm"], variant="hard " + hard["variant"])
    both = pd.concat([table, hard], ignore_index=True)
    figure = draw(both)
    check(figure, both)
    sides = []
    for axis in figure.axes:
        marks = [line for line in axis.lines if line.get_marker() not in ("None", None, "", ".", "|", "_")]
        values = np.concatenate([np.concatenate([np.ravel(part) for part in line.get_data()]) for line in marks])
        accuracies = values[(values >= 10) & (values < 85) & (np.abs(values - 90) > 1e-6)]
        if "clean" not in axis.get_title() and not axis.get_xlabel().startswith("cost"):
            sides.append({bool(value > 50) for value in accuracies})
    assert all(len(side) == 1 for side in sides)
    assert {True, False} == set().union(*sides)
    lines = [
        line for axis in figure.axes for line in axis.lines if line.get_zorder() == 0 and len(line.get_xdata()) > 1
    ]
    assert not any(np.ptp(np.asarray(line.get_ydata(), float)) > 40 for line in lines), "no front leads across them"


def test_the_single_run_on_all_data_is_drawn_once() -> None:
    points = {(arm, f): [(0.9, 0.8 if f == 1 else 0.6 - 0.05 * place)] * 2
              for place, arm in enumerate(("random", "redraw", "keep_easy")) for f in (1.0, 0.6, 0.2)}  # fmt: skip
    cost, *panels = robust_vs_cost(study_table(points).assign(n=100)).axes
    assert sum(line.get_ydata()[0] == 80 for line in cost.lines if line.get_marker() != "None") == 1
    assert [axis.get_title() for axis in panels] == ["60 % of the data", "20 % of the data"]
    for axis in panels:
        assert len(axis.get_yticks()) == 3
        assert [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"] == [80]
        means = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "None"]
        places = [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "None"]
        order = [mean for _, mean in sorted(zip(places, means, strict=True))]
        assert order == sorted(order, reverse=True), "the highest is at the top"
    assert panels[0].get_xlim() == panels[1].get_xlim(), "a distance is the same accuracy in both"


def test_a_few_controls_have_their_rows_beside_however_many_arms() -> None:
    arms = ["random", "same_cost(random)", *(f"score score={n}" for n in range(12))]
    table = study_table({(arm, 0.2): [(0.9, 0.5 + place / 100)] * 2 for place, arm in enumerate(arms)}).assign(n=100)
    *_, ranks = robust_vs_cost(table).axes
    assert len(ranks.get_yticklabels()) == len(arms)
    assert sum("fewer epochs" in label.get_text() for label in ranks.get_yticklabels()) == 1


def test_the_runs_on_all_data_are_named_for_it_where_ways_have_their_own() -> None:
    points = {(f"{way}: {arm}", f): [(0.9, robust)] * 2
              for way, robust in (("TRADES", 0.5), ("MART", 0.6))
              for arm, f in (("random", 1.0), ("random", 0.2), ("redraw", 0.2))}  # fmt: skip
    _, ranks = robust_vs_cost(study_table(points).assign(n=100)).axes
    named = [label.get_text() for label in ranks.get_yticklabels()]
    assert [name for name in named if "all the data" in name] == ["MART: all the data", "TRADES: all the data"]
    assert sum("random" in name for name in named) == 2


def test_few_runs_on_all_data_are_named_against_the_cost() -> None:
    arms = [("random", 1.0), ("random", 0.2), ("redraw", 0.2), ("keep_easy", 0.2)]
    points = {(f"{way}: {arm}", f): [(0.9, robust - 0.01 * nth)] * 2
              for way, robust in (("TRADES", 0.5), ("MART", 0.6))
              for nth, (arm, f) in enumerate(arms)}  # fmt: skip
    cost, _ = robust_vs_cost(study_table(points).assign(n=100)).axes
    named = {text.get_text() for text in cost.texts if "all the data" in text.get_text()}
    assert named == {"MART: all the data", "TRADES: all the data"}, "though MART's is better at the same cost"


def test_a_backend_that_shows_figures_by_itself_goes_on_to() -> None:
    """JupyterLab's is loaded by the first figure, within its style; the second one was not shown."""
    with mpl.rc_context():
        mpl.interactive(False)
        styled(lambda: mpl.interactive(True))()
        assert mpl.is_interactive()
        styled(lambda: mpl.interactive(False))()
        assert not mpl.is_interactive()


def test_every_pruner_and_objective_has_its_look() -> None:
    assert {name for name in PRUNERS.classes() if pruner_look(name).family == "other"} == set()
    assert {name for name in OBJECTIVES.classes() if trainer_look(name, "random", "7").family == "other"} == set()
    found = looks(["random", "redraw", "full", "same_cost(random)", "same_step_size(random)", "a: random", "own"])
    assert len({(look.colour, look.mark, str(look.line)) for look in found.values()}) == len(found)
    assert trainer_look("pgd_at", "carried", "1").family == "one carried step"
    assert trainer_look("pgd_at", "random", '{"fixed": {"count": 1, "step_factor": 1.25}}').family == "one fresh step"
    assert trainer_look("pgd_at", "random", "bullet").family == "PGD-AT"


def test_a_study_is_drawn_anew_in_its_resolution(tmp_path: Path) -> None:
    for file in (REFERENCE / "carried").iterdir():
        if file.suffix in (".gz", ".json"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    figure, _ = canvas(height=1)
    write(figure, tmp_path / "trainers.png", dpi=60)
    write(figure, tmp_path / "of_my_own.png", dpi=60)
    own = (tmp_path / "of_my_own.png").read_bytes()
    assert redraw(tmp_path, "carried") == [tmp_path / "trainers.png"]
    with Image.open(tmp_path / "trainers.png") as picture:
        assert picture.width == pytest.approx(60 * PAGE, abs=1)
        assert picture.height > 60
    assert "<svg" in (tmp_path / "trainers.svg").read_text()
    assert (tmp_path / "of_my_own.png").read_bytes() == own, "a figure of one's own stays"
    first = (tmp_path / "trainers.svg").read_bytes()
    redraw(tmp_path, "carried")
    assert (tmp_path / "trainers.svg").read_bytes() == first


@styled
def _one(change: Callable[[Any, Any], object]) -> Any:
    figure, axes = canvas(height=2)
    axes[0, 0].plot([0, 1], [0, 1], "o-")
    change(figure, axes[0, 0])
    return figure


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda figure, axis: None, ""),
        (lambda figure, axis: figure.set_figwidth(7), "7.0 inches"),
        (lambda figure, axis: axis.set_title("tiny", fontsize=5), "'tiny' has 5 points"),
        (lambda figure, axis: axis.set_title("huge", fontsize=14), "'huge' has 14 points"),
        (lambda figure, axis: [axis.text(0.5, 0.5, text) for text in ("one", "other")], "cover each other"),
        (lambda figure, axis: axis.set_xlabel("w" * 200), "cut off at the edge"),
        (lambda figure, axis: axis.set_xlim(0, 0.5), "leaves the panel"),
        (lambda figure, axis: (axis.set_ylim(-0.2, 1.2), axis.errorbar([0], [0], yerr=[5]), axis.set_ylim(-1, 2)),
         "leaves the panel"),
        (lambda figure, axis: [axis.plot([0.2], [0.8], "o-", color=c) for c in ("#C24A4A", "#8A7A45")], "look alike"),
    ],
)  # fmt: skip
def test_the_checks_find_faults(change: Callable[[Any, Any], object], found: str) -> None:
    told = "; ".join(faults(_one(change)))
    assert (found in told) if found else told == ""


def test_deuteranopes_confuse_red_and_green_and_not_blue_and_yellow() -> None:
    def apart(one: str, other: str) -> float:
        return float(np.linalg.norm(as_deuteranopes_see(one) - as_deuteranopes_see(other)))

    grey = as_deuteranopes_see("0.5")
    assert grey[0] == pytest.approx(53.4, abs=0.2), "L* of middle grey; rows of the matrix add up to one"
    assert np.abs(grey[1:]).max() < 0.5
    assert apart("#C24A4A", "#8A7A45") < 15 < 60 < apart("#0072B2", "#E69F00")
