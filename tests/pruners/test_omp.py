"""Matching pursuit against non-negative least squares, brute force and plain linear algebra."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from advprune_core.pruners.gradients import DenseAtoms, GramAtoms, LastLayerGradients
from advprune_core.pruners.omp import Factor, omp, omp_exactly


def dictionary(n: int, d: int, seed: int = 0, *, positive: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)) + positive


def pursue(matrix: np.ndarray, target: np.ndarray, k: int, lam: float = 0.0) -> tuple[list[int], np.ndarray]:
    found = omp(DenseAtoms(torch.from_numpy(matrix)), torch.from_numpy(target), k, lam=lam)
    assert len(set(found.indices.tolist())) == len(found.indices) == len(found.weights) <= k
    assert (found.weights > 0).all()
    return found.indices.tolist(), found.weights


def naive(matrix: np.ndarray, target: np.ndarray, k: int) -> list[list[int]]:
    """The supports after each pick, by least squares from scratch."""
    support: list[int] = []
    weights, history = np.zeros(len(matrix)), []
    while len(support) < k:
        correlations = matrix @ (target - weights @ matrix)
        correlations[support] = -np.inf
        if correlations.max() <= 1e-10:
            break
        support.append(int(correlations.argmax()))
        while True:
            solution = np.zeros(len(matrix))
            solution[support] = np.linalg.lstsq(matrix[support].T, target, rcond=None)[0]
            bad = [j for j in support if solution[j] <= 0]
            if not bad:
                break
            shares = {j: weights[j] / (weights[j] - solution[j]) for j in bad}
            weights = weights + min(shares.values()) * (solution - weights)
            support = [j for j in support if j not in bad or shares[j] > min(shares.values())]
        weights = solution
        history.append(list(support))
    return history


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("positive", [0.0, 0.5])
def test_pick_by_pick_as_a_naive_implementation(seed: int, positive: float) -> None:
    matrix = dictionary(60, 25, seed, positive=positive)
    target = matrix.sum(0)
    lengths = set()
    for support in naive(matrix, target, 15):
        if len(support) in lengths:
            continue  # an atom left and another came: the pursuit of this length was over before
        lengths.add(len(support))
        indices, weights = pursue(matrix, target, len(support))
        assert indices == support
        np.testing.assert_allclose(weights, np.linalg.lstsq(matrix[support].T, target, rcond=None)[0], rtol=1e-8)
    assert len(lengths) >= 10


@pytest.mark.parametrize("seed", range(5))
def test_without_a_limit_it_is_non_negative_least_squares(seed: int) -> None:
    matrix, target = dictionary(12, 20, seed), dictionary(1, 20, seed + 100)[0]
    expected, residual = scipy.optimize.nnls(matrix.T, target)
    indices, weights = pursue(matrix, target, 12)
    found = np.zeros(12)
    found[indices] = weights
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.linalg.norm(found @ matrix - target) == pytest.approx(residual)


@pytest.mark.parametrize("lam", [0.1, 10.0])
def test_ridge_is_least_squares_with_more_rows(lam: float) -> None:
    matrix, target = dictionary(12, 20, 3), dictionary(1, 20, 4)[0]
    taller = np.vstack([matrix.T, np.sqrt(lam) * np.eye(12)])
    expected, _ = scipy.optimize.nnls(taller, np.append(target, np.zeros(12)))
    indices, weights = pursue(matrix, target, 12, lam)
    found = np.zeros(12)
    found[indices] = weights
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_sparse_target_is_found_as_by_brute_force(seed: int) -> None:
    """Nearly orthogonal atoms: greedy picks are the best subset of all."""
    matrix = dictionary(9, 400, seed)
    chosen, weights = [1, 4, 6], [3.0, 2.0, 1.0]
    target = np.array(weights) @ matrix[chosen]
    best = min(combinations(range(9), 3), key=lambda s: scipy.optimize.nnls(matrix[list(s)].T, target)[1])
    indices, found = pursue(matrix, target, 3)
    assert tuple(sorted(indices)) == best == tuple(chosen)
    np.testing.assert_allclose(found[np.argsort(indices)], weights)


def factored(n: int, classes: int, d: int, terms: int, seed: int = 0) -> LastLayerGradients:
    generator = torch.Generator().manual_seed(seed)

    def draw(width: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(n, width, generator=generator, dtype=torch.float64) for _ in range(terms))

    return LastLayerGradients(draw(classes), draw(d))


@pytest.mark.parametrize("terms", [1, 2])
def test_factored_atoms_give_what_dense_ones_give(terms: int) -> None:
    atoms = factored(80, 4, 9, terms)
    dense = sum(torch.einsum("nc,nd->ncd", e, h) for e, h in zip(atoms.errors, atoms.features, strict=True))
    flat = DenseAtoms(dense.flatten(1))
    for lam in (0.0, 0.5):
        found, expected = omp(atoms, atoms.total(), 20, lam=lam), omp(flat, flat.total(), 20, lam=lam)
        known = GramAtoms(atoms.inner(atoms))
        by_products = omp(known, known.total(), 20, lam=lam)
        for pursuit in (found, by_products):
            assert pursuit.indices.tolist() == expected.indices.tolist()
            np.testing.assert_allclose(pursuit.weights, expected.weights, rtol=1e-8)


def test_at_the_rank_limit_it_stops_and_another_pursuit_fills() -> None:
    """40 atoms of 6 dimensions: 6 of them say everything, the next 6 say it again."""
    matrix = dictionary(40, 6, positive=0.3)
    atoms, target = DenseAtoms(torch.from_numpy(matrix)), torch.from_numpy(matrix.sum(0))
    first = omp(atoms, target, 20)
    assert len(first.indices) <= 6
    np.testing.assert_allclose(first.weights @ matrix[first.indices], target.numpy(), rtol=1e-8)
    found = omp_exactly(atoms, target, 20)
    assert found.indices[: len(first.indices)].tolist() == first.indices.tolist()
    assert found.n_filled == 20 - len(first.indices)
    assert len(set(found.indices.tolist())) == 20
    assert (found.weights > 0).all()


SHORT = {
    # The first and the third make (3, 1) exactly; what correlates with nothing of it has the least weight there is.
    "filled": ([[0, 1], [-1, -1], [1, 0], [-1, 0], [0, -1]], [2, 0, 4, 3], [3, 1, 1, 1]),
    # The long atoms first; then the short ones say it again, and each pursuit counts half.
    "again": ([[0, 1], [1, 0], [0, 2], [2, 0]], [3, 2, 1, 0], [0.75, 0.25, 1.5, 0.5]),
    # Nothing correlates: all are filled in, those that are least against it first.
    "nothing": ([[-2, 0], [-1, 0], [0, -9], [-1, 1], [-9, -9]], [3, 1, 0, 2], [1, 1, 1, 1]),
}


@pytest.mark.parametrize("case", SHORT)
def test_two_atoms_and_a_shortfall_of_two_by_hand(case: str) -> None:
    rows, indices, weights = SHORT[case]
    found = omp_exactly(DenseAtoms(torch.tensor(rows).double()), torch.tensor([3.0, 1.0]).double(), 4)
    assert found.indices.tolist() == indices
    np.testing.assert_allclose(found.weights, weights)
    assert found.n_filled == (4 if case == "nothing" else 2)


def test_float32_stops_at_the_rank_as_float64_does() -> None:
    matrix = dictionary(500, 12, positive=0.3)
    counts = []
    for dtype in (torch.float32, torch.float64):
        atoms = DenseAtoms(torch.from_numpy(matrix).to(dtype))
        counts.append(len(omp(atoms, atoms.total(), 100).indices))
    known = GramAtoms(torch.from_numpy(matrix @ matrix.T))
    counts.append(len(omp(known, known.total(), 100).indices))
    assert counts[0] == counts[1] == counts[2] <= 12


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 99), st.sampled_from([0.0, 0.5]), st.data())
def test_exactly_k_whatever_the_dictionary(n: int, d: int, seed: int, lam: float, data: st.DataObject) -> None:
    """Duplicates, zeros, opposites and too few dimensions."""
    matrix = np.random.default_rng(seed).integers(-1, 2, (n, d)).astype(float)
    k = data.draw(st.integers(1, n))
    atoms = DenseAtoms(torch.from_numpy(matrix))
    found = omp_exactly(atoms, atoms.total(), k, lam=lam)
    assert len(set(found.indices.tolist())) == len(found.indices) == len(found.weights) == k
    assert (found.weights > 0).all()
    assert 0 <= found.n_filled <= k
    if not matrix.any():
        assert found.n_filled == k


@given(st.integers(2, 12), st.integers(0, 99), st.data())
def test_a_factor_grows_and_shrinks(size: int, seed: int, data: st.DataObject) -> None:
    matrix = dictionary(size, size + 3, seed)
    gram, factor = matrix @ matrix.T, Factor()
    for j in range(size):
        assert factor.append(gram[j, :j], gram[j, j])
    assert not factor.append(gram[0], gram[0, 0]), "the first atom again depends on itself"
    position = data.draw(st.integers(0, size - 1))
    factor.remove(position)
    rest = np.delete(np.delete(gram, position, 0), position, 1)
    expected = np.linalg.inv(np.linalg.cholesky(rest))
    np.testing.assert_allclose(factor.inverse, expected, rtol=1e-6, atol=1e-8)
    products = np.arange(size - 1.0)
    np.testing.assert_allclose(factor.solve(products), np.linalg.solve(rest, products), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("k", [0, 4])
def test_as_many_as_there_are(k: int) -> None:
    with pytest.raises(ValueError, match=f"cannot pick {k} of 3 atoms"):
        omp_exactly(DenseAtoms(torch.eye(3)), torch.ones(3), k)
