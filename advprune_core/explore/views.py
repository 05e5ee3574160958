"""Widgets over what the other modules compute; in an executed copy, what they show at first."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import pandas as pd
from IPython.display import HTML, Image, display
from markdown_it import MarkdownIt

from advprune_core.base.frontend import attended
from advprune_core.base.settings import AdvpruneError

_WIDE = {"description_width": "110px"}


def rendered(markdown: str) -> str:
    """Markdown as HTML; raw HTML in it stays text."""
    return MarkdownIt("commonmark", {"html": False}).render(markdown)


class View:
    """Controls, pictures and texts, one below the other.

    Parameters
    ----------
    parts : sequence of Widget
        What is shown: in an executed copy only the pictures and texts, as they are.
    """

    def __init__(self, parts: Sequence[widgets.Widget]) -> None:
        self.refused = widgets.HTML()
        self.box = widgets.VBox([*parts, self.refused])
        self._busy, self._filler = threading.Lock(), 0

    def watch(self, act: Callable[[], None], *controls: widgets.Widget) -> None:
        """Call `act` whenever one of some controls is moved by somebody else than an `act`, which fills some itself."""

        def moved(_: Any) -> None:
            if self._filler != threading.get_ident():
                self.carry_out(act)

        for control in controls:
            control.observe(moved, "value")

    def carry_out(self, act: Callable[[], None]) -> None:
        """Call `act`; what it refuses is shown, because nobody sees a callback's errors.

        One after the other: a kernel may handle what widgets send in several threads.
        """
        with self._busy:
            self._filler = threading.get_ident()
            try:
                act()
                self.refused.value = ""
            except AdvpruneError as error:
                self.refused.value = f'<span style="color: firebrick">{html.escape(str(error))}</span>'
            finally:
                self._filler = 0

    def _ipython_display_(self) -> None:
        if attended():
            display(self.box)
            return
        for part in _leaves(self.box):
            if isinstance(part, widgets.Image) and part.value:
                display(Image(part.value))
            elif isinstance(part, widgets.HTML) and part.value:
                display(HTML(part.value))


def _leaves(part: widgets.Widget) -> list[widgets.Widget]:
    """The widgets inside, in their order."""
    inside = getattr(part, "children", ())
    return [leaf for child in inside for leaf in _leaves(child)] if inside else [part]


def picture() -> widgets.Image:
    """A place for a figure."""
    return widgets.Image(format="png", layout={"max_width": "900px"})


def dropdown(name: str, options: Any, **given: Any) -> widgets.Dropdown:
    """A choice of one."""
    return widgets.Dropdown(description=name, options=options, style=_WIDE, layout={"width": "440px"}, **given)


def slider(name: str, *, low: float, high: float, step: float, value: float, form: str) -> widgets.FloatSlider:
    """A number that counts when the mouse lets go of it."""
    return widgets.FloatSlider(
        description=name,
        min=low,
        max=high,
        step=step,
        value=value,
        readout_format=form,
        continuous_update=False,
        style=_WIDE,
        layout={"width": "440px"},
    )


def tick(name: str, value: bool) -> widgets.Checkbox:
    """Yes or no."""
    return widgets.Checkbox(description=name, value=value, indent=False, layout={"width": "200px"})


def table_html(table: pd.DataFrame) -> str:
    """A small table; its texts are escaped."""
    shown = table.map(lambda value: f"{value:,}" if isinstance(value, int) else value)
    return str(shown.to_html(border=0, index=False, justify="left", float_format=lambda value: f"{value:,.1f}"))


def titled(title: str, content: str) -> str:
    """A heading and what stands below it."""
    return f"<b>{html.escape(title)}</b><br>{content}"


def fill(control: widgets.Dropdown, options: Sequence[object]) -> None:
    """Give a control other options; what was chosen stays, if it is among them."""
    before = control.value
    control.options = options
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    if values:
        control.value = before if before in values else values[0]
