"""GRAD-MATCH: a weighted subset whose gradient is that of all the data; of adversarial objectives."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.gradients import GramAtoms, LastLayerGradients, group_means
from advprune_core.pruners.omp import Pursuit, omp_exactly
from advprune_core.pruners.weights import WeightingPruner

#: Up to so many images, all their inner products are worth knowing beforehand.
_FEW = 512


def grad_match(gradients: LastLayerGradients, k: int, *, lam: float = 0.5, rng: np.random.Generator) -> Pursuit:
    """Pick k images and weights whose summed gradient is near that of all of them.

    Parameters
    ----------
    gradients : LastLayerGradients
        Of n images.
    k : int
        Images to pick; beyond the rank of the gradients, `omp_exactly` fills.
    lam : float
        Ridge on the weights.
    rng : Generator
        Decides between images of equal gradient.

    Returns
    -------
    Pursuit
        Indices in the order of the picks, and weights whose sum is about n.
    """
    device = gradients.errors[0].device
    shuffled = rng.permutation(len(gradients))
    chosen = gradients[torch.from_numpy(shuffled).to(device)]
    few = len(chosen) <= _FEW
    atoms = GramAtoms(chosen.double().inner(chosen.double())) if few else chosen
    found = omp_exactly(atoms, atoms.total(), k, lam=lam)
    return Pursuit(shuffled[found.indices], found.weights, found.n_filled)


def grad_match_by_class(
    gradients: LastLayerGradients,
    labels: NDArray[np.int64],
    quotas: NDArray[np.int64],
    *,
    lam: float = 0.5,
    rng: np.random.Generator,
) -> Pursuit:
    """`grad_match` within every class that has images; `quotas` (classes,) says how many each keeps."""
    device = gradients.errors[0].device
    parts = []
    for label in np.flatnonzero(quotas):
        members = np.flatnonzero(labels == label)
        found = grad_match(gradients[torch.from_numpy(members).to(device)], int(quotas[label]), lam=lam, rng=rng)
        parts.append(Pursuit(members[found.indices], found.weights, found.n_filled))
    indices, weights = (np.concatenate([getattr(p, name) for p in parts]) for name in ("indices", "weights"))
    return Pursuit(indices, weights, sum(p.n_filled for p in parts))


def grad_match_by_batch(
    gradients: LastLayerGradients, k: int, *, batch_size: int, lam: float = 0.0, rng: np.random.Generator
) -> Pursuit:
    """Pick whole random batches instead of images; of the last one only as many images as k leaves.

    The atoms are the batches' mean gradients, the target is their sum; each image has its batch's weight.
    """
    groups = np.array_split(rng.permutation(len(gradients)), max(1, round(len(gradients) / batch_size)))
    sizes = np.array([len(group) for group in groups])
    # As many as could be needed if the smallest ones came first.
    needed = int(np.searchsorted(np.cumsum(np.sort(sizes)), k)) + 1
    atoms = group_means(gradients, groups)
    found = omp_exactly(atoms, atoms.total(), needed, lam=lam)
    indices = np.concatenate([groups[pick] for pick in found.indices])
    weights = np.repeat(found.weights, sizes[found.indices])
    filled = int(sizes[found.indices[len(found.indices) - found.n_filled :]].sum())
    beyond = len(indices) - k
    return Pursuit(indices[:k], weights[:k], max(filled - beyond, 0))


@PRUNERS.register
class GradMatch(WeightingPruner):
    """Adv-GRAD-MATCH: weighted subset with the gradient of all data (reconstruction of 2302.12366); 2k+1.

    A reconstruction: that paper's code is not public, so this rests on GRAD-MATCH (Killamsetty et al.
    2021, 2103.00123) with the last-layer gradients of adversarial objectives of Dolatabadi et al.
    (2022, 2112.00378). Meant for a good approximation of full training at small fractions; where the
    fraction is above the rank of the gradients, most of the subset is filled (`n_filled`).
    Settings: `per_class` (else jointly, whose classes may get uneven shares), ridge `lam` (larger
    ones spread the weights), `weights`, the schedule (see `warm_start`; the public code selects every 20
    of 300 epochs). Weights of mean 1 keep the direction of the gradient of all data and lengthen it, as a
    higher learning rate does (`step_ratio` in the record); `matched` keeps its length as well, and the
    control `same_step_size` shows what longer steps do by themselves. Cost per selection: 2k + 1
    forward-equivalents an image (TRADES and MART 2k + 2), 3 with `steps` 1, and the pursuit in seconds.
    """

    name: ClassVar[str] = "grad_match"
    per_class: Annotated[bool, Field(description="match the gradient of each class by images of its own")] = True
    lam: Annotated[float, Field(ge=0, le=1_000_000, description="ridge on the weights")] = 0.5

    def check(self, context: Context) -> None:
        """Per class, every class must have an image to keep."""
        if self.per_class:
            context.quotas()

    def cover(self, gradients: LastLayerGradients, context: Context) -> Pursuit:
        """See `grad_match`."""
        if self.per_class:
            return grad_match_by_class(gradients, context.labels, context.quotas(), lam=self.lam, rng=context.rng)
        return grad_match(gradients, context.k, lam=self.lam, rng=context.rng)


@PRUNERS.register
class GradMatchPB(WeightingPruner):
    """Adv-GRAD-MATCH with whole batches as candidates (reconstruction, as `grad_match`); 2k + 1 an image.

    Faster to pursue, and coarser: the last batch is cut so that the number of images is exact. On
    `weights` see `grad_match`.
    """

    name: ClassVar[str] = "grad_match_pb"
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="images of a candidate batch")] = 16
    lam: Annotated[float, Field(ge=0, le=1_000_000, description="ridge on the weights")] = 0.0

    def cover(self, gradients: LastLayerGradients, context: Context) -> Pursuit:
        """See `grad_match_by_batch`."""
        return grad_match_by_batch(gradients, context.k, batch_size=self.batch_size, lam=self.lam, rng=context.rng)
