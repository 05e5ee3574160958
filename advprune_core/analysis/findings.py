"""Prose about a study, computed from its records: nothing is said that they do not show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from advprune_core.analysis.estimates import Estimate, accuracy, estimate
from advprune_core.analysis.labels import arm_label, point_label
from advprune_core.analysis.markup import escape, with_names
from advprune_core.analysis.summaries import (
    SAME_COST,
    component_name,
    frontier,
    speed_ups,
    way_labels,
    ways,
    with_accuracies,
)
from advprune_core.analysis.verdicts import (
    BETTER,
    BETTER_HERE,
    NO_VERDICT,
    UNDECIDED,
    WORSE,
    WORSE_HERE,
    Comparison,
    Verdict,
    between,
    compare,
    how_judged,
    judge,
    method,
    seeds_told,
    was_run,
)
from advprune_core.attacks.evaluate import wilson
from advprune_core.base.settings import check_names
from advprune_core.datasets.base import DATASETS
from advprune_core.trainers.sentinel import hollow

#: Share of a full run's passes that choosing may take before it is named.
_DEAR = 0.02
#: Way of training, arm, its rival, fraction; the arm is its own rival on all the data.
_Pair = tuple[str, str, str, float]
#: Way of training, its fraction, its rival on all the data.
_Verdicts = Mapping[tuple[str, float, str], Verdict]


def accuracy_findings(table: pd.DataFrame) -> str:
    """Markdown: what each pruned arm loses against full data, and whether it beats its controls."""
    parts = [(way, with_accuracies(rows)) for way, rows in ways(with_names(table, escape))]
    verdicts = judge({pair: found for way, rows in parts for pair, found in _accuracy_pairs(way, rows).items()})
    texts = []
    for way, rows in parts:
        own = {pair: verdict for pair, verdict in verdicts.items() if pair[0] == way}
        text = _bullets([*_full_data(rows), *_pruned_arms(rows, own), *_unhappy(rows)])
        texts.append(f"### {way}\n\n{text}" if way else text)
    return _with_method("\n\n".join(texts), method(verdicts.values()))


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
    planned = table["seed"].nunique()
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


def _unhappy(table: pd.DataFrame) -> list[str]:
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
    return _with_method(_bullets(lines), method(verdicts.values()))


def pruner_findings(rows: pd.DataFrame) -> str:
    """Markdown: which pruners beat a random subset, and which beat all data at their own cost.

    Parameters
    ----------
    rows : DataFrame
        From `pruner_table`.
    """
    if not len(rows):
        return "- No run of this study keeps less than all the data."
    rows, lines = with_names(rows, escape), []
    random = rows[rows["pruner"] == "random"].set_index("fraction")["cost"]
    rows["dearer"] = rows["cost"] / rows["fraction"].map(random)
    for fraction, group in rows[rows["pruner"] != "random"].groupby("fraction", sort=False):
        lines.append(f"**{100 * float(str(fraction)):g} % of the data**, {len(group)} pruners:")
        for name, rival in (("against_random", "a static random subset"), ("against_same_cost", "all data, same cost")):
            known = group[group[f"{name}_verdict"] != ""].sort_values(name, ascending=False)
            if len(known):
                lines.append(f"  - against {rival}: {_tally(known, name)}.")
        lines += _random_itself(rows[(rows["pruner"] == "random") & (rows["fraction"] == fraction)])
        dear = group.assign(more=group["cost"] - group["fraction"]).sort_values("more", ascending=False)
        dear = dear[dear["more"] > _DEAR]
        told = ", ".join(f"{row['pruner']} (+{row['more']:.2f})" for _, row in dear.iterrows()) or "none"
        lines.append(
            "  - choosing, or a first phase on all the data to choose by, takes more than "
            f"{100 * _DEAR:g} % of a full run's passes: {told}."
        )
    rivals = ("against_random", "against_same_cost")
    says, deviations = (pd.concat([rows[f"{name}_{what}"] for name in rivals]) for what in ("verdict", "deviation"))
    sentences = how_judged(says[says != ""]), seeds_told(deviations.dropna().tolist(), int(rows["seeds"].max()))
    return _with_method(_bullets(lines), " ".join(filter(None, sentences)))


def _random_itself(rows: pd.DataFrame) -> list[str]:
    """The random subset beside all the data at its cost: what every pruner of that table has to be seen beside."""
    lines, name = [], "against_same_cost"
    for _, row in rows[rows[f"{name}_verdict"] != ""].iterrows():
        gain = Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], int(row["seeds"]))
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
    rest = known[(says == UNDECIDED) | says.str.startswith(NO_VERDICT)]
    for text, group in rest.groupby(f"{name}_verdict"):
        means = points[group.index]
        span = f", {means.min():+.1f} to {means.max():+.1f}" if text == UNDECIDED else ""
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
    table, reference = with_names(table, escape), escape(reference)
    points = frontier(table)
    trained = points[(points["objective"] != "standard") & points["robust"].notna() & ~points["control"]]
    full, part = trained[trained["matched_fraction"] == 1], trained[trained["matched_fraction"] < 1]
    runs = with_accuracies(table).assign(arm=way_labels(table))
    asked: dict[tuple[str, float, str], Comparison] = {}
    for _, point in trained.iterrows():
        # Every way of training, not only those that turn out best: choosing is part of what is judged.
        for rival in _rivals(point, full, reference).values():
            way, fraction = point["way"], point["matched_fraction"]
            if fraction == 1 and (rival, fraction, way) in asked:  # the same comparison, from the other side
                continue
            found = compare(runs, way, rival, fraction=fraction, reference_fraction=1.0)
            asked[way, fraction, rival] = found
    judged = judge(asked)
    mirrored = {(rival, f, way): verdict.mirrored() for (way, f, rival), verdict in judged.items() if f == 1}
    verdicts = mirrored | judged
    lines = [
        *_robust_at_all(points, margin),
        *_collapses(table),
        *_paying(full, reference, verdicts),
        *_pruned(part, full, reference, verdicts),
    ]
    return _with_method(_bullets(lines), method(judged.values()))


def _rivals(point: pd.Series, full: pd.DataFrame, reference: str) -> dict[str, str]:
    """Ways of training on all the data that a point is compared with.

    For all the data the ``"reference"``, for a part of it the same way of training on the ``"whole"``;
    then, unless it is that one, the highest mean of those that are ``"cheaper"`` or cost the same. All
    of the point's own data set and threat model.
    """
    full = full[full["setting"] == point["setting"]]
    kind, name = ("reference", reference) if point["matched_fraction"] == 1 else ("whole", str(point["way"]))
    found = (
        {kind: name} if (full["way"] == name).any() and (point["way"], point["matched_fraction"]) != (name, 1.0) else {}
    )
    cheaper = full[(full["cost_per_image"] <= point["cost_per_image"]) & (full["way"] != point["way"])]
    if len(cheaper) and (best := str(cheaper.loc[cheaper["robust"].idxmax(), "way"])) not in found.values():
        found["cheaper"] = best
    return found


def _paying(full: pd.DataFrame, reference: str, verdicts: _Verdicts) -> list[str]:
    """The ways of training on all the data whose mean nothing cheaper reaches, and whether that is more than chance."""
    lines = []
    for _, point in full[full["on_frontier"] & (full["way"] != reference)].sort_values("cost_per_image").iterrows():
        lines.append(f"  - **{point['way']}** withstands the attack on {_percent(point)} % of the images.")
        for kind, rival in _rivals(point, full, reference).items():
            cost = point["cost_per_image"] / full[full["way"] == rival]["cost_per_image"].iloc[0]
            of = ", the highest mean of those that cost no more" if kind == "cheaper" else ""
            verdict = verdicts[point["way"], 1.0, rival]
            lines.append(f"    - at {cost:.2f} of the cost of *{rival}*{of}: {verdict.text()}.")
    head = "Of training on all the data, nothing here that costs as much or less has as high a mean as:"
    return [head, *lines] if lines else []


def _pruned(part: pd.DataFrame, full: pd.DataFrame, reference: str, verdicts: _Verdicts) -> list[str]:
    """What a part of the data comes to, against all of it and against cheaper training on all of it."""
    lines, cheaper, whole = [], [], {}
    for _, point in part.iterrows():
        own, rivals = (point["way"], point["matched_fraction"]), _rivals(point, full, reference)
        if "cheaper" in rivals:
            cheaper.append(verdicts[*own, rivals["cheaper"]])
        if "whole" in rivals and (verdict := verdicts[*own, rivals["whole"]]).comparison.difference.seeds:
            whole[f"{own[0]}, {100 * own[1]:g} %"] = verdict
    if cheaper:
        lines.append(
            f"Of the {len(part)} points with a part of the data, {len(cheaper)} cost as much or more than a way of "
            f"training on all the data. Against the highest mean of those: {_counts(cheaper)}."
        )
    if whole:
        means = {name: 100 * verdict.comparison.difference.mean for name, verdict in whole.items()}
        worst, best = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        lines.append(
            "Against all the data with the same training, a part changes mean robust accuracy by "
            f"{means[worst]:+.1f} ({worst}) to {means[best]:+.1f} points ({best}): {_counts(whole.values())}."
        )
    return lines


def _counts(verdicts: Iterable[Verdict]) -> str:
    """``12 worse beyond chance, 8 not significant``."""
    return "; ".join(f"{count} {text}" for text, count in Counter(v.says for v in verdicts).most_common())


def _with_method(text: str, told: str) -> str:
    """A text and how its verdicts came about."""
    return f"{text}\n\n{told}" if told else text


def _bullets(lines: list[str]) -> str:
    """A Markdown list; lines that are indented are below the one before."""
    return "\n".join(line if line.startswith("  ") else f"- {line}" for line in lines)


def _percent(point: pd.Series) -> str:
    return Estimate(point["robust"], point["robust_low"], point["robust_high"], 0).text()


def _robust_at_all(points: pd.DataFrame, margin: float) -> list[str]:
    """How standard training does, and who does not do better by a margin."""
    plain = points[(points["objective"] == "standard") & points["robust"].notna()]
    lines = []
    bar = plain["robust"].max() + margin if len(plain) else np.nan
    if len(plain):
        whole = plain.sort_values("matched_fraction").iloc[-1]
        lines.append(
            f"Standard training reaches {100 * whole['clean']:.1f} % on clean images "
            f"and {_percent(whole)} % under attack."
        )
        others = points[points["objective"] != "standard"]
        weak = others[~(others["robust"] >= bar)]
        names = [f"{row['way']} at {100 * row['matched_fraction']:g} %" for _, row in weak.iterrows()]
        told = f"all but {'; '.join(names)}" if names else "all"
        lines.append(f"Of {len(others)} others, {told} withstand at least {100 * margin:g} points more than that.")
    return lines


def _collapses(table: pd.DataFrame) -> list[str]:
    """Of ways that collapsed, onset and depth as well: near its bounds the sentinel's flag is decided by chance."""
    lines = []
    for (way, matched), runs in table.groupby([way_labels(table), "matched_fraction"], sort=False):
        flagged = runs[runs["status"] == "collapsed"]
        if not len(flagged):
            continue
        of = f" (the run it matches: {100 * float(str(matched)):g} %)" if runs["control"].notna().any() else ""
        low, high = wilson(len(flagged), len(runs))
        never = hollow(robust=runs["val_pgd_best"].max(), training=1.0)
        best, last, fall = (_span(100 * runs[name]) for name in ("val_pgd_best", "val_pgd_last", "collapse_depth"))
        lines.append(
            f"**{way}** at {100 * runs['fraction'].iloc[0]:g} % of the data{of} collapsed in {len(flagged)} of "
            f"{len(runs)} runs (95 % interval of the rate: {100 * low:.0f} to {100 * high:.0f} %), from epoch "
            f"{_span(flagged['collapse_epoch'])} on. Held-out robust accuracy of all {len(runs)}: {best} % at best, "
            f"then a fall of {fall} points, {last} % at the end."
            + (" None ever was robust: the training attack is all that was learned." if never else "")
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
    return between(f"{end:.0f}" for end in (values.min(), values.max()))


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
