"""Pruned runs against what costs as much, and against what is as robust.

Two questions that a list of accuracies leaves open. *At equal cost*: is a pruned run more robust than
every run on all the data that costs no more? *At equal robustness*: how much cheaper is it than the
full run, if it loses no more than a margin that was stated before?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.cells import setting_names, with_accuracies
from advprune_core.analysis.comparisons import Comparison, compare
from advprune_core.analysis.estimates import Estimate, accuracy, estimate
from advprune_core.analysis.labels import point_label, sample, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.seconds import seconds_ratio
from advprune_core.analysis.seeds import MIN_SEEDS, Point, as_a_constant, by_seed, points
from advprune_core.analysis.style import (
    canvas,
    caption,
    in_lines,
    key,
    legend,
    middles,
    pruner_look,
    reach,
    row_height,
    styled,
    tidy,
)
from advprune_core.analysis.verdicts import judge, method
from advprune_core.analysis.ways import SAME_COST, way_of
from advprune_core.base.settings import ConfigError

#: Characters of a line beside a row of the figure; inches above the head of a pruned point.
_LETTERS, _HEAD = 62, 0.0425


def _tested(table: pd.DataFrame) -> dict[Point, pd.DataFrame]:
    """The points of a table that were tested, with the name of each run's ``setting``."""
    return points(table.assign(setting=setting_names(table))[table["robust"].notna()])


def _setting_of(rows: pd.DataFrame) -> str:
    return str(rows["setting"].iloc[0])


def _whole(rows: pd.DataFrame) -> bool:
    """Whether the runs of a point are on all the data: full runs, and shorter ones.

    A pruner may end on all the data, too, and is none of these.
    """
    return bool((rows["fraction"] == 1).all())


def at_equal_cost(table: pd.DataFrame) -> dict[tuple[Point, Point], Comparison]:
    """Every pruned point against all that is trained on all of the same data at its cost, and a random subset.

    Of one threat model and one network: accuracies within another radius cannot be compared, and costs are counted
    in forwards of the network.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.

    Returns
    -------
    dict of (point, rival) to Comparison
        Points are (arm, matched fraction). A rival costs at most 5 % more, and where one on all the data costs about
        as much, at most 5 % less: to beat what is much cheaper is no gain. Of rivals that are the same runs the first
        stands for all. The random subset is of the same way of training and the same fraction.
    """
    table, found = with_accuracies(table), {}
    tested = _tested(table)
    settings = {point: _setting_of(rows) for point, rows in tested.items()}
    first = {frozenset(rows["key"]): point for point, rows in reversed(tested.items())}
    distinct = {point: rows for point, rows in tested.items() if point in first.values()}
    for point, rows in tested.items():
        if _whole(rows) or rows["control"].notna().any():
            continue
        paid = {
            rival: others
            for rival, others in distinct.items()
            if settings[rival] == settings[point] and rival != point and _share(others, rows) <= 1 + SAME_COST
        }
        whole = [rival for rival, others in paid.items() if _whole(others)]
        as_dear = [rival for rival in whole if not _costs_less(rows, paid[rival])] or whole
        for rival, others in paid.items():
            random = is_random(others) and not is_random(rows) and _twin(rows, others)
            if random or rival in as_dear:
                found[point, rival] = compare(table, point[0], rival[0], fraction=point[1], reference_fraction=rival[1])
    return found


def _share(others: pd.DataFrame, rows: pd.DataFrame) -> float:
    """What the runs of a point cost as a share of another one's."""
    return float(others["cost"].mean() / rows["cost"].mean())


def _costs_less(rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Whether a rival costs clearly less than a point."""
    return _share(others, rows) < 1 - SAME_COST


def is_random(rows: pd.DataFrame) -> bool:
    """Whether the runs of a point keep a random subset, and are no control."""
    # Its cell is a name, or a specification that begins with it; `random_steps` is another pruner.
    named = rows["pruner"].astype(str).str.match(r'(\{")?random(["\s]|$)')
    return bool(named.all() and rows["control"].isna().all())


def _twin(rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Whether two points differ in what chooses their images alone."""
    return set(way_of(rows)) == set(way_of(others)) and set(rows["kept"]) == set(others["kept"])


def equal_cost_findings(table: pd.DataFrame) -> str:
    """Markdown: where a pruned run beats what costs as much, data set by data set, and where it does not."""
    table = with_names(with_accuracies(table), escape)
    found, tested = at_equal_cost(table), _tested(table)
    if not found:
        return "No pruned run stands beside one on all the data that costs no more."
    # A rival on all the data that is much cheaper stands there for want of another, and is not tested against.
    verdicts = judge(
        {
            (ours, rival): comparison
            for (ours, rival), comparison in found.items()
            if not (_whole(tested[rival]) and _costs_less(tested[ours], tested[rival]))
        }
    )
    lines = []
    for point in dict.fromkeys(pair[0] for pair in found):
        rows = tested[point]
        wrong = rows["wrong_labels"].dropna() if "wrong_labels" in rows else pd.Series(dtype=float)
        noise = f", {100 * wrong.mean():.0f} % of what it keeps is wrongly labelled" if len(wrong) else ""
        levels = f"{accuracy(rows['clean']).text()} % clean, {accuracy(rows['robust']).text()} % robust"
        lines.append(f"**{_named(point, tested)}**: {levels}{noise}.")
        for (ours, rival), comparison in found.items():
            if ours == point:
                clean, cost = clean_gain(rows, tested[rival]), _cheaper(rows, tested[rival])
                verdict = verdicts.get((ours, rival))
                robust = verdict.text() if verdict else f"{comparison.text()}; no verdict, as it costs less"
                lines.append(f"  - against *{_named(rival, tested)}*{cost}: {clean.points()} clean, {robust}.")
    text = "\n".join(line if line.startswith("  ") else f"- {line}" for line in lines)
    return f"{text}\n\n{method(verdicts.values()) or 'Intervals: 95 %, each for itself, over seeds.'}"


def _cheaper(rows: pd.DataFrame, others: pd.DataFrame) -> str:
    """What a rival that costs clearly less costs of a point."""
    return f", which costs {_share(others, rows):.2f} of it" if _costs_less(rows, others) else ""


def clean_gain(rows: pd.DataFrame, others: pd.DataFrame) -> Estimate:
    """By how much the clean accuracy of a point's runs is above that of another's, seed by seed."""
    ours, theirs = (by_seed(part)["clean"] for part in (rows, others))
    return estimate((ours - theirs).dropna(), bounds=(-1.0, 1.0))


def _named(point: Point, tested: Mapping[Point, pd.DataFrame]) -> str:
    arms = [arm for arm, _ in tested]
    return point_label(*point, arms, whole=_whole(tested[point]))


def _blocks(
    found: Mapping[tuple[Point, Point], Comparison], tested: Mapping[Point, pd.DataFrame]
) -> dict[str, list[tuple[str, tuple[Point, Point] | None]]]:
    """Of each data set and threat model the pruned points, each with its rivals, that which it gains most on first."""
    rivals: dict[str, dict[Point, list[Point]]] = {name: {} for name in map(_setting_of, tested.values())}
    for ours, rival in sorted(found, key=lambda pair: -found[pair].difference.mean):
        rivals[_setting_of(tested[ours])].setdefault(ours, []).append(rival)
    blocks: dict[str, list[tuple[str, tuple[Point, Point] | None]]] = {}
    for name, pruned in rivals.items():
        for ours, others in pruned.items():
            rows = blocks.setdefault(name, [])
            rows.append((in_lines(_named(ours, tested), _LETTERS), None))
            for rival in others:
                text = f"against {_named(rival, tested)}{_cheaper(tested[ours], tested[rival])}"
                rows.append((in_lines(text, _LETTERS), (ours, rival)))
    return blocks


@styled
def equal_cost_figure(table: pd.DataFrame) -> Figure:
    """Difference in robust accuracy of each pruned point to each rival of its cost, with 95 % intervals.

    They are over seeds and test images, as verdicts are, where outcomes of images are known; else over seeds.

    A panel for each data set and threat model; right of the line the pruned point, in bold, wins. Its rivals stand
    below it, that which it gains most on at the top.
    """
    table = with_names(with_accuracies(table), plain)
    found, tested = at_equal_cost(table), _tested(table)
    blocks = _blocks(found, tested) or {"": []}
    heights = [[row_height(text) + _HEAD * (pair is None) for text, pair in rows] for rows in blocks.values()]
    tall = [(sum(own) or row_height("")) + 0.35 for own in heights]
    figure, axes = canvas(len(blocks), height=sum(tall) + 1.3, sharex=True, height_ratios=tall)
    for axis, (name, rows), high in zip(axes[:, 0], blocks.items(), heights, strict=True):
        tidy(axis, grid="x")
        places = middles(high)
        axis.set_yticks(places, [text for text, _ in rows])
        for tick, place, (_, pair) in zip(axis.yaxis.get_major_ticks(), places, rows, strict=True):
            tick.label1.set_fontweight("normal" if pair else "bold")
            tick.tick1line.set_visible(pair is not None)
            if pair is not None:
                gain, look = found[pair].over_images, pruner_look(pair[0][0])
                spread = reach(gain.mean, gain.low, gain.high)
                axis.errorbar(100 * gain.mean, place, xerr=spread, marker=look.mark, color=look.colour)
        axis.set_ylim(sum(high) or row_height(""), 0)
        axis.axvline(0, color="0.4", linewidth=0.8)
        axis.set_title(in_lines(name, 46), loc="left")
    axes[-1, 0].set_xlabel("robust accuracy, bold minus the rival's, points\n(right: bold wins)")
    over = "seeds and images" if any(each.other_images for each in found.values()) else "seeds"
    caption(figure, setting(table), f"paired by seed, {sample(table)}, 95 % interval over {over}")
    families = dict.fromkeys(pruner_look(pair[0][0]) for rows in blocks.values() for _, pair in rows if pair)
    legend(figure, [key(look, linestyle="") for look in families])
    return figure


def known_as_robust(found: Comparison, *, margin: float) -> bool | None:
    """Whether the first loses no more than the margin to the second, for other images too; None if not known."""
    if not found.alike or found.difference.seeds < MIN_SEEDS:
        return None
    gain = found.over_images
    return True if gain.low > -margin else False if gain.high < -margin else None


def at_equal_robustness(table: pd.DataFrame, *, reference: str, margin: float) -> pd.DataFrame:
    """How much cheaper each point is than a way of training on all the data, and whether it is as robust.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.
    reference : str
        Arm whose run on all the data the others are held against.
    margin : float
        Robust accuracy in [0, 1] that may be lost; to be stated before the runs.

    Returns
    -------
    DataFrame
        ``arm, fraction, matched_fraction, seeds, clean, robust`` (means), ``difference,
        difference_low, difference_high`` (robust, over seeds), ``images_low, images_high`` (over seeds and test
        images), ``speed_up`` (in forward-equivalents), ``speed_up_seconds`` (processor seconds of training and
        selection, of seeds whose two runs one machine made), and ``as_robust``: True if the 95 % interval lies above
        minus the margin, False if below, None if it holds both, there are fewer than `MIN_SEEDS` seeds or the two
        were tested differently. It is the interval over seeds and images, where outcomes of images are known.

    Raises
    ------
    ConfigError
        A reference without a tested run on all the data.
    """
    table = with_accuracies(table)
    tested = _tested(table)
    if (reference, 1.0) not in tested:
        whole = list(dict.fromkeys(arm for arm, fraction in tested if fraction == 1))
        raise ConfigError(f"reference: no run of {reference!r} on all the data was tested; those that were: {whole}")
    full = by_seed(tested[reference, 1.0])
    rows = []
    for (arm, fraction), group in tested.items():
        own = by_seed(group)
        found = compare(table, arm, reference, fraction=fraction, reference_fraction=1.0)
        difference, images = found.difference, found.other_images or (np.nan, np.nan)
        as_robust = True if (arm, fraction) == (reference, 1.0) else known_as_robust(found, margin=margin)
        rows.append(
            {
                "arm": arm,
                "fraction": group["fraction"].iloc[0],
                "matched_fraction": fraction,
                "seeds": difference.seeds,
                "clean": own["clean"].mean(),
                "robust": own["robust"].mean(),
                "difference": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "images_low": images[0],
                "images_high": images[1],
                "speed_up": float((full["cost"] / own["cost"]).mean()),
                "speed_up_seconds": seconds_ratio(own, full),
                "as_robust": as_robust,
            }
        )
    told = pd.DataFrame(rows)
    # Or pandas makes numbers of a column in which there is no None.
    return told.assign(as_robust=pd.Series([row["as_robust"] for row in rows], dtype=object))


def deciding(row: pd.Series) -> Estimate:
    """The difference in a row of `at_equal_robustness`, with the interval that decides whether it is as robust."""
    low, high = ("difference_low", "difference_high") if np.isnan(row["images_low"]) else ("images_low", "images_high")
    return Estimate(row["difference"], row[low], row[high], int(row["seeds"]))


def equal_robustness_findings(table: pd.DataFrame, *, reference: str, margin: float) -> str:
    """Markdown: the largest speed-up without a loss beyond the margin, and what cannot be told yet."""
    full = _tested(with_accuracies(table)).get((reference, 1.0))
    if full is not None and as_a_constant(full):
        return (
            f"*{escape(reference)}* on all the data is no more robust than a constant answer, which costs nothing: so "
            "there is nothing to be as robust as."
        )
    rows = at_equal_robustness(with_names(table, escape), reference=escape(reference), margin=margin)
    cheaper = rows[rows["speed_up"] > 1 + SAME_COST].sort_values("speed_up", ascending=False, kind="stable")
    cheaper = cheaper.drop_duplicates(["matched_fraction", "speed_up", "clean", "robust"])  # a full run is its control
    arms = list(dict.fromkeys(rows["arm"]))
    told: dict[Any, list[str]] = {True: [], False: [], None: []}
    for _, row in cheaper.iterrows():
        told[row["as_robust"]].append(_speed(row, arms))
    whole, points = f"*{escape(reference)}* on all the data", f"{100 * margin:g} points"
    lines = [f"Nothing that is cheaper is known to lose at most {points} to {whole}.", ""]
    if told[True]:
        lines = [f"At most {points} below {whole}, the cheapest is **{told[True][0]}**.", ""]
    lines += [f"- as robust: {text}." for text in told[True]]
    lines += [f"- less robust: {text}." for text in told[False]]
    lines += [f"- cannot tell: {text}." for text in told[None]]
    return "\n".join(
        [
            *lines,
            "",
            "Intervals: 95 %, each for itself, over seeds; *other images*: by a bootstrap of seeds and test images, "
            f"which decides where it is known. Fewer than {MIN_SEEDS} seeds cannot tell.",
        ]
    )


def _speed(row: pd.Series, arms: Sequence[str]) -> str:
    difference = Estimate.of_row(row, "difference")
    other = (row["images_low"], row["images_high"])
    images = "" if np.isnan(other[0]) else f"; other images [{100 * other[0]:+.1f}, {100 * other[1]:+.1f}]"
    loss = f"{difference.points()} robust ({difference.counted()}{images})"
    label = point_label(row["arm"], row["matched_fraction"], arms, whole=row["fraction"] == 1)
    return f"{label}: {row['speed_up']:.2f}x cheaper, {loss}"
