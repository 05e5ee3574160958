"""Full data, random subsets and redrawn ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset
from advprune_core.pruners import PRUNERS, Context
from advprune_core.pruners.random import Full, Random, Redraw

RANDOM = [Random(), Redraw(), Random(balanced=True), Redraw(balanced=True)]


def data(counts: list[int]) -> Dataset:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    x = np.linspace(0, 1, len(labels) * 4, dtype=np.float32).reshape(-1, 2, 2)
    return dataset_from_arrays(x, labels, x, labels, val_select=0, val_stop=0)


def select(pruner: Any, dataset: Dataset, *, fraction: float = 0.3, seed: int = 0, epoch: int = 0) -> list[int]:
    selection = pruner.select(Context(dataset=dataset, fraction=fraction, seed=seed, epoch=epoch))
    assert (selection.weights == 1).all()
    assert selection.n_filled == 0
    return [int(index) for index in selection.indices]


@pytest.mark.parametrize("pruner", RANDOM, ids=repr)
@given(
    counts=st.lists(st.integers(0, 25), min_size=1, max_size=5).filter(lambda c: c[0] > 0 and c[-1] > 0),
    fraction=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
def test_exactly_k_distinct_images(pruner: Any, counts: list[int], fraction: float, seed: int) -> None:
    dataset, n = data(counts), sum(counts)
    k = int(fraction * n + 0.5)
    try:
        kept = select(pruner, dataset, fraction=fraction, seed=seed)
    except ConfigError:
        # Nothing at all to keep, or a class of which balancing would keep nothing.
        smallest = min(count for count in counts if count)
        assert k == 0 or (pruner.balanced and k * smallest < n)
        return
    assert len(kept) == k
    assert kept == sorted(set(kept))
    assert set(kept) <= set(range(n))
    if pruner.balanced:
        share = np.bincount(dataset.train.labels[kept], minlength=len(counts)) - np.array(counts) * k / n
        assert np.abs(share).max() < 1


@pytest.mark.parametrize("pruner", RANDOM, ids=repr)
def test_a_selection_depends_on_seed_and_epoch_only(pruner: Any) -> None:
    dataset = data([40, 30, 20])
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 (global generators must neither matter nor move)
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    first = select(pruner, dataset)
    after = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    torch.rand(5)
    np.random.random(5)  # noqa: NPY002
    assert select(pruner, dataset) == first
    assert select(pruner, dataset, seed=1) != first
    assert select(pruner, dataset, epoch=1) != first


def drawn(pruner: Any, dataset: Dataset, epochs: int) -> list[list[int]]:
    """What each epoch trains on: selected where due, else what was selected before."""
    kept = []
    for epoch in range(epochs):
        kept.append(select(pruner, dataset, epoch=epoch) if pruner.due(epoch) else kept[-1])
    return kept


@pytest.mark.parametrize("balanced", [False, True])
def test_random_stays_and_redraw_moves(balanced: bool) -> None:
    dataset = data([40, 30, 20])
    static = drawn(Random(balanced=balanced), dataset, 6)
    moving = drawn(Redraw(balanced=balanced), dataset, 6)
    assert len({tuple(kept) for kept in static}) == 1
    assert len({tuple(kept) for kept in moving}) == 6
    # They pair: before the first redraw both train on the same images.
    assert static[0] == moving[0]


def test_balance_keeps_the_share_of_every_class() -> None:
    dataset = data([60, 30, 10])
    for seed in range(5):
        kept = select(Random(balanced=True), dataset, fraction=0.4, seed=seed)
        assert np.bincount(dataset.train.labels[kept]).tolist() == [24, 12, 4]
    unbalanced = [np.bincount(dataset.train.labels[select(Random(), dataset, seed=s)]).tolist() for s in range(5)]
    assert len({tuple(counts) for counts in unbalanced}) > 1


def test_every_image_is_as_likely_as_any_other() -> None:
    """Over 400 seeds each of 30 images is drawn 120 times, give or take five standard deviations."""
    dataset = data([10, 10, 10])
    for pruner in RANDOM:
        counts = np.zeros(30)
        for seed in range(400):
            counts[select(pruner, dataset, fraction=0.3, seed=seed)] += 1
        assert np.abs(counts - 120).max() < 5 * np.sqrt(400 * 0.3 * 0.7)


def test_balancing_names_the_class_it_would_empty() -> None:
    with pytest.raises(ConfigError, match=r"class 1 \(1 images\) without any"):
        select(Random(balanced=True), data([100, 1]), fraction=0.1)


def test_full_keeps_everything() -> None:
    assert select(Full(), data([4, 3])) == list(range(7))


@pytest.mark.parametrize("name", sorted(set(PRUNERS.classes()) - {"oracle"}))  # which needs to know the noise
def test_all_of_the_data_is_all_of_the_data(name: str) -> None:
    assert select(PRUNERS.parse(name), data([4, 3]), fraction=1) == list(range(7))


def test_none_of_these_needs_the_model() -> None:
    for pruner in (Full(), *RANDOM):
        assert pruner.exact == (not isinstance(pruner, Full))
        assert not pruner.uses_model
