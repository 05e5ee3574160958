"""CRAIG: the images whose gradients are nearest to those of all the others, each with its cluster's size."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from numpy.typing import NDArray

from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.blocks import joined
from advprune_core.pruners.gradients import LastLayerGradients
from advprune_core.pruners.omp import Pursuit
from advprune_core.pruners.weights import WeightingPruner


def distances(gradients: LastLayerGradients) -> NDArray[np.float64]:
    """Euclidean distances between all gradients, shape (n, n)."""
    squares = gradients.squared_norms()
    between = squares[:, None] + squares[None] - 2 * gradients.inner(gradients)
    return np.asarray(between.clamp_min(0).sqrt().fill_diagonal_(0).cpu().numpy(), np.float64)


def facility_location(distance: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Greedily pick k centres that keep the sum of distances to the nearest centre small.

    Parameters
    ----------
    distance : array, shape (n, n)
    k : int

    Returns
    -------
    centres : array of int64, shape (k,)
        In the order of the picks; equal gains are decided by position.
    sizes : array of int64, shape (k,)
        Points nearest to each, itself included.

    References
    ----------
    Mirzasoleiman et al., Coresets for Data-efficient Training, ICML 2020 (1906.01827), alg. 1; the
    picks are Minoux's accelerated greedy ones, the same as plain greedy.
    """
    nearest = np.full(len(distance), distance.max())
    # Gains only fall, so an old one that is beaten by a new one need not be looked at.
    heap = [(-gain, j) for j, gain in enumerate(nearest.sum() - distance.sum(0))]
    heapq.heapify(heap)
    centres: list[int] = []
    while len(centres) < k:
        _, j = heapq.heappop(heap)
        gain = float(np.maximum(nearest - distance[j], 0).sum())
        if heap and (-gain, j) > heap[0]:
            heapq.heappush(heap, (-gain, j))
            continue
        centres.append(j)
        nearest = np.minimum(nearest, distance[j])
    found = np.array(centres, np.int64)
    owner = distance[found].argmin(0)
    owner[found] = np.arange(k)  # of two equal points each is its own
    return found, np.bincount(owner, minlength=k)


@PRUNERS.register
class Craig(WeightingPruner):
    """Centres of gradient clusters, weighted by size (Mirzasoleiman et al. 2020); 2k + 1 an image.

    Covers all kinds of images, rare ones with little weight; on the last-layer gradients of the run's
    objective it is Adv-CRAIG (Dolatabadi et al. 2022, 2112.00378). Per class, because a distance
    matrix of everything would be n x n. Weighted by their sizes, clusters leave a step about as long as
    on all data (`step_ratio` in the record), so that `weights` `matched` changes little. Cost per
    selection: 2k + 1 forward-equivalents an image (TRADES and MART 2k + 2), and memory and seconds that
    grow with the square of a class.
    """

    name = "craig"

    def check(self, context: Context) -> None:
        context.quotas()

    def cover(self, gradients: LastLayerGradients, context: Context) -> Pursuit:
        rng, device, parts = context.rng, gradients.errors[0].device, []
        for members, quota in context.per_class():
            shuffled = rng.permutation(members)
            own = gradients[torch.from_numpy(shuffled).to(device)]
            centres, sizes = facility_location(distances(own), quota)
            parts.append(Pursuit(shuffled[centres], sizes.astype(np.float64)))
        return joined(parts)
