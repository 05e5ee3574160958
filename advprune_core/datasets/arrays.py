"""Arrays that people give as images and labels: checked, and brought into one form.

Nothing is guessed that could be meant in two ways, and every refusal says what would mend it.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from advprune_core.base.settings import ConfigError

Array = NDArray[Any]
#: Order of the axes of a batch of images, with channels last or first.
Layout = Literal["NHWC", "NCHW"]

#: Labels are below it: a larger one is an id or a damaged number, and would cost memory for every class.
MAX_CLASSES = 65_536
#: Channels that images are known by where no layout is given: grey, RGB, RGBA.
_CHANNELS = (1, 3, 4)
#: What leaves [0, 1] by float rounding, and is clamped.
ROUNDING = 1e-6


class DataError(ConfigError):
    """Images, labels or data files that cannot be used; the message says which and why."""


def as_array(value: Any, *, what: str) -> Array:
    """`value` as an array: what numpy takes, or a tensor of any device, with or without gradients.

    Raises
    ------
    DataError
        What has no single shape, or no numbers that numpy knows.
    """
    try:
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            value = value.float().numpy() if value.is_floating_point() else value.numpy()
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{what} is no array: {reason}") from None


def checked_images(x: Any, *, what: str, layout: Layout | None = None) -> Array:
    """Images as (n, C, H, W), uint8 or float32 in [0, 1].

    Parameters
    ----------
    x : array of uint8 in 0..255, or of float in [0, 1]; NHW, NHWC or NCHW
    what : str
        Its name in messages.
    layout : "NHWC" or "NCHW", optional
        Order of the axes, where there are four; else channels are the only side of length 1, 3 or 4.

    Raises
    ------
    DataError
        Another number of axes, no pixels, two possible layouts; pixels of another type, outside
        [0, 1] by more than rounding, not finite, or of another scale.
    """
    x = as_array(x, what=what)
    if layout not in (None, *get_args(Layout)):
        raise DataError(f"layout must be 'NHWC' or 'NCHW', not {layout!r}")
    if x.ndim not in (3, 4):
        raise DataError(f"{what} must be NHW, NHWC or NCHW; its shape is {x.shape}")
    if len(x) and x.size == 0:
        raise DataError(f"{what} has images without a single pixel: its shape is {x.shape}")
    if x.ndim == 3:
        x = x[:, None]
    elif (layout or _layout(x.shape, what=what)) == "NHWC":
        x = x.transpose(0, 3, 1, 2)
    if x.dtype != np.uint8:
        x = _checked_floats(x, what=what)
    _check_scale(x, what=what)
    return np.ascontiguousarray(x)


def _layout(shape: tuple[int, ...], *, what: str) -> Layout:
    """The only layout in which these are images of 1, 3 or 4 channels."""
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first and not last:
        return "NCHW"
    if last and not first:
        return "NHWC"
    if shape[1:] == (1, 1, 1):
        return "NCHW"  # either way the same
    reason = "both fit" if first else "channels are known by their number 1, 3 or 4, and no side has it"
    raise DataError(
        f"{what} of shape {shape} may be NHWC or NCHW ({reason}): say which, with layout='NHWC' or layout='NCHW'"
    )


def _checked_floats(x: Array, *, what: str) -> Array:
    if not np.issubdtype(x.dtype, np.floating):
        mend = {"b": " (x.astype(np.float32))", "i": " (x.astype(np.uint8), if they are 0..255)"}
        hint = mend.get(x.dtype.kind.replace("u", "i"), "")
        raise DataError(f"{what} must be uint8 or float in [0, 1]{hint}; it is {x.dtype}")
    if x.size == 0:
        return x.astype(np.float32)
    low, high = float(x.min()), float(x.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{what} has pixels that are not finite (NaN or infinity)")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise DataError(
            f"{what} has pixels in [{low:g}, {high:g}], but images must lie in [0, 1]: scale "
            "them and leave normalisation to the model, so that eps has the unit it says"
        )
    copy = x.astype(np.float32)
    return copy.clip(0, 1, out=copy)


def _check_scale(x: Array, *, what: str) -> None:
    """Refuse 0..16 or 0..1 as uint8, and 0..1 divided by 255 again: nearly black, with an eps far too large."""
    whole = x.dtype == np.uint8
    top = x.max(initial=0)
    if 0 < top <= (16 if whole else 1 / 255):
        white, mend = (255, f"({what} / {top}).astype(np.float32)") if whole else (1, f"{what} * 255")
        raise DataError(
            f"{what} is nearly black: its brightest pixel is {top:g}, and white is {white}; scale it, as by {mend}"
        )


def checked_labels(y: Any, *, what: str) -> NDArray[np.int64]:
    """Labels as int64, shape (n,): of any whole-number type, of bool, or of float if they are whole.

    Raises
    ------
    DataError
        Another shape or type, or numbers outside 0 .. `MAX_CLASSES` - 1.
    """
    y = as_array(y, what=what)
    wanted = f"{what} must be a vector of class numbers 0, 1, ..."
    if y.ndim != 1:
        raise DataError(f"{wanted}; its shape is {y.shape}")
    if y.dtype.kind not in "biuf":
        raise DataError(f"{wanted}; it is {y.dtype}{y.shape}")
    if len(y) == 0:
        return y.astype(np.int64)
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.floor(y)).all()):
        raise DataError(f"{wanted}; it is {y.dtype}{y.shape} with numbers that are not whole")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= MAX_CLASSES:
        raise DataError(
            f"{wanted}; it goes from {low} to {high}, and {MAX_CLASSES - 1} is the largest allowed: "
            "np.unique(y, return_inverse=True)[1] numbers any labels from 0"
        )
    return y.astype(np.int64)


def check_classes_begin(y: NDArray[np.int64], *, what: str) -> None:
    """Refuse training labels that begin at 1, or are under a tenth of the numbers up to the largest.

    A gap is none of our business: a part of a data set may lack a class.

    Raises
    ------
    DataError
        With how labels are numbered from 0.
    """
    present = np.unique(y)
    if present[0] > 0 or 10 * len(present) < present[-1]:
        begin = f"begin at {present[0]}" if present[0] > 0 else f"are {len(present)} of 0..{present[-1]}"
        raise DataError(
            f"{what} must be class numbers 0, 1, ..., but its labels {begin}: "
            "np.unique(y, return_inverse=True)[1] numbers them from 0"
        )


def same_count(x: Array, y: Array, *, x_name: str, y_name: str) -> None:
    """Refuse arrays without images, or with another number of labels.

    Raises
    ------
    DataError
        With both counts.
    """
    if len(x) == 0 or len(x) != len(y):
        raise DataError(f"{x_name} has {len(x)} images, {y_name} has {len(y)} labels")
