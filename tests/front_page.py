"""What the README and the pages of committed studies show of their records; run as a module, it writes them anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from advprune_core.analysis.pages import write_page
from advprune_core.analysis.summaries import markdown, printable
from advprune_core.study.table import collect
from tests.reference import REFERENCE, STUDIES

README = Path(__file__).parents[1] / "README.md"


def at_equal_cost(table: pd.DataFrame) -> pd.DataFrame:
    """Five rows: the full run, and the least and the most pruned runs beside their controls."""
    ends = sorted(set(table["matched_fraction"]) - {1.0})
    rows = table[table["matched_fraction"].isin([ends[0], ends[-1]])]
    full = table[(table["matched_fraction"] == 1) & table["control"].isna()]
    return printable(pd.concat([full, rows]))


#: What stands in the README between ``<!-- name -->`` and ``<!-- end -->``, by name.
SHOWN: dict[str, Callable[[], str]] = {
    "table: results/reference/digits": lambda: markdown(at_equal_cost(of("digits"))),
}


def of(study: str) -> pd.DataFrame:
    """The table of a committed study."""
    return collect(REFERENCE / study, study=study)


def filled(text: str) -> str:
    """The README with what its records show today."""
    for name, show in SHOWN.items():
        between = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(\n<!-- end -->)", flags=re.DOTALL)
        assert len(between.findall(text)) == 1, name
        text = between.sub(lambda found, show=show: found[1] + show() + found[2], text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    for committed in STUDIES:
        write_page(REFERENCE / committed, committed)
    README.write_text(filled(README.read_text()))
