"""Data sets as tensors in [0, 1], with two validation splits taken out of the training images.

`load_dataset` gives a `Dataset` of four splits: ``train``, ``val_select`` (for pruners that look
at held-out data), ``val_stop`` (for the best checkpoint) and ``test`` (touched once, at the end).
The split's seed is fixed, so that every run, whatever its seed, has the same images to train on.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from advprune_core.base.components import Component, Registry
from advprune_core.base.files import own_path
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.arrays import (
    Array,
    DataError,
    Layout,
    check_classes_begin,
    checked_images,
    checked_labels,
    same_count,
)
from advprune_core.datasets.label_noise import with_label_noise
from advprune_core.datasets.splits import SPLIT_SEED, Dataset, Split, channel_statistics, content_hash, in_proportion

DATASETS: Registry[DatasetSource] = Registry("dataset", "advprune_core.datasets")


@DATASETS.family
class DatasetSource(Component):
    """Where a data set comes from, and how much of it is used."""

    limit: Annotated[int | None, Field(ge=1, le=1_000_000_000, description="stratified subset: training images")] = None
    test_limit: Annotated[int | None, Field(ge=1, le=1_000_000_000, description="the same for the test images")] = None
    val_select: Annotated[
        int | None,
        Field(
            ge=0, le=1_000_000_000, description="training images held out for pruners to choose by; none: up to 1,000"
        ),
    ] = None
    val_stop: Annotated[
        int | None,
        Field(ge=0, le=1_000_000_000, description="training images held out to watch training by; none: up to 1,000"),
    ] = None
    tested_on: Annotated[
        Literal["test", "val_stop"],
        Field(description="what runs are tested on: the test images, or val_stop (its labels are right), to choose by"),
    ] = "test"
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

    def __hash__(self) -> int:
        """By the settings that all sources have: those of one's own may be lists."""
        return hash((type(self), *(getattr(self, name) for name in DatasetSource.model_fields)))

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
    return own_path(chosen)


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
        Pixels outside [0, 1] or not finite, labels that do not match, a damaged file; no images to test on.
    """
    try:
        parsed = DATASETS.parse(source)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    found = _load(parsed.replace(label_noise=0.0, tested_on="test"), str(data_folder(folder)), parsed.stamp())
    if parsed.label_noise:
        found = with_label_noise(found, parsed.label_noise)
    found = found if parsed.tested_on == "test" else found.tested_on_val_stop()
    return replace(found, source=parsed.spec())


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

    Returns
    -------
    Dataset
        Where each image of its splits stands in these arrays, `Split.rows` says: what a pruner selects are positions
        in the training split, ``x_train[dataset.train.rows[selection.indices]]``.

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
    kept = slice(None) if limit is None else in_proportion(labels, limit, SPLIT_SEED)
    test_kept = slice(None) if test_limit is None else in_proportion(test_labels, test_limit, SPLIT_SEED)
    gone = np.setdiff1d(labels, labels[kept])
    if len(gone):
        warnings.warn(f"limit = {limit} leaves no image of {gone.tolist()}: classes without any", stacklevel=2)
    rows, test_rows = np.arange(len(labels))[kept], np.arange(len(test_labels))[test_kept]
    images, labels = images[kept], labels[kept]
    test_images, test_labels = test_images[test_kept], test_labels[test_kept]

    default = min(1000, len(labels) // 13)
    sizes = [default if size is None else size for size in (val_select, val_stop)]
    least = len(np.unique(labels))
    if sum(sizes) > len(labels) - least:
        raise DataError(
            f"the validation splits take {sizes[0]} + {sizes[1]} of {len(labels)} training images: {least}, one of "
            "each class, must be left to train on"
        )
    held_out = in_proportion(labels, sum(sizes), SPLIT_SEED, leave=1)
    first = in_proportion(labels[held_out], sizes[0], SPLIT_SEED + 1)
    select = held_out[first]
    stop = np.setdiff1d(held_out, select)
    train = np.setdiff1d(np.arange(len(labels)), held_out)

    def split(ids: np.ndarray) -> Split:
        return Split(*map(torch.from_numpy, (images[ids], labels[ids], rows[ids])))

    training = split(train)
    mean, std = channel_statistics(training.images)
    return Dataset(
        name=name,
        train=training,
        val_select=split(select),
        val_stop=split(stop),
        test=Split(*map(torch.from_numpy, (test_images.copy(), test_labels.copy(), test_rows))),
        classes=classes,
        mean=mean,
        std=std,
        train_hash=content_hash(images, labels, select, stop),
        test_hash=content_hash(test_images, test_labels),
    )


def _checked(x: Any, y: Any, *, part: str, layout: Layout | None) -> tuple[Array, Array]:
    images = checked_images(x, what=f"x_{part}", layout=layout)
    labels = checked_labels(y, what=f"y_{part}")
    same_count(images, labels, x_name=f"x_{part}", y_name=f"y_{part}")
    return images, labels
