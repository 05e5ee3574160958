"""Prose about ways of training, computed from a study's records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

from advprune_core.analysis.cells import checked, component_name, with_accuracies
from advprune_core.analysis.comparisons import Comparison, compare
from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.findings import bullets, unhappy_runs, with_method
from advprune_core.analysis.markup import escape, with_names
from advprune_core.analysis.seeds import well_covered
from advprune_core.analysis.survival import never_robust
from advprune_core.analysis.tested import attacks_of
from advprune_core.analysis.verdicts import Verdict, between, judge, method
from advprune_core.analysis.ways import ROUNDING, frontier, full_runs_once, variants, way_labels
from advprune_core.attacks.evaluate import wilson
from advprune_core.datasets.base import DATASETS

#: Way of training, its fraction, its rival on all the data.
_Verdicts = Mapping[tuple[str, float, str], Verdict]


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
    table, reference = full_runs_once(with_names(table, escape)), escape(reference)
    points = frontier(table)
    points = points.assign(variant=points["way"].map(variants(table)))
    trained = points[(points["objective"] != "standard") & points["robust"].notna() & ~points["control"]]
    full, part = trained[trained["matched_fraction"] == 1], trained[trained["matched_fraction"] < 1]
    named = full[(full["way"] == reference) | (full["variant"] == reference)]["way"]  # where arms are told apart
    reference = str(named.iloc[0]) if len(named) else reference
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
        *_untested(points),
        *unhappy_runs(table[table["status"] != "collapsed"]),  # which are told by themselves
        *_collapses(table),
        *_paying(full, reference, verdicts),
        *_pruned(part, full, reference, verdicts),
    ]
    return with_method(bullets(lines), method(judged.values()))


def _rivals(point: pd.Series, full: pd.DataFrame, reference: str) -> dict[str, str]:
    """Ways of training on all the data that a point is compared with.

    For all the data the ``"reference"``, for a part of it the same way of training on the ``"whole"``;
    then, unless it is that one, the highest mean of those that are ``"cheaper"`` or cost the same (within 1 %).
    All of the point's own data set and threat model.
    """
    full = full[full["setting"] == point["setting"]]
    kind, name = "reference", reference
    if point["matched_fraction"] < 1:  # several arms' runs on all the data are their variant's
        kind, name = "whole", str(point["way" if (full["way"] == point["way"]).any() else "variant"])
    found = (
        {kind: name} if (full["way"] == name).any() and (point["way"], point["matched_fraction"]) != (name, 1.0) else {}
    )
    affordable = full["cost_per_image"] <= (1 + ROUNDING) * point["cost_per_image"]
    cheaper = full[affordable & (full["way"] != point["way"])]
    cheaper = cheaper[well_covered(cheaper["seeds"])]
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
    head = "Of training on all the data, nothing here that costs as much or less has a higher mean than:"
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


def _percent(point: pd.Series) -> str:
    return Estimate.of_row(point, "robust").text()


def _robust_at_all(points: pd.DataFrame, margin: float) -> list[str]:
    """How standard training does, and who does not do better by a margin, in each data set and threat model."""
    lines = []
    for setting, here in points.groupby("setting", sort=False):
        plain = here[(here["objective"] == "standard") & here["robust"].notna()]
        if not len(plain):
            continue
        bar, whole = plain["robust"].max() + margin, plain.sort_values("matched_fraction").iloc[-1]
        where = f" ({setting})" if points["setting"].nunique() > 1 else ""
        lines.append(
            f"Standard training{where} reaches {100 * whole['clean']:.1f} % on clean images "
            f"and {_percent(whole)} % under attack."
        )
        others = here[(here["objective"] != "standard") & here["robust"].notna()]
        if not len(others):
            continue
        weak = others[~(others["robust"] >= bar)]
        names = _named(weak)
        some = f"all but {'; '.join(names)}" if names else "all"
        told = "none" if 0 < len(names) == len(others) else some
        lines.append(f"Of {len(others)} others, {told} withstand at least {100 * margin:g} points more than that.")
    return lines


def _untested(points: pd.DataFrame) -> list[str]:
    """What has no result: nothing is said of it."""
    names = _named(points[points["robust"].isna()])
    return [f"Without a result: {'; '.join(names)}."] if names else []


def _named(points: pd.DataFrame) -> list[str]:
    return [f"{row['way']} at {100 * row['matched_fraction']:g} %" for _, row in points.iterrows()]


def _collapses(table: pd.DataFrame) -> list[str]:
    """Of ways that collapsed, onset and depth as well: near its bounds the sentinel's flag is decided by chance."""
    lines = []
    for (way, matched), runs in table.groupby([way_labels(table), "matched_fraction"], sort=False):
        runs = runs[checked(runs)]
        flagged = runs[runs["status"] == "collapsed"]
        if not len(flagged):
            continue
        of = f" (the run it matches: {100 * float(str(matched)):g} %)" if runs["control"].notna().any() else ""
        low, high = wilson(len(flagged), len(runs))
        best, last, fall = (_span(100 * runs[name]) for name in ("val_pgd_best", "val_pgd_last", "collapse_depth"))
        lines.append(
            f"**{way}** at {100 * runs['fraction'].iloc[0]:g} % of the data{of} collapsed in {len(flagged)} of "
            f"{len(runs)} runs (95 % interval of the rate: {100 * low:.0f} to {100 * high:.0f} %), from epoch "
            f"{_span(flagged['collapse_epoch'])} on. Held-out robust accuracy of all {len(runs)}: {best} % at best, "
            f"then a fall of {fall} points, {last} % at the end."
            + (" None ever was robust: the training attack is all that was learned." if never_robust(runs) else "")
        )
    return [*lines, *_held_out(table)] if lines else []


def _held_out(table: pd.DataFrame) -> list[str]:
    """What sets held-out images apart from the test images, and how much that comes to here."""
    source = DATASETS.classes().get(component_name(table["dataset"].iloc[0]))
    if source is None or not source.held_out:
        return []
    adversarial = table["objective"].map(component_name) != "standard"
    both = table[adversarial & table["val_pgd_last"].notna() & table["robust"].notna()]
    attack = attacks_of(table)[0]
    held_out, first, test = (100 * both[name].mean() for name in ("val_pgd_last", f"robust_{attack}", "robust"))
    every = f", {test:.0f} % under all its attacks together" * bool(round(test) != round(first))
    return [
        f"Held-out images are no test: {source.held_out}. At the end of adversarial training, over all {len(both)} "
        f"runs here, robust accuracy is {held_out:.0f} % on them, under the few steps of PGD of a check, and on the "
        f"test images {first:.0f} % under {attack}{every}."
    ]


def _span(values: pd.Series) -> str:
    """``31 to 37``, or one number if they agree."""
    return between(f"{end:.0f}" for end in (values.min(), values.max()))
