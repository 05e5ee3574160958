"""Learning-rate schedules: a factor of the peak rate as a function of progress in [0, 1].

Progress counts what is really trained on, so a schedule ends at its end however many images a
pruner leaves.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from advprune_core.base.components import Component, Registry
from advprune_core.base.settings import ConfigError
from advprune_core.base.values import shown

SCHEDULES: Registry[Schedule] = Registry("schedule", "advprune_core.trainers")

Share = Annotated[float, Field(ge=0, le=1)]


@SCHEDULES.family
class Schedule(Component):
    """A factor of the learning rate."""

    def factor(self, progress: float) -> float:
        """Factor at `progress` in [0, 1]."""
        raise NotImplementedError


def rate_at(schedule: Schedule, progress: float, *, peak: float) -> float:
    """Learning rate at `progress` in [0, 1].

    Raises
    ------
    ConfigError
        A factor that is no number, below 0 or not finite.
    """
    found = schedule.factor(progress)
    try:
        factor = float(found)
    except (TypeError, ValueError):
        factor = math.nan
    if not 0 <= factor < math.inf:
        raise ConfigError(
            f"the schedule {schedule.name!r} gives the factor {shown(found)} at {progress:.3g} of the training: a "
            "finite number is wanted, at least 0"
        )
    return peak * factor


def _anneal(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@SCHEDULES.register
class OneCycle(Schedule):
    """Up along a cosine to the peak, then down to zero (Smith and Topin 2017; torch's form)."""

    name = "one_cycle"
    peak_at: Annotated[float, Field(gt=0, lt=1, description="progress at the peak")] = 0.3
    start_factor: Annotated[float, Field(ge=0, le=1, description="factor at the start")] = 0.04

    def factor(self, progress: float) -> float:
        """Two half cosines."""
        if progress < self.peak_at:
            return _anneal(self.start_factor, 1.0, progress / self.peak_at)
        return _anneal(1.0, 0.0, (progress - self.peak_at) / (1 - self.peak_at))


@SCHEDULES.register
class Cosine(Schedule):
    """From the peak down to zero along a cosine (Loshchilov and Hutter 2017), after a warm-up."""

    name = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1, description="share of linear warm-up")] = 0.0

    def factor(self, progress: float) -> float:
        """Linear up, cosine down."""
        if progress < self.warmup:
            return progress / self.warmup
        return _anneal(1.0, 0.0, (progress - self.warmup) / (1 - self.warmup))


@SCHEDULES.register
class Piecewise(Schedule):
    """Linear between given points; drops of a tenth at 1/2 and 3/4 unless set."""

    name = "piecewise"
    at: Annotated[tuple[Share, ...], Field(description="progress of each point, rising")] = (0.5, 0.75)
    factors: Annotated[
        tuple[Annotated[float, Field(ge=0, le=100)], ...], Field(description="factor from each point on")
    ] = (0.1, 0.01)
    linear: Annotated[bool, Field(description="draw lines between the points instead of steps")] = False

    @model_validator(mode="after")
    def _consistent(self) -> Piecewise:
        if len(self.at) != len(self.factors) or any(a >= b for a, b in pairwise(self.at)):
            raise ValueError("'at' must rise and have one factor for each point")
        return self

    def factor(self, progress: float) -> float:
        """Steps, or lines from factor 1 at the start."""
        points = [(0.0, 1.0), *zip(self.at, self.factors, strict=True)]
        for (left, before), (right, after) in pairwise(points):
            if progress < right:
                share = (progress - left) / (right - left) if self.linear else 0.0
                return before + (after - before) * share
        return points[-1][1]


@SCHEDULES.register
class Constant(Schedule):
    """The peak rate throughout."""

    name = "constant"

    def factor(self, progress: float) -> float:
        return 1.0
