"""How every figure looks: sizes as printed, text, colours with marks, captions, labels that cover nothing.

A figure is as wide as a column or a page of print, and its text has its size there. What is of one family, a way of
training or a kind of pruner, has one colour in all figures; whoever sees no colours has the mark and the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from advprune_core.base.files import write_atomically
from advprune_core.trainers.controls import control_of

#: Widths of a column and of a page of print, in inches.
COLUMN, PAGE = 3.3, 6.8
#: Text, and what stands at ticks, in legends and beside points, in points at that width.
TEXT, SMALL = 8.0, 7.0
#: Pixels of an inch, of figures in notebooks and files.
DPI = 150
#: Characters of `TEXT` on an inch of a line.
_ON_AN_INCH = 16


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(
        {
            "figure.dpi": DPI,
            "font.family": "DejaVu Sans",  # comes with matplotlib: figures are the same everywhere
            "font.size": TEXT,
            **dict.fromkeys(("axes.titlesize", "axes.labelsize", "figure.titlesize", "figure.labelsize"), TEXT),
            **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize"), SMALL),
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.1,
            "lines.markersize": 4.5,
            "lines.markeredgewidth": 0.9,
            "errorbar.capsize": 1.5,
            "legend.frameon": False,
            "legend.columnspacing": 1.2,
            "legend.handlelength": 2.4,
        }
    ):
        yield
        # A notebook's first figure loads the backend that from then on shows figures by itself: that has to stay.
        interactive = mpl.is_interactive()
    mpl.interactive(interactive)


#: A figure is drawn under it: ``@styled``.
styled = _style()

# Okabe and Ito's colours (2008), which deuteranopes, protanopes and tritanopes tell apart.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#7F7F7F"
#: Squares and crosses are taken: by controls, and by runs that collapsed.
_MARKS, _LINES = "o^Dv<>hPp*", ("-", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)))
CONTROL_MARK, COLLAPSED_MARK = "s", "X"


@dataclass(frozen=True)
class Look:
    """Colour, mark and line of what belongs together, and what a legend calls it."""

    family: str
    colour: str
    mark: str
    line: Any = "-"


_OWN = Look("other", GREY, "p")
_CONTROL = Look("control", BLACK, CONTROL_MARK, "--")
#: Of what is trained on all the data, where others are looked at by their pruners.
ALL_DATA = Look("all the data", GREY, "o")
_PRUNERS = {
    Look("random subset", BLUE, "o"): ("full", "random", "random_steps", "redraw"),
    Look("one score of a network", ORANGE, "v"): (
        "keep_easy",
        "keep_hard",
        "keep_middle",
        "keep_fragile",
        "puma",
        "score",
    ),
    Look("course of training", GREEN, "^"): ("aum", "dual", "dynamic_uncertainty", "forgetting", "tdds"),
    Look("gradients", VERMILLION, "D"): ("aign", "craig", "glister", "grad_match", "grad_match_pb", "rcs"),
    Look("features", PURPLE, "h"): ("d2", "herding", "k_center", "moderate"),
    Look("loss, in each epoch", SKY, "<"): ("infobatch", "loss_top"),
    Look("true labels", BLACK, "*"): ("oracle",),
}
_TRAINERS = {
    Look("standard", BLACK, "p"): "standard",
    Look("PGD-AT", BLUE, "o"): "pgd_at",
    Look("one fresh step", ORANGE, "v"): "one step",
    Look("one carried step", SKY, "<"): "one carried step",
    Look("TRADES", GREEN, "^"): "trades",
    Look("MART", VERMILLION, "D"): "mart",
    Look("FGSM-PGI", PURPLE, "P"): "fgsm_pgi",
    Look("Free AT", GREY, "h"): "free",
    Look("GradAlign", BLACK, "*"): "grad_align",
    Look("SORA", PURPLE, ">"): "sora",
}
_OF_PRUNER = {name: look for look, names in _PRUNERS.items() for name in names}
_OF_TRAINER = {name: look for look, name in _TRAINERS.items()}
#: Of shares of the data, the largest first.
_OF_SHARE = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", ":"), (PURPLE, "D", "-."), (BLACK, "v", (0, (5, 1))))


def pruner_look(arm: str, *, whole: bool = False) -> Look:
    """The look of an arm by its pruner, or that it is of the `whole` data; ``way: same_cost(random)`` is a control."""
    if whole:
        return ALL_DATA
    if control_of(arm):
        return _CONTROL
    return _OF_PRUNER.get(arm.rpartition(": ")[2].split(" ")[0], _OWN)


def trainer_look(objective: str, start: str, steps: str) -> Look:
    """The look of a way of training by objective, start and steps as a table has them, without their settings."""
    if objective == "pgd_at" and (start == "carried" or "bullet" not in steps) and _count(steps) == 1:
        return _OF_TRAINER["one carried step" if start == "carried" else "one step"]
    return _OF_TRAINER.get(objective, _OWN)


def _count(steps: str) -> int:
    digits = "".join(c if c.isdigit() else " " for c in steps).split()
    return int(digits[0]) if digits else 0


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """A look for each arm: of one family in its colour, with marks and lines of their own."""
    found: dict[str, Look] = {}
    for arm in arms:
        look = pruner_look(arm)
        nth = sum(other.family == look.family for other in found.values())
        if nth and look is _CONTROL:
            look = replace(look, mark=_MARKS[-nth % len(_MARKS)])
        elif nth:
            first = _MARKS.index(look.mark)
            look = replace(look, mark=_MARKS[(first + nth) % len(_MARKS)], line=_LINES[nth % len(_LINES)])
        found[arm] = look
    return found


def share_looks(fractions: Iterable[float]) -> dict[float, Look]:
    """A look for each share of the data, the largest first."""
    ordered = sorted(set(fractions), reverse=True)
    return {
        fraction: Look(f"{100 * fraction:g} % of the data", *_OF_SHARE[place % len(_OF_SHARE)])
        for place, fraction in enumerate(ordered)
    }


def paler(colour: str, share: float) -> tuple[float, float, float]:
    """A colour mixed with white: 1 is the colour, 0 white."""
    red, green, blue = (1 - share * (1 - part) for part in mpl.colors.to_rgb(colour))
    return red, green, blue


def canvas(
    rows: int = 1, columns: int = 1, *, height: float, width: float = PAGE, **settings: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure of a width of print with its axes, an array of shape (rows, columns); height in inches."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **settings)
    for axis in axes.flat:
        tidy(axis)
    return figure, axes


def tidy(axis: Axes, *, grid: Literal["both", "x", "y"] | None = "both") -> None:
    """Ticks and grid as in all figures; they are made late, when a figure's own settings no longer hold."""
    axis.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    axis.set_axisbelow(True)
    axis.grid(False)
    if grid:
        axis.grid(axis=grid, color="0.88", linewidth=0.5)


def row_height(text: str) -> float:
    """Inches of a row beside a text of one or several lines."""
    return 0.12 * (1 + text.count("\n")) + 0.05


def middles(heights: Sequence[float]) -> NDArray[np.float64]:
    """Middles of rows of these heights, one below the other from 0."""
    return np.cumsum(heights) - np.asarray(heights) / 2


def in_lines(text: str, letters: int, *, cut_words: bool = True) -> str:
    """A text in lines of so many letters; a number stays with its per cent sign or its seeds."""
    kept = text.replace(" %", "\xa0%").replace(" seeds", "\xa0seeds")
    return fill(kept, letters, break_long_words=cut_words).replace("\xa0", " ")


def caption(figure: Figure, *texts: str) -> None:
    """What a figure is of, above it: data, threat model, seeds."""
    line = int(_ON_AN_INCH * figure.get_figwidth())
    figure.suptitle("\n".join(in_lines(text, line) for text in texts if text))


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """A legend below a figure, in as many columns as its texts leave room for."""
    if handles:
        columns = legend_columns([str(handle.get_label()) for handle in handles], width=figure.get_figwidth())
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def legend_columns(texts: Sequence[str], *, width: float = PAGE) -> int:
    """Columns of a legend that has these texts, below a figure so many inches wide."""
    longest = max(map(len, texts), default=0)
    return max(1, min(int(_ON_AN_INCH * width / (longest + 9)), len(texts)))


def key(look: Look, label: str | None = None, **settings: Any) -> Line2D:
    """A line of a legend: mark and line of a look."""
    drawn = {"color": look.colour, "marker": look.mark, "linestyle": look.line, **settings}
    return Line2D([], [], label=look.family if label is None else label, **drawn)


def reach(mean: float, low: float, high: float) -> NDArray[np.float64]:
    """Lengths of an interval's arms in points of per cent, shape (2, 1); none where it is not known."""
    return 100 * np.nan_to_num([[mean - low], [high - mean]])


def write(figure: Figure, path: Path, *, dpi: int = DPI) -> Path:
    """Write a figure to `path`, a PNG, and beside it as SVG; the same figure gives the same files."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi))
    with mpl.rc_context({"svg.hashsalt": "advprune"}):
        write_atomically(
            path.with_suffix(".svg"), lambda file: figure.savefig(file, format="svg", metadata={"Date": None})
        )
    return path
