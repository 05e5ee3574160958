"""Names that people choose, made harmless where they become Markdown, HTML or a figure's text."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd

#: Columns of tables with names that people choose. A cell with a component's specification is parsed, and is none.
_NAMES = ("arm", "variant", "way")
_WAYS = ("variant", "way")


def escape(text: str) -> str:
    """A name as Markdown (and the HTML in it) that shows just that name, in a line or a table's cell.

    Marks within words (``same_cost``) mean nothing in Markdown and stay as they are.
    """
    text = re.sub(r"[\\`*|<>&$~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])", r"\\\g<0>", text)
    return re.sub(r"\s+", " ", text)


def plain(text: str) -> str:
    """A name as text of a figure, in which dollars do not stand for formulas."""
    return text.replace("$", r"\$")


def with_names(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A copy of a table in which every name is changed by `escape` or `plain`.

    A way of training becomes what it is in its arms, ``way: arm``: its end may mean something before a colon alone.
    """

    def of_way(name: str) -> str:
        return change(f"{name}:").removesuffix(":")

    columns = {
        name: table[name].map(of_way if name in _WAYS else change, na_action="ignore")
        for name in _NAMES
        if name in table
    }
    return table.assign(**columns)
