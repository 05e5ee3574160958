"""What the tests of a study's runs warn of."""

from __future__ import annotations

import pandas as pd


def doubts(table: pd.DataFrame) -> str:
    """One sentence on the evaluations whose numbers may say more than is true; empty without any.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.
    """
    found = table["warnings"].dropna() if "warnings" in table else pd.Series(dtype=str)
    found = found[found != ""]
    if not len(found):
        return ""
    return f"{len(found)} of {len(table)} evaluations are in doubt: {'; '.join(dict.fromkeys(found))}"
