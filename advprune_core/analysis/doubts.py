"""What the tests of a study's runs warn of."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def doubts(table: pd.DataFrame, *, brief: bool = False) -> str:
    """One sentence on the evaluations whose numbers may say more than is true; empty without any.

    Warnings that differ in their numbers alone are said once, with the least and the largest of each.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.
    brief : bool
        Each warning's first words, without what they rest on and what to do: for the head of a figure.
    """
    tested = table[table["robust"].notna()] if "robust" in table else table[:0]
    if {"key", "evaluation"} <= set(tested):  # a run that several arms share is tested once
        tested = tested.drop_duplicates(["key", "evaluation"])
    found = tested["warnings"].dropna() if "warnings" in tested else pd.Series(dtype=str)
    found = found[found != ""]
    if not len(found):
        return ""
    alike: dict[str, list[str]] = {}
    for text in found.map(_first) if brief else found:
        alike.setdefault(_NUMBER.sub("#", text), []).append(text)
    return f"{len(found)} of {len(tested)} evaluations are in doubt: {'; '.join(map(_together, alike.values()))}"


def _first(text: str) -> str:
    """What stands before the first colon or semicolon."""
    return re.split("[:;]", text, maxsplit=1)[0]


def _together(texts: Sequence[str]) -> str:
    """Texts that differ in their numbers alone, as one: ``9.9 to 12.5 % of 497 images``."""
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    spans = [" to ".join(dict.fromkeys((min(own, key=float), max(own, key=float)))) for own in columns]
    words = _NUMBER.split(texts[0])
    return "".join(word + span for word, span in zip(words, [*spans, ""], strict=True))
