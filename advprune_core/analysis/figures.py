"""The figures of an exported study, drawn anew from its records under the names that notebooks give them."""

from __future__ import annotations

from collections.abc import Callable
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


def _of_table(draw: Callable[[pd.DataFrame], Figure]) -> Callable[[Path, str], Figure]:
    return lambda folder, study: draw(collect(folder, study=study))


def _selections(folder: Path, study: str) -> Figure:
    """From the tables that the notebook wrote beside it: selections themselves are not exported."""
    shares, common = (pd.read_csv(folder / f"{name}.csv", index_col=0) for name in _OF_SELECTIONS)
    table = collect(folder, study=study)
    smallest = table[table["control"].isna() & (table["fraction"] == table["fraction"].min())]
    return selections_figure(shares, common, smallest[smallest["seed"] == table["seed"].iloc[0]])


#: How the figures of the notebooks are drawn from a folder of records and the study's name.
FIGURES: dict[str, Callable[[Path, str], Figure]] = {
    "accuracy_vs_fraction": _of_table(accuracy_vs_fraction),
    "decomposition": _of_table(decomposition_figure),
    "runtime": lambda folder, study: runtime(collect(folder, study=study), collect_timings(folder, study=study)),
    "iso_cost": _of_table(iso_cost_map),
    "trainers": _of_table(robust_vs_cost),
    "gradient_matching": _of_table(robust_vs_cost),
    "pruners": _of_table(robust_vs_cost),
    "selections": _selections,
    "when_pruning_wins": _of_table(equal_cost_figure),
    "speedrun": _of_table(speedrun_figure),
    "convergence": lambda folder, study: convergence_figure(collect_courses(folder, study=study)),
    "alignment": lambda folder, study: alignment_figure(
        collect_courses(folder, study=study), collect_lifetimes(folder, study=study)
    ),
    "survival": lambda folder, study: survival_figure(collect_lifetimes(folder, study=study)),
}


def figures_of(folder: Path) -> list[str]:
    """Names of the figures in a folder that its records are enough for."""
    kept = all((folder / f"{name}.csv").is_file() for name in _OF_SELECTIONS)
    names = [path.stem for path in sorted(folder.glob("*.png"))]
    return [name for name in names if name in FIGURES and (kept or name != "selections")]


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
        figure, path = FIGURES[name](folder, study), folder / f"{name}.png"
        with Image.open(path) as earlier:
            dpi = round(earlier.info.get("dpi", (DPI,))[0])
        written.append(write(figure, path, dpi=dpi))
        plt.close(figure)
    return written
