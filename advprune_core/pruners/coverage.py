"""Coverage of feature space: herding, k-center, moderate distances."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.branches import Branch
from advprune_core.pruners.keep_rules import KeepRule, Middle, ScorePruner, Scores
from advprune_core.pruners.outputs import OutputPruner
from advprune_core.pruners.selection import Selection


def herding(features: Tensor, k: int) -> NDArray[np.int64]:
    """Positions of k points whose running mean stays nearest to the mean of all.

    Parameters
    ----------
    features : Tensor, shape (n, d)
    k : int

    Returns
    -------
    array of int64, shape (k,)
        In the order of the picks; equal distances are decided by position.

    References
    ----------
    Welling, Herding Dynamical Weights to Learn, ICML 2009; Chen et al. 2010 (1203.3472), eq. (8).
    """
    mean, total = features.mean(0), torch.zeros_like(features[0])
    squares = features.square().sum(1)
    picks: list[int] = []
    for count in range(1, k + 1):
        distance = squares - 2 * features @ (count * mean - total)
        distance[picks] = torch.inf
        picks.append(int(distance.argmin()))
        total = total + features[picks[-1]]
    return np.array(picks, np.int64)


def k_center(features: Tensor, k: int) -> NDArray[np.int64]:
    """Positions of k points, the first one and then always the one farthest from those before.

    Parameters and result as for `herding`.

    References
    ----------
    Sener and Savarese, Active Learning for CNNs: A Core-set Approach, ICLR 2018 (1708.00489), alg. 1.
    """
    nearest = torch.full_like(features[:, 0], torch.inf)
    picks = [0]
    while len(picks) < k:
        nearest = torch.minimum(nearest, (features - features[picks[-1]]).square().sum(1))
        # Points at distance 0 of one another are taken once each.
        nearest[picks[-1]] = -1
        picks.append(int(nearest.argmax()))
    return np.array(picks, np.int64)


def median_distance(features: Tensor, y: Tensor) -> Tensor:
    """Distance of each point to the coordinate-wise median of its class, shape (n,)."""
    result = torch.empty_like(features[:, 0])
    for label in y.unique():
        own = features[y == label]
        middle = torch.from_numpy(np.median(own.cpu().numpy(), axis=0)).to(own)
        result[y == label] = (own - middle).norm(dim=1)
    return result


class FeaturePruner(OutputPruner):
    """A pruner that looks at penultimate features."""

    steps: Annotated[
        int | None,
        Field(ge=0, le=10_000, description="steps of an attack before; 0: clean images; none: as training has them"),
    ] = 0

    def shuffled(self, context: Context) -> tuple[NDArray[np.int64], Branch]:
        """A random order of the training images, and their outputs in it."""
        order = context.rng.permutation(context.n)
        branch = self.branch(context)
        return order, branch[torch.from_numpy(order).to(branch.logits.device)]


@PRUNERS.register
class Herding(FeaturePruner):
    """Images whose mean feature is that of their class (Welling 2009); 1 an image.

    Keeps what is typical. Cost per selection: 1 forward-equivalent an image on clean features,
    2k + 1 on adversarial ones.
    """

    name = "herding"

    def check(self, context: Context) -> None:
        context.quotas()

    def choose(self, context: Context) -> Selection:
        features, order = self.branch(context).known_features(), context.rng.permutation(context.n)
        kept = [
            members[herding(features[torch.from_numpy(members).to(features.device)], quota)]
            for members, quota in context.per_class(order)
        ]
        return Selection(np.concatenate(kept))


@PRUNERS.register
class KCenter(FeaturePruner):
    """Images that leave none far from a kept one in feature space (Sener and Savarese 2018); 1 an image.

    Keeps variety, outliers first, whatever the class; a random image begins. Cost per selection: 1
    forward-equivalent an image on clean features, 2k + 1 on adversarial ones.
    """

    name = "k_center"

    def choose(self, context: Context) -> Selection:
        order, branch = self.shuffled(context)
        return Selection(order[k_center(branch.known_features(), context.k)])


@PRUNERS.register
class Moderate(FeaturePruner, ScorePruner):
    """Images at middle distances from their class's median feature (Xia et al. 2023); 1 an image.

    Neither the most typical nor the outliers: meant to do well whatever is wrong with the data. Cost
    per selection: 1 forward-equivalent an image on clean features, 2k + 1 on adversarial ones.

    References
    ----------
    Xia et al., Moderate Coreset, ICLR 2023: the middle ranks of the distances over all classes.
    """

    name = "moderate"

    def rule(self) -> KeepRule:
        return Middle(center="median")

    def scores(self, context: Context) -> Scores:
        features = self.branch(context).known_features()
        labels = context.dataset.train.labels.to(features.device)
        return np.asarray(median_distance(features, labels).cpu().numpy(), np.float64)
