"""Torch data sets of any kind, packed into one file of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from advprune_core.base.files import own_path, write_atomically
from advprune_core.datasets.arrays import DataError, Layout, as_array
from advprune_core.datasets.base import dataset_from_arrays


def _stack(items: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of any torch data set of (image, label) pairs, as two arrays.

    Raises
    ------
    DataError
        No pairs, images of several shapes, labels that are not one number each.
    """
    try:
        pairs = [(image, label) for image, label in (items[index] for index in range(len(items)))]
    except (TypeError, ValueError) as error:
        raise DataError(f"a data set of (image, label) pairs is needed: {error}") from None
    if not pairs:
        raise DataError("a data set without a single (image, label) pair")
    images = [_pixels(image) for image, _ in pairs]
    labels = [as_array(label, what="a label") for _, label in pairs]
    if len(shapes := {image.shape for image in images}) != 1:
        raise DataError(f"all images must have one shape; these have {sorted(shapes)}")
    if any(label.size != 1 for label in labels):
        raise DataError("each label must be one class number")
    return np.stack(images), np.array([label.item() for label in labels])


def _pixels(image: Any) -> np.ndarray:
    """An image as an array; a PIL image whose numbers are neither grey levels nor RGB (a palette's, CMYK) as RGB."""
    if isinstance(image, Image.Image) and image.mode not in ("L", "RGB", "I", "F") and image.mode[:4] != "I;16":
        image = image.convert("L" if image.mode == "1" else "RGB")
    return as_array(image, what="an image")


def pack(train: Any, test: Any, path: str | Path, *, layout: Layout | None = None) -> Path:
    """Write two torch data sets of (image, label) pairs as one ``.npz`` for `load_dataset`.

    Images may be PIL images or tensors in [0, 1], all of one size. Do not normalise them. A `layout`
    that has to be given here has to be given to the data set ``npz`` as well.

    Raises
    ------
    DataError
        What `dataset_from_arrays` refuses, before anything is written; a name that does not end in ``.npz``.
    """
    target = own_path(path)
    if target.suffix != ".npz":
        raise DataError(f"{path} must end in .npz")
    (x_train, y_train), (x_test, y_test) = _stack(train), _stack(test)
    dataset_from_arrays(x_train, y_train, x_test, y_test, layout=layout)
    write_atomically(
        target, lambda file: np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    )
    return target
