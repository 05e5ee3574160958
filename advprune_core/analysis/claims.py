"""What the two papers' abstracts claim beside what was measured here, and whether it held in this setting."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from advprune_core.analysis.cells import specification, with_accuracies
from advprune_core.analysis.convergence import compared, costs_to_reach
from advprune_core.analysis.estimates import Estimate, estimate, holm
from advprune_core.analysis.labels import control_arm, trainings
from advprune_core.analysis.rivals import at_equal_robustness
from advprune_core.analysis.summaries import Point, attacks_of, points, seconds_ratio
from advprune_core.analysis.verdicts import LEVEL, runs_of, was_run
from advprune_core.models.base import MODELS
from advprune_core.study.archive import Missing

HELD, NOT_HELD, OPEN = "held", "not held", "cannot tell"
#: Of a claim that holds beside the full run, and may be owed to the run's being shorter.
AS_FEWER_EPOCHS = f"{HELD}, but not known to be sooner than fewer epochs at its cost"
AS_FEWER_STEPS = f"{HELD} only as fewer steps: with as many, no fewer are known to collapse"
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
        Of the arm, which is the reference's own.
    ways : tuple of str
        Variants whose pruned runs count; of reliability arms.
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
    *(
        Claim(_A, f"{share} kept: improved convergence", None, "convergence", _COURSES, "PGD-AT: random", fraction)
        for share, fraction in (("60 %", 0.6), ("20 %", 0.2))
    ),
    Claim(_A, "30 % kept: improved reliability", None, "reliability", _LIVES, "FGSM: random", 0.3, _COLLAPSING),
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
        reliability are judged by sign tests over seeds, at 5 %: beside the full run, and beside the control that is
        as short, or takes as many steps.
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
                "setting": "" if table is None else _setting(table, claim.reference),
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
    """What a run costs until it is near the full run's robustness, beside that and beside fewer epochs."""
    assert claim.fraction is not None
    costs = costs_to_reach(courses)
    pruned, full = (claim.reference, claim.fraction), (claim.reference, 1.0)
    shorter = (control_arm("same_cost", claim.reference), claim.fraction)
    beside_full, beside_shorter = (compared(costs, pruned, other) for other in (full, shorter))
    if beside_full is None:
        return NOT_MEASURED, OPEN

    def told(point: Point) -> str:
        reached = np.isfinite(costs[point])
        at = f" at {100 * costs[point].median():.0f} % of the cost (median)" if reached.mean() > 0.5 else ""
        return f"{reached.sum()} of {len(reached)} runs{at}"

    measured = f"95 % of the full run's robust accuracy: {told(pruned)}; the full run{told(full).partition('runs')[2]}"
    measured += f"; fewer epochs at the same cost: {told(shorter)}" if shorter in costs else ""
    if (says := _says(*beside_full)) != "lower":
        return measured, NOT_HELD if says == "higher" else OPEN
    return measured, AS_FEWER_EPOCHS if beside_shorter and _says(*beside_shorter) != "lower" else HELD


def _says(lower: int, higher: int, p: float) -> Literal["lower", "higher"] | None:
    """What a sign test says of the first."""
    if p > LEVEL:
        return None
    return "lower" if lower > higher else "higher"


def _fewer(claim: Claim, lifetimes: pd.DataFrame) -> tuple[str, str]:
    """How many runs collapse on a part of the data, beside all of it, and if they take as many steps."""
    assert claim.fraction is not None
    collapsed = {
        point: rows.set_index("seed")["collapse_steps"].notna().astype(float)
        for point, rows in points(lifetimes[lifetimes["status"].isin(["ok", "collapsed"])], by="fraction").items()
    }
    parts = [(arm, part) for arm in claim.ways for part in (arm, control_arm("same_steps", arm))]
    tests = [compared(collapsed, (part, claim.fraction), (arm, 1.0)) for arm, part in parts]
    known = [test for test in tests if test is not None]
    if len(known) < len(tests):
        return NOT_MEASURED, OPEN
    corrected = holm([p for *_, p in known])
    says = [_says(lower, higher, p) for (lower, higher, _), p in zip(known, corrected, strict=True)]
    told = []
    for arm in claim.ways:
        places = [(arm, 1.0), (arm, claim.fraction), (control_arm("same_steps", arm), claim.fraction)]
        counts = ", ".join(f"{collapsed[place].sum():.0f}" for place in places)
        told.append(f"{arm.rpartition(': ')[0]} {counts} of {len(collapsed[places[0]])}")
    measured = f"collapsed on all the data, on the part, on the part with as many steps: {'; '.join(told)}"
    pruned, as_long = says[::2], says[1::2]
    if "lower" in pruned and "higher" not in pruned:
        return measured, HELD if "lower" in as_long else AS_FEWER_STEPS
    return measured, NOT_HELD if "higher" in pruned and "lower" not in pruned else OPEN


def _setting(table: pd.DataFrame, arm: str) -> str:
    """Network, training, epochs and attacks of an arm's run on all the data."""
    runs = table[(table["arm"] == arm) & (table["fraction"] == 1)]
    if not len(runs):
        return ""
    run = runs.iloc[0]
    model = MODELS.parse(specification(run["model"]))
    network = ", ".join(f"{name} {value}" for name, value in model.model_dump().items())
    training = "".join(f", {way}" for way in trainings(runs))
    tested = [name for name in attacks_of(table) if pd.notna(run.get(f"robust_{name}"))]
    return f"{model.name} ({network}){training}, {run['epochs']:g} epochs, {tested[-1] if tested else 'not tested'}"
