"""GRAD-MATCH: a weighted subset whose gradient is that of all the data; of adversarial objectives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.blocks import in_batches, in_blocks, joined
from advprune_core.pruners.gradients import DenseAtoms, GramAtoms, LastLayerGradients, group_means
from advprune_core.pruners.omp import Pursuit, omp_exactly
from advprune_core.pruners.weights import WeightingPruner

#: Up to so many atoms, all their inner products are worth knowing beforehand; in blocks, where each has few.
_FEW, _FEW_IN_BLOCKS = 512, 4096


def grad_match(
    gradients: LastLayerGradients,
    k: int,
    *,
    lam: float = 0.5,
    block: int = 0,
    members: NDArray[np.int64] | None = None,
    rng: np.random.Generator,
) -> Pursuit:
    """Pick k images and weights whose summed gradient is near that of all of them.

    Parameters
    ----------
    gradients : LastLayerGradients
        Of n images.
    k : int
        Images to pick; beyond the rank of the gradients, `omp_exactly` fills.
    lam : float
        Ridge on the weights.
    block : int
        Match random blocks of about so many images, each by its own share of k; 0: all jointly.
    members : array of int64, optional
        The images that are picked from, and whose gradient is matched, if not all.
    rng : Generator
        Draws the blocks, and decides between images of equal gradient.

    Returns
    -------
    Pursuit
        Indices in the order of the picks, block by block, and weights whose sum is about n.

    Notes
    -----
    Jointly, seconds grow with n k, and the features of all are copied once, in a random order. In blocks
    they grow with n times the size of a block, and one block is copied at a time.
    """
    few = _FEW_IN_BLOCKS if block else _FEW

    def pursue(rows: NDArray[np.int64], quota: int, left: Tensor | None) -> Pursuit:
        own = gradients[torch.from_numpy(rows).to(gradients.errors[0].device)]
        found = _pursued(own, quota, lam=lam, left=left, few=few)
        return Pursuit(rows[found.indices], found.weights, found.n_filled)

    rows = rng.permutation(len(gradients)) if members is None else rng.permutation(members)
    return in_blocks(gradients, rows, k, size=block, pursue=pursue)


def _pursued(own: LastLayerGradients | DenseAtoms, k: int, *, lam: float, left: Tensor | None, few: int) -> Pursuit:
    """`omp_exactly` of the sum of some atoms and of what is left of others, by inner products if they are few."""
    if len(own) > few:
        return omp_exactly(own, own.total() if left is None else own.total() + left, k, lam=lam)
    atoms = GramAtoms(own.products())
    return omp_exactly(atoms, atoms.total() if left is None else atoms.total() + own.correlations(left), k, lam=lam)


def grad_match_by_class(
    gradients: LastLayerGradients,
    classes: Iterable[tuple[NDArray[np.int64], int]],
    *,
    lam: float = 0.5,
    block: int = 0,
    rng: np.random.Generator,
) -> Pursuit:
    """`grad_match` within every class, of whose images and quota `classes` has a pair: see `Context.per_class`."""
    return joined(
        grad_match(gradients, quota, lam=lam, block=block, members=members, rng=rng) for members, quota in classes
    )


def grad_match_by_batch(
    gradients: LastLayerGradients,
    k: int,
    *,
    batch_size: int,
    lam: float = 0.0,
    block: int = 0,
    rng: np.random.Generator,
) -> Pursuit:
    """Pick whole random batches instead of images; of the last one only as many images as k leaves.

    The atoms are the batches' mean gradients, the target is their sum; each image has its batch's weight.
    In blocks of about `block` batches, every block has a last one.
    """
    few = _FEW_IN_BLOCKS if block else 0

    def pursue(rows: NDArray[np.int64], quota: int, left: Tensor | None) -> Pursuit:
        groups = in_batches(rows, batch_size)
        sizes = np.array([len(group) for group in groups])
        # As many as could be needed if the smallest ones came first.
        needed = int(np.searchsorted(np.cumsum(np.sort(sizes)), quota)) + 1
        mean_left = None if left is None else left.flatten() / sizes.mean()
        found = _pursued(group_means(gradients, groups), needed, lam=lam, left=mean_left, few=few)
        indices = np.concatenate([groups[pick] for pick in found.indices])
        weights = np.repeat(found.weights, sizes[found.indices])
        filled = int(sizes[found.indices[len(found.indices) - found.n_filled :]].sum())
        beyond = len(indices) - quota
        return Pursuit(indices[:quota], weights[:quota], max(filled - beyond, 0))

    return in_blocks(gradients, rng.permutation(len(gradients)), k, size=block * batch_size, pursue=pursue)


@PRUNERS.register
class GradMatch(WeightingPruner):
    """Adv-GRAD-MATCH: weighted subset with the gradient of all data (reconstruction of 2302.12366); 2k+1.

    A reconstruction: that paper's code is not public, so this rests on GRAD-MATCH (Killamsetty et al.
    2021, 2103.00123) with the last-layer gradients of adversarial objectives of Dolatabadi et al.
    (2022, 2112.00378). Meant for a good approximation of full training at small fractions; where the
    fraction is above the rank of the gradients, most of the subset is filled (`n_filled`).
    Settings: `per_class` (else jointly, whose classes may get uneven shares), ridge `lam` (larger
    ones spread the weights), `block`, `half_features`, `weights`, the schedule (see `warm_start`; the
    public code selects every 20 of 300 epochs). Weights of mean 1 keep the direction of the gradient of
    all data and lengthen it, as a higher learning rate does (`step_ratio` in the record); `matched` keeps
    its length as well, and the control `same_step_size` shows what longer steps do by themselves. Cost
    per selection: 2k + 1 forward-equivalents an image (TRADES and MART 2k + 2), 3 with `steps` 1, and the
    pursuit in seconds, which grow with the square of the images (of a class). Where that is a share of
    the run worth saving, `block` 512 makes them grow with their number, at a small loss of nearness, and
    1,250 at less of a loss for twice the seconds; results/reference/selection has both against n.
    """

    name = "grad_match"
    per_class: Annotated[bool, Field(description="match the gradient of each class by images of its own")] = True
    lam: Annotated[float, Field(ge=0, le=1_000_000, description="ridge on the weights")] = 0.5
    block: Annotated[
        int, Field(ge=0, le=1_000_000, description="match random blocks of about so many images; 0: all at once")
    ] = 0

    def check(self, context: Context) -> None:
        """Per class, every class must have an image to keep."""
        if self.per_class:
            context.quotas()

    def cover(self, gradients: LastLayerGradients, context: Context) -> Pursuit:
        rng, lam, block = context.rng, self.lam, self.block
        if self.per_class:
            return grad_match_by_class(gradients, context.per_class(), lam=lam, block=block, rng=rng)
        return grad_match(gradients, context.k, lam=lam, block=block, rng=rng)


@PRUNERS.register
class GradMatchPB(WeightingPruner):
    """Adv-GRAD-MATCH with whole batches as candidates (reconstruction, as `grad_match`); 2k + 1 an image.

    The per-batch form of GRAD-MATCH (Killamsetty et al. 2021, 2103.00123). Faster to pursue, and
    coarser: the last batch is cut so that the number of images is exact. On `weights` see `grad_match`.
    """

    name = "grad_match_pb"
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="images of a candidate batch")] = 16
    lam: Annotated[float, Field(ge=0, le=1_000_000, description="ridge on the weights")] = 0.0
    block: Annotated[
        int, Field(ge=0, le=1_000_000, description="match random blocks of about so many batches; 0: all at once")
    ] = 0

    def cover(self, gradients: LastLayerGradients, context: Context) -> Pursuit:
        return grad_match_by_batch(
            gradients, context.k, batch_size=self.batch_size, lam=self.lam, block=self.block, rng=context.rng
        )
