"""What runs were tested by: the attacks of a table, and whether two tests are the same."""

from __future__ import annotations

from itertools import compress

import pandas as pd


def attacks_of(table: pd.DataFrame, *, parts: bool = False) -> list[str]:
    """The attacks of the test in their order; with `parts`, those of an attack in parts instead of it."""
    found = [column.removeprefix("robust_") for column in map(str, table) if column.startswith("robust_")]
    names = [name for name in found if name not in ("low", "high")]
    owners = {name.split("/")[0] for name in names if "/" in name}
    return [name for name in names if (name not in owners if parts else "/" not in name)]


def attacks_told(table: pd.DataFrame) -> str:
    """The attacks of the test, those that not all tested runs stood last: ``pgd20, autoattack or autoattack_apgd``."""
    tested = table[table["robust"].notna()] if "robust" in table else table[:0]
    everywhere = [name for name in attacks_of(table) if not len(tested) or tested[f"robust_{name}"].notna().all()]
    elsewhere = " or ".join(name for name in attacks_of(table) if name not in everywhere)
    return ", ".join(filter(None, [*everywhere, elsewhere]))


def equally_tested(ours: pd.DataFrame, theirs: pd.DataFrame) -> bool:
    """Whether the tested runs among these were all tested by the same attacks, on as many images.

    AutoAttack's first two attacks alone are as good as all four where the other two broke nothing more.
    """
    tested = [rows[rows["robust"].notna()] for rows in (ours, theirs)]
    return any(len(set.union(*(_tests(runs, needed=needed) for runs in tested))) <= 1 for needed in (False, True))


def _tests(runs: pd.DataFrame, *, needed: bool) -> set[tuple[frozenset[str], object]]:
    """The attacks that runs were tested by, or those of AutoAttack that were `needed`; and on how many images."""
    there = {name: runs[f"robust_{name}"].notna() for name in attacks_of(runs)}
    if needed and "autoattack" in there and "robust_autoattack/apgd_t" in runs:
        enough = runs["robust_autoattack/apgd_t"] == runs["robust_autoattack"]
        there["autoattack_apgd"] = there.get("autoattack_apgd", False) | enough
        there["autoattack"] &= ~enough
    images = runs["test_images"] if "test_images" in runs else [None] * len(runs)
    attacks = zip(*there.values(), strict=True) if there else [()] * len(runs)
    return {(frozenset(compress(there, which)), count) for which, count in zip(attacks, images, strict=True)}
