"""Keep rules: which images a score keeps, over all of them or within every class."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from advprune_core.base.components import Component, Registry, component_field
from advprune_core.base.settings import ConfigError
from advprune_core.pruners.base import Context, ModelPruner
from advprune_core.pruners.selection import Selection

KEEP_RULES: Registry[KeepRule] = Registry("keep rule", "advprune_core.pruners")

Scores = NDArray[np.float64]
Indices = NDArray[np.int64]


def check_scores(scores: Scores) -> None:
    """Refuse scores that are not finite.

    Raises
    ------
    ConfigError
        With how many, and the first.
    """
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise ConfigError(f"{len(bad)} of {len(scores)} scores are not finite (the first: image {bad[0]})")


def ranked(scores: Scores, *, rng: np.random.Generator) -> Indices:
    """Positions from the lowest score to the highest, equal scores in random order.

    Raises
    ------
    ConfigError
        Scores that are not finite.
    """
    check_scores(scores)
    shuffled = rng.permutation(len(scores))
    return shuffled[np.argsort(scores[shuffled], kind="stable")]


def highest(scores: Scores, k: int, *, rng: np.random.Generator) -> Indices:
    """Positions of the k highest scores."""
    return ranked(scores, rng=rng)[len(scores) - k :]


def lowest(scores: Scores, k: int, *, rng: np.random.Generator) -> Indices:
    """Positions of the k lowest scores."""
    return ranked(scores, rng=rng)[:k]


def middle(scores: Scores, k: int, *, center: Literal["mean", "median"] = "mean", rng: np.random.Generator) -> Indices:
    """Positions of the k scores nearest to the mean, or of the k middle ranks."""
    check_scores(scores)
    if center == "mean":
        return lowest(np.abs(scores - scores.mean()), k, rng=rng)
    first = (len(scores) - k) // 2
    return ranked(scores, rng=rng)[first : first + k]


def share_out(sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Share k out over strata as evenly as their sizes allow, beginning with the smallest.

    Each stratum gets its even share of what is left, or all that it has; shape of `sizes`.
    """
    quotas = np.zeros_like(sizes)
    order = np.argsort(sizes, kind="stable")
    for done, stratum in enumerate(order):
        quotas[stratum] = min(sizes[stratum], (k - quotas.sum()) // (len(order) - done))
    return quotas


def stratified(
    scores: Scores,
    k: int,
    *,
    strata: int = 50,
    hard_cutoff: float = 0.0,
    hard_is_high: bool = True,
    rng: np.random.Generator,
) -> Indices:
    """Coverage-centric selection: drop the hardest, then keep as evenly from all scores as possible.

    Parameters
    ----------
    scores : array, shape (n,)
    k : int
        Images to keep.
    strata : int
        Intervals of equal width, from the lowest score left to the highest; empty ones do not count.
    hard_cutoff : float
        Share of the images that is dropped as the hardest, at most n - k images.
    hard_is_high : bool
        Whether high scores mean hard images.
    rng : Generator
        Draws inside each stratum.

    References
    ----------
    Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023 (2210.15809), alg. 1.
    """
    n = len(scores)
    dropped = min(int(np.floor(hard_cutoff * n)), n - k)
    order = ranked(scores if hard_is_high else -scores, rng=rng)[: n - dropped]
    left = scores[order]
    width = (left.max() - left.min()) / strata
    numbers = np.minimum((left - left.min()) / width, strata - 1).astype(np.int64) if width > 0 else np.zeros(len(left))
    members = [order[numbers == number] for number in np.unique(numbers)]
    quotas = share_out(np.array([len(part) for part in members]), k)
    return np.concatenate([rng.permutation(part)[:quota] for part, quota in zip(members, quotas, strict=True)])


@KEEP_RULES.family
class KeepRule(Component):
    """Turns scores into the images that are kept."""

    def keep(self, scores: Scores, k: int, *, hard_is_high: bool, rng: np.random.Generator) -> Indices:
        """Positions of `k` of the `scores` (n,)."""
        raise NotImplementedError


@KEEP_RULES.register
class Highest(KeepRule):
    """The highest scores."""

    name = "highest"

    def keep(self, scores: Scores, k: int, *, hard_is_high: bool, rng: np.random.Generator) -> Indices:
        return highest(scores, k, rng=rng)


@KEEP_RULES.register
class Lowest(KeepRule):
    """The lowest scores."""

    name = "lowest"

    def keep(self, scores: Scores, k: int, *, hard_is_high: bool, rng: np.random.Generator) -> Indices:
        return lowest(scores, k, rng=rng)


@KEEP_RULES.register
class Middle(KeepRule):
    """The scores nearest to the mean, or the middle ranks."""

    name = "middle"
    center: Annotated[Literal["mean", "median"], Field(description="nearest to the mean score, or middle ranks")] = (
        "mean"
    )

    def keep(self, scores: Scores, k: int, *, hard_is_high: bool, rng: np.random.Generator) -> Indices:
        return middle(scores, k, center=self.center, rng=rng)


@KEEP_RULES.register
class Stratified(KeepRule):
    """As evenly from all scores as possible, the hardest dropped: CCS (Zheng et al. 2023)."""

    name = "stratified"
    strata: Annotated[int, Field(ge=1, le=1_000_000, description="score intervals of equal width")] = 50
    hard_cutoff: Annotated[float, Field(ge=0, lt=1, description="share dropped as the hardest")] = 0.0

    def keep(self, scores: Scores, k: int, *, hard_is_high: bool, rng: np.random.Generator) -> Indices:
        return stratified(
            scores, k, strata=self.strata, hard_cutoff=self.hard_cutoff, hard_is_high=hard_is_high, rng=rng
        )


def keep_by_score(
    scores: Scores, context: Context, rule: KeepRule, *, hard_is_high: bool = True, balanced: bool = False
) -> Selection:
    """Keep ``context.k`` images by score, or the same share of every class.

    Raises
    ------
    ConfigError
        Scores that are not finite; balanced, if a class would keep no image.
    """
    rng = context.rng
    if not balanced:
        return Selection(rule.keep(scores, context.k, hard_is_high=hard_is_high, rng=rng))
    kept = [
        members[rule.keep(scores[members], quota, hard_is_high=hard_is_high, rng=rng)]
        for members, quota in context.per_class()
    ]
    return Selection(np.concatenate(kept))


class ScorePruner(ModelPruner):
    """A pruner that gives every image a score, and keeps by rule."""

    balanced: Annotated[bool, Field(description="the same share of every class")] = False

    def check(self, context: Context) -> None:
        """Balanced, every class must have an image to keep."""
        if self.balanced:
            context.quotas()

    def scores(self, context: Context) -> Scores:
        """One score for each training image."""
        raise NotImplementedError

    def rule(self) -> KeepRule:
        """The keep rule."""
        raise NotImplementedError

    def hard_is_high(self) -> bool:
        """Whether high scores mean hard images."""
        return True

    def choose(self, context: Context) -> Selection:
        scores, hard_is_high = self.scores(context), self.hard_is_high()
        return keep_by_score(scores, context, self.rule(), hard_is_high=hard_is_high, balanced=self.balanced)


#: A field that takes a keep rule by name or specification.
Rule = Annotated[KeepRule, *component_field(KEEP_RULES), Field(description="keep rule: which scores are kept")]
