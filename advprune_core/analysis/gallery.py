"""What pruners keep and drop: a picture of images, shares of classes, overlaps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from advprune_core.analysis.labels import arm_label, setting
from advprune_core.analysis.markup import plain
from advprune_core.analysis.style import PAGE, SMALL, canvas, caption, styled, tidy
from advprune_core.base.randomness import generator
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Split
from advprune_core.pruners.selection import Selection

#: Of more columns than this, numbers in a map's cells run into each other.
_CROWD = 24


@styled
def gallery(
    split: Split, selection: Selection, *, classes: int = 10, columns: int = 6, seed: int = 0, title: str = ""
) -> Figure:
    """Some kept images (left) and some dropped ones (right) of each class, a row a class, as wide as a page.

    Kept images are those of the largest weight, heaviest first, where weights differ; else, and
    where images are dropped, they are random ones. A class that lacks images leaves blanks.

    Parameters
    ----------
    split : Split
        What the selection refers to.
    selection : Selection
    classes : int
        At most so many, the first ones.
    columns : int
        Images of each kind in a row.
    seed : int
        Of the random choice.
    title : str
        What chose.

    Raises
    ------
    ConfigError
        A selection of images that the split has not, no classes or columns, or images of 2 or of
        more than 4 channels, which have no colours.
    """
    channels = split.images.shape[1]
    if channels not in (1, 3, 4):
        raise ConfigError(f"images of {channels} channels have no colours to be shown in: 1, 3 or 4 have")
    for name, value in (("classes", classes), ("columns", columns)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    _check_within(selection, split)
    labels = split.labels.cpu().numpy()
    shown = np.unique(labels)[:classes]
    weights = np.full(len(labels), np.nan)
    weights[selection.indices] = selection.weights
    order = generator(seed, "gallery").permutation(len(labels))
    row = (PAGE / 2 - 0.25) / columns * split.images.shape[2] / split.images.shape[3]
    figure, axes = canvas(1, 2, height=row * len(shown) + 0.35 + 0.2 * bool(title))
    for axis, kept in zip(axes[0], (True, False), strict=True):
        tidy(axis, grid=None)
        rows = []
        for label in shown:
            members = order[(labels[order] == label) & (np.isnan(weights[order]) != kept)]
            heavy = members[np.argsort(-weights[members], kind="stable")] if kept else members
            rows.append(_strip(split, heavy[:columns], columns))
        image = torch.cat(rows, 1).permute(1, 2, 0).squeeze(2).numpy()
        height = image.shape[0] / len(shown)
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_yticks([height * (row + 0.5) for row in range(len(shown))], [f"{label}" for label in shown])
        axis.set_xticks([])
        count = len(selection) if kept else len(labels) - len(selection)
        axis.set_title(f"{'kept' if kept else 'dropped'}: {count} of {len(labels)}")
    axes[0, 0].set_ylabel("class")
    caption(figure, plain(title))
    return figure


def _check_within(selection: Selection, split: Split) -> None:
    if selection.indices[-1] >= len(split):
        raise ConfigError(
            f"the selection has image {selection.indices[-1]}, and the split only 0..{len(split) - 1}: "
            "it was made of other data"
        )


def _strip(split: Split, ids: NDArray[np.int64], columns: int) -> Tensor:
    """Images side by side, white where there are too few: (C, H + 2, columns * (W + 2))."""
    channels, height, width = split.images.shape[1:]
    strip = torch.ones(columns, channels, height + 2, width + 2)
    if len(ids):
        strip[: len(ids), :, 1:-1, 1:-1] = split.pixels(torch.from_numpy(ids)).cpu()
    return strip.permute(1, 2, 0, 3).reshape(channels, height + 2, -1)


def class_shares(split: Split, selections: Mapping[str, Selection]) -> pd.DataFrame:
    """Share of each class that each selection keeps: one row a selection, one column a class."""
    for selection in selections.values():
        _check_within(selection, split)
    labels = split.labels.cpu().numpy()
    had = np.bincount(labels)
    present = np.flatnonzero(had)
    rows = {
        name: np.bincount(labels[selection.indices], minlength=len(had))[present] / had[present]
        for name, selection in selections.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=present)


def overlaps(selections: Mapping[str, Selection]) -> pd.DataFrame:
    """Share that two selections have in common of what either keeps (Jaccard), for every pair.

    Two random ones of the same fraction f have f / (2 - f) on average.
    """
    sets = {name: set(selection.indices.tolist()) for name, selection in selections.items()}
    table = [[len(a & b) / len(a | b) for b in sets.values()] for a in sets.values()]
    return pd.DataFrame(table, index=list(sets), columns=list(sets))


@styled
def selections_figure(shares: pd.DataFrame, common: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """What pruners keep of each class, and how much each pair has in common, in per cent: two maps below each other.

    Of many pruners the second map has numbers only where a pair has three times as much in common as by chance,
    or goes half of the way from there to all: more of them would run together.

    Parameters
    ----------
    shares : DataFrame
        From `class_shares`.
    common : DataFrame
        From `overlaps`.
    runs : DataFrame
        From `collect`: the runs that they are of, those of one seed at one fraction.
    """
    names = [plain(arm_label(str(name), [])) for name in common.index]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    rows = 0.165 * len(names)
    figure, axes = canvas(2, 1, height=2 * rows + 1.3)
    numbered = [f"{name}  {number}" for name, number in zip(names, numbers, strict=True)]
    itself = np.eye(len(names), dtype=bool)
    share, seed = float(runs["fraction"].iloc[0]), runs["seed"].iloc[0]
    chance = share / (2 - share)
    maps = {
        "kept of each class, %": (shares.to_numpy(np.float64), [str(label) for label in shares.columns], "class"),
        "in common, % of what either keeps": (
            np.where(itself, np.nan, common.to_numpy(np.float64)), numbers, "pruner, by its number",
        ),
    }  # fmt: skip
    for axis, (title, (values, columns, label)) in zip(axes[:, 0], maps.items(), strict=True):
        least = min(3 * chance, (1 + chance) / 2) if len(columns) > _CROWD else 0.0
        texts = np.where(values >= least, np.char.mod("%.0f", 100 * values), "")
        sns.heatmap(
            100 * values, ax=axis, cmap="viridis", vmin=0, cbar=False, annot=texts, fmt="",
            annot_kws={"size": SMALL}, xticklabels=columns, yticklabels=numbered,
        )  # fmt: skip
        title += f" (numbers: from {100 * least:.0f} on)" if least else ""
        axis.tick_params(axis="y", rotation=0)
        tidy(axis, grid=None)
        axis.set_xlabel(label)
        axis.set_title(title)
    told = f"two random subsets have {100 * chance:.0f} % in common"
    caption(figure, setting(runs), f"{100 * share:g} % of the data, seed {seed}; {told}")
    return figure
