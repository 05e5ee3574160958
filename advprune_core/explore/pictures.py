"""Figures as pictures, made without the state that pyplot shares between a cell and the callbacks of widgets."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from advprune_core.analysis.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION

#: Colours and marks of what is drawn together, whatever it is; both, for those who see no colours.
COLOURS, MARKS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK), "os^Dv<>Pp*X"


def blank(*, width: float, height: float) -> Figure:
    """An empty figure, its size in inches, that pyplot knows nothing of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, *, dpi: int = 100) -> bytes:
    """A figure as PNG; afterwards pyplot does not know it any more."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    plt.close(figure)
    return file.getvalue()
