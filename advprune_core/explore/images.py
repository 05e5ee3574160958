"""Training images sorted by a score, each marked as kept or dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from advprune_core.analysis.style import BLUE, ORANGE
from advprune_core.explore.networks import Network
from advprune_core.explore.pictures import blank
from advprune_core.pruners.scores import ScoreName

Shown = Literal["all", "kept", "dropped"]

#: Images of a page, in rows of so many.
PAGE, ROW = 48, 12
#: What is measured of each image, in words.
SCORES: dict[ScoreName, str] = {
    "loss": "loss under attack",
    "margin": "margin under attack (low: hard)",
    "entropy": "entropy under attack",
    "el2n": "EL2N under attack",
    "grand": "GraNd under attack",
    "steps_to_break": "steps to break",
}
assert set(SCORES) == set(get_args(ScoreName))


@dataclass(frozen=True, eq=False)
class Sorted:
    """Training images that fit a choice, in the order of a score.

    Attributes
    ----------
    ids : array of int64, shape (m,)
        Places in the training split.
    scores : array of float64, shape (m,)
    kept : array of bool, shape (m,)
    counts : (int, int)
        Kept images and all, of the class.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    kept: NDArray[np.bool_]
    counts: tuple[int, int]

    def page(self, number: int) -> Sorted:
        """The images of one page; the first one is 0."""
        rows = slice(number * PAGE, (number + 1) * PAGE)
        return Sorted(self.ids[rows], self.scores[rows], self.kept[rows], self.counts)

    @property
    def pages(self) -> int:
        """Number of pages, at least 1."""
        return max(1, -(-len(self.ids) // PAGE))


def sort_images(
    network: Network,
    *,
    pruner: str,
    fraction: float,
    score: ScoreName = "loss",
    shown: Shown = "all",
    label: int | None = None,
    highest_first: bool = True,
) -> Sorted:
    """The training images of a class (None: of all) that a pruner keeps or drops, sorted by a score."""
    selection, scores = network.selection(pruner, fraction), network.scores(score)
    kept = np.zeros(len(scores), bool)
    kept[selection.indices] = True
    labels = network.dataset.train.labels.cpu().numpy()
    of_class = np.ones(len(scores), bool) if label is None else labels == label
    fits = {"all": of_class, "kept": of_class & kept, "dropped": of_class & ~kept}[shown]
    order = np.argsort(-scores if highest_first else scores, kind="stable")
    ids = order[fits[order]]
    return Sorted(ids, scores[ids], kept[ids], (int((of_class & kept).sum()), int(of_class.sum())))


def sheet(network: Network, page: Sorted) -> Figure:
    """A page of images with class and score: kept ones in a solid frame, dropped ones pale in a dashed one."""
    images = network.dataset.train.pixels(torch.from_numpy(page.ids)).cpu().permute(0, 2, 3, 1).numpy()
    labels = network.dataset.train.labels.cpu().numpy()
    rows = PAGE // ROW
    figure = blank(width=9, height=rows)
    axis = figure.subplots()
    axis.set(xlim=(0, ROW), ylim=(rows * 1.25, 0), aspect="equal")
    axis.axis("off")
    for place, image in enumerate(images):
        x, y, kept = place % ROW + 0.1, place // ROW * 1.25, page.kept[place]
        shade = 1.0 if kept else 0.45
        extent = (x, x + 0.8, y + 0.8, y)
        axis.imshow(image.squeeze(), "gray", vmin=0, vmax=1, alpha=shade, extent=extent, interpolation="nearest")
        line, colour = ("-", BLUE) if kept else (":", ORANGE)
        axis.add_patch(Rectangle((x, y), 0.8, 0.8, fill=False, linewidth=2, linestyle=line, edgecolor=colour))
        told = f"{labels[page.ids[place]]}: {page.scores[place]:.3g}"
        axis.text(x + 0.4, y + 0.84, told, fontsize=7, ha="center", va="top")
    axis.set(xlim=(0, ROW), ylim=(rows * 1.25, 0))
    axis.set_title("class: score. Solid frame: kept; dotted and pale: dropped", fontsize=9)
    return figure
