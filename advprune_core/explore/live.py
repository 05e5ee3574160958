"""Training as it happens: a curve of the runs under way, and a button that stops them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from advprune_core.analysis.markup import plain
from advprune_core.explore.pictures import COLOURS, MARKS, blank, png
from advprune_core.study.driver import Driver

#: Metrics of a run's epochs.
Epochs = Sequence[Mapping[str, Any]]

#: Seconds between two looks at what has been trained.
EVERY = 2.0
#: Runs that are over and still drawn, the last ones.
KEPT = 8
#: The toolbar's own command, on a button: what a widget sends waits until the cell is over.
STOP = (
    '<button class="jupyter-button widget-button mod-warning" data-commandlinker-command="notebook:interrupt-kernel" '
    'data-commandlinker-args="{}">&#9632; Stop</button> '
)
HINT = "What is finished is kept, and the same cell goes on from there. (No effect? Interrupt the kernel in the menu.)"
ALONE = "A run is timed alone: nothing is drawn meanwhile."


def course_figure(running: Mapping[str, Epochs], over: Mapping[str, Epochs]) -> Figure:
    """Loss and accuracy after each epoch: of the runs under way in colour, of those that are over in grey.

    Parameters
    ----------
    running, over : mapping
        Metrics of a run's epochs, by its name.
    """
    figure = blank(width=9, height=3)
    loss, right = figure.subplots(1, 2)
    looks: list[tuple[Epochs, dict[str, Any]]] = [(epochs, {"color": "0.8"}) for epochs in over.values()]
    for number, (name, epochs) in enumerate(running.items()):
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
        look = {"color": colour, "marker": mark, "markersize": 3, "label": plain(name)}
        looks.append((epochs, look))
    for epochs, look in looks:
        x = [row["epoch"] + 1 for row in epochs]
        loss.plot(x, [row["train_loss"] for row in epochs], linewidth=1.2, **look)
        right.plot(x, [100 * row["train_accuracy"] for row in epochs], linewidth=1.2, **look)
        checks = [row for row in epochs if "val_pgd" in row]
        stars = [100 * row["val_pgd"] for row in checks]
        right.plot([row["epoch"] + 1 for row in checks], stars, "*", color=look["color"], markersize=8)
    loss.set_title("loss in training", fontsize=10)
    right.set_title("accuracy in training, % (stars: held-out images, PGD-10)", fontsize=10)
    for axis in (loss, right):
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    if running:
        named = loss.get_legend_handles_labels()
        figure.legend(*named, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


class Courses:
    """What has been seen of the runs of a driver: those under way, and the last ones that are over, by name."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.running: dict[str, Epochs] = {}
        self.over: dict[str, Epochs] = {}
        self._keys: dict[str, str] = {}

    def look(self) -> bool:
        """Look again; whether there is something new to draw."""
        found = [run for run in self.driver.under_way() if run.epochs]
        now: dict[str, Epochs] = {run.name: run.epochs for run in found}
        if {name: len(epochs) for name, epochs in now.items()} == {name: len(e) for name, e in self.running.items()}:
            return False
        ended = {name: self._whole(name, seen) for name, seen in self.running.items() if name not in now}
        self.over = dict(list({**self.over, **ended}.items())[-KEPT:])
        self.running, self._keys = now, {run.name: run.key for run in found}
        return True

    def _whole(self, name: str, seen: Epochs) -> Epochs:
        """The epochs of a run that is over: those of its record, where it got to its end."""
        record = self.driver.store.finished(self._keys[name])
        return seen if record is None else record.epochs


@contextmanager
def watching(driver: Driver) -> Iterator[None]:
    """Draw what a driver trains during a block, below a button that interrupts it."""
    courses, ended = Courses(driver), threading.Event()
    said = widgets.HTML(HINT)
    row = widgets.HBox([widgets.HTML(STOP), said])
    picture = widgets.Image(format="png", layout={"display": "none", "max_width": "900px"})
    display(widgets.VBox([row, picture]))

    def draw() -> None:
        if courses.look():
            picture.value = png(course_figure(courses.running, courses.over))
            picture.layout.display = ""

    def follow() -> None:
        while not ended.wait(EVERY):
            said.value = ALONE if driver.timing else HINT
            if not driver.timing:
                draw()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        draw()
        row.layout.display = "none"
