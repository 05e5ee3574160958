"""Full data, a random subset, and a fresh random subset for each epoch."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from advprune_core.base.randomness import generator
from advprune_core.pruners.base import PRUNERS, Context, Pruner, ScheduledPruner
from advprune_core.pruners.selection import Selection


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
    return Selection(np.concatenate([rng.permutation(members)[:quota] for members, quota in context.per_class()]))


def in_turn(context: Context, *, turn: int, balanced: bool = False) -> Selection:
    """The `turn`-th subset (from 0) of a sequence in which every image comes once before any twice.

    Where a round of all images ends inside a subset, the next one begins with images that the subset
    does not have yet. With `balanced`, each class has rounds of its own.

    Raises
    ------
    ConfigError
        Balanced, if a class would keep no image.
    """
    kept = []
    for members, quota in context.per_class() if balanced else [(np.arange(context.n), context.k)]:
        label = int(context.labels[members[0]]) if balanced else 0
        kept.append(members[_turns(len(members), quota, turn, seed=context.seed, label=label)])
    return Selection(np.concatenate(kept))


def _turns(n: int, k: int, turn: int, *, seed: int, label: int) -> NDArray[np.int64]:
    """Positions (k,) of the `turn`-th part of the rounds of n positions."""
    waiting, rounds = np.empty(0, np.int64), 0
    for part in range(turn + 1):
        if len(waiting) < k:
            order = generator(seed, "pruner", "round", label, rounds).permutation(n)
            rounds += 1
            # Those that this part already has wait until it is full.
            fresh = ~np.isin(order, waiting)
            first = order[fresh][: k - len(waiting)]
            waiting = np.concatenate([waiting, first, order[~np.isin(order, first)]])
        if part < turn:
            waiting = waiting[k:]
    return waiting[:k]


@PRUNERS.register
class Full(Pruner):
    """All training images: the baseline (no cost)."""

    name = "full"
    exact = False

    def select(self, context: Context) -> Selection:
        return Selection(np.arange(context.n))


@PRUNERS.register
class Random(ScheduledPruner):
    """A random subset, drawn once (Kaufmann et al. 2022, 2207.00694): control (a); no cost."""

    name = "random"
    balanced: Annotated[bool, Field(description="the same share of every class")] = False

    def select(self, context: Context) -> Selection:
        return random_subset(context, balanced=self.balanced)


@PRUNERS.register
class Redraw(Random):
    """A random subset drawn anew for each epoch: about the same as fewer epochs; no cost.

    With `in_turn` every image is drawn once before any is drawn twice, which is a shorter run on all
    data but for its order.
    """

    name = "redraw"
    every: Annotated[int, Field(ge=1, le=100_000, description="select again every so many epochs")] = 1
    in_turn: Annotated[bool, Field(description="every image once before any twice")] = False

    def select(self, context: Context) -> Selection:
        if not self.in_turn:
            return super().select(context)
        turn = max(0, context.epoch - self.warmup_epochs) // self.every
        return in_turn(context, turn=turn, balanced=self.balanced)
