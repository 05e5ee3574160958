"""Batches of one size, whatever is left of an epoch being carried into the next.

A small last batch is not only noisy: with a high learning rate it costs accuracy. So the queue
holds (image id, epoch it was drawn in, weight), batches are cut from it, and the rest waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from advprune_core.base.randomness import generator, stream
from advprune_core.datasets import augmentation
from advprune_core.datasets.splits import Split
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.selection import Selection


def epoch_order(seed: int, epoch: int, n: int, selection: Selection, share: float = 1.0) -> NDArray[np.int64]:
    """Order of an epoch: the seed's permutation of all `n` images, filtered by the selection.

    Runs of one seed thus meet the images they have in common in the same order. Of a last,
    fractional epoch the first `share` is taken.
    """
    kept = np.zeros(n, dtype=bool)
    kept[selection.indices] = True
    order = generator(seed, "order", epoch).permutation(n)
    order = order[kept[order]]
    return order[: round(share * len(order))]


def batch_of(
    split: Split,
    ids: NDArray[np.int64],
    epochs: NDArray[np.int64],
    weights: NDArray[np.float32],
    *,
    seed: int,
    crop_padding: int,
    flip: bool,
) -> Batch:
    """Images of a training split, on its device, cropped and flipped as an epoch of a run's seed has them."""
    rows, drawn, importance = (
        torch.from_numpy(array).to(split.images.device, non_blocking=True) for array in (ids, epochs, weights)
    )
    x, crops = split.pixels(rows), None
    if crop_padding or flip:
        key = stream(seed, "augmentation")
        crops = augmentation.sample(key, rows, drawn, padding=crop_padding, flip=flip)
        x = augmentation.apply(augmentation.pad(x, crop_padding), crops)
    return Batch(x, split.labels[rows], ids=rows, epochs=drawn, weights=importance, crops=crops)


class BatchQueue:
    """Cuts batches of `size` distinct images; keeps the remnant."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.ids = np.empty(0, np.int64)
        self.epochs = np.empty(0, np.int64)
        self.weights = np.empty(0, np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: NDArray[np.int64], epoch: int, selection: Selection) -> None:
        """Append an epoch's images with their weights."""
        rows = np.searchsorted(selection.indices, ids)
        self.ids = np.concatenate([self.ids, ids])
        self.epochs = np.concatenate([self.epochs, np.full(len(ids), epoch, np.int64)])
        self.weights = np.concatenate([self.weights, selection.weights[rows]])

    def batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (ids, epochs, weights) as long as there are `size` distinct images.

        An image that waits from the last epoch and comes again in this one is not put twice into
        one batch: the second visit moves to the front of what follows.
        """
        while len(self.ids) >= self.size:
            rows = np.arange(self.size)
            if len(np.unique(self.ids[rows])) < self.size:
                rows = np.sort(np.unique(self.ids, return_index=True)[1])[: self.size]
                if len(rows) < self.size:
                    return
            taken = self.ids[rows], self.epochs[rows], self.weights[rows]
            left = np.ones(len(self.ids), dtype=bool)
            left[rows] = False
            self.ids, self.epochs, self.weights = (
                self.ids[left],
                self.epochs[left],
                self.weights[left],
            )
            yield taken

    def state(self) -> dict[str, Any]:
        """The remnant, as tensors."""
        return {name: torch.from_numpy(getattr(self, name)) for name in ("ids", "epochs", "weights")}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        for name in ("ids", "epochs", "weights"):
            setattr(self, name, state[name].numpy())
