"""Means and intervals over seeds: the seed is the unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with a t interval.

    Attributes
    ----------
    mean, low, high : float
        `low` and `high` are NaN with fewer than two seeds.
    seeds : int
    """

    mean: float
    low: float
    high: float
    seeds: int

    def text(self, scale: float = 100.0, digits: int = 1) -> str:
        """``75.1 [74.0, 76.2]``, or the mean alone."""
        mean = f"{scale * self.mean:.{digits}f}"
        if np.isnan(self.low):
            return mean
        return f"{mean} [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"


def estimate(values: pd.Series | np.ndarray, confidence: float = 0.95) -> Estimate:
    """Mean of one value per seed, with Student's t interval."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    if len(x) < 2:
        return Estimate(float(x.mean()), float("nan"), float("nan"), len(x))
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def paired_difference(
    table: pd.DataFrame, arm: str, reference: str, *, fraction: float, value: str = "robust"
) -> Estimate:
    """Mean difference `arm` minus `reference` over the seeds that both have, at one fraction."""
    at = table[table["fraction"] == fraction].set_index(["arm", "seed"])[value].dropna()
    known = at.index.get_level_values("arm")
    if arm not in known or reference not in known:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    difference = (at[arm] - at[reference]).dropna()
    return estimate(difference)


def with_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns ``clean`` and ``robust``, empty where no run could be tested."""
    missing = {name: np.nan for name in ("clean", "robust") if name not in table}
    return table.assign(**missing) if missing else table


def full_cost(table: pd.DataFrame) -> pd.Series:
    """Forward-equivalents of the run on full data, by seed: what costs are shares of."""
    return table[table["fraction"] == 1].drop_duplicates("seed").set_index("seed")["cost"]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and fraction: clean and robust accuracy in per cent, cost of the full run.

    Returns
    -------
    DataFrame
        Columns ``arm, fraction, seeds, clean, clean_low, clean_high, robust, ..., cost, speed_up``:
        accuracies in [0, 1]; `cost` is the share of the full run's forward-equivalents, `speed_up`
        its inverse.
    """
    table = with_accuracies(table)
    full = full_cost(table)
    rows = []
    for (arm, fraction), group in table.groupby(["arm", "fraction"], sort=False):
        row: dict[str, object] = {
            "arm": arm,
            "fraction": fraction,
            "seeds": group[group["robust"].notna()]["seed"].nunique(),
        }
        for name in ("clean", "robust"):
            value = estimate(group[name].dropna()) if group[name].notna().any() else None
            if value is not None:
                row |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        shares = group.set_index("seed")["cost"] / full
        row["cost"] = shares.mean()
        row["speed_up"] = 1 / row["cost"] if row["cost"] else np.nan  # type: ignore[operator]
        rows.append(row)
    ordered = pd.DataFrame(rows)
    return ordered.sort_values(["arm", "fraction"], ascending=[True, False], ignore_index=True)


def printable(table: pd.DataFrame) -> pd.DataFrame:
    """`summary` as people read it: per cent with intervals, cost as a share of the full run."""
    rows = []
    for _, row in summary(table).iterrows():
        shown = {"arm": row["arm"], "data kept": f"{100 * row['fraction']:g} %", "seeds": row["seeds"]}
        for name in ("clean", "robust"):
            shown[f"{name} accuracy, %"] = Estimate(
                row.get(name, np.nan), row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan), 0
            ).text()
        shown["cost / full run"] = f"{row['cost']:.3f}"
        rows.append(shown)
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
