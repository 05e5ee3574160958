"""Full data, a random subset, and a fresh random subset for each epoch."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from advprune_core.pruners.base import PRUNERS, Context, Pruner, ScheduledPruner, Selection


def random_subset(context: Context, *, balanced: bool = False) -> Selection:
    """Keep ``context.k`` images uniformly at random, or the same share of every class.

    Raises
    ------
    ConfigError
        Balanced, if a class would keep no image.
    """
    rng = context.rng
    if not balanced:
        return Selection(rng.permutation(context.n)[: context.k])
    labels = context.labels
    kept = [rng.permutation(np.flatnonzero(labels == label))[:quota] for label, quota in enumerate(context.quotas())]
    return Selection(np.concatenate(kept))


@PRUNERS.register
class Full(Pruner):
    """All training images: the baseline (no cost)."""

    name: ClassVar[str] = "full"

    def select(self, context: Context) -> Selection:
        """Everything."""
        return Selection(np.arange(context.n))


@PRUNERS.register
class Random(ScheduledPruner):
    """A random subset, drawn once (Kaufmann et al. 2022, 2207.00694): control (a); no cost."""

    name: ClassVar[str] = "random"
    balanced: Annotated[bool, Field(description="the same share of every class")] = False

    def select(self, context: Context) -> Selection:
        """See `random_subset`."""
        return random_subset(context, balanced=self.balanced)


@PRUNERS.register
class Redraw(Random):
    """A random subset drawn anew for each epoch: about the same as fewer epochs; no cost."""

    name: ClassVar[str] = "redraw"
    every: Annotated[int, Field(ge=1, description="select again every so many epochs")] = 1
