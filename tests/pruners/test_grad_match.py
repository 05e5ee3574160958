"""Gradient matching: what is picked, its weights, and how near the subset's gradient comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from advprune_core.base.settings import ConfigError
from advprune_core.pruners.grad_match import (
    GradMatch,
    GradMatchPB,
    grad_match,
    grad_match_by_batch,
    grad_match_by_class,
)
from advprune_core.pruners.gradients import DenseAtoms, LastLayerGradients
from advprune_core.pruners.omp import omp_exactly
from advprune_core.pruners.selection import by_class
from tests.contexts import blobs, context


def gradients_of(made: Any) -> LastLayerGradients:
    return GradMatch().gradients(made).double()


def dense(gradients: LastLayerGradients) -> torch.Tensor:
    rows = torch.arange(len(gradients)).split(1)
    return torch.stack([gradients.combination(row, torch.ones(1).double()).flatten() for row in rows])


@pytest.mark.parametrize("objective", ["pgd_at", "trades", "mart"])
def test_the_subset_has_nearly_the_gradient_of_all(objective: str) -> None:
    made = context(objective=objective)
    gradients, labels, quotas = gradients_of(made), made.labels, made.quotas()
    matrix, target = dense(gradients), gradients.total().flatten()

    def error(indices: np.ndarray, weights: np.ndarray) -> float:
        return float((torch.from_numpy(weights) @ matrix[indices] - target).norm() / target.norm())

    rng = np.random.default_rng(0)
    random = np.mean([error(rng.permutation(made.n)[: made.k], np.full(made.k, made.n / made.k)) for _ in range(20)])
    for found in (
        grad_match(gradients, made.k, lam=0.1, rng=rng),
        grad_match_by_class(gradients, by_class(labels, quotas), lam=0.1, rng=rng),
        grad_match_by_batch(gradients, made.k, batch_size=4, rng=rng),
    ):
        assert error(found.indices, found.weights) < 0.3 * random


def test_each_class_is_matched_by_its_own_images() -> None:
    """The parts against a pursuit over the class's dense gradients."""
    made = context()
    gradients, quotas = gradients_of(made), made.quotas()
    found = grad_match_by_class(gradients, by_class(made.labels, quotas), lam=0.5, rng=np.random.default_rng(0))
    weight = dict(zip(found.indices.tolist(), found.weights.tolist(), strict=True))
    filled = 0
    for label, quota in enumerate(quotas):
        members = np.flatnonzero(made.labels == label)
        atoms = DenseAtoms(dense(gradients[torch.from_numpy(members)]))
        expected = omp_exactly(atoms, atoms.total(), int(quota), lam=0.5)
        filled += expected.n_filled
        assert [weight[i] for i in members[expected.indices]] == pytest.approx(expected.weights.tolist(), rel=1e-6)
    assert found.n_filled == filled


@pytest.mark.parametrize("pruner", [GradMatch(), GradMatch(per_class=False), GradMatchPB()], ids=repr)
@pytest.mark.parametrize("fraction", [0.1, 0.55])
def test_selections_have_k_images_and_weights_of_mean_one(pruner: Any, fraction: float) -> None:
    made = context(fraction)
    selection = pruner.select(made)
    assert len(selection) == made.k
    assert selection.weights.mean() == pytest.approx(1, rel=1e-5)
    assert (selection.weights > 0).all()
    assert fraction < 0.5 or len(np.unique(selection.weights.round(4))) > 1


def test_what_lies_beyond_the_rank_is_filled_and_counted() -> None:
    """Four classes and eight inputs span at most 24 dimensions of one class's softmax gradients."""
    made = context(0.5, objective="pgd_at")
    for pruner in (GradMatch(per_class=False, lam=0), GradMatch(lam=0)):
        selection = pruner.select(made)
        assert 0 < selection.n_filled < made.k


@pytest.mark.parametrize(("k", "filled"), [(1, 0), (2, 0), (3, 1), (5, 3), (6, 4), (12, 10)])
@pytest.mark.parametrize("seed", range(3))
def test_batches_beyond_the_first_that_say_it_all_are_counted(k: int, filled: int, seed: int) -> None:
    """Twelve equal gradients: one batch of two has their mean, and all images of others are filled in."""
    equal = LastLayerGradients((torch.tensor([[1.0, -1.0]]).double().expand(12, 2),), (torch.ones(12, 1).double(),))
    found = grad_match_by_batch(equal, k, batch_size=2, rng=np.random.default_rng(seed))
    assert len(set(found.indices.tolist())) == k
    assert found.n_filled == filled


def test_images_of_a_batch_share_its_weight() -> None:
    found = grad_match_by_batch(gradients_of(context()), 50, batch_size=8, rng=np.random.default_rng(0))
    assert len(set(found.indices.tolist())) == 50
    changes = np.flatnonzero(np.diff(found.weights)) + 1
    assert {len(run) for run in np.split(found.weights, changes)[:-1]} == {8}


def test_a_class_without_an_image_to_keep_is_refused_before_any_work() -> None:
    tiny = context(0.05, dataset=blobs((90, 60, 2), val_select=0))
    with pytest.raises(ConfigError, match="class 2"):
        GradMatch().check(tiny)
    GradMatch(per_class=False).check(tiny)
