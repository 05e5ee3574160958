"""Which images a score keeps: by hand, by property, and CCS against another implementation."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from advprune_core.base.settings import ConfigError
from advprune_core.pruners.keep_rules import (
    Highest,
    Lowest,
    Middle,
    Stratified,
    highest,
    keep_by_score,
    lowest,
    middle,
    ranked,
    share_out,
    stratified,
)
from tests.contexts import blobs, context

RULES = [Highest(), Lowest(), Middle(), Middle(center="median"), Stratified(), Stratified(strata=3, hard_cutoff=0.3)]
SCORES = arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1.0]))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


BY_HAND = [
    (highest, {}, [5.0, 1.0, 3.0, 9.0], 2, [0, 3]),
    (lowest, {}, [5.0, 1.0, 3.0, 9.0], 2, [1, 2]),
    (middle, {}, [0.0, 4.0, 10.0, 6.0], 2, [1, 3]),  # mean 5
    (middle, {"center": "mean"}, [0.0, 1.0, 2.0, 97.0, 30.0], 2, [2, 4]),  # mean 26
    (middle, {"center": "median"}, [0.0, 1.0, 2.0, 97.0, 3.0], 3, [1, 2, 4]),
    # The hardest two are dropped; of what is left, {0, 0.1} and {1} share two places.
    (stratified, {"strata": 2, "hard_cutoff": 0.4}, [0.0, 9.0, 1.0, 8.0, 0.0], 3, [0, 2, 4]),
    (stratified, {"strata": 2, "hard_cutoff": 0.4, "hard_is_high": False}, [0.0, 9.0, 1.0, 8.0, 0.0], 3, [1, 2, 3]),
    # No more is dropped than k leaves.
    (stratified, {"hard_cutoff": 0.9}, [4.0, 2.0, 3.0], 2, [1, 2]),
]


@pytest.mark.parametrize(("rule", "settings_", "scores", "k", "kept"), BY_HAND)
def test_by_hand(rule: Any, settings_: dict[str, Any], scores: list[float], k: int, kept: list[int]) -> None:
    assert sorted(rule(np.array(scores), k, rng=rng(), **settings_)) == kept


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(SCORES, st.data())
def test_k_distinct_positions_whatever_the_scores(rule: Any, scores: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    kept = rule.keep(scores, k, hard_is_high=data.draw(st.booleans()), rng=rng())
    assert len(set(kept.tolist())) == len(kept) == k
    assert set(kept.tolist()) <= set(range(len(scores)))


@pytest.mark.parametrize("rule", RULES[:4], ids=repr)
def test_permuted_scores_give_the_permuted_selection(rule: Any) -> None:
    scores, permutation = rng().standard_normal(50), rng(1).permutation(50)
    kept = rule.keep(scores, 20, hard_is_high=True, rng=rng(2))
    other = rule.keep(scores[permutation], 20, hard_is_high=True, rng=rng(3))
    assert set(permutation[other]) == set(kept)


@pytest.mark.parametrize("rule", [Highest(), Lowest(), Middle(), Stratified()], ids=repr)
def test_equal_scores_are_decided_by_chance(rule: Any) -> None:
    counts = np.zeros(20)
    for seed in range(400):
        counts[rule.keep(np.ones(20), 5, hard_is_high=True, rng=rng(seed))] += 1
    assert np.abs(counts - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_scores_that_are_not_finite_are_refused(rule: Any, bad: float) -> None:
    with pytest.raises(ConfigError, match=r"1 of 3 scores are not finite \(the first: image 1\)"):
        rule.keep(np.array([0.0, bad, 1.0]), 2, hard_is_high=True, rng=rng())


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.data())
def test_strata_share_as_evenly_as_they_can(sizes: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, sum(sizes)))
    quotas = share_out(np.array(sizes), k)
    assert quotas.sum() == k
    assert (quotas <= sizes).all()
    short = [quota for quota, size in zip(quotas, sizes, strict=True) if quota < size]
    # Who could give more has at least as much as anyone, up to the odd image.
    assert not short or max(quotas) - min(short) <= 1


def test_ccs_keeps_what_another_implementation_keeps() -> None:
    """As many of each stratum as datacull, whose last edge makes a stratum of the maximum alone."""
    ccs = import_module("datacull.methods.CCS").CCSDataLoader
    for seed in range(5):
        scores = rng(seed).gamma(2.0, size=400)
        k, strata, cutoff = 120, 12, 0.1
        peer = SimpleNamespace(
            beta=cutoff, num_strata=strata + 1, descending=True, total_num_samples=400, required_num_samples=k
        )
        theirs = ccs.compute_subset(peer, scores)
        left = np.sort(scores)[: 400 - 40]
        edges = np.linspace(left[0], left[-1], strata + 1)
        ours = stratified(scores, k, strata=strata, hard_cutoff=cutoff, rng=rng())
        counts = [np.histogram(scores[kept], edges)[0] for kept in (theirs, ours)]
        assert max(scores[theirs].max(), scores[ours].max()) <= left[-1]
        assert np.abs(counts[0] - counts[1]).max() <= 1


def test_balance_is_by_quota_and_by_rank_within_a_class() -> None:
    made = context(0.3, dataset=blobs((40, 30, 20), val_select=0))
    scores = rng().standard_normal(made.n)
    kept = keep_by_score(scores, made, Highest(), balanced=True).indices
    assert np.bincount(made.labels[kept]).tolist() == [12, 9, 6]
    for label, quota in enumerate((12, 9, 6)):
        own = np.flatnonzero(made.labels == label)
        assert set(own[np.argsort(scores[own])[-quota:]]) == set(kept[made.labels[kept] == label])


def test_ranks_go_up() -> None:
    assert ranked(np.array([3.0, 1.0, 2.0]), rng=rng()).tolist() == [1, 2, 0]
