"""CRAIG, herding, k-center and moderate distances: by hand, by plain greedy and by brute force."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from contexts import context
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from advprune_core.pruners.coverage import herding, k_center, median_distance
from advprune_core.pruners.craig import Craig, distances, facility_location
from advprune_core.pruners.d2 import d2, nearest
from advprune_core.pruners.grad_match import GradMatch


def points(n: int, d: int, seed: int) -> np.ndarray:
    """On a coarse grid, so that some coincide."""
    return np.random.default_rng(seed).integers(0, 5, (n, d)).astype(float)


def assert_greedy(picks: np.ndarray, n: int, cost: Callable[[list[int]], float]) -> None:
    """Each pick is as cheap as the cheapest, up to rounding: two points that only have each other tie."""
    for count, pick in enumerate(picks.tolist()):
        before = picks[:count].tolist()
        options = [cost([*before, j]) for j in range(n) if j not in before]
        assert cost([*before, pick]) <= min(options) + 1e-9


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(0, 999), st.data())
def test_facility_location_is_plain_greedy(n: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    distance = pairwise_distances(np.random.default_rng(seed).standard_normal((n, 3)))
    centres, sizes = facility_location(distance, k)
    assert_greedy(centres, n, lambda chosen: float(distance[:, chosen].min(1).sum()))
    assert sizes.sum() == n
    nearest = distance[:, centres].argmin(1)
    assert sizes.tolist() == np.bincount(nearest, minlength=k).tolist()


@given(st.integers(1, 12), st.integers(0, 99), st.data())
def test_coinciding_points_are_picked_once_each(n: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    x = points(n, 1, seed)
    centres, sizes = facility_location(pairwise_distances(x), k)
    for picks in (centres, herding(torch.from_numpy(x), k), k_center(torch.from_numpy(x), k)):
        assert len(set(picks.tolist())) == k
    assert sizes.sum() == n
    assert (sizes >= 1).all()


def test_distances_are_those_of_the_gradients() -> None:
    gradients = GradMatch().gradients(context()).double()[torch.arange(30)]
    dense = torch.einsum("nc,nd->ncd", gradients.errors[0], gradients.features[0])
    dense = dense + torch.einsum("nc,nd->ncd", gradients.errors[1], gradients.features[1])
    np.testing.assert_allclose(distances(gradients), pairwise_distances(dense.flatten(1).numpy()), atol=1e-6)


def test_craig_weights_are_cluster_sizes_of_mean_one() -> None:
    made = context(0.25)
    selection = Craig().select(made)
    sizes = selection.weights * made.n / made.k
    assert np.bincount(made.labels[selection.indices]).tolist() == made.quotas().tolist()
    np.testing.assert_allclose(sizes, sizes.round(), atol=1e-3)
    for label in range(4):
        own = made.labels[selection.indices] == label
        assert sizes[own].sum() == pytest.approx((made.labels == label).sum(), abs=0.01)


def test_herding_by_hand() -> None:
    """The mean is 4: 3 is nearest; with 6 the mean is 4.5, with 7 it is 5; then 0 makes 3, and 7 makes 5.3."""
    x = torch.tensor([[0.0], [3.0], [6.0], [7.0]])
    assert herding(x, 3).tolist() == [1, 2, 0]


@given(st.integers(1, 12), st.integers(0, 99), st.data())
def test_herding_is_the_nearest_running_mean(n: int, seed: int, data: st.DataObject) -> None:
    x = np.random.default_rng(seed).standard_normal((n, 2))
    k = data.draw(st.integers(1, n))
    picks = herding(torch.from_numpy(x), k)
    assert_greedy(picks, n, lambda chosen: float(np.linalg.norm(x[chosen].mean(0) - x.mean(0))))


def test_k_center_by_hand() -> None:
    x = torch.tensor([[0.0], [1.0], [10.0], [4.0]])
    assert k_center(x, 4).tolist() == [0, 2, 3, 1]


@given(st.integers(2, 9), st.integers(0, 99), st.data())
def test_k_center_is_at_most_twice_the_best_radius(n: int, seed: int, data: st.DataObject) -> None:
    distance = pairwise_distances(x := np.random.default_rng(seed).standard_normal((n, 2)))
    k = data.draw(st.integers(1, n))
    best = min(distance[:, list(c)].min(1).max() for c in combinations(range(n), k))
    assert distance[:, k_center(torch.from_numpy(x), k)].min(1).max() <= 2 * best + 1e-9


def test_distances_to_the_median_by_hand() -> None:
    x = torch.tensor([[0.0, 0], [2, 0], [9, 4], [5, 5], [7, 9]])
    assert median_distance(x, torch.tensor([0, 0, 0, 1, 1])).tolist() == pytest.approx([2, 0, 65**0.5, 5**0.5, 5**0.5])


def test_d2_by_hand() -> None:
    """Two pairs of neighbours: after the best of one pair, the best of the other, whose scores are lower."""
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    scores = np.array([4.0, 3.9, 1.0, 2.0])
    # All distances to the one neighbour are equal, so 1 in their unit: a pick takes exp(-gamma) of its value.
    e = np.exp(-1.0)
    start = np.array([4 + 3.9 * e, 3.9 + 4 * e, 1 + 2 * e, 2 + 1 * e])
    assert start[1] - e * start[0] > start[3]
    assert d2(scores, x, 3, neighbours=1, gamma=1.0).tolist() == [0, 1, 3]
    assert start[1] - np.exp(-0.1) * start[0] < start[3]
    assert d2(scores, x, 4, neighbours=1, gamma=0.1).tolist() == [0, 3, 1, 2]


@pytest.mark.parametrize("n", [2, 30, 1100])
def test_nearest_neighbours_are_those_of_another_library(n: int) -> None:
    x = np.random.default_rng(n).standard_normal((n, 3))
    count = min(4, n - 1)
    distance, neighbour = nearest(torch.from_numpy(x), count)
    expected, places = NearestNeighbors(n_neighbors=count).fit(x).kneighbors()
    assert neighbour.tolist() == places.tolist()
    np.testing.assert_allclose(distance, expected / expected.mean())
