"""What to do with a budget: the way of training to take, whether to prune, and what to expect of it.

What is known are the measured points of `fronts`. Of those settings the nearest to what is asked is taken, see `nearest`;
in it, of all ways of training that the budget pays for, see `choose`. What is asked beyond what was measured is said.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, model_validator

from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.fronts import SETTING, Plan, ways_of
from advprune_core.base.settings import Settings
from advprune_core.base.values import ratio, shown
from advprune_core.datasets.splits import Dataset
from advprune_core.objectives.base import TRAINERS
from advprune_core.study.plans import Pace, duration
from advprune_core.trainers.config import RunConfig

#: Width of the widest interval that is given as an expectation, in [0, 1]; stated before anything was held back.
WIDEST = 0.06
#: Of PGD-7 on all the data for as long as the longest measured run: what `cost` is a share of.
_FULL = RunConfig()


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

    budget: Annotated[Seconds | None, Field(gt=0, description="time to train: '20 min', '2 h'")] = None
    cost: Annotated[Share | None, Field(gt=0, le=1000, description="share of a full run's cost: 0.3")] = None
    wrong_labels: Annotated[Share | None, Field(ge=0, lt=1, description="share of labels that are wrong")] = None

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.budget is None) == (self.cost is None):
            raise ValueError("name one budget: --budget '20 min', or --cost 0.3 of a full run")
        return self


@dataclass(frozen=True)
class Situation:
    """What advice is asked for; the fields are those of a measured setting, its test aside."""

    dataset: str
    wrong_labels: float
    images: int
    shape: str
    model: str
    norm: str
    eps: float

    @classmethod
    def of(cls, config: RunConfig, dataset: Dataset, wrong_labels: float | None = None) -> Situation:
        """That of a run; its data are as wrong as is said, or as they were made."""
        return cls(
            dataset=config.dataset.name,
            wrong_labels=config.dataset.label_noise if wrong_labels is None else wrong_labels,
            images=len(dataset.train),
            shape="x".join(map(str, dataset.image_shape)),
            model=config.model.name,
            norm=config.threat.norm,
            eps=config.threat.eps,
        )


def nearest(points: pd.DataFrame, asked: Situation) -> pd.DataFrame:
    """The points of the measured setting that is nearest to what is asked.

    First in the share of wrong labels, which is what the answer turns on; then the data set, else one of images of about
    as many values; then norm, radius and network; then the one with most points.
    """

    def distance(place: tuple[Any, ...], count: int) -> tuple[float, ...]:
        there = dict(zip(SETTING, place, strict=True))
        return (
            round(abs(there["wrong_labels"] - asked.wrong_labels), 9),
            there["dataset"] != asked.dataset,
            abs(math.log(_values(there["shape"]) / _values(asked.shape))),
            there["norm"] != asked.norm,
            abs(math.log(there["eps"] / asked.eps)),
            there["model"] != asked.model,
            -count,
        )

    groups = [(distance(place, len(rows)), rows) for place, rows in points.groupby(list(SETTING))]
    return min(groups, key=lambda group: group[0])[1]


def _values(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


def full_epochs(points: pd.DataFrame) -> float:
    """Epochs of the full run of a setting: those of its longest run that attacks all the data in every epoch."""
    whole = points[(points["pruner"] == '"full"') & ~points["trainer"].str.contains("plain_epochs")]
    return float(whole["epochs"].max())


def choose(points: pd.DataFrame, budget: float) -> tuple[Plan, Plan | None] | None:
    """The plan to take for a budget, and the best of the other kind (pruned, or on all the data).

    Of all plans whose expected robust accuracy lies in the interval of the best one's, the cheapest; at equal cost one on
    all the data before a pruned one, then the more robust one.

    Parameters
    ----------
    points : DataFrame
        Of one setting, from `measured_points`.
    budget : float
        In forward-equivalents for each training image.

    Returns
    -------
    (Plan, Plan or None) or None
        None where the budget pays for no measured way of training.
    """
    plans = [plan for way in ways_of(points) if (plan := way.at(budget)) is not None]
    if not plans:
        return None
    best = max(plans, key=lambda plan: plan.robust.mean)
    near = [plan for plan in plans if plan is best or plan.robust.mean >= best.robust.low]
    taken = min(near, key=lambda plan: (round(math.log(plan.cost), 2), plan.pruned, -plan.robust.mean))
    others = [plan for plan in plans if plan.pruned != taken.pruned]
    return taken, max(others, key=lambda plan: plan.robust.mean, default=None)


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
    points = nearest(points, asked)
    full = full_epochs(points) * _FULL.passes_per_image
    batch = json.loads(points.iloc[0]["trainer"]).get("batch_size", config.optimisation.batch_size)
    speed = pace(config.with_settings({"optimisation.batch_size": min(batch, len(dataset.train))}))
    budget = full * request.cost if request.cost is not None else request.budget / (speed.high * len(dataset.train))
    lines = [_budget(request, budget, full, full_epochs(points), speed, len(dataset.train)), ""]
    found = choose(points, budget)
    if found is None:
        least = min(way.costs[0] for way in ways_of(points))
        lines.append(
            f"Cannot tell: the cheapest run that was measured costs {least:.3g} for each training image "
            f"({_time(least, speed, dataset)}); the budget pays for less."
        )
    else:
        lines += _told(*found, config, dataset, speed)
    return "\n".join([*lines, "", "How far this reaches:", *_reach(points.iloc[0], asked, found and found[0], budget)])


def _budget(request: Request, budget: float, full: float, epochs: float, speed: Pace, images: int) -> str:
    whole = f"a full run ({epochs:.3g} epochs of 7 steps of PGD on all {images:,} images)"
    took = f"{duration(full * speed.low * images)} to {duration(full * speed.high * images)} on this machine"
    given = f"{request.cost:g} of" if request.cost is not None else f"{duration(request.budget or 0)}, {budget / full:.2g} of"
    return f"Budget: {given} {whole}, which takes {took}."


def _time(cost: float, speed: Pace, dataset: Dataset) -> str:
    return f"{duration(cost * speed.low * len(dataset.train))} to {duration(cost * speed.high * len(dataset.train))}"


def _told(plan: Plan, rival: Plan | None, config: RunConfig, dataset: Dataset, speed: Pace) -> list[str]:
    """The answer, what is expected, and the command."""
    if not plan.pruned:
        answer = "Do not prune: train on all the data"
    elif rival is None:
        answer = f"Cannot tell whether to prune, for nothing on all the data was measured at this cost. Measured: {_kept(plan)}"
    else:
        answer = f"Prune: {_kept(plan)}"
    lines = [
        f"{answer}, {_trainer(plan)}, {plan.epochs:.3g} epochs ({_time(plan.cost, speed, dataset)}).",
        f"  expected: {_expected(plan.clean, 'clean')}, {_expected(plan.robust, 'robust')}",
    ]
    if not np.isnan(plan.spread):
        lines.append(
            f"  (means over seeds, 95 % intervals; single runs vary by {100 * plan.spread:.1f} points, one standard deviation)"
        )
    if rival is not None:
        kind = f"the best on all the data, {rival.epochs:.3g} epochs" if plan.pruned else f"the best pruned: {_kept(rival)}"
        lines.append(f"  instead of {kind}, {_trainer(rival)}: {_expected(rival.robust, 'robust')}")
    return [*lines, f"  {command(plan, config)}"]


def _kept(plan: Plan) -> str:
    name = next(iter(plan.way.pruner)) if isinstance(plan.way.pruner, dict) else plan.way.pruner
    return f"keep {100 * plan.fraction:.0f} % of the data by {name!r}"


def _expected(value: Estimate, name: str) -> str:
    """An accuracy with its interval, or that this cannot be told closely enough."""
    if not value.high - value.low <= WIDEST + 1e-9:
        return f"{name}: cannot tell within {100 * WIDEST:g} points (about {100 * value.mean:.0f} %)"
    return f"{value.text()} % {name}"


def _trainer(plan: Plan) -> str:
    """``trainer n_fgsm (1 attack step, label_smoothing 0.1)``, or the objective's name where there is no such preset."""
    config = RunConfig.flat(**plan.way.trainer)
    objective, attack = config.objective, config.attack
    presets = {name: RunConfig.flat(trainer=name) for name in TRAINERS.classes()}
    name = next(
        (
            name
            for name, preset in presets.items()
            if (preset.objective.name, preset.attack.start, preset.attack.steps)
            == (objective.name, attack.start, attack.steps)
        ),
        f"{objective.name} from a {attack.start.name} start",
    )
    steps = attack.steps.expected()
    told = {key: value for key, value in plan.way.trainer.items() if key not in ("objective", "start", "steps")}
    told |= objective.model_dump(mode="json", exclude_defaults=True)
    more = "".join(f", {key.replace('_', ' ')} {_spec(value)}" for key, value in told.items())
    return f"trainer {name} ({steps:g} attack step{'s' * (steps != 1)}{more})"


def command(plan: Plan, config: RunConfig) -> str:
    """The command that carries a plan out."""
    options = {"dataset": config.dataset.spec(), "model": config.model.spec()}
    options |= {"norm": config.threat.norm, "eps": round(config.threat.eps, 6)}
    options |= plan.way.trainer | {"epochs": float(f"{plan.epochs:.4g}")}
    if plan.pruned:
        options |= {"pruner": plan.way.pruner, "fraction": float(f"{plan.fraction:.3g}")}
    return "advprune run " + " ".join(f"--{key.replace('_', '-')} {shlex.quote(_spec(value))}" for key, value in options.items())


def _spec(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _reach(measured: pd.Series, asked: Situation, plan: Plan | None, budget: float) -> list[str]:
    """What was measured, and each way in which what is asked lies outside of it."""
    threat = f"{measured['norm']} {measured['eps']:.3g}"
    wrong = f", {100 * measured['wrong_labels']:g} % of the labels wrong" if measured["wrong_labels"] else ""
    attacks = measured["test"].replace("+", ", ")
    lines = [
        f"measured on {measured['dataset']} ({measured['images']:,} training images of {measured['shape']}{wrong}) with "
        f"{measured['model']} in {threat}; robust: right under {attacks}"
    ]
    beyond = []
    if measured["dataset"] != asked.dataset:
        beyond.append(
            f"the data set {asked.dataset} ({asked.images:,} images of {asked.shape}): the accuracies are those of "
            f"{measured['dataset']}, and say nothing of yours; at best the choice carries over"
        )
    elif abs(math.log(measured["images"] / asked.images)) > 0.1:
        beyond.append(f"{asked.images:,} training images")
    if measured["model"] != asked.model:
        beyond.append(f"the network {asked.model}")
    if measured["norm"] != asked.norm or not math.isclose(measured["eps"], asked.eps, rel_tol=1e-3):
        beyond.append(f"{asked.norm} {asked.eps:.3g}; at a larger radius one-step attacks can fail suddenly")
    if not math.isclose(measured["wrong_labels"], asked.wrong_labels, abs_tol=1e-9):
        beyond.append(f"{100 * asked.wrong_labels:g} % of the labels wrong: the answer may turn between")
    lines += [f"extrapolated to {text}" for text in beyond]
    if plan is not None and plan.between[0] != plan.between[1]:
        lines.append("interpolated between runs of {:.3g} and {:.3g} forward-equivalents an image".format(*plan.between))
    if plan is not None and budget > plan.cost * 1.01:
        lines.append(f"{plan.cost / budget:.0%} of the budget is used: what costs more was not measured, or is not better")
    return [f"  - {line}" for line in lines]
