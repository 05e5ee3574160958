"""Committed studies as tables, and what is read of several of them: a pruned run beside one of its cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pandas as pd

from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.rivals import at_equal_cost, clean_gain
from advprune_core.analysis.summaries import points
from advprune_core.analysis.verdicts import Verdict, compare, judge
from advprune_core.study.table import collect
from tests.reference import REFERENCE


@cache
def of(study: str) -> pd.DataFrame:
    """The table of a committed study."""
    return collect(REFERENCE / study, study=study)


@dataclass(frozen=True)
class Row:
    """A pruned run against one on all the data at equal cost."""

    data: str
    kept: str
    other: str
    verdict: Verdict
    clean: Estimate

    def shown(self) -> dict[str, str]:
        """As the table has it."""
        robust, clean = (
            found.points().replace(" points", "") for found in (self.verdict.comparison.difference, self.clean)
        )
        seeds = f"{self.verdict.comparison.difference.seeds}"
        texts = (self.data, self.kept, self.other, robust, self.verdict.says, clean, seeds)
        names = ("data", "pruned to", "against, on all the data", "robust", "verdict on robust", "clean", "seeds")
        return dict(zip(names, texts, strict=True))


@cache
def fixed_subsets() -> tuple[list[Row], list[Row]]:
    """Random subsets of the digits and of CIFAR-10, the largest first."""
    pair = ("PGD-7: random", "PGD-7: same_cost(random)")
    return (
        _random_subsets("digits", "random", "same_cost(random)", "the digits"),
        _random_subsets("cifar10_cpu", *pair, "CIFAR-10, by AutoAttack"),
    )


@cache
def wrong_labels() -> tuple[Row, Row]:
    """The half that is found plausible where 40 % of the labels are wrong: of the digits, of CIFAR-10."""
    return (
        _wrong_labels("when_pruning_wins", "the digits, 40 % of the labels wrong"),
        _wrong_labels("noise_cifar10_cpu", "CIFAR-10, 40 % of the labels wrong, by AutoAttack's APGD"),
    )


@cache
def carried() -> Row:
    """A tenth of Fashion-MNIST, attacked by one step that goes on from the epoch before."""
    table = of("freshness")
    pairs = {way: (f"{way}: random", f"{way}: same_cost(random)") for way in table["variant"].unique()}
    (share,), epochs = set(table["matched_fraction"]), table["epochs"]
    way = "carried, 1 step"
    return Row(
        "Fashion-MNIST, one-step attack that starts at the image's perturbation of the epoch before",
        f"a random {100 * share:g} %, {epochs.max():g} epochs",
        f"{epochs.min():.2g} epoch",
        judge({way: compare(table, *pair, fraction=share) for way, pair in pairs.items()})[way],
        clean_gain(*(points(table)[arm, share] for arm in pairs[way])),
    )


def answer_rows() -> list[Row]:
    """What README answers with: the largest and the smallest fixed subset of each study, then where pruning wins."""
    return [row for rows in fixed_subsets() for row in (rows[0], rows[-1])] + [*wrong_labels(), carried()]


def _random_subsets(study: str, arm: str, control: str, data: str) -> list[Row]:
    """Every share of a study, the largest first, beside runs of as much cost; judged with all that it compares."""
    table = of(study)
    runs = points(table)
    shares = sorted({f for name, f in runs if name == arm} - {1.0}, reverse=True)
    full = {("full", f): compare(table, arm, arm, fraction=f, reference_fraction=1.0) for f in shares}
    judged = judge(full | {("cost", f): compare(table, arm, control, fraction=f) for f in shares})
    return [
        Row(
            data,
            f"a random {100 * f:g} %",
            "fewer epochs",
            judged["cost", f],
            clean_gain(runs[arm, f], runs[control, f]),
        )
        for f in shares
    ]


def _wrong_labels(study: str, data: str) -> Row:
    """The half chosen by margins from plain training, beside the better of the ways to train on all the data."""
    table = of(study)
    judged = judge(at_equal_cost(table))
    rivals = {
        pair: verdict
        for pair, verdict in judged.items()
        if pair[0][0].startswith("plain first, 40 % wrong: aum") and pair[0][1] == 0.5 and pair[1][1] == 1
    }
    pair = min(rivals, key=lambda pair: rivals[pair].comparison.difference.mean)
    gain = clean_gain(*(points(table)[point] for point in pair))
    kept = "half: the images whose labels a first phase without attacks finds most plausible (AUM)"
    return Row(data, kept, "the same cost, with or without that phase: the better", rivals[pair], gain)
