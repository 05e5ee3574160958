"""Your own images: an .npz file, or a folder of class folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from advprune_core.base.files import digest_of, own_path
from advprune_core.base.values import some
from advprune_core.datasets.arrays import Array, DataError, Layout
from advprune_core.datasets.base import DATASETS, DatasetSource
from advprune_core.datasets.class_folders import Skipped, class_files
from advprune_core.datasets.npz import four_arrays, read_npz

#: How images that are not square become so.
Fit = Literal["crop", "pad"]


@DATASETS.register
class Npz(DatasetSource):
    """Your own arrays: an .npz with x_train, y_train, x_test, y_test (uint8 or float in [0, 1])."""

    name = "npz"
    path: Annotated[str, Field(description="the .npz file")]
    sha256: Annotated[str | None, Field(description="checksum the file must have")] = None
    layout: Annotated[Layout | None, Field(description="NHWC or NCHW, where the shape does not say it")] = None

    def stamp(self) -> tuple[int, ...]:
        """Time and size of the file."""
        path = own_path(self.path)
        return _stamp(path) if os.path.isfile(path) else ()

    @property
    def axes(self) -> Layout | None:
        return self.layout

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        path = own_path(self.path)

        if self.sha256 is not None and os.path.isfile(path):
            found = digest_of(path)
            if found != self.sha256.lower():
                raise DataError(f"{path} has the SHA-256 {found}, not {self.sha256}: a wrong or damaged file")
        return read_npz(path, wanted=four_arrays(path))


@DATASETS.register
class ImageFolder(DatasetSource):
    """Your own images: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png, of one size, or brought to `size`.

    Brought to a size, an image is scaled (bicubic) until its shorter side fits, and its middle cut out (crop), or
    until its longer side fits, and black put around it (pad). Any mode becomes 8-bit RGB; 16-bit grey is scaled to
    it, with a warning. Hidden files and folders, and files that are no images, are left out and counted.
    """

    name = "folder"
    path: Annotated[str, Field(description="the folder with train/ and test/ inside")]
    size: Annotated[
        int | None, Field(ge=4, le=4096, description="side in pixels that all images are brought to; none: as they are")
    ] = None
    fit: Annotated[Fit, Field(description="what becomes of images that are not square, with size: crop or pad")] = (
        "crop"
    )

    def stamp(self) -> tuple[int, ...]:
        """Time of the newest file or folder, and how many there are."""
        times = []
        for folder, folders, files in os.walk(own_path(self.path), followlinks=False):
            times += [_stamp(Path(folder, name))[0] for name in (*folders, *files)]
        return (max(times, default=0), len(times))

    @property
    def axes(self) -> Layout | None:
        """Channels last, as images are read."""
        return "NHWC"

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """Read every image.

        Warns
        -----
        UserWarning
            What was left out, and how many images of 16 bits were scaled.
        """
        root, skipped = own_path(self.path), Skipped()
        train, test = (class_files(root, part, skipped) for part in ("train", "test"))
        if list(train) != list(test):
            only = {"train": sorted(set(train) - set(test)), "test": sorted(set(test) - set(train))}
            differ = "; ".join(f"only {part} has {some(names)}" for part, names in only.items() if names)
            raise DataError(f"{root}: train and test must have the same class folders, but {differ}")
        skipped.warn(root)
        files = [path for part in (train, test) for paths in part.values() for path in paths]
        images = _read_all(files, self.size, self.fit)
        labels = [np.repeat(np.arange(len(part)), [len(paths) for paths in part.values()]) for part in (train, test)]
        count = len(labels[0])
        return {"x_train": images[:count], "y_train": labels[0], "x_test": images[count:], "y_test": labels[1]}


def _stamp(path: Path) -> tuple[int, int]:
    """Time and size; of a link that leads nowhere, its own."""
    try:
        found = path.stat()
    except OSError:
        found = path.lstat()
    return found.st_mtime_ns, found.st_size


def _read_all(paths: Sequence[Path], size: int | None, fit: Fit) -> Array:
    """All images as uint8 (n, H, W, 3); every one that cannot be read is found before any is refused."""
    images, bad, deep = [], [], 0
    for path in paths:
        try:
            with Image.open(path) as image:
                deep += image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
                images.append(_rgb(image) if size is None else _square(_rgb(image), size, fit))
        except Exception as error:  # whatever a damaged file makes of a decoder
            bad.append(f"{path} ({str(error).partition(chr(10))[0] or type(error).__name__})")
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} images cannot be read: {some(bad)}")
    sizes, places = np.unique([image.shape[:2] for image in images], axis=0, return_index=True)
    if len(sizes) != 1:
        first = [f"{shape[0]}x{shape[1]} as {paths[at]}" for shape, at in zip(sizes, places, strict=True)]
        raise DataError(
            f"all images must have one shape (height x width), and these have {len(sizes)}: {some(first)}; "
            "size: 32 (or another) brings them to one"
        )
    if deep:
        warnings.warn(f"{deep} of {len(paths)} images have 16 bits: scaled to 8, white being 65535", stacklevel=2)
    return np.stack(images)


def _square(pixels: Array, size: int, fit: Fit) -> Array:
    """An image brought to a square."""
    bring = ImageOps.fit if fit == "crop" else ImageOps.pad
    return np.asarray(bring(Image.fromarray(pixels), (size, size), method=Image.Resampling.BICUBIC))


def _rgb(image: Image.Image) -> Array:
    """An image as uint8 (H, W, 3); Pillow would cut 16 bits off at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image).astype(np.uint32)
        grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        kind = "32-bit" if image.mode == "I" else "float"
        raise ValueError(f"{kind} pixels, which have no fixed white: save it with 8 bits, or all as arrays (npz)")
    return np.asarray(image.convert("RGB"))
