"""The figures of an exported study, drawn anew from its records under the names that notebooks give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from advprune_core.analysis.against_cost import robust_vs_cost
from advprune_core.analysis.alignment import alignment_figure
from advprune_core.analysis.budgets import iso_cost_map
from advprune_core.analysis.convergence import convergence_figure
from advprune_core.analysis.decomposition import decomposition_figure
from advprune_core.analysis.gallery import selections_figure
from advprune_core.analysis.plots import accuracy_vs_fraction, runtime
from advprune_core.analysis.rivals import equal_cost_figure
from advprune_core.analysis.speedrun import speedrun_figure
from advprune_core.analysis.style import DPI, write
from advprune_core.analysis.survival import survival_figure
from advprune_core.study.courses import collect_courses, collect_lifetimes
from advprune_core.study.table import collect, collect_timings

#: Tables of what pruners keep.
_OF_SELECTIONS = ("class_shares", "overlaps")


@dataclass(frozen=True)
class Drawing:
    """A figure of a study.

    Attributes
    ----------
    draw : callable
        From a folder of records and the study's name.
    says : str
        What it shows and how it is read, in a sentence, for a page.
    """

    draw: Callable[[Path, str], Figure]
    says: str


def _of_table(draw: Callable[[pd.DataFrame], Figure], says: str) -> Drawing:
    return Drawing(lambda folder, study: draw(collect(folder, study=study)), says)


def _selections(folder: Path, study: str) -> Figure:
    """From the tables that the notebook wrote beside it: selections themselves are not exported."""
    shares, common = (pd.read_csv(folder / f"{name}.csv", index_col=0) for name in _OF_SELECTIONS)
    table = collect(folder, study=study)
    smallest = table[table["control"].isna() & (table["fraction"] == table["fraction"].min())]
    return selections_figure(shares, common, smallest[smallest["seed"] == table["seed"].iloc[0]])


_VS_COST = (
    "Robust accuracy by way of training and share of the data, the highest first; where costs differ, also against "
    "cost: the higher for the same cost, the better. Where they are marked, pale or hollow points are of a part of the "
    "data, squares are controls."
)

#: The figures of the notebooks by name, in the order in which a page has them.
FIGURES: dict[str, Drawing] = {
    "accuracy_vs_fraction": _of_table(
        accuracy_vs_fraction,
        "Accuracy against the share of the data that is kept. A control stands at the share of the run that it "
        "matches: where it is level with that run, what was lost is lost to the shorter training, not to the images.",
    ),
    "decomposition": _of_table(
        decomposition_figure,
        "From the full run's robust accuracy to that of each pruned one, part by part: what is lost to fewer steps, "
        "to fewer images, to the selection.",
    ),
    "runtime": Drawing(
        lambda folder, study: runtime(collect(folder, study=study), collect_timings(folder, study=study)),
        "What a run costs by phase, in passes and in seconds, and how many times cheaper than the full run it is.",
    ),
    "iso_cost": _of_table(
        iso_cost_map,
        "Images visited against the cost of visiting one. Along a grey line the total is the same: the colour says "
        "what it buys in robust accuracy.",
    ),
    "trainers": _of_table(robust_vs_cost, _VS_COST),
    "gradient_matching": _of_table(robust_vs_cost, _VS_COST),
    "pruners": _of_table(robust_vs_cost, _VS_COST),
    "selections": Drawing(
        _selections,
        "Which classes a pruner keeps, and what two pruners keep in common: numbers far above those of two random "
        "subsets say that they look for the same images.",
    ),
    "when_pruning_wins": _of_table(
        equal_cost_figure,
        "Each pruned arm, in bold, beside what costs the same, as its rows say: right of the line it is more robust.",
    ),
    "speedrun": _of_table(
        speedrun_figure,
        "The most robust first; dots are single runs. What differs beyond chance, the paired tests below say.",
    ),
    "survival": Drawing(
        lambda folder, study: survival_figure(collect_lifetimes(folder, study=study)),
        "Runs that are not flagged as overfitted catastrophically, against optimiser steps. Flagged is a fall, and a "
        "run that learned its training attack alone: how robust runs ever were, the next figure shows. A control has "
        "as many steps as the run that it matches.",
    ),
    "convergence": Drawing(
        lambda folder, study: convergence_figure(collect_courses(folder, study=study)),
        "Robust accuracy on held-out images in the course of training, against what it has cost so far.",
    ),
    "alignment": Drawing(
        lambda folder, study: alignment_figure(
            collect_courses(folder, study=study), collect_lifetimes(folder, study=study)
        ),
        "How well the gradients at the start and at the end of the attack's one step agree. A fall is said to announce "
        "a collapse (cross): lines that fall and have no cross are false alarms.",
    ),
}


def figures_of(folder: Path) -> list[str]:
    """Names of the figures in a folder that its records are enough for, in a page's order."""
    kept = all((folder / f"{name}.csv").is_file() for name in _OF_SELECTIONS)
    return [name for name in pictures_in(folder) if name in FIGURES and (kept or name != "selections")]


def pictures_in(folder: Path) -> list[str]:
    """Names of all figures in a folder, in a page's order: those that nobody here draws come last."""
    names, order = sorted(path.stem for path in folder.glob("*.png")), list(FIGURES)
    return sorted(names, key=lambda name: order.index(name) if name in FIGURES else len(order))


def redraw(folder: Path, study: str) -> list[Path]:
    """Draw the figures that an exported study has anew from its records, as PNG, of the resolution that
    it has, and SVG.

    Parameters
    ----------
    folder : Path
        Of the exported study.
    study : str

    Returns
    -------
    list of Path
        The PNG files.
    """
    written = []
    for name in figures_of(folder):
        figure, path = FIGURES[name].draw(folder, study), folder / f"{name}.png"
        with Image.open(path) as earlier:
            dpi = round(earlier.info.get("dpi", (DPI,))[0])
        written.append(write(figure, path, dpi=dpi))
        plt.close(figure)
    return written
