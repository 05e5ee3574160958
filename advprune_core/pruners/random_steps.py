"""A random subset whose steps have a given length: what the steps of a weighted selection do by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.gradients import LastLayerGradients
from advprune_core.pruners.random import random_subset
from advprune_core.pruners.selection import Selection
from advprune_core.pruners.weights import GradientPruner, Weighting


@PRUNERS.register
class RandomSteps(GradientPruner):
    """A random subset, weighted alike so that its steps have the length `ratio`; 2k + 1 an image.

    The gradient of few random images is somewhat longer than that of all of them, of which it is a noisy
    mean, and weights of mean 1 lengthen it further. Here one weight for all images makes a step `ratio` times
    as long as one on all the data, measured when it is drawn (`step_ratio` in the record): at 1 as long, at the
    ratio of a weighted selection as long as its own, which is what the control `same_step_size` does. Cost
    per selection: 2k + 1 forward-equivalents an image (TRADES and MART 2k + 2), 3 with `steps` 1.
    """

    name = "random_steps"
    ratio: Annotated[
        float, Field(gt=0, le=1_000_000, description="length of a step, in units of one on all the data")
    ] = 1.0

    def weighting(self) -> Weighting:
        return "matched"

    def choose(self, context: Context) -> Selection:
        found = super().choose(context)
        if found.step_ratio is None:  # gradients of 0, which no weight makes longer
            return found
        return replace(found, weights=found.weights * np.float32(self.ratio), step_ratio=found.step_ratio * self.ratio)

    def pick(self, gradients: LastLayerGradients, context: Context) -> Selection:
        """``context.k`` of them by chance."""
        return random_subset(context)
