"""Selections, budgets, contexts and when a pruner selects."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset
from advprune_core.pruners import Context, Selection, budget
from advprune_core.pruners.base import ScheduledPruner, keep
from advprune_core.pruners.random import Full, Random, Redraw
from advprune_core.pruners.selection import with_every_class
from tests.contexts import blobs


def test_weights_follow_their_indices() -> None:
    selection = Selection([7, 2, 5], [0.7, 0.2, 0.5], n_filled=1)
    assert selection.indices.tolist() == [2, 5, 7]
    assert selection.weights.tolist() == pytest.approx([0.2, 0.5, 0.7])
    assert (selection.indices.dtype, selection.weights.dtype) == (np.int64, np.float32)
    assert (len(selection), selection.n_filled) == (3, 1)


def test_its_numbers_are_pythons() -> None:
    """A checkpoint with numpy's cannot be read without unpickling them."""
    selection = Selection([0, 1], n_filled=(np.arange(3) < 1).sum(), step_ratio=np.float32(1.5))
    assert (type(selection.n_filled), type(selection.step_ratio)) == (int, float)


@given(st.dictionaries(st.integers(0, 10_000), st.floats(0, 8, width=32), min_size=1, max_size=30))
def test_sorting_loses_no_pair(pairs: dict[int, float]) -> None:
    selection = Selection(np.array([*pairs]), np.array([*pairs.values()]))
    assert dict(zip(selection.indices.tolist(), selection.weights.tolist(), strict=True)) == pairs
    assert (np.diff(selection.indices) > 0).all()


def test_weights_are_one_unless_given() -> None:
    assert Selection([3, 1]).weights.tolist() == [1, 1]


BAD: dict[str, tuple[tuple[Any, ...], str]] = {
    "empty": (([],), "at least one index"),
    "a table": (([[1, 2]],), "vector"),
    "a number": ((3,), "vector"),
    "twice the same": (([1, 2, 1],), "distinct"),
    "negative": (([-1, 2],), "not negative"),
    "too few weights": (([1, 2], [1.0]), "2 indices, but 1 weights"),
    "too many weights": (([1], [1.0, 2.0]), "1 indices, but 2 weights"),
    "negative weight": (([1, 2], [1.0, -1.0]), "weights"),
    "NaN weight": (([1, 2], [1.0, np.nan]), "finite"),
    "infinite weight": (([1, 2], [1.0, np.inf]), "finite"),
    "fractions": (([0.9, 1.9],), "whole|integer"),
    "a mask": ((np.array([True, False]),), "whole|integer|mask"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_selections_are_refused(case: str) -> None:
    arguments, message = BAD[case]
    with pytest.raises(ConfigError, match=message):
        Selection(*arguments)


@pytest.mark.parametrize(
    ("fraction", "n", "kept"),
    [(1, 7, 7), (0.5, 7, 4), (0.5, 5, 3), (0.25, 10, 3), (0.2, 1100, 220), (0.001, 100, 0), (0.05, 10, 1), (0.8, 3, 2)],
)
def test_budgets_by_hand(fraction: float, n: int, kept: int) -> None:
    assert budget(fraction, n) == kept


@given(st.integers(1, 100_000), st.floats(1e-3, 1))
def test_a_budget_is_the_nearest_whole_number(n: int, fraction: float) -> None:
    k = budget(fraction, n)
    assert 0 <= k <= n
    assert abs(k - Fraction(fraction) * n) <= Fraction(1, 2) + Fraction(1, 10**9)


def data(counts: list[int]) -> Dataset:
    """A class of each size, shuffled; the last class also stands in the test."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    x = np.linspace(0, 1, len(labels) * 4, dtype=np.float32).reshape(-1, 2, 2)
    return dataset_from_arrays(x, labels, x, labels, val_select=0, val_stop=0)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(lambda c: c[0] > 0 and c[-1] > 0), st.floats(0.01, 1)
)
def test_quotas_are_the_largest_remainders(counts: list[int], fraction: float) -> None:
    """Against a search: of all ways to share k out, no other is nearer to proportional."""
    context = Context(dataset=data(counts), fraction=fraction, seed=0)
    exact = [Fraction(context.k * count, sum(counts)) for count in counts]
    try:
        quotas = context.quotas()
    except ConfigError:
        smallest = min(share for share, count in zip(exact, counts, strict=True) if count)
        assert smallest < 1
        return
    assert quotas.sum() == context.k
    assert all(int(share) <= quota <= -int(-share // 1) for quota, share in zip(quotas, exact, strict=True))
    assert all(quota > 0 for quota, count in zip(quotas, counts, strict=True) if count)
    up = [share - int(share) for quota, share in zip(quotas, exact, strict=True) if quota > int(share)]
    down = [share - int(share) for quota, share in zip(quotas, exact, strict=True) if quota == int(share)]
    assert not up or not down or min(up) >= max(down)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.floats(0.05, 1), st.integers(1, 4), st.integers(0, 3))
def test_every_class_keeps_as_many_as_are_asked_for(counts: list[int], fraction: float, least: int, seed: int) -> None:
    """By counting: k distinct images, the floors kept, and no image moved that need not be."""
    context = Context(dataset=data(counts), fraction=fraction, seed=seed, min_per_class=least)
    floors = np.minimum(counts, least)
    assume(context.k >= floors.sum())
    free = Random().select(context)
    kept = keep(Random(), context)
    per_class = np.bincount(context.labels[kept.indices], minlength=len(counts))
    assert (len(kept), len(set(kept.indices.tolist()))) == (context.k, context.k)
    assert (per_class >= floors).all()
    missing = np.maximum(floors - np.bincount(context.labels[free.indices], minlength=len(counts)), 0).sum()
    assert len(set(kept.indices.tolist()) - set(free.indices.tolist())) == missing == kept.n_filled
    quotas = context.quotas()
    assert quotas.sum() == context.k
    assert ((quotas >= floors) & (quotas <= counts)).all()


EXCHANGED = [
    # (least, what image of class 0 or 1 leaves, by weight): the fullest class is 0, whose lightest is image 1.
    (1, [1]),
    # Then the lightest that it has left; 5 of class 1 is lighter than both, and stays.
    (2, [1, 2]),
    # Class 1 lacks one as well, and class 2 has no more than two: 0 has three, and no class can give more.
    (3, [1]),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("least", "left"), EXCHANGED)
def test_the_lightest_of_the_fullest_class_are_exchanged(least: int, left: list[int], seed: int) -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    given = Selection([0, 1, 2, 3, 5, 6], [3, 1, 2, 5, 0.5, 4])
    found = with_every_class(given, labels, np.random.default_rng(seed), least=least)
    weights = dict(zip(found.indices.tolist(), found.weights.tolist(), strict=True))
    kept = dict(zip(given.indices.tolist(), given.weights.tolist(), strict=True))
    places = sorted(kept.pop(index) for index in left)
    assert {index: weight for index, weight in weights.items() if index in kept} == kept
    assert sorted(weight for index, weight in weights.items() if index not in kept) == places
    assert {labels[index] for index in weights if index not in kept} == ({1} if least == 3 else {2})
    assert found.n_filled == len(left)


@pytest.mark.parametrize(
    ("counts", "fraction", "least", "quotas"),
    [
        # 19 of 94 are 6, 12 and 1 in proportion: the class that keeps most gives two.
        ([30, 60, 4], 0.2, 3, [6, 10, 3]),
        # 24 of 48 are 10, 12 and 2; there are no more than four of the last class.
        ([20, 24, 4], 0.5, 4, [10, 10, 4]),
        ([20, 24, 4], 0.5, 9, [10, 10, 4]),
        # 5 of 10 are 3, 1 and 1 (or 4, 1 and 0 without a promise): the one class above its floor gives one.
        ([7, 2, 1], 0.5, 1, [3, 1, 1]),
    ],
)
def test_floors_are_taken_from_the_class_that_keeps_most(
    counts: list[int], fraction: float, least: int, quotas: list[int]
) -> None:
    found = Context(dataset=data(counts), fraction=fraction, seed=0, min_per_class=least).quotas()
    assert found.tolist() == quotas


def test_a_class_that_would_keep_nothing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"keeps 5 of 101 images.*class 1 \(1 images\) without any"):
        Context(dataset=data([100, 1]), fraction=0.05, seed=0).quotas()


def test_a_context_has_one_generator_for_each_seed_and_epoch() -> None:
    def draw(seed: int, epoch: int) -> list[int]:
        context = Context(dataset=data([5, 5]), fraction=0.5, seed=seed, epoch=epoch)
        first = context.rng.integers(0, 1 << 60, 4).tolist()
        assert first == context.rng.integers(0, 1 << 60, 4).tolist(), "the same at every call"
        return first

    draws = {tuple(draw(seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(draws) == 9


DUE = [
    (Full(), [0]),
    (Random(), [0]),
    (Random(warmup_epochs=3), [3]),
    (Random(every=4), [0, 4, 8]),
    (Random(warmup_epochs=2, every=3), [2, 5, 8]),
    (Redraw(), list(range(10))),
    (Redraw(warmup_epochs=7), [7, 8, 9]),
    (Redraw(every=5), [0, 5]),
]


@pytest.mark.parametrize(("pruner", "epochs"), DUE)
def test_when_a_pruner_selects(pruner: Any, epochs: list[int]) -> None:
    assert [epoch for epoch in range(10) if pruner.due(epoch)] == epochs


@pytest.mark.parametrize("settings", [{"warmup_epochs": -1}, {"every": -1}])
def test_schedules_of_selections_are_checked(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="= -1"):
        ScheduledPruner.create(**settings)
    with pytest.raises(ConfigError, match="every = 0"):
        Redraw.create(every=0)


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize("least", [0, 2])
def test_a_pruner_that_says_it_is_exact_is_held_to_it(more: int, least: int) -> None:
    class Careless(Random):
        """Keeps another number of images than it was asked for."""

        name = "careless"

        def select(self, context: Context) -> Selection:
            return Selection(np.arange(context.k + more))

    class Honest(Careless):
        """The same, and it says so."""

        exact = False

    context = Context(dataset=blobs(), fraction=0.5, seed=0, min_per_class=least)
    message = f"'careless' selected {context.k + more} images where {context.k} were asked for.*exact = False"
    with pytest.raises(ConfigError, match=message):
        keep(Careless(), context)
    assert len(keep(Honest(), context)) == context.k + more


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.arange(3), r"'own' returned a ndarray where a selection is wanted: return Selection\(indices\)"),
        (None, "'own' returned a NoneType"),
        (Selection(np.array([0, 10**6])), r"'own' selected image 1000000 of 0\.\.\d+: .* context\.dataset\.train"),
    ],
)
def test_what_is_no_selection_of_these_images_is_refused(returned: Any, message: str) -> None:
    class Own(Random):
        """Somebody's first; no cost."""

        name = "own"
        exact = False

        def select(self, context: Context) -> Selection:
            return returned

    with pytest.raises(ConfigError, match=message):
        keep(Own(), Context(dataset=blobs(), fraction=0.5, seed=0))
