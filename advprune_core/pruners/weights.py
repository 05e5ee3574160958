"""What the images kept count: weights that stand for those left out, and how long a step they make.

A step of training is as long as the weighted mean gradient of the images kept. Matching makes that
the gradient of all data, but only up to its length: weights of mean 1 need not keep it, and then
act like another learning rate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Split
from advprune_core.objectives.base import Objective
from advprune_core.pruners.base import Context, Pruner
from advprune_core.pruners.branches import SplitOutputs
from advprune_core.pruners.gradients import LastLayerGradients, last_layer_gradients, objective_outputs
from advprune_core.pruners.omp import Pursuit
from advprune_core.pruners.outputs import AttackingPruner
from advprune_core.pruners.selection import Selection, with_every_class

Weighting = Literal["mean_one", "matched", "none"]


def step_ratio(gradients: LastLayerGradients, selection: Selection) -> float | None:
    """Length of the selection's weighted mean gradient in units of that of all; None if that is 0.

    Parameters
    ----------
    gradients : LastLayerGradients
        Of all n training images.
    selection : Selection
        k of them, with their weights.
    """
    device = gradients.errors[0].device
    rows, weights = (torch.from_numpy(array).to(device) for array in (selection.indices, selection.weights))
    kept = float(gradients.combination(rows, weights.to(gradients.errors[0])).norm()) / len(selection)
    everything = float(gradients.total().norm()) / len(gradients)
    return kept / everything if everything > 0 else None


def weigh(selection: Selection, gradients: LastLayerGradients, weighting: Weighting) -> Selection:
    """A selection of weights of mean 1, weighted in one of three ways, with its `step_ratio`.

    Parameters
    ----------
    selection : Selection
        With weights of mean 1.
    gradients : LastLayerGradients
        Of all training images.
    weighting : "mean_one", "matched" or "none"
        As they are; scaled so that a step is as long as one on all images; or 1 each. Weights w
        of mean 1 that are proportional to v with ``sum(v g) = sum of all g`` become ``v k / n``.
    """
    if weighting == "none":
        selection = replace(selection, weights=np.ones(len(selection), np.float32))
    ratio = step_ratio(gradients, selection)
    if weighting == "matched" and ratio:
        selection = replace(selection, weights=selection.weights / np.float32(ratio))
        ratio = step_ratio(gradients, selection)
    return replace(selection, step_ratio=ratio)


class GradientPruner(AttackingPruner):
    """A pruner that selects by gradients of the run's objective, again every so many epochs."""

    measures_steps = True
    #: Attacks some images whatever the objective.
    attacks_in_any_case: ClassVar[bool] = False
    warmup_epochs: Annotated[int, Field(ge=0, le=100_000, description="epochs on full data before selecting")] = 5
    every: Annotated[int, Field(ge=0, le=100_000, description="select again every so many epochs; 0: once")] = 10
    half_features: Annotated[
        bool, Field(description="keep the last layer's inputs in float16: half of what selection takes in memory")
    ] = False

    def for_objective(self, objective: Objective) -> Pruner:
        """The same pruner.

        Raises
        ------
        ConfigError
            Steps of a scoring attack, where the objective has none.
        """
        if self.steps is not None and not (objective.uses_adversarial or self.attacks_in_any_case):
            raise ConfigError(
                f"steps = {self.steps} of {self.name} have no effect: the objective {objective.name!r}, whose "
                "gradients it takes, attacks no images; leave steps out"
            )
        return self

    def outputs(self, context: Context, split: Split) -> tuple[Objective, SplitOutputs]:
        """The run's objective, and what it looks at of a split."""
        return objective_outputs(context, split, steps=self.steps, head=self.head, half=self.half_features)

    def gradients(self, context: Context) -> LastLayerGradients:
        """Factored gradients of all training images."""
        return last_layer_gradients(*self.outputs(context, context.dataset.train))

    def weighting(self) -> Weighting:
        """How the images kept are weighted."""
        return "none"

    def choose(self, context: Context) -> Selection:
        gradients = self.gradients(context)
        # Classes that have none get theirs before the weights are made, which are measured as they are used.
        least = max(1, context.min_per_class)
        found = with_every_class(self.pick(gradients, context), context.labels, context.rng, least=least)
        return weigh(found, gradients, self.weighting())

    def pick(self, gradients: LastLayerGradients, context: Context) -> Selection:
        """Choose ``context.k`` images by their gradients, with weights of mean 1."""
        raise NotImplementedError


class WeightingPruner(GradientPruner):
    """A pruner whose images stand for those left out, and so have weights."""

    weights: Annotated[
        Weighting,
        Field(description="mean_one: of mean 1; matched: steps as long as on all data; none: 1 each"),
    ] = "mean_one"

    def weighting(self) -> Weighting:
        return self.weights

    def pick(self, gradients: LastLayerGradients, context: Context) -> Selection:
        """The images of `cover`, weights normalised to a mean of 1."""
        found = self.cover(gradients, context)
        weights = found.weights / found.weights.mean()
        return Selection(found.indices, weights.astype(np.float32), found.n_filled)

    def cover(self, gradients: LastLayerGradients, context: Context) -> Pursuit:
        """``context.k`` images and weights whose weighted sum of gradients is near that of all."""
        raise NotImplementedError
