"""Wrong labels, as many as asked for: what pruning may be good at finding."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from advprune_core.datasets.arrays import DataError
from advprune_core.datasets.splits import Dataset


def flip_labels(labels: NDArray[np.int64], share: float, *, classes: int, seed: int) -> NDArray[np.int64]:
    """Labels of which ``floor(share * n + 1/2)``, chosen at random, are another class: symmetric noise.

    Parameters
    ----------
    labels : array of int64, shape (n,)
    share : float
        In [0, 1).
    classes : int
        At least 2; every wrong class is as likely.
    seed : int
        With a larger share and the same seed, the images with wrong labels are more, and the same among them.
    """
    rng = np.random.default_rng(seed)
    order, shift = rng.permutation(len(labels)), rng.integers(1, classes, len(labels))
    chosen = order[: int(np.floor(share * len(labels) + 0.5))]
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + shift[chosen]) % classes
    return noisy


def with_label_noise(dataset: Dataset, share: float, *, seed: int = 0) -> Dataset:
    """A data set with wrong labels in its training split; validation and test images keep theirs.

    Raises
    ------
    DataError
        There is but one class.
    """
    if dataset.classes < 2:
        raise DataError("label_noise gives images the label of another class, and there is but one")
    true = dataset.train.labels
    labels = flip_labels(true.numpy(), share, classes=dataset.classes, seed=seed)
    digest = hashlib.sha256(f"{dataset.train_hash} labels".encode())
    digest.update(labels.data)
    return replace(
        dataset,
        train=replace(dataset.train, labels=torch.from_numpy(labels)),
        true_labels=true,
        train_hash=digest.hexdigest()[:16],
    )
