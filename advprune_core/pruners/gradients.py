"""Last-layer gradients of any objective, factored: never a matrix of classes x features per image.

For a loss of (clean logits, adversarial logits, label) the gradient of one image with respect to
the weights and bias of the last linear layer is a sum of at most two outer products e x [h, 1],
e the gradient with respect to a branch's logits and h that branch's features. Inner products then
factor, <e x h, e' x h'> = <e, e'> <h, h'>, which is all that selection needs. The features stay as
the network gave them: what is worked on, some rows, is copied with its ones, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Split
from advprune_core.objectives.base import Objective, check_losses
from advprune_core.pruners.base import Context
from advprune_core.pruners.branches import Branch, SplitOutputs
from advprune_core.pruners.outputs import split_outputs

#: Rows worked on at once. More than the images of most data sets, whose sums so are one product each.
CHUNK = 2**17


@dataclass(frozen=True, eq=False)
class LastLayerGradients:
    """Gradients of n losses, ``sum_t errors[t][i] x features[t][i]``; atoms for `omp`.

    Attributes
    ----------
    errors : tuple of Tensor, each of shape (n, classes)
        Gradients with respect to the logits, one for each branch that the loss depends on.
    features : tuple of Tensor, each of shape (n, d)
        Inputs of the last layer, of the errors' type or of float16. Rows that are taken, by any method,
        are copied in the errors' type; of all rows, no more than `CHUNK` are at once.
    bias : bool
        Every row has one more feature, a 1 for the bias, that is stored only in what is taken.
    """

    errors: tuple[Tensor, ...]
    features: tuple[Tensor, ...]
    bias: bool = False

    def __len__(self) -> int:
        return len(self.errors[0])

    def __getitem__(self, rows: Tensor | slice) -> LastLayerGradients:
        """Some of them, their ones stored."""
        kind = self.errors[0].dtype
        features = (with_bias(h[rows], kind) if self.bias else h[rows].to(kind) for h in self.features)
        return LastLayerGradients(tuple(e[rows] for e in self.errors), tuple(features))

    def chunks(self, rows: Tensor | None = None) -> Iterator[LastLayerGradients]:
        """All of them in order, or some, `CHUNK` at a time."""
        if rows is not None:
            return (self[part] for part in rows.split(CHUNK))
        return (self[begin : begin + CHUNK] for begin in range(0, max(len(self), 1), CHUNK))

    def inner(self, other: LastLayerGradients) -> Tensor:
        """Inner products with other gradients: shape (n, m)."""
        mine, others = self[:], other[:]
        pairs = [
            (e @ e_other.T) * (h @ h_other.T)
            for e, h in zip(mine.errors, mine.features, strict=True)
            for e_other, h_other in zip(others.errors, others.features, strict=True)
        ]
        return torch.stack(pairs).sum(0) if len(pairs) > 1 else pairs[0]

    def squared_norms(self) -> Tensor:
        """Squared lengths, shape (n,)."""
        parts = []
        for chunk in self.chunks():
            total = torch.zeros_like(chunk.errors[0][:, 0])
            for e, h in zip(chunk.errors, chunk.features, strict=True):
                for e_other, h_other in zip(chunk.errors, chunk.features, strict=True):
                    total = total + (e * e_other).sum(1) * (h * h_other).sum(1)
            parts.append(total)
        return torch.cat(parts)

    def correlations(self, direction: Tensor, rows: Tensor | None = None) -> Tensor:
        """Inner products of all, or of some, with one dense gradient (classes, d + 1): shape (n,)."""
        parts = []
        for chunk in self.chunks(rows):
            total = torch.zeros_like(chunk.errors[0][:, 0])
            for e, h in zip(chunk.errors, chunk.features, strict=True):
                total = total + ((h @ direction.T) * e).sum(1)
            parts.append(total)
        return torch.cat(parts)

    def combination(self, rows: Tensor, weights: Tensor) -> Tensor:
        """``sum_j weights[j] gradient[rows[j]]``, dense: shape (classes, d + 1)."""
        parts = []
        for chunk, own in zip(self.chunks(rows), weights.split(CHUNK), strict=True):
            parts += [(e * own[:, None]).T @ h for e, h in zip(chunk.errors, chunk.features, strict=True)]
        return torch.stack(parts).sum(0)

    def gram(self, row: int, rows: Tensor) -> Tensor:
        """Inner products of one gradient with those of `rows`, in float64: shape (m,)."""
        one, chosen = self[torch.tensor([row], device=rows.device)].double(), self[rows].double()
        return one.inner(chosen)[0]

    def products(self) -> Tensor:
        """All inner products, in float64: shape (n, n)."""
        return (taken := self.double()).inner(taken)

    def total(self, rows: Tensor | None = None) -> Tensor:
        """Sum of all gradients, or of some, dense: shape (classes, d + 1)."""
        parts = [e.T @ h for chunk in self.chunks(rows) for e, h in zip(chunk.errors, chunk.features, strict=True)]
        return torch.stack(parts).sum(0)

    def double(self) -> LastLayerGradients:
        """The same in float64, their ones stored."""
        taken = self[:]
        return LastLayerGradients(tuple(e.double() for e in taken.errors), tuple(h.double() for h in taken.features))


def with_bias(features: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Append a column of ones: (n, d) to (n, d + 1), of their type or another."""
    wide = features.new_ones(len(features), features.shape[1] + 1, dtype=dtype or features.dtype)
    wide[:, :-1] = features
    return wide


def logit_gradients(objective: Objective, outputs: SplitOutputs) -> list[tuple[Branch, Tensor]]:
    """Gradient of each image's loss with respect to its logits, by autograd on the objective.

    Returns
    -------
    list of (Branch, Tensor of shape (n, classes))
        For each branch that the loss depends on.

    Raises
    ------
    ValueError
        If a branch that the objective uses is missing, or its losses are not one for each image.
    """
    branches = (
        outputs.clean if objective.uses_clean else None,
        outputs.adversarial if objective.uses_adversarial else None,
    )
    if (objective.uses_clean and branches[0] is None) or (objective.uses_adversarial and branches[1] is None):
        raise ValueError(f"{objective.name} needs outputs that are missing (clean or adversarial)")
    leaves = [None if part is None else part.logits.detach().clone().requires_grad_() for part in branches]
    with torch.enable_grad():
        losses = objective.per_sample(leaves[0], leaves[1], outputs.labels)
        check_losses(losses, len(outputs.labels))
        wanted = [leaf for leaf in leaves if leaf is not None]
        # Losses of different images are independent, so the gradient of their sum has them all.
        found = iter(torch.autograd.grad(losses.sum(), wanted, allow_unused=True))
    gradients = [None if leaf is None else next(found) for leaf in leaves]
    return [(part, e) for part, e in zip(branches, gradients, strict=True) if part is not None and e is not None]


def last_layer_gradients(objective: Objective, outputs: SplitOutputs) -> LastLayerGradients:
    """Factored last-layer gradient of every image's loss.

    Parameters
    ----------
    objective : Objective
        Any; PGD-AT gives one term, TRADES and MART give two.
    outputs : SplitOutputs
        With the branches that the objective uses.

    References
    ----------
    Ash et al. 2020 (1906.03671) and Killamsetty et al. 2021 (2103.00123) select by last-layer
    gradients; Dolatabadi et al. 2022 (2112.00378) by those of adversarial objectives.
    """
    terms = logit_gradients(objective, outputs)
    return LastLayerGradients(tuple(e for _, e in terms), tuple(part.stored_features() for part, _ in terms), bias=True)


@dataclass(frozen=True, eq=False)
class DenseAtoms:
    """Atoms that are the rows of a matrix (n, dimensions), for `omp`."""

    matrix: Tensor

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, rows: Tensor) -> DenseAtoms:
        return DenseAtoms(self.matrix[rows])

    def correlations(self, direction: Tensor) -> Tensor:
        """Inner products with a vector: shape (n,)."""
        return self.matrix @ direction

    def combination(self, rows: Tensor, weights: Tensor) -> Tensor:
        """``sum_j weights[j] matrix[rows[j]]``."""
        return weights @ self.matrix[rows]

    def gram(self, row: int, rows: Tensor) -> Tensor:
        """Inner products of one row with `rows`, in float64: shape (m,)."""
        return self.matrix[rows].double() @ self.matrix[row].double()

    def products(self) -> Tensor:
        """All inner products, in float64: shape (n, n)."""
        return (taken := self.matrix.double()) @ taken.T

    def total(self) -> Tensor:
        """Sum of all rows."""
        return self.matrix.sum(0)


@dataclass(frozen=True, eq=False)
class GramAtoms:
    """Atoms known by their inner products (n, n) alone, for `omp`: the fastest where there are few.

    A direction is the vector of its inner products with all atoms.
    """

    products: Tensor

    def __len__(self) -> int:
        return len(self.products)

    def correlations(self, direction: Tensor) -> Tensor:
        """The direction itself."""
        return direction

    def combination(self, rows: Tensor, weights: Tensor) -> Tensor:
        """``sum_j weights[j] atom[rows[j]]``, as a direction."""
        return weights @ self.products[rows]

    def gram(self, row: int, rows: Tensor) -> Tensor:
        """Inner products of one atom with those of `rows`: shape (m,)."""
        return self.products[row, rows].double()

    def total(self) -> Tensor:
        """Sum of all atoms, as a direction."""
        return self.products.sum(0)


def group_means(gradients: LastLayerGradients, groups: list[NDArray[np.int64]]) -> DenseAtoms:
    """Mean gradient of each group of images, dense: (groups, classes * (d + 1))."""
    device = gradients.errors[0].device
    parts = [gradients[torch.from_numpy(rows).to(device)].total().flatten() / len(rows) for rows in groups]
    return DenseAtoms(torch.stack(parts))


def objective_outputs(
    context: Context, split: Split, *, steps: int | None = None, head: str | None = None, half: bool = False
) -> tuple[Objective, SplitOutputs]:
    """The run's objective, and the outputs of a split that it looks at (see `split_outputs`).

    Raises
    ------
    ConfigError
        A context without objective.
    """
    objective = context.objective
    if objective is None:
        raise ConfigError("gradients need a context with the run's objective")
    clean, adversarial = objective.uses_clean, objective.uses_adversarial
    found = split_outputs(context, split, clean=clean, adversarial=adversarial, steps=steps, head=head, half=half)
    return objective, found
