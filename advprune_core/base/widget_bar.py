"""A progress bar that is a widget. Apart from `progress`, because its import takes time."""

from __future__ import annotations

from typing import Any

from tqdm.notebook import tqdm_notebook


class WidgetBar(tqdm_notebook):  # type: ignore[misc]
    """The notebook's bar of tqdm, whose total may grow."""

    def display(self, *arguments: Any, **options: Any) -> None:
        """Show where the bar is."""
        self.container.children[1].max = self.total or 1
        super().display(*arguments, **options)
