"""Prose about a study, computed from its records: nothing is said that they do not show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from advprune_core.plots import arm_label
from advprune_core.statistics import Estimate, estimate, paired_difference, speed_ups, ways, with_accuracies


def _points(value: Estimate) -> str:
    """A difference in percentage points with its interval."""
    if np.isnan(value.low):
        return f"{100 * value.mean:+.1f} points (one seed: no interval)"
    return f"{100 * value.mean:+.1f} points [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def _verdict(value: Estimate) -> str:
    if np.isnan(value.low):
        return "one seed cannot tell whether that is more than chance"
    if value.low > 0:
        return "more than chance"
    return "less, beyond chance" if value.high < 0 else "no difference that these seeds could see"


def accuracy_findings(table: pd.DataFrame) -> str:
    """Markdown: what each pruned arm loses against full data, and whether it beats its control."""
    parts = [(way, _accuracy_findings(rows)) for way, rows in ways(table)]
    return "\n\n".join(f"### {way}\n\n{text}" if way else text for way, text in parts)


def _accuracy_findings(table: pd.DataFrame) -> str:
    """The same of one way of training."""
    table = with_accuracies(table)
    arms = list(dict.fromkeys(table["arm"]))
    pruned = list(dict.fromkeys(table[table["control"].isna()]["arm"]))
    full = table[(table["fraction"] == 1) & table["robust"].notna()].drop_duplicates("seed")
    seeds = len(full)
    lines = []
    if len(full):
        clean, robust = estimate(full["clean"]), estimate(full["robust"])
        lines.append(
            f"Full data reaches {clean.text()} % on clean images and {robust.text()} % under attack "
            f"(mean of {seeds} seed{'s' * (seeds > 1)}, 95 % t interval)."
        )
    for arm in pruned:
        controls = [other for other in arms if other.endswith(f"({arm})")]
        for fraction in sorted(table[table["arm"] == arm]["fraction"].unique(), reverse=True):
            if fraction == 1:
                continue
            lines.append(_loss(table, arm, fraction))
            for control in controls:
                difference = paired_difference(table, arm, control, fraction=fraction)
                if difference.seeds:
                    lines.append(
                        f"  - against *{arm_label(control)}*: {_points(difference)} robust; {_verdict(difference)}."
                    )
    comparisons = sum(line.startswith("  ") for line in lines)
    if comparisons > 1:
        lines.append(
            f"Each interval is for its comparison alone; with {comparisons} of them, one or another may miss by chance."
        )
    unhappy = table[table["status"] != "ok"].drop_duplicates("key")
    if len(unhappy):
        counts = ", ".join(f"{n} {status}" for status, n in unhappy["status"].value_counts().items())
        lines.append(f"Not every run ended well: {counts}.")
    return "\n".join(line if line.startswith("  ") else f"- {line}" for line in lines)


def _loss(table: pd.DataFrame, arm: str, fraction: float) -> str:
    rows = table[table["arm"] == arm].set_index(["fraction", "seed"])
    text = f"**{arm_label(arm)}, {100 * fraction:g} %**"
    if 1.0 not in rows.index.get_level_values("fraction"):
        return f"{text}: {estimate(rows['robust'][fraction].dropna()).text()} % robust."
    share = (rows["cost"][fraction] / rows["cost"][1.0]).mean()
    robust = estimate((rows["robust"][fraction] - rows["robust"][1.0]).dropna())
    clean = estimate((rows["clean"][fraction] - rows["clean"][1.0]).dropna())
    if robust.seeds == 0:
        return f"{text}: no seed has both this run and the full one."
    cost = f"at {100 * share:.0f} % of its cost"
    return f"{text}: {_points(robust)} robust and {_points(clean)} clean against full data, {cost}."


def runtime_findings(table: pd.DataFrame, timings: pd.DataFrame) -> str:
    """Markdown: what each fraction costs in both units, against the fraction itself."""
    runs = table[table["control"].isna()]
    lines = []
    for _, row in speed_ups(runs, timings).iterrows():
        if row["fraction"] == 1 or np.isnan(row["cost"]):
            continue
        text = (
            f"- **{arm_label(row['arm'])}, {100 * row['fraction']:g} %**: {row['cost']:.4f} of the full run's "
            f"forward-equivalents, a speed-up of {row['speed_up_passes']:.2f}"
        )
        if not np.isnan(row["seconds_ratio"]):
            text += (
                f"; {row['cpu_seconds']:.2f} processor seconds, {row['seconds_ratio']:.3f} of the full run's "
                f"= {row['seconds_ratio'] / row['fraction']:.3f} f, a speed-up of {row['speed_up_seconds']:.2f}"
            )
        lines.append(text + ".")
    if not lines:
        lines.append("- Without runs on all data there is nothing to compare costs with.")
    if len(timings) == 0:
        lines.append("- No run was timed alone, so nothing is said about seconds.")
    else:
        repeats = int(timings.groupby(["arm", "key"]).size().min())
        lines.append(
            f"- Seconds are medians of {repeats} timing{'s' * (repeats > 1)} of each run, alone on the machine, of "
            "training and selection, without the final test."
        )
    return "\n".join(lines)
