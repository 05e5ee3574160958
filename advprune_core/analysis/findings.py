"""Prose about a study, computed from its records: nothing is said that they do not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.comparisons import Comparison, compare
from advprune_core.analysis.estimates import Estimate, accuracy, estimate
from advprune_core.analysis.labels import arm_label, point_label
from advprune_core.analysis.markup import escape, with_names
from advprune_core.analysis.seeds import planned_seeds, was_run
from advprune_core.analysis.summaries import speed_ups
from advprune_core.analysis.verdicts import (
    BETTER,
    BETTER_HERE,
    NO_VERDICT,
    WORSE,
    WORSE_HERE,
    Verdict,
    how_judged,
    judge,
    method,
    seeds_told,
)
from advprune_core.analysis.ways import SAME_COST, ways
from advprune_core.base.settings import check_names

#: Share of a full run's passes that choosing may take before it is named.
_DEAR = 0.02
#: Way of training, arm, its rival, fraction; the arm is its own rival on all the data.
_Pair = tuple[str, str, str, float]


def accuracy_findings(table: pd.DataFrame) -> str:
    """Markdown: what each pruned arm loses against full data, and whether it beats its controls."""
    parts = [(way, with_accuracies(rows)) for way, rows in ways(with_names(table, escape))]
    verdicts = judge({pair: found for way, rows in parts for pair, found in _accuracy_pairs(way, rows).items()})
    texts = []
    for way, rows in parts:
        own = {pair: verdict for pair, verdict in verdicts.items() if pair[0] == way}
        text = bullets([*_full_data(rows), *_pruned_arms(rows, own), *unhappy_runs(rows)])
        texts.append(f"### {way}\n\n{text}" if way else text)
    return with_method("\n\n".join(texts), method(verdicts.values()))


def _accuracy_pairs(way: str, table: pd.DataFrame) -> dict[_Pair, Comparison]:
    """Every pruned arm of one way of training, against itself on all the data and against its controls."""
    found = {}
    for arm, fraction in _pruned_runs(table):
        if was_run(table, arm, 1.0):
            found[way, arm, arm, fraction] = compare(table, arm, arm, fraction=fraction, reference_fraction=1.0)
        for control in table["arm"].unique():
            if control.endswith(f"({arm})") and was_run(table, control, fraction):
                found[way, arm, control, fraction] = compare(table, arm, control, fraction=fraction)
    return found


def _pruned_runs(table: pd.DataFrame) -> list[tuple[str, float]]:
    """Arms in their order with fractions below 1 from the largest to the smallest, controls aside."""
    runs = table[table["control"].isna() & (table["fraction"] < 1)]
    arms = runs["arm"].unique()
    return [(arm, f) for arm in arms for f in sorted(runs[runs["arm"] == arm]["fraction"].unique(), reverse=True)]


def _full_data(table: pd.DataFrame) -> list[str]:
    full = table[(table["matched_fraction"] == 1) & table["robust"].notna()].drop_duplicates("seed")
    if not len(full):
        return []
    clean, robust = accuracy(full["clean"]), accuracy(full["robust"])
    planned = planned_seeds(full, table)
    interval = "" if np.isnan(robust.low) else ", 95 % t interval"
    return [
        f"Full data reaches {clean.text()} % on clean images and {robust.text()} % under attack "
        f"(mean of {len(full)} of {planned} seed{'s' * (planned > 1)}{interval})."
    ]


def _pruned_arms(table: pd.DataFrame, verdicts: Mapping[_Pair, Verdict]) -> list[str]:
    lines = []
    for arm, fraction in _pruned_runs(table):
        own = {rival: verdict for (_, a, rival, f), verdict in verdicts.items() if (a, f) == (arm, fraction)}
        lines.append(f"**{point_label(arm, fraction)}**: {_level(table, arm, fraction, own.get(arm))}.")
        lines += [
            f"  - against *{arm_label(rival)}*: {verdict.text()}." for rival, verdict in own.items() if rival != arm
        ]
    return lines


def _level(table: pd.DataFrame, arm: str, fraction: float, loss: Verdict | None) -> str:
    """What an arm reaches, or what it loses where it was run on all the data as well."""
    runs = table[table["arm"] == arm].drop_duplicates(["fraction", "seed"]).set_index(["fraction", "seed"])
    here = runs.loc[fraction]
    if loss is None:
        tested = here["robust"].dropna()
        return f"{accuracy(tested).text()} % robust" if len(tested) else "no seed was evaluated"
    share = (here["cost"] / runs.loc[1.0]["cost"]).mean()
    cost = "" if np.isnan(share) else f", at {100 * share:.0f} % of its cost"
    clean = estimate((here["clean"] - runs.loc[1.0]["clean"]).dropna(), bounds=(-1.0, 1.0))
    return f"against full data{cost}: {clean.points()} clean, {loss.text()}"


def unhappy_runs(table: pd.DataFrame) -> list[str]:
    """How many runs did not end well, and how."""
    unhappy = table[table["status"] != "ok"].drop_duplicates("key")
    counts = ", ".join(f"{n} {status}" for status, n in unhappy["status"].value_counts().items())
    return [f"Not every run ended well: {counts}."] if counts else []


def pair_findings(table: pd.DataFrame, pairs: Sequence[Sequence[str]]) -> str:
    """Markdown: differences in robust accuracy of pairs of arms, by seed, at each fraction that both have.

    Raises
    ------
    ConfigError
        An arm that the table does not have.
    """
    asked = {}
    for names in pairs:
        check_names(names, table["arm"].unique(), what="arm")
    table = with_names(table, escape)
    for first, second in (map(escape, names) for names in pairs):
        for fraction in sorted(table[table["arm"] == first]["matched_fraction"].unique(), reverse=True):
            if was_run(table, second, fraction):
                asked[first, second, fraction] = compare(table, first, second, fraction=fraction)
    verdicts = judge(asked)
    lines = [
        f"**{arm_label(first)}** against *{arm_label(second)}* at {100 * fraction:g} %: {verdict.text()}."
        for (first, second, fraction), verdict in verdicts.items()
    ]
    return with_method(bullets(lines), method(verdicts.values()))


def pruner_findings(rows: pd.DataFrame) -> str:
    """Markdown: which pruners beat a random subset, and which beat all data at their own cost.

    Parameters
    ----------
    rows : DataFrame
        From `pruner_table`.
    """
    if not len(rows):
        return "- No run of this study keeps less than all the data."
    rows, texts = rows.assign(pruner=rows["pruner"].map(escape)), []  # its pruners are arms
    names = rows["pruner"].str.rpartition(": ")
    for way, own in rows.assign(pruner=names[2]).groupby(names[0], sort=False):
        text = bullets(_pruners_of_way(own))
        texts.append(f"### {way}\n\n{text}" if way else text)
    rivals = ("against_random", "against_same_cost")
    says, deviations = (pd.concat([rows[f"{name}_{what}"] for name in rivals]) for what in ("verdict", "deviation"))
    sentences = how_judged(says[says != ""]), seeds_told(deviations.dropna().tolist(), int(rows["seeds"].max()))
    return with_method("\n\n".join(texts), " ".join(filter(None, sentences)))


def _pruners_of_way(rows: pd.DataFrame) -> list[str]:
    """The pruners of one way of training, at each fraction; a random subset is who they are held against."""
    lines, random = [], rows[rows["pruner"] == "random"].set_index("fraction")["cost"]
    rows = rows.assign(dearer=rows["cost"] / rows["fraction"].map(random))
    for fraction, group in rows[rows["pruner"] != "random"].groupby("fraction", sort=False):
        lines.append(f"**{100 * float(str(fraction)):g} % of the data**, {len(group)} pruner{'s' * (len(group) > 1)}:")
        for name, rival in (("against_random", "a static random subset"), ("against_same_cost", "all data, same cost")):
            known = group[group[f"{name}_verdict"] != ""].sort_values(name, ascending=False)
            if len(known):
                lines.append(f"  - against {rival}: {_tally(known, name)}.")
        lines += _random_itself(rows[(rows["pruner"] == "random") & (rows["fraction"] == fraction)])
        lines.append(
            "  - choosing, or a first phase on all the data to choose by, takes more than "
            f"{100 * _DEAR:g} % of a full run's passes: {_dear(group)}."
        )
    return lines


def _dear(group: pd.DataFrame) -> str:
    """Who spends much on choosing, and of whom that is not known: of a full run's passes, so without one of nobody."""
    unknown = group[group["cost"].isna()]
    if len(unknown) == len(group):
        return "not known" + " (there is no full run)" * bool((group["seeds"] > 0).any())
    dear = group.assign(more=group["cost"] - group["fraction"]).sort_values("more", ascending=False)
    dear = dear[dear["more"] > _DEAR]
    choosing, keeping = (
        ", ".join(f"{row['pruner']} (+{row['more']:.2f})" for _, row in rows.iterrows())
        for rows in (dear[~dear["keeps_more"]], dear[dear["keeps_more"]])
    )
    more = f"; what {keeping} takes beyond the fraction is for images, more of which it trains on" * bool(keeping)
    return (choosing or "none") + more + (f"; not known of {', '.join(unknown['pruner'])}" if len(unknown) else "")


def _random_itself(rows: pd.DataFrame) -> list[str]:
    """The random subset beside all the data at its cost: what every pruner of that table has to be seen beside."""
    lines, name = [], "against_same_cost"
    for _, row in rows[rows[f"{name}_verdict"] != ""].iterrows():
        gain = Estimate.of_row(row, name)
        lines.append(
            f"  - a static random subset itself against all data, same cost: {gain.points()}; {row[f'{name}_verdict']}."
        )
    return lines


def _tally(known: pd.DataFrame, name: str) -> str:
    """Who is better and who worse, how many are neither, and of how many nothing can be said."""
    says, points = known[f"{name}_verdict"], 100 * known[name]
    parts = []
    for kind in (BETTER, BETTER_HERE, WORSE, WORSE_HERE):
        rows = known[says == kind]
        names = ", ".join(f"{row['pruner']} ({_gain(row, name)})" for _, row in rows.iterrows())
        if names or (kind in (BETTER, WORSE) and not says.str.startswith(NO_VERDICT).all()):
            parts.append(f"{kind}: {names or 'none'}")
    rest = known[~says.isin([BETTER, BETTER_HERE, WORSE, WORSE_HERE])]
    for text, group in rest.groupby(f"{name}_verdict"):
        means = points[group.index]
        span = "" if str(text).startswith(NO_VERDICT) else f", {means.min():+.1f} to {means.max():+.1f}"
        parts.append(f"{text} ({len(group)} pruner{'s' * (len(group) > 1)}{span})")
    if points.notna().any():
        ends = known.loc[[points.idxmin(), points.idxmax()]].iterrows()
        told = " to ".join(f"{100 * row[name]:+.1f} ({row['pruner']})" for _, row in ends)
        parts.append(f"differences of means from {told} points")
    lacking = known[known[f"{name}_pairs"].str.endswith("left out")]
    parts += [f"{row['pruner']}: {row[f'{name}_pairs']}" for _, row in lacking.iterrows()]
    return "; ".join(parts)


def _gain(row: pd.Series, name: str) -> str:
    """``+10.9``; beside a random subset with what it costs of that one's run: ``+10.9 at 2.3x the cost``."""
    dear = name == "against_random" and row["dearer"] >= 1 + SAME_COST
    return f"{100 * row[name]:+.1f}" + (f" at {row['dearer']:.2g}x the cost" if dear else "")


def with_method(text: str, told: str) -> str:
    """A text and how its verdicts came about."""
    return f"{text}\n\n{told}" if told else text


def bullets(lines: list[str]) -> str:
    """A Markdown list; lines that are indented are below the one before."""
    return "\n".join(line if line.startswith("  ") else f"- {line}" for line in lines)


def runtime_findings(table: pd.DataFrame, timings: pd.DataFrame) -> str:
    """Markdown: what each fraction costs in both units, against the fraction itself."""
    runs, timings = with_names(table[table["control"].isna()], escape), with_names(timings, escape)
    lines = []
    for _, row in speed_ups(runs, timings).iterrows():
        if row["fraction"] == 1 or np.isnan(row["cost"]):
            continue
        text = (
            f"- **{point_label(row['arm'], row['fraction'])}**: {row['cost']:.4f} of the full run's "
            f"forward-equivalents, a speed-up of {row['speed_up_passes']:.2f}"
        )
        if not np.isnan(row["seconds_ratio"]):
            text += (
                f"; {row['cpu_seconds']:.2f} processor seconds, {row['seconds_ratio']:.3f} of the full run's "
                f"= {row['seconds_ratio'] / row['fraction']:.3f} f, a speed-up of {row['speed_up_seconds']:.2f}"
            )
            if row["timings"] > 1:
                text += f" ({row['speed_up_seconds_low']:.2f} to {row['speed_up_seconds_high']:.2f})"
        lines.append(text + ".")
    if not lines:
        lines.append("- Without runs on all data there is nothing to compare costs with.")
    if len(timings) == 0:
        lines.append("- No run was timed alone, so nothing is said about seconds.")
    else:
        repeats = int(timings.groupby(["arm", "key"]).size().min())
        told = (
            "of one timing of each run, which does not tell how far a second would lie from it"
            if repeats == 1
            else f"medians of {repeats} timings of each run, in brackets the range of their ratios"
        )
        lines.append(f"- Seconds are {told}: alone on the machine, training and selection, without the final test.")
    return "\n".join(lines)
