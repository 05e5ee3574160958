"""Data sets as tensors in [0, 1], with two validation splits taken out of the training images.

`load_dataset` gives a `Dataset` of four splits: ``train``, ``val_select`` (for pruners that look
at held-out data), ``val_stop`` (for the best checkpoint) and ``test`` (touched once, at the end).
The split's seed is fixed, so that every run, whatever its seed, has the same images to train on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from advprune_core.base.settings import Component, ConfigError, Registry
from advprune_core.datasets.arrays import (
    Array,
    DataError,
    Layout,
    check_classes_begin,
    checked_images,
    checked_labels,
    same_count,
)

DATASETS: Registry[DatasetSource] = Registry("dataset", "advprune_core.datasets")
_SPLIT_SEED = 0
#: Pixels that are looked at at once.
_PIXELS = 2**20


@dataclass(frozen=True, eq=False)
class Split:
    """Images (uint8, or float32 in [0, 1]), shape (n, C, H, W), and labels (int64), shape (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of shape {tuple(self.images.shape[1:])}, {self.images.dtype})"

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
        return Split(self.images.to(device), self.labels.to(device))

    def take(self, ids: Tensor) -> Split:
        """Only the images `ids`."""
        return Split(self.images[ids], self.labels[ids])

    def spread(self, size: int) -> Tensor:
        """Sorted ids (int64) of `size` images with the class proportions of all, always the same."""
        return torch.from_numpy(in_proportion(self.labels.cpu().numpy(), size, _SPLIT_SEED))


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

    def __repr__(self) -> str:
        names = ("train", "val_select", "val_stop", "test")
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in names)
        return f"Dataset({self.name!r}, {self.classes} classes, images of shape {self.image_shape}: {counts})"

    def wrong_labels(self) -> np.ndarray:
        """Which training images have a label that is known to be wrong: bool, shape (n,)."""
        true, given = self.true_labels, self.train.labels
        return np.zeros(len(given), bool) if true is None else (true.cpu() != given.cpu()).numpy()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return int(channels), int(height), int(width)


@DATASETS.family
class DatasetSource(Component):
    """Where a data set comes from, and how much of it is used."""

    limit: Annotated[int | None, Field(ge=1, le=1_000_000_000, description="stratified subset: training images")] = None
    test_limit: Annotated[int | None, Field(ge=1, le=1_000_000_000, description="the same for the test images")] = None
    val_select: Annotated[int | None, Field(ge=0, le=1_000_000_000, description="images of val_select")] = None
    val_stop: Annotated[int | None, Field(ge=0, le=1_000_000_000, description="images of val_stop")] = None
    label_noise: Annotated[
        float, Field(ge=0, lt=1, description="share of the training images that get a wrong label, at random")
    ] = 0.0

    #: What sets the validation images apart from the test images, where that is known.
    held_out: ClassVar[str] = ""
    #: Radius of the threat model where none is given, by norm.
    default_eps: ClassVar[dict[str, float]] = {"linf": 8 / 255, "l2": 128 / 255}
    #: Training images, and pixels of a side, as published; 0: known only when they are loaded.
    images: ClassVar[int] = 0
    side: ClassVar[int] = 0

    def stamp(self) -> tuple[int, ...]:
        """What changes when the user's own files do."""
        return ()

    @property
    def axes(self) -> Layout | None:
        """The order of the images' axes, where the source knows it."""
        return None

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """Return ``x_train, y_train, x_test, y_test``; downloads go to `folder`."""
        raise NotImplementedError


def data_folder(folder: str | Path | None = None) -> Path:
    """The folder of downloaded data: the argument, else ``$ADVPRUNE_DATA``, else a user cache."""
    chosen = folder or os.environ.get("ADVPRUNE_DATA") or Path.home() / ".cache" / "advprune"
    return Path(chosen).expanduser()


def load_dataset(
    source: str | dict[str, Any] | DatasetSource = "digits", *, folder: str | Path | None = None
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    source : str, dict or DatasetSource
        ``"digits"``, ``{"cifar10": {"limit": 5000}}``, ``{"npz": {"path": "mine.npz"}}``, ...
    folder : path, optional
        Where downloads are kept; default ``$ADVPRUNE_DATA``, else a cache in the home folder.

    Raises
    ------
    DataError
        Pixels outside [0, 1] or not finite, labels that do not match, a damaged file.
    """
    try:
        parsed = DATASETS.parse(source)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    clean = _load(parsed.replace(label_noise=0.0), str(data_folder(folder)), parsed.stamp())
    if not parsed.label_noise:
        return clean
    from advprune_core.datasets.label_noise import with_label_noise  # which needs to know what a data set is

    return with_label_noise(clean, parsed.label_noise)


@lru_cache(maxsize=2)
def _load(source: DatasetSource, folder: str, stamp: tuple[int, ...]) -> Dataset:
    arrays = source.arrays(Path(folder))
    return dataset_from_arrays(
        arrays["x_train"],
        arrays["y_train"],
        arrays["x_test"],
        arrays["y_test"],
        name=source.name,
        layout=source.axes,
        limit=source.limit,
        test_limit=source.test_limit,
        val_select=source.val_select,
        val_stop=source.val_stop,
    )


def dataset_from_arrays(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    *,
    name: str = "own",
    layout: Layout | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    val_select: int | None = None,
    val_stop: int | None = None,
) -> Dataset:
    """Check arrays and split them.

    Parameters
    ----------
    x_train, x_test : array of uint8 in 0..255 or float in [0, 1]; NHW, NHWC or NCHW
        What leaves [0, 1] by rounding, less than 1e-6, is clamped.
    y_train, y_test : array of whole numbers, shape (n,); classes are 0 .. max
    layout : "NHWC" or "NCHW", optional
        Needed where the shape does not say it: channels are else the only side of length 1, 3 or 4.
    limit, test_limit : int, optional
        Stratified subsets.
    val_select, val_stop : int, optional
        Images taken out of the training set for each validation split; by default
        ``min(1000, n // 13)`` each (100 of the 1,300 digits).

    Raises
    ------
    DataError
        See `load_dataset`.
    """
    for option, value, least in (
        ("limit", limit, 1),
        ("test_limit", test_limit, 1),
        ("val_select", val_select, 0),
        ("val_stop", val_stop, 0),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least):
            raise DataError(f"{option} must be a whole number, at least {least}, or None; not {value!r}")
    images, labels = _checked(x_train, y_train, part="train", layout=layout)
    test_images, test_labels = _checked(x_test, y_test, part="test", layout=layout)
    if images.shape[1:] != test_images.shape[1:]:
        raise DataError(f"x_train has images of shape {images.shape[1:]}, x_test of {test_images.shape[1:]}")
    check_classes_begin(labels, what="y_train")
    classes = int(labels.max()) + 1
    if int(test_labels.max()) >= classes:
        raise DataError(f"y_test has the label {int(test_labels.max())}, but y_train has only 0..{classes - 1}")
    kept = slice(None) if limit is None else in_proportion(labels, limit, _SPLIT_SEED)
    test_kept = slice(None) if test_limit is None else in_proportion(test_labels, test_limit, _SPLIT_SEED)
    images, labels = images[kept], labels[kept]
    test_images, test_labels = test_images[test_kept], test_labels[test_kept]

    default = min(1000, len(labels) // 13)
    sizes = [default if size is None else size for size in (val_select, val_stop)]
    if sum(sizes) >= len(labels):
        raise DataError(
            f"the validation splits take {sizes[0]} + {sizes[1]} of {len(labels)} training images; "
            "nothing is left to train on"
        )
    held_out = in_proportion(labels, sum(sizes), _SPLIT_SEED)
    first = in_proportion(labels[held_out], sizes[0], _SPLIT_SEED + 1)
    select = held_out[first]
    stop = np.setdiff1d(held_out, select)
    train = np.setdiff1d(np.arange(len(labels)), held_out)

    def split(ids: np.ndarray) -> Split:
        return Split(torch.from_numpy(images[ids]), torch.from_numpy(labels[ids]))

    training = split(train)
    mean, std = channel_statistics(training.images)
    return Dataset(
        name=name,
        train=training,
        val_select=split(select),
        val_stop=split(stop),
        test=Split(torch.from_numpy(test_images), torch.from_numpy(test_labels)),
        classes=classes,
        mean=mean,
        std=std,
        train_hash=_hash(images, labels, select, stop),
        test_hash=_hash(test_images, test_labels),
    )


def largest_remainder(total: int, counts: np.ndarray) -> np.ndarray:
    """Share `total` out in proportion to `counts`, by largest remainder (ties: first class)."""
    quotas, remainders = np.divmod(counts.astype(np.int64) * total, max(int(counts.sum()), 1))
    order = np.argsort(-remainders, kind="stable")
    quotas[order[: total - int(quotas.sum())]] += 1
    return quotas


def in_proportion(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Sorted indices of a random subset with the class proportions of `labels`."""
    if size >= len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    quotas = largest_remainder(size, np.bincount(labels))
    chosen = [rng.choice(np.flatnonzero(labels == label), quota, replace=False) for label, quota in enumerate(quotas)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _checked(x: Any, y: Any, *, part: str, layout: Layout | None) -> tuple[Array, Array]:
    images = checked_images(x, what=f"x_{part}", layout=layout)
    labels = checked_labels(y, what=f"y_{part}")
    same_count(images, labels, x_name=f"x_{part}", y_name=f"y_{part}")
    return images, labels


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


def _hash(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
