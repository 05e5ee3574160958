"""What the first cell of each experiment says came out, from the committed records; `tests.front_page` writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from textwrap import fill

import pandas as pd

from advprune_core.analysis.comparisons import compare
from advprune_core.analysis.convergence import by_seed, cost_to_reach, sooner
from advprune_core.analysis.estimates import Estimate, accuracy, p_told
from advprune_core.analysis.labels import point_label
from advprune_core.analysis.ranking import CHOICE, first_places, ranked
from advprune_core.analysis.reliability import AS_FEWER_STEPS, fewer_claimed
from advprune_core.analysis.rivals import at_equal_robustness, deciding
from advprune_core.analysis.said import CLAIMS
from advprune_core.analysis.speedrun import results
from advprune_core.analysis.speedups import MARGIN
from advprune_core.analysis.summaries import pruner_table, speed_ups
from advprune_core.analysis.verdicts import Verdict, judge
from advprune_core.attacks.evaluate import wilson
from advprune_core.study.courses import collect_courses, collect_lifetimes
from advprune_core.study.table import collect_timings
from tests.committed import answer_rows, of
from tests.reference import REFERENCE

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
STUDY_OF = {"accuracy_vs_fraction": "digits_20_seeds", "runtime": "digits"}


def _judged(verdict: Verdict) -> str:
    """``-5.9 points [-7.7, -4.2] robust (5 seeds; worse beyond chance)``."""
    difference = verdict.comparison.over_images
    return f"{difference.points()} robust ({difference.seeds} seeds; {verdict.says})"


def accuracy_vs_fraction() -> str:
    """The smallest subset beside a shorter run of its cost."""
    digits, cifar, plain = (answer_rows()[f"{data}, least"] for data in ("digits", "cifar", "cifar, no crops"))
    return (
        f"Beside fewer epochs on all the data, at the same cost, {digits.case.kept} of the digits is "
        f"{_judged(digits.verdict)}, and {cifar.case.kept} of CIFAR-10 {_judged(cifar.verdict)}, without random crops "
        f"{_judged(plain.verdict)}."
    )


def runtime() -> str:
    """How much faster the smallest subset is."""
    table = of("digits")
    speeds = speed_ups(table[table["control"].isna()], collect_timings(REFERENCE / "digits", study="digits"))
    least = speeds.loc[speeds["fraction"].idxmin()]
    return (
        f"On {100 * least['fraction']:g} % of the digits training takes {least['speed_up_seconds']:.2f} times less "
        f"processor time [{least['speed_up_seconds_low']:.2f}, {least['speed_up_seconds_high']:.2f}; range of "
        f"{least['timings']:g} timings, each with some noise], and {least['speed_up_passes']:.2f} times fewer "
        "forward-equivalents: a random subset costs nothing to choose."
    )


def pruners() -> str:
    """The best of all pruners beside their two rivals."""
    rows = pruner_table(of("pruners"))
    rows = rows[rows["fraction"] == rows["fraction"].min()]
    subset = rows.set_index("pruner").loc["random"]
    rows = rows[rows["against_random"].notna()]
    best = rows.loc[rows["against_random"].idxmax()]
    random, whole = Estimate.of_row(best, "against_random"), Estimate.of_row(best, "against_same_cost")
    return (
        f"On {100 * best['fraction']:g} % of the digits the best of {len(rows)} pruners, *{best['pruner']}*, is "
        f"{random.points()} robust beside a random subset and {whole.points()} beside all the data at its cost, "
        f"which includes its selection: {best['cost'] / subset['cost']:.2f} times the random subset's "
        f"({best['seeds']} seeds: the best of many, and no verdict)."
    )


def trainers() -> str:
    """Pruning beside a cheaper attack."""
    table = of("trainers")
    share = table.loc[table["arm"] == "PGD-AT: random", "fraction"].min()
    cost = {
        (arm, fraction): rows["cost"].mean()
        for (arm, fraction), rows in table[table["control"].isna()].groupby(["arm", "fraction"])
    }
    whole = cost["PGD-AT: random", 1.0]
    row, ball = (answer_rows()[name] for name in ("cheaper, digits", "cheaper, digits, L2"))
    cheap, pruned = (cost[point] / whole for point in (("N-FGSM: random", 1.0), ("PGD-AT: random", share)))
    collapsed = of("collapse")
    fell = {way: collapsed[collapsed["arm"] == f"{way}: random"] for way in ("FGSM", "N-FGSM", "PGD-AT")}
    assert {way: (runs["status"] == "collapsed").mean() for way, runs in fell.items()} == {
        "FGSM": 1.0,
        "N-FGSM": 1.0,
        "PGD-AT": 0.0,
    }, "the sentence says: all of them, and none"
    return (
        f"On the digits N-FGSM on all the data costs {cheap:.2f} of PGD-AT, and PGD-AT on a random {100 * share:g} % "
        f"costs {pruned:.2f}: the pruned run is {_judged(row.verdict)}. That is within 2/16; within an L2 ball of 0.5 "
        f"it is {_judged(ball.verdict)}. Within 5.5/16, for "
        f"{fell['FGSM']['epochs'].max():g} epochs, FGSM and N-FGSM withstand their own attack alone in each of "
        f"{len(fell['FGSM'])} runs [{100 * wilson(len(fell['FGSM']), len(fell['FGSM']))[0]:.0f}, 100 %], and PGD-AT is "
        f"{accuracy(fell['PGD-AT']['robust']).text()} % robust."
    )


#: Where gradients were matched: study, pruner, share kept.
_MATCHED = {
    "the digits": ("gradient_matching", "grad_match", 0.3),
    "CIFAR-10": ("gradient_matching_cifar10_cpu", "grad_match every=7", 0.2),
    "CIFAR-100": ("gradient_matching_cifar100_cpu", "grad_match every=7", 0.2),
}


def matched(data: str) -> str:
    """The subset that matches gradients, and a shorter run, beside all the data."""
    study, pruner, share = _MATCHED[data]
    rows = at_equal_robustness(of(study), reference="TRADES: random", margin=MARGIN)
    rows = rows[rows["matched_fraction"] == share].set_index("arm")
    matching, short = rows.loc[f"TRADES, warm start: {pruner}"], "TRADES: same_cost(random)"

    def told(row: pd.Series) -> str:
        return f"{row['speed_up']:.2f} times cheaper and {deciding(row).points()} robust"

    seeds = f" ({deciding(matching).counted()})"
    text = f"TRADES on the {100 * share:g} % of {data} that match gradients is, beside all the data, {told(matching)}"
    if short not in rows.index:
        return text + seeds
    fewer, own = f", and fewer epochs are {told(rows.loc[short])}", f" ({deciding(rows.loc[short]).counted()})"
    return f"{text}{seeds * (own != seeds)}{fewer}{own}"


def gradient_matching() -> str:
    """The same on every data set."""
    return f"{'; '.join(map(matched, _MATCHED))}."


def when_pruning_wins() -> str:
    """What plain training finds plausible, where labels are wrong."""
    rows = answer_rows()

    def told(name: str) -> str:
        case, verdict = rows[name].case, rows[name].verdict
        return f"{case.clean.points()} clean and {_judged(verdict)}"

    return (
        "Where labels are wrong: training on the images whose labels a first phase without attacks finds most "
        "plausible, beside the best way to train on all of them at the same cost. On the digits, 80 % of them where "
        f"20 % of the labels are wrong gain {told('few wrong')}, 60 % where 40 % are wrong {told('many wrong')}; half "
        f"of them, fewer than are right, where 20 % are wrong {told('few wrong, half')}. That is within 2/16; within "
        f"an L2 ball of 0.5, 80 and 60 % are {told('few wrong, L2')} and {told('many wrong, L2')}. On CIFAR-10 90 % "
        f"are {told('fewest wrong, cifar')} where 10 % are wrong, 80 % {told('few wrong, cifar')} where 20 % are, 60 % "
        f"{told('many wrong, cifar')} where 40 % are."
    )


def convergence_reliability() -> str:
    """How many runs get near the full run, and at what cost, beside fewer epochs of the same cost."""
    return (
        "Convergence: of PGD-AT runs on the digits these reach 95 % of the full run's held-out robust accuracy: "
        f"{_near('convergence_reliability')}. That is within 2/16; within an L2 ball of 0.5, "
        f"{_near('convergence_reliability_l2')}. Reliability: {_falls()}; {_falls_in_l2()}."
    )


def _near(study: str) -> str:
    """The same of one study."""
    courses = collect_courses(REFERENCE / study, study=study)
    rows = cost_to_reach(courses, share=0.95).set_index(["arm", "fraction"])
    arm, rival = "PGD-AT: random", "PGD-AT: same_cost(random)"
    fractions = sorted({fraction for name, fraction in rows.index if name == arm}, reverse=True)

    def told(name: str, fraction: float) -> str:
        row = rows.loc[(name, fraction)]
        reached, runs, cost = int(row["reached"]), int(row["seeds"]), row["cost"]
        low, high = (100 * bound for bound in wilson(reached, runs))
        where = f", at {100 * cost:.0f} % of the full run's cost (median)" if cost < float("inf") else ""
        share = f"{100 * reached / runs:.0f} % [{low:.0f}, {high:.0f}]"
        return f"{reached} of {runs} ({share}){where}"

    largest = fractions[1]
    beside = sooner(by_seed(courses), (arm, largest), (rival, largest))
    assert beside is not None
    each = "; ".join(f"on {100 * f:g} % of the images {told(arm, f)}" for f in fractions)
    return (
        f"{each}; a run on {100 * largest:g} % is sooner than one for fewer epochs at its cost in {beside.lower} of "
        f"{beside.pairs} seeds, and later in {beside.higher} {p_told(beside.p, test='sign test:')}"
    )


def _falls() -> str:
    """How many runs of which way of training overfit catastrophically, by share of the data."""
    depth = of("collapse_by_fraction")["collapse_depth"].max()
    assert depth < 0.2, "the sentence says: none falls"
    runs, told = _collapsed("collapse_by_fraction", ("FGSM", "Fast AT", "PGD-2"))
    return (
        f"within 5.5/16, of {runs} runs on all the images / on 30 % / on 30 % for as many steps, so many learn "
        f"to withstand their own attack alone, without ever having been very robust (none falls by more than "
        f"{100 * depth:.0f} points): {told} (0 of {runs} may be up to {100 * wilson(0, runs)[1]:.0f} %)"
    )


def _falls_in_l2() -> str:
    """The same within a ball of the other norm."""
    study = "collapse_by_fraction_l2"
    (claim,) = (replace(claim, study=study) for claim in CLAIMS if claim.kind == "reliability")
    _, verdict = fewer_claimed(claim, collect_lifetimes(REFERENCE / study, study=study))
    assert f"{AS_FEWER_STEPS} (N-FGSM)" in verdict, "the sentence says: as these are fewer steps"
    _, told = _collapsed(study, ("FGSM", "Fast AT", "N-FGSM", "PGD-2"))
    return f"within an L2 ball of 1.25, {told}: fewer of N-FGSM's on 30 % as these are fewer steps"


def _collapsed(study: str, ways: Sequence[str]) -> tuple[int, str]:
    """Of how many runs how many collapsed: on all the data, on 30 %, and with as many steps."""
    table = of(study)
    fell = table.assign(fell=table["status"] == "collapsed").groupby(["arm", "matched_fraction"])["fell"]
    counts, (runs,) = fell.sum(), set(fell.size())
    places = (("{}: random", 1.0), ("{}: random", 0.3), ("{}: same_steps(random)", 0.3))
    told = [f"{way} {' / '.join(str(counts[arm.format(way), share]) for arm, share in places)}" for way in ways]
    return runs, ", ".join(told)


def speedrun() -> str:
    """The first pruned run of the ranking beside the first that does not prune, and who leads."""
    table, ranking = of("speedrun"), ranked(of(f"speedrun{CHOICE}"))
    (pruned, share), (whole, _) = first_places(ranking)
    best = results(table).iloc[0]
    level = Estimate(best["robust"], best["low"], best["high"], best["seeds"])
    pair = {0: compare(table, pruned, whole, fraction=share, reference_fraction=1.0)}
    names = [point_label(pruned, share), point_label(whole, 1.0, whole=True)]
    leader = point_label(best["arm"], best["fraction"], whole=best["fraction"] == 1)
    budget, seconds = (table[name].mean() for name in ("cost", "cost_seconds"))
    return (
        f"On the digits, for {budget:,.0f} forward-equivalents ({seconds:.1f} seconds of one core), *{leader}* is the "
        f"most robust, {level.text()} % (the highest of several means). The first of the ranking that prunes, "
        f"*{names[0]}*, is beside the first that does not, *{names[1]}*, {_judged(judge(pair)[0])}."
    )


#: The sentence of each experiment.
ANSWERS: dict[str, Callable[[], str]] = {
    sentence.__name__: cache(sentence)
    for sentence in (
        accuracy_vs_fraction,
        runtime,
        pruners,
        trainers,
        gradient_matching,
        when_pruning_wins,
        convergence_reliability,
        speedrun,
    )
}


def first_cell(path: Path) -> str:
    """What the first cell of an experiment, or of an executed copy, says below its title."""
    name, study = path.stem, path.parent.name
    if path.parent != NOTEBOOKS and study != STUDY_OF.get(name, name):
        return f"This copy is of the study *{study}*: what came out is said below its figures."
    return fill(f"**What came out** in the published runs. {ANSWERS[name]()}", width=125)


#: The notebooks that say it: the experiments, and their executed copies.
FIRST_CELLS = [
    *(NOTEBOOKS / f"{name}.ipynb" for name in ANSWERS),
    *sorted(path for name in ANSWERS for path in REFERENCE.glob(f"*/{name}.ipynb")),
]
