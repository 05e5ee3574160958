"""Committed studies as tables, and what is read of several of them: a pruned run beside one of its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.rivals import at_equal_cost, clean_gain
from advprune_core.analysis.summaries import Point, points
from advprune_core.analysis.verdicts import Comparison, Verdict, compare, judge
from advprune_core.study.table import collect
from tests.reference import REFERENCE


@cache
def of(study: str) -> pd.DataFrame:
    """The table of a committed study."""
    return collect(REFERENCE / study, study=study)


@dataclass(frozen=True)
class Case:
    """Pruned runs beside runs on all the data at equal cost: what differs in robust accuracy, and in clean."""

    data: str
    kept: str
    other: str
    comparison: Comparison
    clean: Estimate


@dataclass(frozen=True)
class Row:
    """A case, and its verdict among all that stand in the table."""

    case: Case
    verdict: Verdict

    def shown(self) -> dict[str, str]:
        """As the table has it."""
        case, robust = self.case, self.case.comparison.difference
        gained, clean = (found.points().replace(" points", "") for found in (robust, case.clean))
        names = ("data", "pruned to", "against, on all the data", "robust", "verdict on robust", "clean", "seeds")
        texts = (case.data, case.kept, case.other, gained, self.verdict.says, clean, f"{robust.seeds}")
        return dict(zip(names, texts, strict=True))


@cache
def answer_rows() -> dict[str, Row]:
    """What README answers with, by name: the largest and the smallest fixed subsets; where pruning wins."""
    cases = {
        **_random_subsets("digits", "digits", "", "the digits", ends=("least",)),
        **_random_subsets("cifar", "cifar10_cpu", "PGD-7: ", "CIFAR-10, crops as in the papers, by AutoAttack"),
        **_random_subsets("cifar, no crops", "cifar10_cpu", "PGD-7, no crops: ", "CIFAR-10, no crops, by AutoAttack"),
        **_random_subsets(
            "resnet18", "cifar10_resnet18", "", "CIFAR-10, PreActResNet-18, one-step attack, by AutoAttack's APGD"
        ),
        "chosen": _chosen(),
        "few wrong": _wrong_labels("when_pruning_wins", 20, "the digits"),
        "many wrong": _wrong_labels("when_pruning_wins", 40, "the digits"),
        "many wrong, cifar": _wrong_labels("noise_cifar10_cpu", 40, "CIFAR-10", ", by AutoAttack's APGD"),
        "carried": _carried(
            "freshness",
            ["carried, 1 step: random"],
            share=0.1,
            other=("carried, 1 step: same_cost(random)", 0.1),
            data="Fashion-MNIST, one-step attack that starts at the image's perturbation of the epoch before",
        ),
        "carried, cifar": _carried(
            "budget_cifar10_cpu",
            [f"carried, cost of 6 epochs{crops}: random" for crops in ("", ", crops", ", crops of 2")],
            share=0.25,
            other=("carried, cost of 6 epochs: random", 1.0),
            data="CIFAR-10, the same attack, by AutoAttack's APGD",
            kept=", crops of 2 pixels (of 0, 2 and 4 the best)",
            whole=", no crops",
        ),
    }
    verdicts = judge({name: case.comparison for name, case in cases.items()})
    return {name: Row(case, verdicts[name]) for name, case in cases.items()}


def _random_subsets(
    name: str, study: str, way: str, data: str, *, ends: Sequence[str] = ("most", "least")
) -> dict[str, Case]:
    """The largest and the smallest share of a study, beside runs of as much cost; one alone is the smallest."""
    table, arm, control = of(study), f"{way}random", f"{way}same_cost(random)"
    runs = points(table)
    shares = {f for name, f in runs if name == arm} - {1.0}
    found = {"most": max(shares), "least": min(shares)} if len(shares) > 1 else {"least": min(shares)}
    return {
        f"{name}, {which}": Case(
            data,
            f"a random {100 * share:g} %",
            "fewer epochs",
            compare(table, arm, control, fraction=share),
            clean_gain(runs[arm, share], runs[control, share]),
        )
        for which, share in found.items()
        if which in ends
    }


def _chosen() -> Case:
    """A fifth that a rule of the first paper chooses after five epochs: of its four rules the one that does best."""
    table, share = of("cifar10_cpu"), 0.2
    runs, control = points(table), "PGD-7: same_cost(random warmup_epochs=5)"
    rules = {
        rule: f"PGD-7: {rule} warmup_epochs=5" for rule in ("keep_easy", "keep_hard", "keep_middle", "keep_fragile")
    }
    best = max(rules, key=lambda rule: runs[rules[rule], share]["robust"].mean())
    return Case(
        "CIFAR-10, crops as in the papers, by AutoAttack's APGD",
        f"after 5 epochs on all the data, a fifth by {best}, the best of the first paper's four rules",
        "fewer epochs",
        compare(table, rules[best], control, fraction=share),
        clean_gain(runs[rules[best], share], runs[control, share]),
    )


def _wrong_labels(study: str, wrong: int, data: str, attack: str = "") -> Case:
    """The half chosen by margins from plain training, beside the best of the ways to train on all the data."""
    table = with_accuracies(of(study))
    arm, runs = f"plain first, {wrong} % wrong: aum", points(table)
    rivals = {
        pair: found
        for pair, found in at_equal_cost(table).items()
        if pair[0][0].startswith(arm) and pair[0][1] == 0.5 and pair[1][1] == 1.0
    }
    ways = [rival.rpartition(": ")[0] for _, (rival, _) in rivals]
    assert {f"{when}, {wrong} % wrong" for when in ("all the while", "plain first")} <= set(ways)
    smoothed = " or more label smoothing" * any("smoothing" in way for way in ways)
    return Case(
        f"{data}, {wrong} % of the labels wrong, one-step attack{attack}",
        "half, by AUM: the images whose labels a first phase without attacks finds most plausible (keep: highest)",
        f"the same cost, with or without that phase{smoothed}: the best, in each column",
        min(rivals.values(), key=lambda found: found.difference.mean),
        min((clean_gain(*(runs[point] for point in pair)) for pair in rivals), key=lambda gain: gain.mean),
    )


def _carried(
    study: str, arms: Sequence[str], *, share: float, other: Point, data: str, kept: str = "", whole: str = ""
) -> Case:
    """A part of the data, attacked by one step that goes on from the epoch before: the best arm, beside all of it."""
    table = of(study)
    runs = points(table)
    arm = max(arms, key=lambda name: runs[name, share]["robust"].mean())
    assert not kept or "crops of 2" in arm, "the row says which is the best"
    epochs, least = (runs[point]["epochs"].mean() for point in ((arm, share), other))
    return Case(
        data,
        f"a random {100 * share:g} %, {epochs:.2g} epochs{kept}",
        f"{least:.2g} epoch{'s' * bool(least > 1.5)}{whole}",
        compare(table, arm, other[0], fraction=share, reference_fraction=other[1]),
        clean_gain(runs[arm, share], runs[other]),
    )
