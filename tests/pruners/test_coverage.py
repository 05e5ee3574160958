"""CRAIG, herding, k-center and moderate distances: by hand, by plain greedy and by brute force."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from advprune_core.pruners.coverage import Herding, KCenter, Moderate, herding, k_center, median_distance
from advprune_core.pruners.craig import Craig, distances, facility_location
from advprune_core.pruners.d2 import D2, d2, nearest
from advprune_core.pruners.grad_match import GradMatch
from tests.contexts import context, told


def points(n: int, d: int, seed: int) -> np.ndarray:
    """On a coarse grid, so that some coincide."""
    return np.random.default_rng(seed).integers(0, 5, (n, d)).astype(float)


def assert_greedy(picks: np.ndarray, n: int, cost: Callable[[list[int]], float]) -> None:
    """Each pick is as cheap as the cheapest, up to rounding: two points that only have each other tie."""
    for count, pick in enumerate(picks.tolist()):
        before = picks[:count].tolist()
        options = [cost([*before, j]) for j in range(n) if j not in before]
        assert cost([*before, pick]) <= min(options) + 1e-9


@settings(max_examples=60)
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


EVERY_OTHER = np.arange(10) % 2


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


@pytest.mark.parametrize("seed", range(4))
def test_herding_keeps_those_of_each_class(seed: int) -> None:
    """The classes 0, 3, 6, 7 and 17, 16, 13, 10 by turns, of which three each as by hand, in whatever order."""
    made = told(0.75, EVERY_OTHER[:8], features=column(0, 17, 3, 16, 6, 13, 7, 10), seed=seed)
    assert Herding().select(made).indices.tolist() == [0, 2, 3, 4, 5, 7]


@pytest.mark.parametrize("seed", range(4))
def test_k_center_keeps_one_of_each_cloud(seed: int) -> None:
    """Whichever image is the first: another of its cloud is always nearer than those of the others."""
    made = told(1 / 3, np.arange(9) % 3, features=column(0, 10, 30, 0.1, 10.1, 30.1, 0.2, 10.2, 30.2), seed=seed)
    found = KCenter().select(made)
    assert sorted(found.indices % 3) == [0, 1, 2]
    assert found.n_filled == 0


def test_moderate_keeps_the_middle_ranks_of_distances() -> None:
    """Medians 3 and 106; distances 3, 2, 0, 4, 12 and 6, 5, 0, 1, 14, of which 2, 3, 4 and 5 have the ranks 4 to 7."""
    made = told(0.4, EVERY_OTHER, features=column(0, 100, 1, 101, 3, 106, 7, 107, 15, 120))
    assert Moderate().select(made).indices.tolist() == [0, 2, 3, 6]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "gamma", "kept"), [(3, 1.0, [0, 1, 3]), (2, 1.0, [0, 1]), (2, 0.1, [0, 3])])
def test_d2_keeps_by_the_difficulty_of_each_label(k: int, gamma: float, kept: list[int], seed: int) -> None:
    """The two pairs of neighbours below: EL2N is root 2 times what the label's probability lacks."""
    lacking, labels = torch.tensor([4.0, 3.9, 1.0, 2.0]) / 5, EVERY_OTHER[:4]
    probabilities = torch.stack([1 - lacking, lacking], 1)
    probabilities[1::2] = probabilities[1::2].flip(1)
    made = told(k / 4, labels, logits=probabilities.log(), features=column(0, 1, 10, 11), seed=seed)
    assert D2(neighbours=1, gamma=gamma).select(made).indices.tolist() == kept


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


def test_d2_by_hand_where_every_value_is_used_up() -> None:
    """A difficult pair and an easy one: the difficult image that is left is farther below 0, and comes first."""
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    scores, e = np.array([5.0, 4.0, 0.2, 0.1]), np.exp(-1.0)
    start = np.array([5 + 4 * e, 4 + 5 * e, 0.2 + 0.1 * e, 0.1 + 0.2 * e])
    # With gamma 0 a pick takes its whole value from its neighbour.
    assert start[1] - start[0] < start[3] - start[2] < 0
    assert d2(scores, x, 4, neighbours=1, gamma=0.0).tolist() == [0, 2, 1, 3]


@settings(max_examples=60)
@given(st.integers(2, 25), st.integers(0, 999), st.floats(0, 3), st.data())
def test_d2_against_messages_that_stop_at_nothing(n: int, seed: int, gamma: float, data: st.DataObject) -> None:
    """Written again with values that are never below 0: those at 0 are taken by score when no other is left."""
    k, count = data.draw(st.integers(1, n)), data.draw(st.integers(1, 5))
    rng = np.random.default_rng(seed)
    x, scores = rng.standard_normal((n, 2)), rng.random(n)
    distance, neighbour = NearestNeighbors(n_neighbors=min(count, n - 1)).fit(x).kneighbors()
    distance = distance / distance.mean()
    value = {i: scores[i] + float(np.exp(-distance[i]) @ scores[neighbour[i]]) for i in range(n)}
    expected = []
    for _ in range(k):
        pick = max(value, key=lambda i: (value[i], scores[i]))
        expected.append(pick)
        own = value.pop(pick)
        for d, j in zip(distance[pick], neighbour[pick], strict=True):
            if j in value:
                value[j] = max(value[j] - np.exp(-gamma * d) * own, 0.0)
    assert d2(scores, torch.from_numpy(x), k, neighbours=count, gamma=gamma).tolist() == expected


@pytest.mark.parametrize("share", [0.2, 0.5, 0.65, 0.8, 0.95])
def test_d2_keeps_the_difficult_at_every_share(share: float) -> None:
    """Difficult images have difficult neighbours, which took the more from each other, below what easy ones had."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((300, 2)), rng.standard_normal((100, 2)) + 6])
    scores = np.concatenate([0.05 * rng.random(300), 0.5 + 0.5 * rng.random(100)])  # the second cloud is difficult
    k = int(share * 400)
    kept = np.isin(np.arange(400), d2(scores, torch.from_numpy(x), k))
    assert kept.sum() == k
    assert scores[kept].mean() > 2 * scores[~kept].mean()


@pytest.mark.parametrize("n", [2, 30, 1100])
def test_nearest_neighbours_are_those_of_another_library(n: int) -> None:
    x = np.random.default_rng(n).standard_normal((n, 3))
    count = min(4, n - 1)
    distance, neighbour = nearest(torch.from_numpy(x), count)
    expected, places = NearestNeighbors(n_neighbors=count).fit(x).kneighbors()
    assert neighbour.tolist() == places.tolist()
    np.testing.assert_allclose(distance, expected / expected.mean())
