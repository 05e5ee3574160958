"""What the two papers' abstracts claim beside what was measured here, and whether it held in this setting."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from advprune_core.analysis.cells import specification, with_accuracies
from advprune_core.analysis.convergence import by_seed, cost_to_reach, sooner
from advprune_core.analysis.estimates import Estimate, Signs, estimate, holm, sign_test
from advprune_core.analysis.labels import setting, trainings
from advprune_core.analysis.rivals import at_equal_robustness
from advprune_core.analysis.summaries import Point, attacks_of, seconds_ratio
from advprune_core.analysis.survival import lives_of, never_robust
from advprune_core.analysis.verdicts import LEVEL, runs_of, was_run
from advprune_core.models.base import MODELS
from advprune_core.study.archive import Missing
from advprune_core.trainers.controls import control_arm

K = TypeVar("K")
#: What a sign test says of the first of its pairs, if it says anything.
Says = Literal["lower", "higher"] | None

HELD, NOT_HELD, OPEN = "held", "not held", "cannot tell"
#: Of a claim that holds beside the full run, and may be owed to the run's being shorter.
AS_FEWER_EPOCHS = f"{HELD}, but not known to be sooner than fewer epochs at its cost"
NOTHING_TO_LOSE = f"{OPEN}: never robust on all the data either"
AS_FEWER_STEPS = f"{HELD} only as fewer steps: with as many, not known to collapse less"
NOT_MEASURED = "not measured"
#: Robust accuracy in [0, 1] that a run may lose and still count as robust as another; stated before the runs.
MARGIN = 0.02


@dataclass(frozen=True)
class Claim:
    """One claim of an abstract, most of them a number.

    Attributes
    ----------
    paper : str
        arXiv number.
    says : str
        What is claimed, or what the number is of.
    number : float, optional
        Per cent lost (of all images, or of what was robust: the abstract does not say), or how many times cheaper.
    kind : str
        ``loss`` of robust accuracy at a fraction, ``speed-up`` there, or the largest ``speed-up without loss``
        that any pruned run of some ways of training reaches; without a number ``convergence``, sooner near the
        full run's robustness, and ``reliability``, fewer runs of some ways of training that collapse.
    study : str
        Whose records can tell.
    reference : str
        Arm on all the data.
    fraction : float, optional
        Of the arm, which is the reference's own; of convergence all of the study's.
    ways : tuple of str
        Whose pruned runs count: variants; of reliability, arms.
    """

    paper: str
    says: str
    number: float | None
    kind: Literal["loss", "speed-up", "speed-up without loss", "convergence", "reliability"]
    study: str
    reference: str
    fraction: float | None = None
    ways: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """The number with its unit; what is better where there is none."""
        if self.number is None:
            return "sooner" if self.kind == "convergence" else "fewer"
        return f"{self.number:g} %" if self.kind == "loss" else f"{self.number:g}x"


_A, _B = "2207.00694", "2302.12366"
_HEADLINE = "PGD-7: random"
_PLAIN = ("TRADES, warm start", "TRADES")
_COURSES, _LIVES = "convergence_reliability", "collapse_by_fraction"
_COLLAPSING = ("FGSM: random", "Fast AT: random", "N-FGSM: random", "PGD-2: random")
CLAIMS = (
    Claim(_A, "CIFAR-10, 60 % kept: adversarial accuracy lost", 8, "loss", "cifar10_cpu", _HEADLINE, 0.6),
    Claim(_A, "CIFAR-10, 20 % kept: adversarial accuracy lost", 14, "loss", "cifar10_cpu", _HEADLINE, 0.2),
    Claim(_A, "CIFAR-10, 20 % kept: times cheaper", 3, "speed-up", "cifar10_cpu", _HEADLINE, 0.2),
    Claim(_A, "CIFAR-10, 20 % kept: adversarial accuracy lost", 14, "loss", "cifar10_resnet18", "random", 0.2),
    Claim(_A, "improved convergence", None, "convergence", _COURSES, "PGD-AT: random"),
    Claim(_A, "improved reliability", None, "reliability", _LIVES, "FGSM: random", 0.3, _COLLAPSING),
    *(
        Claim(_B, f"{data}, {says}: times cheaper", number, "speed-up without loss", study, reference, ways=ways)
        for data, study, says, number, reference, ways in (
            ("CIFAR-10", "gradient_matching_cifar10_cpu", "data pruning", 3.44, "TRADES: random", _PLAIN),
            ("CIFAR-100", "gradient_matching_cifar100_cpu", "data pruning", 2.02, "TRADES: random", _PLAIN),
            *(
                (
                    data,
                    f"gradient_matching_{data.lower().replace('-', '')}_cpu",
                    f"with BulletTrain, {base}",
                    number,
                    f"{base}: random",
                    (f"{base}, BulletTrain, warm start", f"{base}, BulletTrain"),
                )
                for data, base, number in (
                    ("CIFAR-10", "TRADES", 5.66),
                    ("CIFAR-10", "MART", 5.12),
                    ("CIFAR-100", "TRADES", 3.67),
                    ("CIFAR-100", "MART", 3.07),
                )
            ),
        )
    ),
)


def claims_table(
    tables: Mapping[str, pd.DataFrame],
    *,
    missing: Mapping[str, Collection[Missing]] = {},
    courses: Mapping[str, pd.DataFrame] = {},
    lifetimes: Mapping[str, pd.DataFrame] = {},
) -> pd.DataFrame:
    """Each claim with what was measured and a verdict in this setting.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        From `collect`, by name of the study; a claim whose study is not there is not measured.
    missing : mapping of str to collection of Missing
        Points without a result, by study: what none of the others reaches, one that is as cheap may.
    courses, lifetimes : mapping of str to DataFrame
        From `study.courses`, by study: what claims of convergence and of reliability are judged by.

    Returns
    -------
    DataFrame
        ``paper, claim, said, measured, verdict, setting``. A loss is *held* if the 95 % interval over seeds
        lies at or below what was said, *not held* if above it, both in points and as a share of what the run on all
        the data reaches; a speed-up if it is as large, in forward-equivalents and in processor seconds. A speed-up
        without loss, in forward-equivalents, is that of the cheapest pruned run whose robust accuracy is known to be
        within `MARGIN` of the reference's; where a run as cheap as claimed may be, nobody can tell. Convergence and
        reliability are judged by sign tests over seeds, those of a claim that ask the same together (Holm, 5 %):
        whether a part of the data is better than all of it, and then, whether it is so beside the control that is as
        short, or with as many steps. A way of training whose runs on all the data were never robust is no answer.
    """
    rows = []
    for claim in CLAIMS:
        table = tables.get(claim.study)
        measured, verdict = NOT_MEASURED, OPEN
        if claim.kind == "convergence" and claim.study in courses:
            measured, verdict = _sooner(claim, courses[claim.study])
        elif claim.kind == "reliability" and claim.study in lifetimes:
            measured, verdict = _fewer(claim, lifetimes[claim.study])
        elif table is not None:
            measured, verdict = _judged(claim, with_accuracies(table), missing=missing.get(claim.study, ()))
        rows.append(
            {
                "paper": claim.paper,
                "claim": claim.says,
                "said": claim.said,
                "measured": measured,
                "verdict": verdict,
                "setting": "" if table is None else _setting(table, claim),
            }
        )
    return pd.DataFrame(rows)


def _judged(claim: Claim, table: pd.DataFrame, *, missing: Collection[Missing]) -> tuple[str, str]:
    if not was_run(table, claim.reference, 1.0):
        return NOT_MEASURED, OPEN
    if claim.kind == "speed-up without loss":
        return _without_loss(claim, table, missing=missing)
    assert claim.number is not None
    assert claim.fraction is not None
    if not was_run(table, claim.reference, claim.fraction):
        return NOT_MEASURED, OPEN
    tested = table[table["robust"].notna()]
    pruned, full = (runs_of(tested, claim.reference, f) for f in (claim.fraction, 1.0))
    if claim.kind == "speed-up":
        times, seconds = float((full["cost"] / pruned["cost"]).mean()), seconds_ratio(pruned, full)
        verdict = NOT_HELD if times < claim.number else HELD if seconds >= claim.number else OPEN
        timed = "" if np.isnan(seconds) else f", {seconds:.2f}x in processor seconds"
        return f"{times:.2f}x in passes{timed}", verdict
    points = estimate((full["robust"] - pruned["robust"]).dropna())
    share = estimate((1 - pruned["robust"] / full["robust"]).dropna())
    if not points.seeds:
        return NOT_MEASURED, OPEN
    in_points, in_share = (_at_most(loss, claim.number / 100) for loss in (points, share))
    verdict = in_points if in_points == in_share else f"{in_points} if points are meant, else {in_share}"
    return f"{points.text()} points, {share.text()} % of what was robust ({points.counted()})", verdict


def _at_most(loss: Estimate, said: float) -> str:
    return HELD if loss.high <= said else NOT_HELD if loss.low > said else OPEN


def _without_loss(claim: Claim, table: pd.DataFrame, *, missing: Collection[Missing]) -> tuple[str, str]:
    held_out = at_equal_robustness(table, reference=claim.reference, margin=MARGIN)
    ways = held_out["arm"].str.rpartition(": ")[0]
    pruned = held_out[ways.isin(claim.ways) & (held_out["fraction"] < 1)].sort_values("speed_up", ascending=False)
    if not len(pruned):
        return NOT_MEASURED, OPEN
    sure = pruned[[value is True for value in pruned["as_robust"]]]
    maybe = pruned[[value is None for value in pruned["as_robust"]]]
    best = f"{sure['speed_up'].iloc[0]:.2f}x ({sure['arm'].iloc[0]})" if len(sure) else "none known to be as robust"
    assert claim.number is not None
    if len(sure) and sure["speed_up"].iloc[0] >= claim.number:
        return best, HELD
    awaited = [
        point
        for point in missing
        if point.arm.rpartition(": ")[0] in claim.ways and point.control is None and point.fraction < 1
    ]
    whole = float(runs_of(table, claim.reference, 1.0)["cost"].mean())
    cheap = any(point.passes is None or whole / point.passes >= claim.number for point in awaited)
    undecided = cheap or bool((maybe["speed_up"] >= claim.number).any())
    return f"{best} so far" if awaited else best, OPEN if undecided else NOT_HELD


def _sooner(claim: Claim, courses: pd.DataFrame) -> tuple[str, str]:
    """What parts of the data cost until they are near the full run's robustness, beside it and fewer epochs."""
    rows = cost_to_reach(courses).set_index(["arm", "fraction"])
    short = control_arm("same_cost", claim.reference)
    fractions = [f for arm, f in rows.index if arm == claim.reference and f < 1]
    runs = by_seed(courses)
    beside_full = {f: sooner(runs, (claim.reference, f), (claim.reference, 1.0)) for f in fractions}
    beside_short = {f: sooner(runs, (claim.reference, f), (short, f)) for f in fractions}
    if not fractions:
        return NOT_MEASURED, OPEN

    def told(point: Point) -> str:
        row = rows.loc[[point]].iloc[0]
        at = f" at {100 * row['cost']:.0f} %" if np.isfinite(row["cost"]) else ""
        return f"{row['reached']:.0f} of {row['seeds']:.0f} runs{at}"

    full, short_says = _says(beside_full), _says(beside_short)
    measured = [f"95 % of the full run's robustness, at which median part of its cost: {told((claim.reference, 1.0))}"]
    verdicts = {}
    for f in fractions:
        shorter = f", fewer epochs at the same cost {told((short, f))}" if beside_short[f] is not None else ""
        measured.append(f"on {100 * f:g} % {told((claim.reference, f))}{shorter}")
        says = {"lower": HELD, "higher": NOT_HELD, None: OPEN}[full[f]]
        verdicts[f"{100 * f:g} %"] = AS_FEWER_EPOCHS if says == HELD and short_says[f] != "lower" else says
    return "; ".join(measured), _together(verdicts)


def _says(tests: Mapping[K, Signs | None]) -> dict[K, Says]:
    """What sign tests say of the first of their pairs, together (Holm); nothing of a test that could not be made."""
    made = {name: test for name, test in tests.items() if test is not None}
    beyond = dict(zip(made, holm([test.p for test in made.values()]) <= LEVEL, strict=True))
    says: dict[K, Says] = dict.fromkeys(tests)
    for name, test in made.items():
        if beyond[name]:
            says[name] = "lower" if test.lower > test.higher else "higher"
    return says


def _fewer(claim: Claim, lifetimes: pd.DataFrame) -> tuple[str, str]:
    """How many runs collapse on a part of the data, beside all of it, and if they take as many steps."""
    assert claim.fraction is not None
    lives = lives_of(lifetimes)
    fell = {point: rows.set_index("seed")["collapse_steps"].notna() for point, rows in lives.items()}
    told, tests, verdicts = [], dict[tuple[str, str], Signs | None](), dict[str, str]()
    for arm in claim.ways:
        way, longer = arm.rpartition(": ")[0], control_arm("same_steps", arm)
        places = [(arm, 1.0), (arm, claim.fraction), (longer, claim.fraction)]
        runs = [fell.get(place) for place in places]
        if any(found is None for found in runs):
            return NOT_MEASURED, OPEN
        together = pd.concat(runs, axis=1, join="inner")  # seeds of all three
        full, pruned, as_long = (together.iloc[:, place] for place in range(3))
        counts = ", ".join(str(int(found.sum())) for found in (full, pruned, as_long))
        best = [f"{100 * lives[place]['val_pgd_best'].median():.0f}" for place in places]
        told.append(f"{way} {counts} of {len(together)} (robust at best: {', '.join(best)} %)")
        verdicts[way] = NOTHING_TO_LOSE
        if not never_robust(lives[arm, 1.0]):
            tests[way, "pruned"], tests[way, "as long"] = sign_test(pruned, full), sign_test(as_long, full)
    says = _says(tests)
    verdicts |= {way: _of_way(says[way, "pruned"], says[way, "as long"]) for way, of in tests if of == "pruned"}
    share = f"{100 * claim.fraction:g} %"
    measured = f"collapsed on all the data, on {share} of it, on {share} with as many steps: {'; '.join(told)}"
    return measured, _together(verdicts)


def _of_way(pruned: Says, as_long: Says) -> str:
    if pruned == "lower":
        return HELD if as_long == "lower" else AS_FEWER_STEPS
    return NOT_HELD if pruned == "higher" else OPEN


def _together(verdicts: Mapping[str, str]) -> str:
    """One verdict, or whose verdict each is: ``held (60 %, 40 %); not held (20 %)``."""
    found = dict.fromkeys(verdicts.values())
    if len(found) == 1:
        return next(iter(found))
    names = {verdict: [name for name, own in verdicts.items() if own == verdict] for verdict in found}
    return "; ".join(f"{verdict} ({' and '.join(own)})" for verdict, own in names.items())


def _setting(table: pd.DataFrame, claim: Claim) -> str:
    """Network, training, epochs and attacks of a claim's run on all the data; of one without a number, data as well."""
    arms = claim.ways if claim.kind == "reliability" else [claim.reference]
    runs = table[table["arm"].isin(arms) & (table["fraction"] == 1)]
    if not len(runs):
        return ""
    if claim.number is None:
        epochs = ", ".join(f"{count:g}" for count in runs["epochs"].unique())
        return f"{setting(runs).partition(';')[0]}, {epochs} epochs, PGD-10 on held-out images"
    run = runs.iloc[0]
    model = MODELS.parse(specification(run["model"]))
    network = ", ".join(f"{name} {value}" for name, value in model.model_dump().items())
    training = "".join(f", {way}" for way in trainings(runs))
    tested = [name for name in attacks_of(table) if pd.notna(run.get(f"robust_{name}"))]
    return f"{model.name} ({network}){training}, {run['epochs']:g} epochs, {tested[-1] if tested else 'not tested'}"
