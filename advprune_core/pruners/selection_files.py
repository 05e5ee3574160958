"""Selections on disk, and the arrays on disk that they are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from advprune_core.base.files import own_path, write_atomically
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.npz import read_npz
from advprune_core.datasets.splits import Split
from advprune_core.models.base import MODELS, build_model
from advprune_core.models.weights import with_weights
from advprune_core.pruners.base import Pruner
from advprune_core.pruners.selecting import parsed, select, whole
from advprune_core.pruners.selection import Selection

Device = Literal["auto", "cpu", "cuda"]


def save_selection(selection: Selection, path: str | Path) -> Path:
    """Write ``indices`` (int64), ``weights`` (float32) and ``n_filled`` as an ``.npz``, whole or not at all."""
    target = own_path(path)
    if target.suffix != ".npz":
        raise ConfigError(f"{path} must end in .npz")
    filled = np.array(selection.n_filled)
    write_atomically(
        target,
        lambda file: np.savez(file, indices=selection.indices, weights=selection.weights, n_filled=filled),
    )
    return target


def load_selection(path: str | Path) -> Selection:
    """Read what `save_selection` has written; nothing is unpickled.

    Raises
    ------
    ConfigError
        A file that cannot be read, or holds no selection.
    """

    def wanted(names: list[str]) -> list[str]:
        missing = {"indices", "weights", "n_filled"} - set(names)
        if missing:
            raise ConfigError(f"{path} is no selection: it lacks {', '.join(sorted(missing))}")
        return ["indices", "weights", "n_filled"]

    arrays = read_npz(own_path(path), wanted=wanted)
    filled = arrays["n_filled"]
    if filled.shape != () or filled.dtype.kind not in "iu" or arrays["weights"].dtype.kind not in "iuf":
        raise ConfigError(f"{path} is no selection: n_filled must be one whole number, weights must be numbers")
    return Selection(arrays["indices"], arrays["weights"], int(filled))


#: Arrays of a file that `select_file` knows, by the names of `select` or those of data sets.
_NAMES = {
    "x": ("x", "x_train"),
    "y": ("y", "y_train"),
    "held_out_x": ("x_held_out",),
    "held_out_y": ("y_held_out",),
    **{name: (name,) for name in ("logits", "features", "adversarial_logits", "adversarial_features", "trajectory")},
}


def select_file(
    path: str | Path,
    *,
    pruner: str | dict[str, Any] | Pruner,
    fraction: float,
    model: Any = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    drawn: bool = False,
    **options: Any,
) -> tuple[Selection, Split]:
    """`select` for arrays in an ``.npz``; nothing is unpickled.

    Parameters
    ----------
    path : path
        With ``y`` or ``y_train``, and as needed ``x`` (or ``x_train``), ``x_held_out`` and
        ``y_held_out``, ``logits``, ``features``, ``adversarial_logits``, ``adversarial_features``,
        ``trajectory``: see `select`.
    model, weights : str or dict, path
        Network by name, specification or ``"module:factory"``, and its state dict (``.pt``).
    device : "auto", "cpu" or "cuda"
        Where the network runs; "auto": on a GPU if there is one.
    drawn : bool
        The images are to be drawn, and must be there.
    **options
        ``layout``, ``objective``, ``norm``, ``eps``, ``steps``, ``seed``, ``min_per_class``: see `select`.

    Returns
    -------
    selection : Selection
    split : Split
        The images and labels that it refers to.

    Raises
    ------
    ConfigError
        A file that cannot be read, lacks what is needed, or has it twice; a device that is not there.
    """
    place = _device(device)
    arrays = _arrays(own_path(path))
    x, y = arrays.pop("x", None), arrays.pop("y")
    if drawn and x is None:
        raise ConfigError(f"{path} has no images that could be drawn: it needs x or x_train")
    held_out = arrays.pop("held_out_x", None), arrays.pop("held_out_y", None)
    if (held_out[0] is None) != (held_out[1] is None):
        raise ConfigError(f"{path}: x_held_out and y_held_out belong together, and one is missing")
    others = None if held_out[0] is None else held_out
    dataset = whole(x, y, others, options.get("layout"))
    if (model is None) != (weights is None):
        raise ConfigError("a model needs its weights, and weights need their model: give both or neither")
    network = None
    if model is not None and weights is not None:
        if x is None:
            raise ConfigError(f"{path} has no images for the model: it needs x or x_train")
        network = with_weights(build_model(parsed(MODELS, model), dataset), own_path(weights)).to(place)
    selection = select(y, x=x, pruner=pruner, fraction=fraction, model=network, held_out=others, **arrays, **options)
    return selection, dataset.train


def _device(name: str) -> str:
    """The device that a name stands for."""
    if name not in get_args(Device):
        raise ConfigError(f"device must be one of {', '.join(get_args(Device))}, not {name!r}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("device = 'cuda', but there is no GPU that torch can use; try 'auto' or 'cpu'")
    return ("cuda" if there else "cpu") if name == "auto" else name


def _arrays(path: Path) -> dict[str, Any]:
    """The arrays of a file that have a meaning here, by the names of `select`."""
    short: dict[str, str] = {}

    def wanted(names: list[str]) -> list[str]:
        for meaning, known in _NAMES.items():
            found = [name for name in known if name in names]
            if len(found) > 1:
                raise ConfigError(f"{path} has both {' and '.join(found)}: which is meant?")
            short.update(dict.fromkeys(found, meaning))
        if "y" not in short.values():
            raise ConfigError(
                f"{path} has no labels: it needs y or y_train, and has {', '.join(sorted(names)) or 'nothing'}"
            )
        return list(short)

    return {short[name]: array for name, array in read_npz(path, wanted=wanted).items()}
