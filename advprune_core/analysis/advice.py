"""What to do with a budget: the way of training to take, whether to prune, and what to expect of it.

What is known are the measured points of `fronts`: of their settings the nearest to what is asked is taken (`nearest`),
and in it one of the ways of training that the budget pays for (`choose`). What lies beyond what was measured is said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, Self

import pandas as pd
from pydantic import BeforeValidator, Field, model_validator

from advprune_core.analysis.batches import batch_for, with_enough_steps
from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.fronts import Plan, ways_of
from advprune_core.analysis.situations import Situation, beyond, measured, nearest
from advprune_core.analysis.ways import SAME_COST
from advprune_core.attacks.base import ATTACKS, Attack
from advprune_core.base.settings import Settings
from advprune_core.base.values import as_ratio, ratio, shown
from advprune_core.datasets.splits import Dataset
from advprune_core.study.commands import run_command, typed
from advprune_core.study.evaluations import PGD_40
from advprune_core.study.plans import Pace, duration
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.presets import steps_told, trainer_name

#: Width of the widest interval that is given as an expectation, in [0, 1]; stated before anything was held back.
WIDEST = 0.06
#: Share of a budget that the dearest measured run must cost for the answer to hold for it.
_ENOUGH = 0.5
#: What a full run takes for each image: 7 steps of PGD.
_PGD = RunConfig()


def seconds_of(value: Any) -> Any:
    """``"20 min"``, ``"1.5 hours"`` in seconds."""
    if not isinstance(value, str):
        return value
    try:
        if not any(letter.isalpha() for letter in value):
            raise ValueError
        seconds = pd.Timedelta(value.lower()).total_seconds()
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise ValueError(f"{shown(value)} is no length of time: a number and a unit, as in '20 min', '2 h' or '90 s'")
    return seconds


Seconds = Annotated[float, BeforeValidator(seconds_of)]
Share = Annotated[float, BeforeValidator(ratio)]


class Request(Settings):
    """A budget: of time on this machine, or a share of what training on all the data costs."""

    budget: Annotated[Seconds | None, Field(gt=0, le=1e10, description="time to train: '20 min', '2 h'")] = None
    cost: Annotated[Share | None, Field(gt=0, le=10, description="share of a full run's cost: 0.3")] = None
    wrong_labels: Annotated[Share | None, Field(ge=0, lt=1, description="share of labels that are wrong")] = None

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.budget is None) == (self.cost is None):
            raise ValueError("name one budget: --budget '20 min', or --cost 0.3 of a full run")
        return self


def full_epochs(points: pd.DataFrame) -> float:
    """Epochs of the full run of a setting: those of its longest run that attacks all the data in every epoch."""
    whole = points[(points["pruner"] == '"full"') & ~points["trainer"].str.contains("plain_epochs")]
    return float((whole if len(whole) else points)["epochs"].max())


class Advice(NamedTuple):
    """What to do with a budget.

    Attributes
    ----------
    plan : Plan
    rival : Plan or None
        The best of the other kind (pruned, or on all the data).
    compared : bool
        On all the data, whether anything pruned was measured within the budget; pruned, whether its way of training
        was measured on all the data at about its cost.
    """

    plan: Plan
    rival: Plan | None
    compared: bool


def choose(points: pd.DataFrame, budget: float) -> Advice | None:
    """The plan to take for a budget.

    On all the data, of the plans whose expected robust accuracy lies in the interval of the best one's, the cheapest
    (at equal cost the more robust). Instead the best of the pruned plans whose intervals lie above theirs, if there is
    any: that nobody can tell two apart is no reason to prune.

    Parameters
    ----------
    points : DataFrame
        Of one setting, from `measured_points`.
    budget : float
        In forward-equivalents for each training image.

    Returns
    -------
    Advice or None
        None where the budget pays for no measured way of training.
    """
    plans = [plan for way in ways_of(points) if (plan := way.at(budget)) is not None]
    whole, parts = ([plan for plan in plans if plan.pruned == kind] for kind in (False, True))
    if not plans:
        return None
    if not whole:
        return Advice(_best(parts), None, compared=False)
    best = _best(whole)
    bar = max(1.0 if math.isnan(plan.robust.high) else plan.robust.high for plan in whole)
    if above := [plan for plan in parts if plan.robust.low > bar]:
        pruned = _best(above)
        alike = (plan for plan in whole if plan.way.trainer == pruned.way.trainer)
        return Advice(pruned, best, compared=any(plan.cost * (1 + SAME_COST) >= pruned.cost for plan in alike))
    near = [plan for plan in whole if plan is best or plan.robust.mean >= best.robust.low]
    taken = min(near, key=lambda plan: (round(math.log(plan.cost), 2), -plan.robust.mean))
    return Advice(taken, _best(parts) if parts else None, compared=bool(parts))


def _best(plans: Sequence[Plan]) -> Plan:
    """The plan of the highest expected robust accuracy."""
    return max(plans, key=lambda plan: plan.robust.mean)


def advise(
    points: pd.DataFrame, config: RunConfig, dataset: Dataset, request: Request, pace: Callable[[RunConfig], Pace]
) -> str:
    """Advice in words.

    Parameters
    ----------
    points : DataFrame
        From `read_points`.
    config : RunConfig
        Data set, network and threat model that are asked about.
    dataset : Dataset
    request : Request
    pace : callable
        Times a way of training on this machine.
    """
    asked = Situation.of(config, dataset, request.wrong_labels)
    points, images = _in_precision(nearest(points, asked), config.precision), len(dataset.train)
    there = points.iloc[0]
    full = full_epochs(points) * _PGD.passes_per_image
    batch = json.loads(there["trainer"]).get("batch_size", config.optimisation.batch_size)
    batch = batch_for(images, batch, measured=there["images"])
    speed = pace(config.with_settings({"optimisation.batch_size": min(batch, images)}))
    if request.budget is None:
        budget, given = full * (request.cost or 0.0), _of_full(request.cost or 0.0)
    else:
        budget = request.budget / (speed.high * images)
        given = f"{duration(request.budget)}, {_of_full(float(f'{budget / full:.2g}'))}"
    apart = beyond(there, asked)
    held_out = len(dataset.val_select) + len(dataset.val_stop)
    which = f"the {images:,} images that are not held out" if held_out else f"all {images:,} images"
    ways, found = ways_of(points), choose(points, budget)
    least, most = min(way.costs[0] for way in ways), max(way.costs[-1] for way in ways)
    lines = [
        f"Budget: {given} ({_epochs(full_epochs(points))} on {which} with 7 steps of PGD); a full run takes "
        f"{_time(full, speed, images)} on this machine.",
        "",
    ]
    if found is None:
        lines.append(f"Cannot tell: the cheapest run that was measured costs {least / budget:.1f} times as much.")
    else:
        rival = found.rival
        plan, changed = with_enough_steps(found.plan, images, measured=there["images"])
        lines += [
            f"{_answer(found)}: {_way(plan)} ({_time(plan.cost, speed, images)}).{_doubt(most / budget)}",
            f"  {'reached there' if apart else 'expected'}: {_expected(plan.clean, 'clean')}, "
            f"{_expected(plan.robust, 'robust')}",
            "  means over seeds on the measured test images, 95 % intervals; of single runs the standard deviation is "
            f"{100 * plan.spread:.1f} points",
            *([_beside(plan, rival)] if rival is not None else []),
            f"  {command(plan, config, str(there['test']))}",
        ]
        if asked.wrong_labels and not config.dataset.label_noise:
            lines.append(
                f"  on data with wrong labels; to make some wrong: label_noise: {asked.wrong_labels:g} in --dataset"
            )
        apart += changed
        if plan.between[0] != plan.between[1]:
            apart.append(
                "a cost between {:.3g} and {:.3g} of a full run: interpolated".format(*(c / full for c in plan.between))
            )
        if budget > 1.01 * plan.cost:
            apart.append(f"{plan.cost / budget:.0%} of the budget: what costs more was not measured, or is not better")
    return "\n".join([*lines, "", measured(there), *(f"  - {text}" for text in apart)])


def _in_precision(points: pd.DataFrame, precision: str) -> pd.DataFrame:
    """The points measured in the precision that is asked about, if there are any: rounding is no way of training."""
    own = points["trainer"].map(lambda text: json.loads(text).get("precision", _PGD.precision) == precision)
    return points[own] if own.any() else points


def _time(cost: float, speed: Pace, images: int) -> str:
    return f"{duration(cost * speed.low * images)} to {duration(cost * speed.high * images)}"


def _of_full(share: float) -> str:
    """``0.3 of a full run``, or how many of them."""
    return f"{share:g} full runs" if share > 1 else f"{share:g} of a full run"


def _epochs(count: float) -> str:
    return f"{count:.3g} epoch{'s' * (round(count, 2) != 1)}"


def _answer(found: Advice) -> str:
    """Whether to prune."""
    if found.compared:
        return "Prune" if found.plan.pruned else "Do not prune"
    what = "on all the data" if found.plan.pruned else "pruned"
    way = "in this way of training " if found.rival else ""
    why = f"nothing {what} was measured {way}at this cost"
    return f"Cannot tell whether to prune: {why}. Best that was measured"


def _doubt(dearest: float) -> str:
    """What of the answer cannot be told; `dearest`: cost of the dearest measured run, as a share of the budget."""
    if dearest >= _ENOUGH:
        return ""
    return (
        " That is the best of what was measured; cannot tell whether this budget buys better: no run that was "
        f"measured costs more than {dearest:.1g} of it."
    )


def _way(plan: Plan) -> str:
    pruner = plan.way.pruner
    name = next(iter(pruner)) if isinstance(pruner, dict) else pruner
    data = f"{100 * plan.fraction:.0f} % of the data, kept by {name!r}" if plan.pruned else "all the data"
    return f"{data}, {_trainer(plan)}, {_epochs(plan.epochs)}"


def _beside(plan: Plan, rival: Plan) -> str:
    """What the best of the other kind reaches."""
    open_ = ", the difference is not established" * (rival.robust.mean > plan.robust.mean)
    between = ", interpolated between costs that were measured" * (rival.between[0] != rival.between[1])
    return f"  against {_way(rival)}: {_expected(rival.robust, 'robust')}{between}{open_}"


def _expected(value: Estimate, name: str) -> str:
    """An accuracy with its interval, or that this cannot be told closely enough."""
    if not value.high - value.low <= WIDEST:
        return f"{name}: cannot tell within {100 * WIDEST:g} points (about {100 * value.mean:.0f} %)"
    return f"{value.text()} % {name}"


def _trainer(plan: Plan) -> str:
    """``trainer n_fgsm (1 attack step, label smoothing 0.1)``; the objective's name where there is no such preset."""
    config = RunConfig.flat(**plan.way.trainer)
    told = {key: value for key, value in plan.way.trainer.items() if key not in ("objective", "start", "steps")}
    told |= config.objective.model_dump(mode="json", exclude_defaults=True)
    more = "".join(f", {key.replace('_', ' ')} {typed(value)}" for key, value in told.items())
    return f"trainer {trainer_name(config)} ({steps_told(config)}{more})"


def command(plan: Plan, config: RunConfig, test: str) -> str:
    """The command that carries a plan out, with the `test` that was measured, as ``pgd20+pgd20_margin``."""
    options: dict[str, Any] = {"dataset": config.dataset.spec(), "model": config.model.spec()}
    options |= {"norm": config.threat.norm, "eps": as_ratio(config.threat.eps)}
    options |= plan.way.trainer | {"epochs": float(f"{plan.epochs:.4g}")}
    if plan.pruned:
        options |= {"pruner": plan.way.pruner, "fraction": float(f"{plan.fraction:.3g}")}
    attacks = [_attack(label) for label in test.split("+")]
    tests = [("evaluation", attack.spec()) for attack in attacks] if tuple(attacks) != PGD_40 else []
    return run_command([*options.items(), *tests])


def _attack(label: str) -> Attack:
    """The attack of a label of the published tests: ``pgd20_margin``, ``autoattack_apgd_bfloat16``."""
    name, _, setting = label.partition("_")
    if name == "autoattack":
        words = setting.split("_") if setting else []
        settings = {("precision" if word == "bfloat16" else "version"): word for word in words}
        return ATTACKS.parse({name: settings} if settings else name)
    return ATTACKS.parse({"pgd": {"steps": int(name.removeprefix("pgd")), "loss": setting or "cross_entropy"}})
