"""The four modes of Kaufmann et al. 2022 (2207.00694), whose public code calls them otherwise.

Scored once after a warm-up epoch on clean images, in eval mode; what is dropped stays dropped.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.keep_rules import Highest, KeepRule, Lowest, Middle, ScorePruner, Scores
from advprune_core.pruners.scores import split_scores


class _CleanLoss(ScorePruner):
    """Keeps by the cross-entropy of clean images."""

    def scores(self, context: Context) -> Scores:
        return split_scores(context, "loss", steps=0)


@PRUNERS.register
class KeepEasy(_CleanLoss):
    """The lowest clean losses (Kaufmann et al. 2022, "high": drops the highest); 1 an image.

    Said to help where labels are noisy or little data is kept: not in the published runs of short adversarial
    training. Score it on adversarial images with ``{score: {keep: lowest}}``.
    """

    name = "keep_easy"

    def rule(self) -> KeepRule:
        return Lowest()


@PRUNERS.register
class KeepHard(_CleanLoss):
    """The highest clean losses (Kaufmann et al. 2022, "low": drops the lowest); 1 an image.

    Said to help where most data is kept and easy images repeat each other: not in the published runs of short
    adversarial training. Hurts with noisy labels.
    """

    name = "keep_hard"

    def rule(self) -> KeepRule:
        return Highest()


@PRUNERS.register
class KeepMiddle(_CleanLoss):
    """The clean losses nearest to their mean (Kaufmann et al. 2022, "drop_extremes"); 1 an image.

    A compromise between `keep_easy` and `keep_hard`; with `balanced`, each class has a mean of its own.
    """

    name = "keep_middle"

    def rule(self) -> KeepRule:
        return Middle()


@PRUNERS.register
class KeepFragile(ScorePruner):
    """The fewest PGD steps to break (Kaufmann et al. 2022, "pgd-distance"); at most 2k + 1 an image.

    Helps as far as images near the decision boundary teach robustness. With `balanced` it is the
    paper's "systematic_sampling". Many images share a number of steps, which chance then decides: so
    the attack takes at least 7 where training takes fewer (or, with clean images, none), unless `steps`
    says otherwise; where training attacks some images less than others, it takes the others' number. Its
    steps are as long as those of training; where training's length is the default or that of a single
    step, as long as usual for the number taken, min(2.5 / k, 1) eps.
    """

    name = "keep_fragile"
    version = 2
    steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=10_000,
            description="steps of the scoring attack; none: those of an image that training attacks, at least 7",
        ),
    ] = None

    def rule(self) -> KeepRule:
        return Lowest()

    def hard_is_high(self) -> bool:
        """Few steps are hard."""
        return False

    def scores(self, context: Context) -> Scores:
        return split_scores(context, "steps_to_break", steps=self.steps)
