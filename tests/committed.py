"""Committed studies as tables, and what is read of several of them: a pruned run beside one of its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.comparisons import Comparison, compare
from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.rivals import at_equal_cost, clean_gain
from advprune_core.analysis.seeds import Point, points
from advprune_core.analysis.verdicts import Verdict, judge
from advprune_core.study.table import collect
from tests.reference import REFERENCE


@cache
def of(study: str) -> pd.DataFrame:
    """The table of a committed study."""
    return collect(REFERENCE / study, study=study)


@dataclass(frozen=True)
class Case:
    """Pruned runs beside runs on all the data at equal cost: how robust these are, what is gained in that and clean."""

    data: str
    kept: str
    other: str
    level: float
    comparison: Comparison
    clean: Estimate


@dataclass(frozen=True)
class Row:
    """A case, and its verdict among all that stand in the table."""

    case: Case
    verdict: Verdict

    def shown(self) -> dict[str, str]:
        """As the table has it."""
        case, robust = self.case, self.case.comparison.over_images
        gained, clean = (found.points().replace(" points", "") for found in (robust, case.clean))
        level = f"{100 * case.level:.1f} %"
        names = ("data", "pruned to", "against, on all the data", "robust", "pruned", "verdict", "clean", "seeds")
        planned = case.comparison.planned
        seeds = f"{robust.seeds}" if robust.seeds == planned else f"{robust.seeds} of {planned}"
        texts = (case.data, case.kept, case.other, level, gained, self.verdict.says, clean, seeds)
        return dict(zip(names, texts, strict=True))


_RULES = ("keep_easy", "keep_hard", "keep_middle", "keep_fragile")
_STANDARD, _APGD = ", by AutoAttack", ", by AutoAttack's APGD"
_DIGITS, _L2 = "digits_20_seeds", "the digits, within an L2 ball of 0.5"
_MATCHING, _MATCHING_100 = "gradient_matching_cifar10_cpu", "gradient_matching_cifar100_cpu"
_AFTER = "PGD-7: same_cost(random warmup_epochs=5)"
FIFTH = 0.2
#: Rows of a random fifth, by what comes before ", least" in their names, each of a setting of its own.
CIFAR_10, CIFAR_100 = ("cifar", "cifar, no crops", "fast", "trades", "bullet", "resnet18"), ("100", "trades, 100")
#: Rows for which seeds were added after a look at the first ones.
LOOKED_AT_TWICE = {
    *("digits, least", "cheaper, digits", "few wrong, half", "few wrong", "many wrong"),
    *("cifar, most", "cifar, least", "trades, least", "bullet, least", "few wrong, cifar", "many wrong, cifar"),
}


@cache
def answer_rows() -> dict[str, Row]:
    """What README answers with, by name: the largest and the smallest fixed subsets; where pruning wins."""
    cases = {
        **_random_subsets("digits", _DIGITS, "L-inf 2/16: ", "the digits", ends=("least",)),
        **_random_subsets("digits, L2", _DIGITS, "L2 0.5: ", _L2, ends=("least",)),
        **_random_subsets("cifar", "cifar10_cpu", "PGD-7: ", f"CIFAR-10, crops as in the papers{_STANDARD}"),
        **_random_subsets("cifar, no crops", "cifar10_cpu", "PGD-7, no crops: ", f"CIFAR-10, no crops{_STANDARD}"),
        **_random_subsets("resnet18", "cifar10_resnet18", "", f"CIFAR-10, PreActResNet-18, one-step attack{_APGD}"),
        **_random_subsets("fast", "cifar10_cpu", "Fast AT: ", f"CIFAR-10, Fast AT{_APGD}", ends=("least",)),
        **_random_subsets("trades", _MATCHING, "TRADES: ", f"CIFAR-10, TRADES{_STANDARD}"),
        **_random_subsets("bullet", _MATCHING, "TRADES, BulletTrain: ", f"CIFAR-10, TRADES, BulletTrain{_STANDARD}"),
        **_random_subsets("100", "cifar100_cpu", "", f"CIFAR-100, crops as in the papers{_STANDARD}", ends=("least",)),
        **_random_subsets("trades, 100", _MATCHING_100, "TRADES: ", f"CIFAR-100, TRADES{_STANDARD}", ends=("least",)),
        "chosen": _chosen(),
        "easy": _easy(),
        "carried": _carried(
            "freshness",
            ("carried, 1 step: random", 0.1),
            other=("carried, 1 step: same_cost(random)", 0.1),
            data="Fashion-MNIST, one-step attack that starts at the image's perturbation of the epoch before",
        ),
        "carried, cifar": _carried(
            "budget_cifar10_cpu",
            ("carried, cost of 6 epochs: random", 0.25),
            other=("carried, cost of 6 epochs: random", 1.0),
            data=f"CIFAR-10, such an attack, no crops{_APGD}",
        ),
        "carried, cifar, least": _carried(
            "budget_cifar10_cpu",
            ("carried, cost of 2 epochs: random", 0.25),
            other=("carried, cost of 2 epochs: random", 1.0),
            data=f"CIFAR-10, such an attack, no crops{_APGD}",
        ),
        "cheaper, digits": _beside_one_step_on_the_digits(),
        "cheaper, digits, L2": _beside_one_step_in_l2(),
        "cheaper": _beside_one_step_on_cifar(),
        "cheaper, fast": _beside_fast_on_cifar(),
        "few wrong, half": _wrong_labels("when_pruning_wins", 20, 0.5, "the digits"),
        "few wrong": _wrong_labels("when_pruning_wins", 20, 0.8, "the digits"),
        "many wrong": _wrong_labels("when_pruning_wins", 40, 0.6, "the digits"),
        "few wrong, half, L2": _wrong_labels("when_pruning_wins_l2", 20, 0.5, _L2),
        "few wrong, L2": _wrong_labels("when_pruning_wins_l2", 20, 0.8, _L2),
        "many wrong, L2": _wrong_labels("when_pruning_wins_l2", 40, 0.6, _L2),
        "fewest wrong, cifar": _wrong_labels("noise_cifar10_cpu", 10, 0.9, "CIFAR-10", _APGD),
        "few wrong, cifar": _wrong_labels("noise_cifar10_cpu", 20, 0.8, "CIFAR-10", _APGD),
        "many wrong, cifar": _wrong_labels("noise_cifar10_cpu", 40, 0.6, "CIFAR-10", _APGD),
    }
    assert set(cases) >= LOOKED_AT_TWICE
    # Two questions, each with a family of its own, whatever rows the other one gets.
    wrong = {name: case for name, case in cases.items() if about_wrong_labels(name)}
    right = {name: case for name, case in cases.items() if name not in wrong}
    verdicts = {
        name: verdict
        for family in (right, wrong)
        for name, verdict in judge({name: paid(name, case.comparison) for name, case in family.items()}).items()
    }
    return {name: Row(case, verdicts[name]) for name, case in cases.items()}


def paid(name: str, comparison: Comparison) -> Comparison:
    """A comparison whose p values count for each look that there was (Bonferroni)."""
    looks = 1 + (name in LOOKED_AT_TWICE)
    p, p_images = np.minimum(1.0, looks * np.array([comparison.p, comparison.p_images]))
    return replace(comparison, p=float(p), p_images=float(p_images))


def asks(name: str) -> str:
    """The question of a row."""
    if about_wrong_labels(name):
        return "some labels wrong"
    return "beside a cheaper attack, at less cost" if name.startswith("cheaper") else "beside fewer epochs"


def wrong_on_cifar() -> list[Row]:
    """The rows of CIFAR-10 in which so many labels are wrong as images are left out: 10, 20 and 40 %."""
    return [answer_rows()[f"{share} wrong, cifar"] for share in ("fewest", "few", "many")]


def about_wrong_labels(name: str) -> bool:
    """Whether a row is of data in which some labels are wrong."""
    return " wrong" in name


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
            runs[control, share]["robust"].mean(),
            compare(table, arm, control, fraction=share),
            clean_gain(runs[arm, share], runs[control, share]),
        )
        for which, share in found.items()
        if which in ends
    }


def _beside_one_step_on_cifar() -> Case:
    """A fifth of CIFAR-10 under PGD-7, without crops, beside six epochs of N-FGSM on all of it."""
    table = with_accuracies(pd.concat([of("cifar10_cpu"), of("budget_cifar10_cpu")], ignore_index=True))
    pair = ("PGD-7, no crops: random", FIFTH), ("N-FGSM, cost of 6 epochs: random", 1.0)
    return _cheaper(table, *pair, data="CIFAR-10, no crops", by=", by AutoAttack or its APGD", epochs="6 epochs of ")


def _beside_fast_on_cifar() -> Case:
    """A fifth of CIFAR-10 under PGD-7 beside as many epochs of Fast AT on all of it as cost less."""
    pair = ("PGD-7: random", FIFTH), ("Fast AT: same_cost(random)", 0.6)
    data, by = "CIFAR-10, crops as in the papers", ", by AutoAttack or its APGD"
    return _cheaper(of("cifar10_cpu"), *pair, data=data, by=by, epochs="9 epochs of ", name="Fast AT")


def _beside_one_step_on_the_digits() -> Case:
    """PGD-7 on the smallest part of the digits beside N-FGSM on all of them."""
    table, arm = of("trainers"), "PGD-AT: random"
    share = table.loc[table["arm"] == arm, "matched_fraction"].min()
    return _cheaper(table, (arm, share), ("N-FGSM: random", 1.0), data="the digits")


def _beside_one_step_in_l2() -> Case:
    """As large a part of the digits beside N-FGSM on all of them, within a ball of the other norm."""
    return _cheaper(of(_DIGITS), ("L2 0.5: random", 0.4), ("L2 0.5, N-FGSM: random", 1.0), data=_L2)


def _cheaper(
    table: pd.DataFrame,
    point: Point,
    other: Point,
    *,
    data: str,
    by: str = "",
    epochs: str = "",
    name: str = "N-FGSM",
) -> Case:
    """A part of the data beside one step on all of it, which costs less, of the seeds that both have."""
    runs, (arm, share) = points(table), point
    seeds = set(runs[point]["seed"]) & set(runs[other]["seed"])
    ours, cheap = (runs[which][lambda rows: rows["seed"].isin(seeds)] for which in (point, other))
    both = pd.concat([ours, cheap]).drop(columns="study_seeds")  # one study may have more seeds than the other
    return Case(
        f"{data}, seven steps beside {name}{by}",
        f"a random {100 * share:g} %",
        f"{epochs}one step ({name}), at {cheap['cost'].mean() / ours['cost'].mean():.2f} of its cost",
        cheap["robust"].mean(),
        compare(both, arm, other[0], fraction=share, reference_fraction=other[1]),
        clean_gain(ours, cheap),
    )


def by_rule(*, after: int = 5) -> dict[str, Comparison]:
    """A fifth by each of the first paper's four rules, after so many epochs, beside fewer epochs; the best first."""
    beside = _AFTER if after else "PGD-7: same_cost(random)"
    found = {rule: compare(of("cifar10_cpu"), _later(rule, after), beside, fraction=FIFTH) for rule in _RULES}
    return _the_best_first(found)


def classes_left_out() -> dict[str, list[int]]:
    """Of how many classes these rules, before any training, keep no image of themselves: in each seed, by rule."""
    table = of("cifar10_cpu")
    return {rule: table.loc[table["arm"] == _later(rule, 0), "n_filled"].tolist() for rule in _RULES}


def by_rule_on_the_digits(study: str = "pruners") -> dict[str, Comparison]:
    """The same of the digits, after one epoch; within an L2 ball in ``pruners_l2``."""
    found = {rule: compare(of(study), rule, f"same_cost({rule})", fraction=FIFTH) for rule in _RULES}
    return _the_best_first(found)


def balanced_rule_on_the_digits(study: str = "pruners") -> Comparison:
    """The rule that the first paper's code has for each class by itself, beside fewer epochs."""
    rule = "keep_fragile balanced=True"
    return compare(of(study), rule, f"same_cost({rule})", fraction=FIFTH)


def _the_best_first(found: dict[str, Comparison]) -> dict[str, Comparison]:
    return dict(sorted(found.items(), key=lambda item: -item[1].difference.mean))


def one_step_on_all_digits() -> Comparison:
    """N-FGSM beside PGD-7, both on all the digits: what a cheaper attack is worth by itself."""
    return compare(of("trainers"), "N-FGSM: random", "PGD-AT: random", fraction=1.0)


def one_step_in_l2() -> Comparison:
    """The same within an L2 ball of 0.5."""
    return compare(of(_DIGITS), "L2 0.5, N-FGSM: random", "L2 0.5: random", fraction=1.0)


def one_step_within_3_16() -> Comparison:
    """The same within a radius that is half as large again."""
    return compare(of("carried"), "N-FGSM, eps 3/16: random", "PGD-AT, eps 3/16: random", fraction=1.0)


def half_of_some_wrong() -> list[Case]:
    """Half of CIFAR-10 by AUM, fewer than are right, where 20 and 40 % of the labels are wrong."""
    return [_wrong_labels("noise_cifar10_cpu", wrong, 0.5, "CIFAR-10", _APGD) for wrong in (20, 40)]


def _later(rule: str, epochs: int = 5) -> str:
    return f"PGD-7: {rule} warmup_epochs={epochs}"


def _chosen() -> Case:
    """A fifth that a rule of the first paper chooses after five epochs: of its four rules the one that does best."""
    runs, ((best, robust), *others) = points(of("cifar10_cpu")), by_rule().items()
    lost = ", ".join(f"{100 * other.difference.mean:+.1f}" for _, other in others)
    return Case(
        f"CIFAR-10, crops as in the papers{_APGD}",
        f"after 5 epochs on all the data, a fifth by {best} (the best of the first paper's four rules; the others: "
        f"{lost})",
        "fewer epochs",
        runs[_AFTER, FIFTH]["robust"].mean(),
        robust,
        clean_gain(runs[_later(best), FIFTH], runs[_AFTER, FIFTH]),
    )


def _easy() -> Case:
    """The easiest 60 % after five epochs of Fast AT, on seeds in which they were not found to be the best."""
    return Case(
        f"CIFAR-10, Fast AT{_APGD}",
        "after 5 epochs on all the data, 60 % by keep_easy (the best of cifar10_cpu, on other seeds)",
        "the same cost, fewer epochs with or without more label smoothing: the best, in each column",
        *_beside_the_best(_whole_rivals("both_worlds_cifar10_cpu", "Fast AT: keep_easy", 0.6)),
    )


def _wrong_labels(study: str, wrong: int, share: float, data: str, attack: str = "") -> Case:
    """A part chosen by margins from plain training, beside the best of the ways to train on all the data."""
    rivals = _whole_rivals(study, f"plain first, {wrong} % wrong: aum", share)
    ways = [rival.rpartition(": ")[0] for rival, _ in rivals]
    assert {f"{when}, {wrong} % wrong" for when in ("all the while", "plain first")} <= set(ways)
    smoothed = " or more label smoothing" * any("smoothing" in way for way in ways)
    return Case(
        f"{data}, {wrong} % of the labels wrong, one-step attack{attack}",
        f"{100 * share:g} %, by AUM: the images whose labels a first phase without attacks finds most plausible",
        f"the same cost, with or without that phase{smoothed}: the best, in each column",
        *_beside_the_best(rivals),
    )


def _whole_rivals(study: str, arm: str, share: float) -> dict[Point, tuple[Comparison, pd.DataFrame, pd.DataFrame]]:
    """What is trained on all the data at the cost of an arm: the comparison, the arm's runs and its own."""
    table = with_accuracies(of(study))
    runs = points(table)
    return {
        rival: (found, runs[own], runs[rival])
        for (own, rival), found in at_equal_cost(table).items()
        if own[0].startswith(arm) and own[1] == share and (runs[rival]["fraction"] == 1).all()
    }


def _beside_the_best(
    rivals: Mapping[Point, tuple[Comparison, pd.DataFrame, pd.DataFrame]],
) -> tuple[float, Comparison, Estimate]:
    """How robust the most robust rival is, what is gained on it, and clean on the one that is best in that."""
    robust, _, best = min(rivals.values(), key=lambda found: found[0].difference.mean)
    clean = min((clean_gain(own, others) for _, own, others in rivals.values()), key=lambda gain: gain.mean)
    return best["robust"].mean(), robust, clean


def _carried(study: str, point: Point, *, other: Point, data: str) -> Case:
    """A part of the data, attacked by one step that goes on from the epoch before, beside all of it."""
    table = of(study)
    runs = points(table)
    (arm, share), (whole, matched) = point, other
    epochs, least = (runs[each]["epochs"].mean() for each in (point, other))
    once = ", in which nothing is carried yet" * bool(least <= 1)
    return Case(
        data,
        f"a random {100 * share:g} %, {epochs:.2g} epochs",
        f"{least:.2g} epoch{'s' * bool(least > 1.5)}{once}",
        runs[other]["robust"].mean(),
        compare(table, arm, whole, fraction=share, reference_fraction=matched),
        clean_gain(runs[point], runs[other]),
    )
