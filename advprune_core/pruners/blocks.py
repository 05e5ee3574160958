"""Matching in random blocks: seconds grow with the number of images, not with its square.

Alone, every block would miss its own gradient by as large a share, and those misses point the same
way. So what the blocks before have left is added to what the next one has to match: a miss is made
up for as soon as there are images for it, and what remains at the end is about that of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advprune_core.datasets.splits import largest_remainder
from advprune_core.pruners.gradients import LastLayerGradients
from advprune_core.pruners.omp import Pursuit

#: (rows of a block, how many to pick, gradient that is left of the blocks before) to picks among the rows.
Pursue = Callable[[NDArray[np.int64], int, Tensor | None], Pursuit]


def in_blocks(gradients: LastLayerGradients, rows: NDArray[np.int64], k: int, *, size: int, pursue: Pursue) -> Pursuit:
    """Pick k of some images block by block, each block for itself and for what the ones before have left.

    Parameters
    ----------
    gradients : LastLayerGradients
        Of n images.
    rows : array of int64, shape (m,)
        The images that are picked from, in a random order.
    k : int
        Images to pick, 1 to m.
    size : int
        Images of a block, about: see `blocks`.
    pursue : callable
        Picks of one block.
    """
    device, left, found = gradients.errors[0].device, None, list[Pursuit]()
    for own, quota in blocks(rows, k, size):
        one = pursue(own, quota, left)
        found.append(one)
        if len(own) < len(rows):
            total = gradients.total(torch.from_numpy(own).to(device))
            picks, weights = torch.from_numpy(one.indices).to(device), torch.from_numpy(one.weights).to(total)
            missed = total - gradients.combination(picks, weights)
            left = missed if left is None else left + missed
    return joined(found)


def blocks(rows: NDArray[np.int64], k: int, size: int) -> list[tuple[NDArray[np.int64], int]]:
    """Cut rows into blocks of about `size`, each with its share of k, at least 1; at size 0 they are one block."""
    count = max(1, min(round(len(rows) / size), k)) if size else 1
    parts = np.array_split(rows, count)
    quotas = largest_remainder(k, np.array([len(part) for part in parts]))
    return [(part, int(quota)) for part, quota in zip(parts, quotas, strict=True)]


def in_batches(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut rows into batches of about `size`, at least one."""
    return np.array_split(rows, max(1, round(len(rows) / size)))


def joined(parts: Iterable[Pursuit]) -> Pursuit:
    """All picks of some pursuits, one after the other."""
    found = list(parts)
    indices, weights = (np.concatenate([getattr(p, name) for p in found]) for name in ("indices", "weights"))
    return Pursuit(indices, weights, sum(p.n_filled for p in found))
