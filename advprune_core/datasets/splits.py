"""What a data set is: images and labels as tensors, in splits."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advprune_core.datasets.arrays import DataError

#: Of what is drawn once for all runs.
SPLIT_SEED = 0
#: Pixels that are looked at at once.
_PIXELS = 2**20


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, and where they come from.

    Attributes
    ----------
    images : Tensor of uint8, or of float32 in [0, 1], shape (n, C, H, W)
    labels : Tensor of int64, shape (n,)
    rows : Tensor of int64, shape (n,)
        Position of each image in the arrays that the data set was made from (of training and validation splits:
        `x_train` and `y_train`), or in what its source reads; 0 .. n - 1 unless given. No hash depends on them.

    Raises
    ------
    DataError
        What are no tensors of these shapes, or not as many images as labels. Values are not looked at.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        # Of types and shapes alone: nothing is computed, and no device is waited for.
        images, labels = self.images, self.labels
        for name, value in (("images", images), ("labels", labels)):
            if not isinstance(value, Tensor):
                raise DataError(f"{name} of a split must be a tensor, not {type(value).__name__}")
        if images.dim() != 4:
            raise DataError(f"images must have the shape (n, C, H, W), not {tuple(images.shape)}")
        if labels.is_floating_point() or labels.is_complex():
            kind = str(labels.dtype).removeprefix("torch.")
            raise DataError(f"labels must be a tensor of whole numbers (int64), not one of {kind}")
        if labels.shape != images.shape[:1]:
            count = len(images)
            raise DataError(f"labels have shape {tuple(labels.shape)}, for {count} images it must be ({count},)")
        if len(self.rows) == 0 < len(labels):
            object.__setattr__(self, "rows", torch.arange(len(labels), device=labels.device))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of shape {tuple(self.images.shape[1:])}, {self.images.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as arrays, which a buffer outside the pickle may hold: processes then share the images."""
        arrays = tuple(values.cpu().numpy() for values in (self.images, self.labels, self.rows))
        return _unpickled, (*arrays, str(self.images.device))

    def pixels(self, ids: Tensor | slice) -> Tensor:
        """Images `ids` as float32 in [0, 1]."""
        images = self.images[ids]
        return images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images

    def batches(self, size: int, device: torch.device | str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Places (B,), images (B, C, H, W) and labels (B,) of `size` images at a time, in order, on a device."""
        for begin in range(0, len(self), size):
            rows = slice(begin, min(begin + size, len(self)))
            places = torch.arange(rows.start, rows.stop, device=device)
            yield places, self.pixels(rows).to(device, torch.float32), self.labels[rows].to(device)

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device."""
        return Split(self.images.to(device), self.labels.to(device), self.rows.to(device))

    def take(self, ids: Tensor) -> Split:
        """Only the images `ids`."""
        return Split(self.images[ids], self.labels[ids], self.rows[ids])

    def spread(self, size: int, *, among: np.ndarray | None = None) -> Tensor:
        """Sorted ids (int64) of `size` images with the class proportions of all, or those `among`; always the same."""
        labels = self.labels.cpu().numpy()
        if among is None:
            return torch.from_numpy(in_proportion(labels, size, SPLIT_SEED))
        return torch.from_numpy(among[in_proportion(labels[among], size, SPLIT_SEED)])


def _unpickled(images: np.ndarray, labels: np.ndarray, rows: np.ndarray, device: str) -> Split:
    with warnings.catch_warnings():  # what is shared cannot be written to, and no one does
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Split(*map(torch.from_numpy, (images, labels, rows))).to(device)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set with its splits.

    Attributes
    ----------
    train, val_select, val_stop, test : Split
    classes : int
        Number of classes; labels are 0 .. classes - 1.
    mean, std : tuple of float
        Per-channel statistics of the training images, for the normalisation inside a model.
    train_hash, test_hash : str
        Content hashes: of everything that can determine the weights, and of the test split.
    true_labels : Tensor of int64, shape (n,), or None
        Of the training images, where some of their labels are known to be wrong.
    source : str, dict or None
        What `load_dataset` made it of, a name or ``{name: settings}``; None of arrays.
    """

    name: str
    train: Split
    val_select: Split
    val_stop: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_hash: str
    test_hash: str
    true_labels: Tensor | None = None
    source: str | dict[str, Any] | None = None

    def __repr__(self) -> str:
        names = ("train", "val_select", "val_stop", "test")
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in names)
        return f"Dataset({self.name!r}, {self.classes} classes, images of shape {self.image_shape}: {counts})"

    def wrong_labels(self) -> np.ndarray:
        """Which training images have a label that is known to be wrong: bool, shape (n,)."""
        true, given = self.true_labels, self.train.labels
        return np.zeros(len(given), bool) if true is None else (true.cpu() != given.cpu()).numpy()

    def tested_on_val_stop(self) -> Dataset:
        """The same with val_stop in the place of the test images, which nobody may choose by.

        Raises
        ------
        DataError
            There are no images in val_stop.
        """
        if not len(self.val_stop):
            raise DataError("tested_on = 'val_stop', but val_stop has no images; give it some (val_stop = 100)")
        images, labels = self.val_stop.images.numpy(), self.val_stop.labels.numpy()
        return replace(self, test=self.val_stop, test_hash=content_hash(images, labels))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return int(channels), int(height), int(width)


def largest_remainder(total: int, counts: np.ndarray) -> np.ndarray:
    """Share `total` out in proportion to `counts`, by largest remainder (ties: first class)."""
    quotas, remainders = np.divmod(counts.astype(np.int64) * total, max(int(counts.sum()), 1))
    order = np.argsort(-remainders, kind="stable")
    quotas[order[: total - int(quotas.sum())]] += 1
    return quotas


def in_proportion(labels: np.ndarray, size: int, seed: int, *, leave: int = 0) -> np.ndarray:
    """Sorted indices of a random subset with the class proportions of `labels`.

    So many of each class it must `leave`; what it may not take of rare ones it takes of those with the most images.
    """
    if size >= len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    counts = np.bincount(labels)
    quotas = np.minimum(largest_remainder(size, counts), np.maximum(counts - leave, 0))
    while quotas.sum() < size:
        quotas[np.argmax(counts - quotas)] += 1
    chosen = [rng.choice(np.flatnonzero(labels == label), quota, replace=False) for label, quota in enumerate(quotas)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images (n, C, H, W), in the unit of [0, 1].

    In float64, of some images at a time: a copy of all would be eight times the size of uint8 pixels.
    """
    white = 255 if images.dtype == torch.uint8 else 1
    count = images[:, 0].numel()

    def total(of: Callable[[Tensor], Tensor]) -> Tensor:
        chunks = images.split(max(1, _PIXELS // images.shape[1:].numel()))
        parts = [of(chunk.transpose(0, 1).flatten(1).to(torch.float64) / white).sum(1) for chunk in chunks]
        return torch.stack(parts).sum(0)

    mean = total(lambda values: values) / count
    std = (total(lambda values: (values - mean[:, None]).square()) / (count - 1)).sqrt().clamp_min(1e-3)
    return tuple(mean.tolist()), tuple(std.tolist())


def content_hash(*arrays: np.ndarray) -> str:
    """16 hexadecimal digits of the SHA-256 of arrays, their types and shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
