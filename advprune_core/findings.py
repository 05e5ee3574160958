"""Prose about a study, computed from its records: nothing is said that they do not show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from advprune_core.data import DATASETS
from advprune_core.plots import arm_label
from advprune_core.settings import check_names
from advprune_core.statistics import (
    Estimate,
    component_name,
    estimate,
    frontier,
    paired_difference,
    runs_by_way,
    speed_ups,
    ways,
    with_accuracies,
)


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
    return _bullets(lines)


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


def pair_findings(table: pd.DataFrame, pairs: Sequence[Sequence[str]]) -> str:
    """Markdown: differences in robust accuracy of pairs of arms, by seed, at each fraction that both have.

    Raises
    ------
    ConfigError
        An arm that the table does not have.
    """
    lines = []
    for first, second in pairs:
        check_names([first, second], table["arm"].unique(), what="arm")
        for fraction in sorted(table[table["arm"] == first]["fraction"].unique(), reverse=True):
            difference = paired_difference(table, first, second, fraction=fraction)
            if difference.seeds:
                lines.append(
                    f"**{arm_label(first)}** against *{arm_label(second)}* at {100 * fraction:g} %: "
                    f"{_points(difference)} robust ({difference.seeds} seeds); {_verdict(difference)}."
                )
    return _bullets(lines)


def pruner_findings(rows: pd.DataFrame) -> str:
    """Markdown: which pruners beat a random subset, and which beat all data at their own cost.

    Parameters
    ----------
    rows : DataFrame
        From `pruner_table`.
    """
    lines = []
    for fraction, group in rows[rows["pruner"] != "random"].groupby("fraction", sort=False):
        lines.append(f"**{100 * float(str(fraction)):g} % of the data**, {len(group)} pruners:")
        for name, rival in (("against_random", "a static random subset"), ("against_same_cost", "all data, same cost")):
            known = group[group[name].notna()]
            if not len(known):
                continue
            better = known[known[f"{name}_low"] > 0].sort_values(name, ascending=False)
            worse = int((known[f"{name}_high"] < 0).sum())
            told = ", ".join(f"{row['pruner']} ({100 * row[name]:+.1f})" for _, row in better.iterrows()) or "none"
            lines.append(f"  - better than {rival} beyond chance: {told}; worse beyond chance: {worse}.")
        dear = group[group["selection_passes"] > 1]
        told = ", ".join(f"{row['pruner']} ({row['selection_passes']:.2f})" for _, row in dear.iterrows()) or "none"
        lines.append(f"  - selection takes more passes than one epoch of training: {told}.")
    if len(lines):
        comparisons = int(rows[["against_random", "against_same_cost"]].notna().sum().sum())
        lines.append(f"Each interval is for its comparison alone: of {comparisons}, some miss by chance.")
    return _bullets(lines)


def trainer_findings(table: pd.DataFrame, *, reference: str = "PGD-AT", margin: float = 0.2) -> str:
    """Markdown: which ways of training are robust, which pay, and what pruning does to each.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study of several variants.
    reference : str
        Variant that the others are compared with.
    margin : float
        What a way of training has to withstand beyond standard training to count as robust.
    """
    points = frontier(table)
    trained = points[(points["objective"] != "standard") & points["robust"].notna() & ~points["control"]]
    full, part = trained[trained["fraction"] == 1], trained[trained["fraction"] < 1]
    head = [*_robust_at_all(points, margin), *_collapses(table)]
    return _bullets([*head, *_paying(table, full, reference), *_pruned(full, part)])


def _paying(table: pd.DataFrame, full: pd.DataFrame, reference: str) -> list[str]:
    """The ways of training on all the data that nothing cheaper matches."""
    base, lines = full[full["way"] == reference], list[str]()
    for _, point in full[full["on_frontier"] & (full["way"] != reference)].sort_values("cost_per_image").iterrows():
        text = f"  - **{point['way']}** withstands the attack on {_percent(point)} % of the images"
        if len(base):
            share = point["cost_per_image"] / base["cost_per_image"].iloc[0]
            difference = _points(_against(table, point["way"], reference))
            text += f": {difference} against {reference}, at {share:.2f} of its cost"
        lines.append(f"{text}.")
    head = "Of training on all the data, nothing here that costs as much or less reaches as much as:"
    return [head, *lines] if lines else []


def _pruned(full: pd.DataFrame, part: pd.DataFrame) -> list[str]:
    """What a part of the data comes to, against all of it and against cheaper training on all of it."""
    if not len(full) or not len(part):
        return []
    beaten = sum(
        ((full["cost_per_image"] <= point["cost_per_image"]) & (full["robust"] >= point["robust"])).any()
        for _, point in part.iterrows()
    )
    lines = [
        f"Of the {len(part)} points with a part of the data, {beaten} are matched or beaten by a way of "
        "training on all the data that costs no more."
    ]
    whole = dict(zip(full["way"], full["robust"], strict=True))
    changes = {
        f"{point['way']}, {100 * point['fraction']:g} %": 100 * (point["robust"] - whole[point["way"]])
        for _, point in part.iterrows()
        if point["way"] in whole
    }
    if changes:
        worst, best = min(changes, key=changes.__getitem__), max(changes, key=changes.__getitem__)
        lines.append(
            "Against all the data with the same training, a part changes robust accuracy by "
            f"{changes[worst]:+.1f} ({worst}) to {changes[best]:+.1f} points ({best})."
        )
    return lines


def _bullets(lines: list[str]) -> str:
    """A Markdown list; lines that are indented are below the one before."""
    return "\n".join(line if line.startswith("  ") else f"- {line}" for line in lines)


def _percent(point: pd.Series) -> str:
    return Estimate(point["robust"], point["robust_low"], point["robust_high"], 0).text()


def _against(table: pd.DataFrame, way: str, reference: str) -> Estimate:
    """Paired difference in robust accuracy of two variants on all data."""
    full = table[(table["fraction"] == 1) & table["control"].isna()]
    return paired_difference(full.assign(arm=full["variant"]), way, reference, fraction=1.0)


def _robust_at_all(points: pd.DataFrame, margin: float) -> list[str]:
    """How standard training does, and who does not do better by a margin."""
    plain = points[(points["objective"] == "standard") & points["robust"].notna()]
    lines = []
    bar = plain["robust"].max() + margin if len(plain) else np.nan
    if len(plain):
        whole = plain.sort_values("fraction").iloc[-1]
        lines.append(
            f"Standard training reaches {100 * whole['clean']:.1f} % on clean images "
            f"and {_percent(whole)} % under attack."
        )
        others = points[points["objective"] != "standard"]
        weak = others[~(others["robust"] >= bar)]
        names = [f"{row['way']} at {100 * row['fraction']:g} %" for _, row in weak.iterrows()]
        told = f"all but {'; '.join(names)}" if names else "all"
        lines.append(f"Of {len(others)} others, {told} withstand at least {100 * margin:g} points more than that.")
    return lines


def _collapses(table: pd.DataFrame) -> list[str]:
    """Of ways that collapsed, onset and depth as well: near its bounds the sentinel's flag is decided by chance."""
    lines = []
    for way, fraction, runs in runs_by_way(table):
        flagged = runs[runs["status"] == "collapsed"]
        if not len(flagged):
            continue
        best, last, fall = (_span(100 * runs[name]) for name in ("val_pgd_best", "val_pgd_last", "collapse_depth"))
        lines.append(
            f"**{way}** at {100 * fraction:g} % of the data: {len(flagged)} of {len(runs)} runs collapsed, from epoch "
            f"{_span(flagged['collapse_epoch'])} on. Held-out robust accuracy of all {len(runs)}: {best} % at best, "
            f"then a fall of {fall} points, {last} % at the end."
        )
    return [*lines, *_held_out(table)] if lines else []


def _held_out(table: pd.DataFrame) -> list[str]:
    """What sets held-out images apart from the test images, and how much that comes to here."""
    source = DATASETS.classes().get(component_name(table["dataset"].iloc[0]))
    if source is None or not source.held_out:
        return []
    adversarial = table["objective"].map(component_name) != "standard"
    both = table[adversarial & table["val_pgd_last"].notna() & table["robust"].notna()]
    held_out, test = 100 * both["val_pgd_last"].mean(), 100 * both["robust"].mean()
    return [
        f"Held-out images are no test: {source.held_out}. At the end of adversarial training, robust accuracy is "
        f"{held_out:.0f} % on them and {test:.0f} % on the test images."
    ]


def _span(values: pd.Series) -> str:
    """``31 to 37``, or one number if they agree."""
    low, high = f"{values.min():.0f}", f"{values.max():.0f}"
    return low if low == high else f"{low} to {high}"


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
