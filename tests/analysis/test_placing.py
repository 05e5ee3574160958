"""Texts beside points: whose each one is can be seen."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from advprune_core.analysis.placing import label_points


def notes(axis: Axes) -> list[Annotation]:
    return [child for child in axis.get_children() if isinstance(child, Annotation)]


@pytest.mark.parametrize("seed", range(4))
def test_who_stands_nearest_to_a_text_is_its_point_or_a_line_leads_there(seed: int) -> None:
    drawn = np.random.default_rng(seed).normal([[0.3, 0.3]] * 8 + [[0.7, 0.6]] * 8, 0.04)
    texts = {(float(x), float(y)): f"way {n}, 30 % of it" for n, (x, y) in enumerate(drawn[::3])}
    figure, axis = plt.subplots(figsize=(6, 4), dpi=100)
    axis.plot(*drawn.T, "o")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    label_points(figure, axis, texts, drawn, np.zeros((0, 2)))
    figure.draw_without_rendering()
    marks, told = axis.transData.transform(drawn), []
    for note in notes(axis):
        box = Text.get_window_extent(note).extents  # without its line
        away = np.hypot(*(marks - np.clip(marks, box[:2], box[2:])).T)
        own = int(np.argmin(np.hypot(*(drawn - np.array(note.xy)).T)))
        assert away.min() > 0, "it covers no point"
        assert int(away.argmin()) == own or note.arrow_patch is not None, note.get_text()
        told.append(note.arrow_patch is None)
    assert len(told) == len(texts)
    assert any(told), "a line leads only where it must"
    plt.close(figure)


def test_one_place_has_one_text_without_a_line() -> None:
    figure, axis = plt.subplots(figsize=(6, 4), dpi=100)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    drawn = np.array([[0.5, 0.5], [0.5, 0.5]])  # two arms that came to the same
    label_points(figure, axis, {(0.5, 0.5): "both"}, drawn, np.zeros((0, 2)))
    (note,) = notes(axis)
    assert note.arrow_patch is None
    plt.close(figure)
