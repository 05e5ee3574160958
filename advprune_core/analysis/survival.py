"""How long runs last before they overfit catastrophically: survival over optimiser steps, not over epochs.

A run on a part of the data takes fewer steps in an epoch, and has less time to collapse.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from advprune_core.analysis.cells import checked
from advprune_core.analysis.estimates import holm, p_told
from advprune_core.analysis.labels import point_label, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.plots import panels
from advprune_core.analysis.seeds import Point, points
from advprune_core.analysis.style import caption, in_lines, styled
from advprune_core.analysis.verdicts import LEVEL
from advprune_core.attacks.evaluate import wilson
from advprune_core.trainers.controls import control_of, matched_arm
from advprune_core.trainers.sentinel import hollow

#: Characters of a line of a panel's title.
_TITLE = 38
NOT_CHECKED = 'No run was checked for a collapse: set `settings = {"best_every": 1}`.'
_RATES = (
    "At one number of steps, runs of different lengths have different learning rates, which fall over each run's own "
    "length; with as many steps (*same_steps*) they have the same."
)


@dataclass(frozen=True)
class Survival:
    """Kaplan and Meier's (1958) estimate of the share of runs that have not collapsed.

    Attributes
    ----------
    runs, collapsed : int
    steps : array of float, shape (k,)
        Optimiser steps at which a run collapsed or ended, from 0.
    share, low, high : array of float, shape (k,)
        Share of runs that live on after them, with a 95 % interval (of its logarithm, by Greenwood's
        formula; NaN where nothing is left or lost).
    """

    runs: int
    collapsed: int
    steps: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def _lifetimes(rows: pd.DataFrame) -> stats.CensoredData:
    """Steps to collapse; of a run that did not, its length, beyond which nothing is known."""
    seen = rows["collapse_steps"].notna()
    return stats.CensoredData(
        uncensored=rows.loc[seen, "collapse_steps"].to_numpy(np.float64),
        right=rows.loc[~seen, "optimiser_steps"].to_numpy(np.float64),
    )


def survival(rows: pd.DataFrame) -> Survival:
    """The survival of some runs.

    Parameters
    ----------
    rows : DataFrame
        From `collect`, with ``collapse_steps`` and ``optimiser_steps``.
    """
    found = stats.ecdf(_lifetimes(rows)).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where it is not defined it is NaN
        interval = found.confidence_interval(method="log-log")
    start, nan = np.zeros(1), np.full(1, np.nan)
    return Survival(
        runs=len(rows),
        collapsed=int(rows["collapse_steps"].notna().sum()),
        steps=np.concatenate([start, found.quantiles]),
        share=np.concatenate([start + 1, found.probabilities]),
        low=np.concatenate([nan, interval.low.probabilities]),
        high=np.concatenate([nan, interval.high.probabilities]),
    )


def survivals(table: pd.DataFrame) -> dict[Point, Survival]:
    """The survival of every arm at every fraction, in order of appearance; runs of a shared key count once."""
    return {point: survival(rows) for point, rows in lives_of(table).items()}


def lives_of(table: pd.DataFrame) -> dict[Point, pd.DataFrame]:
    """The runs of each point that were trained to an end, and whose collapse would have been seen, each once."""
    seen = _trained(table)
    seen = seen[checked(seen)]
    return {point: rows.drop_duplicates("key") for point, rows in points(seen, by="fraction").items()}


def _trained(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["status"].isin(["ok", "collapsed"])]


def never_robust(rows: pd.DataFrame) -> bool:
    """Whether no run was ever robust: the training attack is all that was learned, and there was nothing to lose.

    By the sentinel's measure of a height to fall from, on held-out images.
    """
    best = rows["val_pgd_best"].max()
    return bool(best == best) and hollow(robust=float(best), training=1.0)


@dataclass(frozen=True)
class _LogRank:
    """Whether runs collapse sooner than others, step for step: p is NaN where no collapse is at a step of both."""

    sooner: bool
    p: float


def _log_rank(rows: pd.DataFrame, others: pd.DataFrame) -> _LogRank:
    both = min(rows["optimiser_steps"].max(), others["optimiser_steps"].max())
    if not (pd.concat([rows, others])["collapse_steps"] <= both).any():
        return _LogRank(False, float("nan"))
    found = stats.logrank(_lifetimes(rows), _lifetimes(others))
    return _LogRank(bool(found.statistic > 0), float(found.pvalue))


@styled
def survival_figure(table: pd.DataFrame) -> Figure:
    """Share of runs that have not collapsed against optimiser steps: a panel for each arm, a line for each fraction.

    Controls, hollow, stand in the panel of the arm that they match. Marks stand where a line's last run ends.
    """
    table = with_names(table, plain)
    found = survivals(table)
    figure, axes, lines = panels(found, xlabel="optimiser steps", ylabel="runs that have not collapsed, %")
    for (arm, fraction), life in found.items():
        axis, drawn = axes[arm], lines[arm, fraction]
        axis.step(life.steps, 100 * life.share, where="post", **drawn)
        if matched_arm(arm) == arm:
            axis.fill_between(
                life.steps, 100 * life.low, 100 * life.high, step="post", color=drawn["color"], alpha=0.12
            )
    for arm in dict.fromkeys(map(matched_arm, axes)):
        own = {point: life for point, life in found.items() if matched_arm(point[0]) == arm}
        axes[arm].set_title(f"{axes[arm].get_title()}\n{_collapsed(own, arm)}")
        axes[arm].set_ylim(-4, 104)
    caption(figure, setting(table), "95 % interval (Kaplan and Meier)")
    return figure


def _collapsed(lives: Mapping[Point, Survival], arm: str) -> str:
    """How many collapsed: ``all: 22; 30 %: 30; its control: 29``, which is what matches that share."""
    runs = {life.runs for life in lives.values()}
    controls = {control_of(name) for name, _ in lives if name != arm}
    told = []
    for (name, fraction), life in sorted(lives.items(), key=lambda item: (-item[0][1], item[0][0] != arm)):
        share = "all" if fraction == 1 else f"{100 * fraction:g} %"
        of = "" if len(runs) == 1 else f" of {life.runs}"
        control = "control" if len(controls) == 1 else control_of(name)
        told.append(f"{share if name == arm else f'its {control}'}: {life.collapsed}{of}")
    return f"collapsed{f' of {runs.pop()} runs' if len(runs) == 1 else ''}\n{in_lines('; '.join(told), _TITLE)}"


def survival_findings(table: pd.DataFrame) -> str:
    """Markdown: how many runs collapsed, and whether a part of the data delays it beyond taking fewer steps.

    Every pruned point, and every control of one, is compared with the same arm on all the data, by a log-rank
    test over steps; all tests of the text together at 5 % (Holm).
    """
    lives, lines, tests = lives_of(with_names(table, escape)), [], {}
    if not lives:
        return NOT_CHECKED if len(_trained(table)) else "No run was trained to its end."
    if not table["collapse_steps"].notna().any():
        fewest = min(map(len, lives.values()))
        runs = pd.concat(lives.values())["key"].nunique()  # on all the data those of several pruners are the same
        return (
            f"None of the {runs} runs collapsed; where {fewest} did not, a rate of up to "
            f"{100 * wilson(0, fewest)[1]:.0f} % is possible (95 % interval)."
        )
    for (arm, fraction), rows in lives.items():
        full = lives.get((matched_arm(arm), 1.0))
        if fraction < 1 and full is not None:
            tests[arm, fraction] = _log_rank(rows, full)
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    told = set[frozenset[str]]()
    for (arm, fraction), rows in lives.items():
        if fraction == 1 and frozenset(rows["key"]) in told:
            continue
        told.add(frozenset(rows["key"]))
        collapsed, runs = int(rows["collapse_steps"].notna().sum()), len(rows)
        low, high = wilson(collapsed, runs)
        text = (
            f"- **{point_label(arm, fraction, whole=True)}**: {collapsed} of {runs} runs collapsed "
            f"({100 * collapsed / runs:.0f} % [{100 * low:.0f}, {100 * high:.0f}]), in at most "
            f"{rows['optimiser_steps'].max():,.0f} steps"
        )
        if (arm, fraction) in corrected:
            p, way = corrected[arm, fraction], "sooner" if tests[arm, fraction].sooner else "later"
            word = f"{way} than" if p <= LEVEL else "not known to be otherwise than"
            test = "(no collapse at a step that both reached)" if np.isnan(p) else f"by a log-rank test {p_told(p)}"
            text += f"; step for step {word} on all the data {test}"
        if never_robust(rows):
            best = f"{100 * rows['val_pgd_best'].max():.0f} %"
            text += f"; none ever was robust (at best {best} of held-out images), so there was nothing to lose"
        lines.append(f"{text}.")
    if tests:
        lines += ["", _RATES]
    return "\n".join(lines)
