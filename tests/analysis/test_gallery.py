"""Pictures and tables of what is kept, read back against counts by hand."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
import torch

mpl.use("agg")

import matplotlib.pyplot as plt

from advprune_core.analysis.gallery import class_shares, gallery, overlaps
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Split
from advprune_core.pruners import Selection

#: Nine images of one grey each, i / 10; classes 0, 1, and 3, which begins at the seventh.
SPLIT = Split(
    (torch.arange(9) / 10)[:, None, None, None].expand(9, 1, 2, 2).clone(), torch.tensor([0, 0, 0, 1, 1, 1, 3, 3, 3])
)
KEPT = Selection(np.array([0, 1, 3, 6, 7]), np.array([0.5, 1.5, 1, 1, 1], np.float32))


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def greys(image: np.ndarray, row: int) -> list[float]:
    """What stands in a row of the picture, without the white frames."""
    return [round(float(image[4 * row + 1, 4 * column + 1]), 1) for column in range(image.shape[1] // 4)]


def test_a_gallery_shows_kept_images_by_weight_and_dropped_ones() -> None:
    left, right = gallery(SPLIT, KEPT, columns=3).axes
    kept, dropped = (np.asarray(axis.images[0].get_array()) for axis in (left, right))
    assert greys(kept, 0) == [0.1, 0.0, 1.0]  # the heavier one first, then white
    assert greys(kept, 1) == [0.3, 1.0, 1.0]
    assert sorted(greys(kept, 2)) == [0.6, 0.7, 1.0]
    assert greys(dropped, 0) == [0.2, 1.0, 1.0]
    assert sorted(greys(dropped, 1)) == [0.4, 0.5, 1.0]
    assert (left.get_title(), right.get_title()) == ("kept: 5 of 9", "dropped: 4 of 9")
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["0", "1", "3"]


def test_a_gallery_in_colour_and_of_everything() -> None:
    colour = Split(torch.rand(9, 3, 2, 2), SPLIT.labels)
    left, _ = gallery(colour, Selection(np.arange(9)), columns=2, classes=2).axes
    assert np.asarray(left.images[0].get_array()).shape == (8, 8, 3)


BAD_PICTURES: dict[str, tuple[Split, Selection, dict[str, int], str]] = {
    "other data": (SPLIT, Selection(np.array([0, 9])), {}, r"has image 9, and the split only 0\.\.8"),
    "two channels": (Split(torch.rand(9, 2, 2, 2), SPLIT.labels), KEPT, {}, "2 channels"),
    "no columns": (SPLIT, KEPT, {"columns": 0}, "columns must be at least 1"),
    "no classes": (SPLIT, KEPT, {"classes": 0}, "classes must be at least 1"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_what_cannot_be_shown_is_refused(case: str) -> None:
    split, selection, options, message = BAD_PICTURES[case]
    with pytest.raises(ConfigError, match=message):
        gallery(split, selection, **options)


def test_shares_of_other_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="made of other data"):
        class_shares(SPLIT, {"far": Selection(np.array([99]))})


def test_shares_and_overlaps_by_hand() -> None:
    selections = {"some": KEPT, "all": Selection(np.arange(9)), "others": Selection(np.array([2, 3]))}
    shares = class_shares(SPLIT, selections)
    assert list(shares.columns) == [0, 1, 3]
    assert shares.loc["some"].tolist() == pytest.approx([2 / 3, 1 / 3, 2 / 3])
    assert shares.loc["all"].tolist() == [1, 1, 1]
    table = overlaps(selections)
    assert table.loc["some"].tolist() == pytest.approx([1, 5 / 9, 1 / 6])
    assert (table.to_numpy() == table.to_numpy().T).all()
