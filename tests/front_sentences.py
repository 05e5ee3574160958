"""README's answer in sentences: what a fixed subset is worth beside a shorter run of its cost, where pruning wins."""

from __future__ import annotations

from functools import cache

from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.verdicts import BETTER, BETTER_ALONE, BETTER_HERE, UNDECIDED, WORSE, WORSE_ALONE
from tests.committed import (
    CIFAR_10,
    CIFAR_100,
    Row,
    about_wrong_labels,
    answer_rows,
    balanced_rule_on_the_digits,
    by_rule,
    by_rule_on_the_digits,
    classes_left_out,
    half_of_some_wrong,
    of,
    one_step_in_l2,
    one_step_on_all_digits,
    one_step_within_3_16,
    wrong_on_cifar,
)


def answer() -> str:
    """What came out, in three points."""
    rows = answer_rows()
    says, gain = _says(rows), _gains(rows)
    right = {said for name, said in says.items() if not about_wrong_labels(name)}
    assert not {BETTER, BETTER_HERE} & right, "the sentence says: none is known to be more robust"
    assert says["digits, least"] == WORSE, "the sentence says that it loses"
    assert (len(CIFAR_10), len(CIFAR_100)) == (6, 2), "the sentence says how many"
    large = [f"{name}, least" for name in (*CIFAR_10, *CIFAR_100)]
    assert {says[name] for name in large} == {UNDECIDED}, "the sentence says: no difference"
    fifths = [rows[name].case.comparison.over_images for name in large]
    low, high = min(fifth.low for fifth in fifths), max(fifth.high for fifth in fifths)
    best_rule = max(rule.mean for rules in _rules() for rule in rules)
    assert {says["cheaper, digits"], says["cheaper, digits, L2"]} == {WORSE}, "the sentence says that it saves more"
    assert {says["cheaper"], says["cheaper, fast"]} == {WORSE_ALONE, UNDECIDED}, "the sentence says: open"
    assert {says["few wrong"], says["many wrong"]} == {BETTER}, "the sentence says that it wins"
    assert {says["few wrong, L2"], says["many wrong, L2"]} == {BETTER_HERE}, "the sentence says: nobody can tell"
    cifar = wrong_on_cifar()
    assert min(row.case.clean.low for row in cifar) > 0, "the sentence says that it wins"
    assert {row.verdict.says for row in cifar} == {UNDECIDED}, "the sentence says: in clean accuracy alone"
    return _listed(
        "**Where labels are right, nothing pruned is known to be more robust than all the data at the same cost, that "
        f"is for fewer epochs.** A random fifth is {gain['digits, least']} points of robust accuracy on the digits; "
        "on CIFAR-10 (six settings) and CIFAR-100 (two) no difference is seen, but few seeds leave room for "
        f"{100 * low:+.1f} to {100 * high:+.1f}. One that Kaufmann's rules choose, after some training, is "
        f"{100 * best_rule:+.1f} at best.",
        "**On the digits a cheaper attack saves more than fewer images, within 2/16 and an L2 ball of 0.5.** Beside "
        f"one step on all the data, which costs less, seven steps on a part are {gain['cheaper, digits']} and "
        f"{gain['cheaper, digits, L2']} there; on CIFAR-10 that is open ({gain['cheaper']} and "
        f"{gain['cheaper, fast']}, beside two such attacks).",
        "**Where labels are wrong, pruning wins on the digits, within 2/16**, if about as many are kept as are right, "
        f"which must be known: {gain['few wrong']} where 20 % are wrong, {gain['many wrong']} where 40 % are. Within "
        "an L2 ball it gains less, and nobody can tell of other images; on CIFAR-10 it wins clean accuracy alone.",
    )


def further() -> str:
    """What else the rows say, and the studies that they are of."""
    rows = answer_rows()
    says, gain = _says(rows), _gains(rows)
    assert says["digits, L2, least"] == WORSE, "the sentence says that it loses"
    rules, digits, digits_l2 = _rules()
    assert max(rule.high for rule in (*rules, *digits, *digits_l2)) < 0, "the sentence says that all of them lose"
    assert says["chosen"] == WORSE_ALONE, "the sentence says: the least by itself"
    right = [name for name in says if not about_wrong_labels(name)]
    most = max(right, key=lambda name: rows[name].case.comparison.difference.mean)
    assert (most, says[most]) == ("carried", BETTER_ALONE), "the sentence says which, and: by itself"
    assert says["carried, cifar"] == WORSE, "the sentence says that it loses"
    assert says["carried, cifar, least"] == UNDECIDED, "the sentence says: not significant"
    assert says["cheaper"] == WORSE_ALONE, "the sentence says: by itself"
    assert says["cheaper, fast"] == UNDECIDED, "the sentence says: not significant"
    dearer = rows["cheaper, fast"].case.clean
    assert dearer.high < 0, "the sentence says that it loses"
    one_step, farther = one_step_on_all_digits().over_images, one_step_within_3_16().over_images
    assert one_step.low > 0 > farther.high, "the sentence says that it gains, and loses within 3/16"
    ball = one_step_in_l2().over_images
    assert ball.low < 0 < ball.high, "the sentence says: not significant"
    balanced, balanced_l2 = (
        100 * balanced_rule_on_the_digits(study).over_images.mean for study in ("pruners", "pruners_l2")
    )
    updates = of("pruners").query("fraction == 1 and control.isna()").eval("optimiser_steps / epochs").mean()
    assert {says["few wrong, half"], says["few wrong, half, L2"]} == {WORSE}, "the sentence says that it loses"
    assert {says["few wrong, L2"], says["many wrong, L2"]} == {BETTER_HERE}, "the sentence says: on these images"
    cifar = wrong_on_cifar()
    half = half_of_some_wrong()
    clean = "{}, {} and {}".format(*(f"{100 * row.case.clean.mean:+.1f}" for row in cifar))
    clean_half = "{} and {}".format(*(f"{100 * case.clean.mean:+.1f}" for case in half))
    assert all(
        case.comparison.over_images.high > 0 and case.clean.mean > row.case.clean.mean
        for case, row in zip(half, cifar[1:], strict=True)
    ), "the sentence says that half does as well"
    smoothed = [name for name, row in rows.items() if about_wrong_labels(name) and "smoothing" in row.case.other]
    assert smoothed == ["many wrong", "many wrong, L2", "many wrong, cifar"], "the sentence says beside which"
    return _listed(
        f"Where labels are right: within an L2 ball a random fifth of the digits is {gain['digits, L2, least']}. "
        f"Fifths chosen by Kaufmann's four rules are {_ends(rules)} on CIFAR-10 (the best by itself, see below), after "
        f"five epochs on all the data, and {_ends(digits)} on the digits, after one ({updates:.0f} updates; "
        f"{balanced:+.1f} by the rule that has each class keep its share), within an L2 ball {_ends(digits_l2)} "
        f"({balanced_l2:+.1f}). {_before_training()} The largest gain, {gain[most]} on Fashion-MNIST, where each "
        f"attack starts at the last epoch's, is one by itself; on CIFAR-10 such a part is {gain['carried, cifar']} at "
        f"the cost of six epochs, {gain['carried, cifar, least']} (not significant) at that of two.",
        f"A cheaper attack: on the digits it is N-FGSM, which is {100 * one_step.mean:+.1f} and, within the L2 ball, "
        f"{100 * ball.mean:+.1f} (not significant) beside seven steps on all of them, too; within 3/16, "
        f"{100 * farther.mean:+.1f}. On CIFAR-10 a part is {gain['cheaper']} beside N-FGSM (by itself) and "
        f"{gain['cheaper, fast']} beside Fast AT (not significant, but {100 * dearer.mean:+.1f} clean).",
        "Wrong labels: what wins was planned after half of the digits, where 20 % are wrong, had lost: "
        f"{gain['few wrong, half']}. Within an L2 ball it gains less, {gain['few wrong, L2']} and "
        f"{gain['many wrong, L2']} on these test images (half, where 20 % are wrong: {gain['few wrong, half, L2']}). "
        f"On CIFAR-10 it gains {clean} clean where 10, 20 and 40 % are wrong, and as much with half of the images "
        f"({clean_half} where 20 and 40 % are). More label smoothing was set beside all these where 40 % are wrong "
        "alone.",
    )


def _says(rows: dict[str, Row]) -> dict[str, str]:
    return {name: row.verdict.says for name, row in rows.items()}


def _gains(rows: dict[str, Row]) -> dict[str, str]:
    return {name: f"{100 * row.case.comparison.difference.mean:+.1f}" for name, row in rows.items()}


@cache
def _rules() -> list[list[Estimate]]:
    """The first paper's rules, the best first: on CIFAR-10, on the digits, and on these within an L2 ball."""
    found = (by_rule(), by_rule_on_the_digits(), by_rule_on_the_digits("pruners_l2"))
    return [[comparison.over_images for comparison in each.values()] for each in found]


def _before_training() -> str:
    """What the first paper's rules keep, and what that is worth, where nothing is learned yet."""
    (best, level), *others = by_rule(after=0).items()
    left_out = classes_left_out()
    assert best == "keep_fragile", "the sentence says which"
    assert max(left_out[best]) <= 1, "the sentence says: at most one class"
    gain, rest = level.over_images, [other.over_images for _, other in others]
    assert gain.low < 0 < gain.high, "the sentence says: not significant"
    assert [estimate.high < 0 for estimate in rest] == [True, True, False], (
        "the sentence says of which that is not known"
    )
    counts = [count for rule, _ in others for count in left_out[rule]]
    return (
        "Before any training, when a network ranks images by class, three of them keep next to nothing of "
        f"{min(counts)} to {max(counts)} of CIFAR-10's ten classes and are {_ends(rest)} (the last not significant), "
        f"and {best}, which then draws nearly at random, is {gain.points()} (not significant)."
    )


def _ends(rules: list[Estimate]) -> str:
    return f"{100 * rules[0].mean:+.1f} to {100 * rules[-1].mean:+.1f}"


def _listed(*texts: str) -> str:
    return "\n".join(f"* {text}" for text in texts)
