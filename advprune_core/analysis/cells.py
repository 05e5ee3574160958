"""What the cells of a table say: components, with their settings as JSON, data sets and threat models."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from advprune_core.base.settings import ConfigError

#: What has to agree before accuracies or costs are compared: a forward pass of another network costs something else.
_SETTING = ("dataset", "norm", "eps", "model")


def check_arms(table: pd.DataFrame) -> None:
    """Refuse rows of no study, as `collect` gives without one: they are of no arm.

    Raises
    ------
    ConfigError
    """
    if len(table) and "arm" not in table:
        raise ConfigError("the table has no arms: those are of a study, `collect(study=...)`")


def with_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """A study's table with columns ``clean`` and ``robust``, empty where no run could be tested.

    Raises
    ------
    ConfigError
        See `check_arms`.
    """
    check_arms(table)
    missing = {name: np.nan for name in ("clean", "robust") if name not in table}
    return table.assign(**missing) if missing else table


def checked(table: pd.DataFrame) -> pd.Series:
    """Which runs are known to have collapsed or not: those with checks, and those without an attack, which cannot."""
    return table["val_pgd_best"].notna() | (table["objective"].map(component_name) == "standard")


def specification(cell: str) -> str | dict[str, dict[str, Any]]:
    """A component's specification from a table's cell: its name, or ``{name: settings}``."""
    found: dict[str, dict[str, Any]] = json.loads(cell) if str(cell).startswith("{") else {}
    return found or str(cell)


def component_name(cell: str) -> str:
    """Name of a component from a table's cell: ``pgd_at`` of ``{"pgd_at": {...}}``."""
    found = specification(cell)
    return found if isinstance(found, str) else next(iter(found))


def component_settings(cell: str) -> dict[str, Any]:
    """Settings of a component from a table's cell: those that it names."""
    found = specification(cell)
    return {} if isinstance(found, str) else found[component_name(cell)]


def described(cell: str) -> str:
    """Name and settings of a component from a table's cell: ``digits (label_noise 0.4)``."""
    told = ", ".join(f"{name} {value}" for name, value in component_settings(cell).items())
    return f"{component_name(cell)} ({told})" if told else component_name(cell)


def settings(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each setting, named where there are several: across them nothing is comparable."""
    groups = list(_by_setting(table).values())
    return groups if len(groups) > 1 else [("", rows) for _, rows in groups]


def setting_names(table: pd.DataFrame) -> pd.Series:
    """Of each row ``digits, L-inf 2/16``, with the network where a table has several."""
    return setting_numbers(table).map({number: name for number, (name, _) in _by_setting(table).items()})


def setting_numbers(table: pd.DataFrame) -> pd.Series:
    """Of each row, which of a table's settings it is in; what a table has no column for agrees."""
    columns = [name for name in _SETTING if name in table]
    if not columns:
        return pd.Series(0, index=table.index)
    return table.groupby(columns, sort=False, dropna=False).ngroup()


def _by_setting(table: pd.DataFrame) -> dict[int, tuple[str, pd.DataFrame]]:
    """Name and rows of each setting, in order of appearance."""
    several = "model" in table and table["model"].nunique() > 1
    found = {}
    for number, rows in table.groupby(setting_numbers(table), sort=False):
        network = f", {described(rows['model'].iloc[0])}" if several else ""
        found[int(str(number))] = (setting_of(rows) + network, rows)
    return found


def setting_of(rows: pd.DataFrame) -> str:
    """``digits, L-inf 2/16``: data set and threat model of a table's first row."""
    return f"{described(rows['dataset'].iloc[0])}, {threat(rows)}"


def threat(table: pd.DataFrame) -> str:
    """``L-inf 8/255``: norm and radius of a table's first row."""
    return threat_name(str(table["norm"].iloc[0]), float(table["eps"].iloc[0]))


def threat_name(norm: str, eps: float) -> str:
    """``L-inf 8/255``: norm and radius, in grey levels where it is a number of them."""
    radius = f"{eps:.3g}"
    for levels, least in ((16, 0.5), (255, 1.0)) if norm == "linf" or float(radius) != eps else ():
        count = least * round(eps * levels / least) if eps == eps else 0.0
        if count and abs(count / levels - eps) < 1e-6:
            radius = f"{count:g}/{levels}"
            break
    return f"{ {'linf': 'L-inf', 'l2': 'L2'}.get(norm, '') } {radius}"
