"""Matching in blocks: against pursuits over dense gradients, joint ones, and blocks that know nothing of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from advprune_core.datasets.splits import largest_remainder
from advprune_core.pruners import PRUNERS, Context
from advprune_core.pruners.blocks import blocks, joined
from advprune_core.pruners.branches import Branch, SplitOutputs
from advprune_core.pruners.grad_match import grad_match, grad_match_by_batch, grad_match_by_class
from advprune_core.pruners.gradients import DenseAtoms, LastLayerGradients
from advprune_core.pruners.omp import Pursuit, omp_exactly
from advprune_core.pruners.selection import by_class
from tests.contexts import blobs, context
from tests.memory import Largest


def toy(
    n: int = 900, *, bias: bool = True, dtype: torch.dtype = torch.float64
) -> tuple[LastLayerGradients, np.ndarray]:
    """Softmax errors of three classes on the features of a hidden layer, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    logits = torch.randn(n, 3, generator=generator).double() + torch.nn.functional.one_hot(labels, 3)
    errors = torch.softmax(logits, 1) - torch.nn.functional.one_hot(labels, 3)
    features = torch.relu(torch.randn(n, 30, generator=generator).double())
    return LastLayerGradients((errors,), (features,), bias=True), labels.numpy()


def dense(gradients: LastLayerGradients) -> torch.Tensor:
    """All gradients (n, classes * (d + 1)), written out."""
    (e,), (h,) = gradients.errors, gradients.features
    return torch.einsum("nc,nd->ncd", e, torch.cat([h, torch.ones(len(h), 1, dtype=h.dtype)], 1)).flatten(1)


def residual(gradients: LastLayerGradients, found: Pursuit) -> float:
    matrix = dense(gradients)
    missed = torch.from_numpy(found.weights) @ matrix[found.indices] - matrix.sum(0)
    return float(missed.norm() / matrix.sum(0).norm())


@given(st.integers(1, 200), st.data())
def test_blocks_share_the_images_and_the_picks(n: int, data: st.DataObject) -> None:
    k, size = data.draw(st.integers(1, n)), data.draw(st.integers(0, 250))
    rows = np.random.default_rng(0).permutation(n)
    parts = blocks(rows, k, size)
    assert np.concatenate([part for part, _ in parts]).tolist() == rows.tolist()
    assert sum(quota for _, quota in parts) == k
    assert all(1 <= quota <= len(part) for part, quota in parts)
    lengths = [len(part) for part, _ in parts]
    assert max(lengths) - min(lengths) <= 1
    if size == 0 or size >= n:
        assert len(parts) == 1
    elif size * k >= n:  # as many blocks as are asked for leave one pick for each
        assert len(parts) == min(k, max(1, round(n / size)))


def test_each_block_matches_its_own_and_what_is_left() -> None:
    """Against pursuits over dense gradients, whose targets are kept by hand."""
    gradients, _ = toy()
    matrix, left = dense(gradients), torch.zeros(93, dtype=torch.float64)
    found = grad_match(gradients, 90, lam=0.3, block=180, rng=np.random.default_rng(3))
    rows = np.random.default_rng(3).permutation(900)
    for block, (picks, weights) in enumerate(zip(np.split(found.indices, 5), np.split(found.weights, 5), strict=True)):
        own = rows[180 * block : 180 * (block + 1)]
        target = matrix[own].sum(0) + left
        expected = omp_exactly(DenseAtoms(matrix[own]), target, 18, lam=0.3)
        assert picks.tolist() == own[expected.indices].tolist()
        np.testing.assert_allclose(weights, expected.weights, rtol=1e-6)
        left = target - torch.from_numpy(weights) @ matrix[picks]


@pytest.mark.parametrize("few", [4096, 100], ids=["by inner products", "factored"])
def test_blocks_that_take_over_what_is_left_come_nearer_than_blocks_alone(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advprune_core.pruners.grad_match._FEW_IN_BLOCKS", few)
    gradients, _ = toy(3000)
    rows, k, rng = np.random.default_rng(0).permutation(3000), 300, np.random.default_rng(1)
    together = residual(gradients, grad_match(gradients, k, block=150, rng=rng))
    parts = (grad_match(gradients, quota, members=own, rng=rng) for own, quota in blocks(rows, k, 150))
    assert together < 0.5 * residual(gradients, joined(parts))
    assert together < 0.3 * residual(gradients, Pursuit(rows[:k], np.full(k, 10.0)))


def test_blocks_of_batches_match_their_mean_gradients() -> None:
    """The first block against a pursuit over dense means; the whole against blocks alone."""
    gradients, _ = toy(3000)
    found = grad_match_by_batch(gradients, 300, batch_size=5, block=60, rng=np.random.default_rng(3))
    first = np.array_split(np.random.default_rng(3).permutation(3000)[:300], 60)
    means = DenseAtoms(torch.stack([dense(gradients)[batch].mean(0) for batch in first]))
    expected = omp_exactly(means, means.total(), 6, lam=0.0)
    picked = np.concatenate([first[pick] for pick in expected.indices])
    assert found.indices[:30].tolist() == picked.tolist()
    np.testing.assert_allclose(found.weights[:30], np.repeat(expected.weights, 5), rtol=1e-6)
    alone = []
    for rows, quota in blocks(np.random.default_rng(3).permutation(3000), 300, 300):
        one = grad_match_by_batch(gradients[torch.from_numpy(rows)], quota, batch_size=5, rng=np.random.default_rng(0))
        alone.append(Pursuit(rows[one.indices], one.weights))
    assert residual(gradients, found) < 0.7 * residual(gradients, joined(alone))


@pytest.mark.parametrize("much", ["one", "few", "third", "all but one", "all"])
@pytest.mark.parametrize(("block", "n"), [(1, 120), (2, 120), (40, 900), (300, 900), (10_000, 900)])
def test_any_block_gives_k_images(much: str, block: int, n: int) -> None:
    gradients, labels = toy(n)
    k = {"one": 1, "few": n // 20, "third": n // 3, "all but one": n - 1, "all": n}[much]
    quotas = largest_remainder(k, np.bincount(labels))
    rng = np.random.default_rng(0)
    for found in (
        grad_match(gradients, k, block=block, rng=rng),
        grad_match_by_class(gradients, by_class(labels, quotas), block=block, rng=rng),
        grad_match_by_batch(gradients, k, batch_size=4, block=block, rng=rng),
    ):
        assert len(set(found.indices.tolist())) == k == len(found.weights)
        assert (found.weights > 0).all()
        assert 0 <= found.n_filled <= k
    of_each = grad_match_by_class(gradients, by_class(labels, quotas), block=block, rng=rng)
    assert np.bincount(labels[of_each.indices], minlength=3).tolist() == quotas.tolist()


def test_one_block_of_all_is_no_block() -> None:
    """Where all inner products are known either way: up to 512 images."""
    gradients, labels = toy(500)
    for way in (
        lambda block, rng: grad_match(gradients, 60, block=block, rng=rng),
        lambda block, rng: grad_match_by_class(
            gradients, by_class(labels, np.array([20, 20, 20])), block=block, rng=rng
        ),
    ):
        joint, one = (way(block, np.random.default_rng(0)) for block in (0, 500))
        assert joint.indices.tolist() == one.indices.tolist()
        assert joint.weights.tolist() == one.weights.tolist()


def test_blocks_are_of_the_seed_and_the_epoch() -> None:
    def kept(**given: Any) -> list[int]:
        made = context(0.2, **given)
        return PRUNERS.parse({"grad_match": {"block": 20, "per_class": False}}).select(made).indices.tolist()

    assert kept() == kept()
    assert kept() != kept(seed=1)
    assert kept() != kept(epoch=13)


SCALABLE: list[Any] = [
    {"grad_match": {"block": 20}},
    {"grad_match": {"block": 20, "per_class": False, "weights": "matched"}},
    {"grad_match_pb": {"block": 5, "batch_size": 4}},
]


def saved(n: int, *, dtype: torch.dtype = torch.float32) -> SplitOutputs:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 4
    logits = torch.randn(n, 4, generator=generator) + torch.nn.functional.one_hot(labels, 4)
    features = torch.relu(torch.randn(n, 400, generator=generator)).half().to(dtype)
    return SplitOutputs(labels, None, Branch(logits, features))


def given_outputs(outputs: SplitOutputs, fraction: float = 0.05) -> Context:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 400), nn.ReLU(), nn.Linear(400, 4))
    data = blobs((len(outputs) // 4 + 3,) * 4)
    return context(fraction, objective="pgd_at", dataset=data, model=model, outputs=outputs)


@pytest.mark.parametrize("spec", [*SCALABLE, {"glister": {"greedy": "naive"}}], ids=str)
def test_no_more_features_are_copied_than_are_worked_on(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor with float16 in their type of work. What else there is, of classes and weights, is small beside them."""
    monkeypatch.setattr("advprune_core.pruners.gradients.CHUNK", 100)
    for dtype in (torch.float32, torch.float16):
        made = given_outputs(saved(800, dtype=dtype))
        with Largest() as largest:
            PRUNERS.parse(spec).select(made)
        assert largest.bytes <= 100 * 401 * 4 < 800 * 400 * 4 / 5


@pytest.mark.parametrize("spec", [*SCALABLE, "grad_match", "craig"], ids=str)
def test_float16_features_are_worked_on_in_float32(spec: Any) -> None:
    """The same selection, where they have the same values; and the setting rounds them to these."""
    exact, half = saved(400), saved(400, dtype=torch.float16)
    found = [PRUNERS.parse(spec).select(given_outputs(outputs)) for outputs in (exact, half)]
    name, settings = next(iter(spec.items())) if isinstance(spec, dict) else (spec, {})
    rounded = PRUNERS.parse({name: {**settings, "half_features": True}})
    found.append(rounded.select(given_outputs(exact)))
    for other in found[1:]:
        assert other.indices.tolist() == found[0].indices.tolist()
        assert other.weights.tolist() == found[0].weights.tolist()
        assert other.step_ratio == found[0].step_ratio
