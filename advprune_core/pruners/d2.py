"""D2: difficult images that are not neighbours of one another."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.coverage import FeaturePruner
from advprune_core.pruners.scores import el2n
from advprune_core.pruners.selection import Selection

_ROWS = 1024


def nearest(features: Tensor, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances to, and positions of, the `count` nearest other points: two arrays of shape (n, count).

    Distances are in units of their mean, so that settings do not depend on the network's scale.
    """
    found = []
    for rows in torch.arange(len(features), device=features.device).split(_ROWS):
        between = torch.cdist(features[rows], features)
        between[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        found.append(between.topk(count, largest=False))
    distance, neighbour = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
    mean = float(distance.mean())
    return np.asarray(distance / mean if mean > 0 else distance, np.float64), np.asarray(neighbour)


def d2(
    scores: NDArray[np.float64], features: Tensor, k: int, *, neighbours: int = 5, gamma: float = 1.0
) -> NDArray[np.int64]:
    """Pick k points of high score whose neighbours were not picked before.

    Each score first gets those of its nearest neighbours, weighted by ``exp(-d)``; then the highest
    is picked, again and again, and takes ``exp(-gamma d)`` times its own from those of its neighbours.
    Once every value left is used up (at most 0), the highest scores left follow: how far below 0 a
    value was taken says how difficult its neighbours were, so going on would keep the easy ones.

    Parameters
    ----------
    scores : array, shape (n,), not negative
        Difficulty.
    features : Tensor, shape (n, d)
    k : int
    neighbours : int
        At most n - 1.
    gamma : float
        Smaller values keep picks further apart.

    Returns
    -------
    array of int64, shape (k,)
        In the order of the picks; equal scores are decided by position.

    References
    ----------
    Maharana et al., D2 Pruning: Message Passing for Balancing Diversity and Difficulty, ICLR 2024
    (2310.07931), sec. 3; the weights are those of their public code, the unit of distance and the end
    of the message passing are ours.
    """
    count = min(neighbours, len(scores) - 1)
    if count == 0:
        return np.arange(k)
    distance, neighbour = nearest(features, count)
    values = scores + (np.exp(-distance) * scores[neighbour]).sum(1)
    picks: list[int] = []
    while len(picks) < k and values.max() > 0:
        pick = int(values.argmax())
        picks.append(pick)
        values[neighbour[pick]] -= np.exp(-gamma * distance[pick]) * values[pick]
        values[pick] = -np.inf
    left = np.setdiff1d(np.arange(len(scores)), picks)
    hardest = left[np.argsort(-scores[left], kind="stable")]
    return np.concatenate([np.array(picks, np.int64), hardest[: k - len(picks)]])


@PRUNERS.register
class D2(FeaturePruner):
    """Difficult images, spread over feature space by message passing (Maharana et al. 2024); 1 an image.

    Difficulty is EL2N, of the same outputs as the features. Settings: neighbours in the graph, and
    `gamma`, how much a pick takes from its neighbours (small: more variety). Where so much is kept
    that every neighbourhood is used up, the rest is kept by difficulty alone. Cost per selection: 1
    forward-equivalent an image on clean outputs, 2k + 1 on adversarial ones.
    """

    name = "d2"
    version = 2
    neighbours: Annotated[int, Field(ge=1, le=100_000, description="nearest neighbours of each image")] = 5
    gamma: Annotated[
        float, Field(ge=0, le=1_000_000, description="how fast a pick's effect on its neighbours falls off")
    ] = 1.0

    def choose(self, context: Context) -> Selection:
        order, branch = self.shuffled(context)
        y = torch.from_numpy(context.labels[order]).to(branch.logits.device)
        scores = np.asarray(el2n(branch, y).cpu().numpy(), np.float64)
        picks = d2(scores, branch.known_features(), context.k, neighbours=self.neighbours, gamma=self.gamma)
        return Selection(order[picks])
