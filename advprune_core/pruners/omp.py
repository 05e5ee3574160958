"""Orthogonal matching pursuit with weights that are not negative, by an incremental Cholesky factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: A squared pivot below this share of the atom's own square: the atom depends on those before it.
_DEPENDENT = 1e-10


class Atoms(Protocol):
    """A dictionary: what the pursuit needs to know of it, whether it is a matrix or factored."""

    def __len__(self) -> int: ...

    def correlations(self, direction: Tensor, /) -> Tensor:
        """Inner products of all atoms with a direction: shape (n,)."""

    def combination(self, rows: Tensor, weights: Tensor, /) -> Tensor:
        """Weighted sum of some atoms, shape of a direction."""

    def gram(self, row: int, rows: Tensor, /) -> Tensor:
        """Inner products of one atom with some, in float64: shape (m,)."""


@dataclass(frozen=True, eq=False)
class Pursuit:
    """What a pursuit has picked.

    Attributes
    ----------
    indices : array of int64, shape (k,)
        Distinct, in the order of the picks.
    weights : array of float64, shape (k,)
        Of the same atoms, above 0.
    n_filled : int
        How many of them the first pursuit did not find.
    """

    indices: NDArray[np.int64]
    weights: NDArray[np.float64]
    n_filled: int = 0


class Factor:
    """Inverse of the Cholesky factor of a Gram matrix that grows by a row, or loses one.

    The inverse, because products with a part of a larger array copy nothing, and solving does.
    """

    def __init__(self) -> None:
        self._room = np.zeros((32, 32))
        self.size = 0

    @property
    def inverse(self) -> NDArray[np.float64]:
        """Lower triangular, shape (size, size); ``inverse.T @ inverse`` inverts the Gram matrix."""
        return self._room[: self.size, : self.size]

    def append(self, row: NDArray[np.float64], diagonal: float) -> bool:
        """Add a row of the Gram matrix (size,) and its diagonal; False if it depends on the others."""
        solved = self.inverse @ row
        rest = diagonal - float(solved @ solved)
        if not rest > _DEPENDENT * diagonal:
            return False
        size, pivot = self.size, np.sqrt(rest)
        if size == len(self._room):
            grown = np.zeros((2 * size, 2 * size))
            grown[:size, :size] = self._room
            self._room = grown
        self._room[size, :size] = -(solved @ self.inverse) / pivot
        self._room[size, size] = 1 / pivot
        self.size += 1
        return True

    def remove(self, position: int) -> None:
        """Take a row and column of the Gram matrix out: move them to the end by rotations, and drop them."""
        inverse = self.inverse
        inverse[:, position:] = np.roll(inverse[:, position:], -1, axis=1)
        for j in range(position, self.size - 1):
            upper, lower = inverse[j].copy(), inverse[j + 1].copy()
            length = np.hypot(upper[-1], lower[-1])
            cosine, sine = lower[-1] / length, upper[-1] / length
            inverse[j] = sine * lower - cosine * upper
            inverse[j + 1] = sine * upper + cosine * lower
        inverse[-1], inverse[:, -1] = 0.0, 0.0
        self.size -= 1

    def solve(self, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least-squares weights of the atoms for inner products (size,) with the target."""
        return np.asarray((self.inverse @ products) @ self.inverse)


def omp(atoms: Atoms, target: Tensor, k: int, *, lam: float = 0.0, allowed: Tensor | None = None) -> Pursuit:
    """At most k atoms and weights w >= 0 that make ``||sum_j w_j a_j - target||^2 + lam ||w||^2`` small.

    Each pick is the atom that correlates most with the residual; then all weights are solved for
    again, and atoms whose weight would not be positive leave (and may come back), as in the
    active-set method for non-negative least squares: without a limit k, it is that method. Ends
    early where no atom correlates positively, or where the residual is rounding noise (at k = rank).

    Parameters
    ----------
    atoms : Atoms
        n atoms; `DenseAtoms` or `LastLayerGradients`.
    target : Tensor
        What is to be approximated, shape of a direction.
    k : int
        Most atoms to pick.
    lam : float
        Ridge: larger values spread the weight over more atoms.
    allowed : Tensor of bool, shape (n,), optional
        Atoms that may be picked.

    Notes
    -----
    A pick costs one `correlations` and O(k^2); nothing of size n x k is kept. Equal correlations
    are decided by position: shuffle the atoms for chance.

    References
    ----------
    Killamsetty et al., GRAD-MATCH, ICML 2021 (2103.00123), alg. 2; Lawson and Hanson, Solving Least
    Squares Problems, 1974, chapter 23, for the weights that are not negative.
    """
    factor, support = Factor(), list[int]()
    weights, products = np.zeros(0), np.zeros(0)
    free = torch.ones(len(atoms), dtype=torch.bool, device=target.device) if allowed is None else allowed.clone()
    noise = 100 * torch.finfo(target.dtype).eps
    scale, residual = float(target.norm()), target
    correlations = with_target = atoms.correlations(target)
    picks = 0
    while len(support) < k and float(residual.norm()) > noise * scale and picks < 3 * k + 10:
        candidates = torch.where(free, correlations, -torch.inf)
        pick = _append(atoms, factor, support, free, candidates, lam=lam, noise=noise * scale)
        if pick is None:
            break
        picks += 1
        free[pick] = False
        support.append(pick)
        products = np.append(products, float(with_target[pick]))
        before = support.copy()
        weights, products = _positive(factor, support, np.append(weights, 0.0), products)
        for left in set(before) - set(support) - {pick}:
            free[left] = True
        rows = torch.tensor(support, dtype=torch.int64, device=target.device)
        residual = target - atoms.combination(rows, torch.from_numpy(weights).to(target))
        correlations = atoms.correlations(residual)
    return Pursuit(np.array(support, np.int64), weights)


def _append(
    atoms: Atoms,
    factor: Factor,
    support: list[int],
    free: Tensor,
    correlations: Tensor,
    *,
    lam: float,
    noise: float,
) -> int | None:
    """Take the atom that correlates most and does not depend on the support into the factor."""
    while True:
        best, found = correlations.max(0)
        pick = int(found)
        if not float(best) > 0:
            return None
        rows = torch.tensor([*support, pick], dtype=torch.int64, device=correlations.device)
        products = atoms.gram(pick, rows).cpu().numpy()
        if float(best) <= noise * np.sqrt(products[-1]):
            return None
        if factor.append(products[:-1], float(products[-1]) + lam):
            return pick
        free[pick] = False
        correlations[pick] = -torch.inf


def _positive(
    factor: Factor, support: list[int], weights: NDArray[np.float64], products: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of the support, all above 0: what cannot be is taken out of support and factor."""
    solution = factor.solve(products)
    while len(solution) and solution.min() <= 0:
        # As far as possible from the old weights towards the solution, until the first is 0.
        below = solution <= 0
        share = np.where(below, weights / np.where(below, weights - solution, 1.0), np.inf)
        share[below & (weights == 0)] = 0.0
        first = float(share.min())
        weights = weights + first * (solution - weights)
        for position in np.flatnonzero(below & (share <= first))[::-1]:
            factor.remove(int(position))
            del support[int(position)]
            weights, products = np.delete(weights, position), np.delete(products, position)
        solution = factor.solve(products) if len(products) else np.zeros(0)
    return solution, products


def omp_exactly(atoms: Atoms, target: Tensor, k: int, *, lam: float = 0.0) -> Pursuit:
    """As `omp`, with exactly k atoms.

    Where a pursuit ends early, another one over the atoms that are left follows; the weights are
    the average of all pursuits, each counted by its number of atoms, so that the sum still is near
    the target. What no pursuit would pick gets the smallest weight there is, best correlation with
    the target first.

    Raises
    ------
    ValueError
        If there are fewer than k atoms.
    """
    if not 1 <= k <= len(atoms):
        raise ValueError(f"cannot pick {k} of {len(atoms)} atoms")
    allowed = torch.ones(len(atoms), dtype=torch.bool, device=target.device)
    found: list[Pursuit] = []
    count = 0
    while count < k:
        pursuit = omp(atoms, target, k - count, lam=lam, allowed=allowed)
        if len(pursuit.indices) == 0:
            break
        allowed[torch.from_numpy(pursuit.indices).to(target.device)] = False
        count += len(pursuit.indices)
        found.append(pursuit)
    indices = np.concatenate([np.empty(0, np.int64), *(p.indices for p in found)])
    weights = np.concatenate([np.empty(0), *(p.weights * len(p.indices) / count for p in found)])
    if count < k:
        correlations = torch.where(allowed, atoms.correlations(target), -torch.inf)
        rest = torch.argsort(correlations, descending=True, stable=True)[: k - count].cpu().numpy()
        indices = np.append(indices, rest)
        weights = np.append(weights, np.full(len(rest), weights.min() if count else 1.0))
    return Pursuit(indices, weights, k - (len(found[0].indices) if found else 0))
