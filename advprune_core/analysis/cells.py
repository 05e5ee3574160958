"""What the cells of a table say: components, with their settings as JSON, data sets and threat models."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd


def with_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns ``clean`` and ``robust``, empty where no run could be tested."""
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
    """The rows of each data set and threat model, named where there are several: across them nothing is comparable."""
    groups = [rows for _, rows in table.groupby(["dataset", "norm", "eps"], sort=False, dropna=False)]
    names = [setting_of(rows) for rows in groups]
    return list(zip(names if len(groups) > 1 else [""], groups, strict=False))


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
