"""Prune your own data without training here: arrays and a model, or saved outputs, to a selection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm
from advprune_core.data import Dataset, Split, dataset_from_arrays
from advprune_core.files import write_atomically
from advprune_core.models import MODELS, build_model
from advprune_core.pruners.base import PRUNERS, Context, Pruner, Selection
from advprune_core.pruners.outputs import Branch, SplitOutputs
from advprune_core.runs import with_weights
from advprune_core.settings import ConfigError, Pixels
from advprune_core.trainers.base import OBJECTIVES, Batch, Objective, Outputs
from advprune_core.trainers.policy import AttackPolicy

Array = NDArray[Any]


def select(
    y: Array,
    *,
    pruner: str | dict[str, Any] | Pruner,
    fraction: float,
    x: Array | None = None,
    model: nn.Module | None = None,
    logits: Array | None = None,
    features: Array | None = None,
    trajectory: Array | None = None,
    held_out: tuple[Array, Array] | None = None,
    objective: str | dict[str, Any] | Objective = "pgd_at",
    norm: Norm = "linf",
    eps: Pixels | str = 8 / 255,
    steps: int = 7,
    seed: int = 0,
) -> Selection:
    """Choose which of your images to keep.

    Parameters
    ----------
    y : array of int, shape (n,)
        Labels 0, 1, ...
    pruner : str, dict or Pruner
        ``"grad_match"``, ``{"score": {"score": "el2n", "keep": "stratified"}}``, or one of your own.
    fraction : float
        Share to keep: ``floor(fraction * n + 1/2)`` images.
    x : array, shape (n, ...), optional
        Images, as for `dataset_from_arrays`; needed with a model.
    model : nn.Module, optional
        A trained network, of images in [0, 1] to logits. Left as it was.
    logits, features : arrays, shapes (n, classes) and (n, d), optional
        Saved outputs in place of the model, for pruners that look at outputs only (clean or
        adversarial is then what you saved); features where they are looked at as well.
    trajectory : array, shape (epochs, n, classes), optional
        Logits after each epoch of a training of your own, for scores of a history (forgetting, AUM,
        dynamic uncertainty, TDDS): the canonical ones, of a whole training.
    held_out : (images, labels), optional
        Held-out data, for GLISTER.
    objective : str, dict or Objective
        The loss that you will train with, for gradients.
    norm, eps, steps
        Threat model and steps of the scoring attack; scores for standard training take clean images
        unless their own ``steps`` say otherwise.
    seed : int

    Returns
    -------
    Selection
        Positions in your arrays, and weights for your loss.

    Raises
    ------
    ConfigError
        What does not fit together, and what the pruner lacks.
    """
    chosen: Pruner = PRUNERS.parse(pruner)
    loss: Objective = OBJECTIVES.parse(objective)
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction must be above 0 and at most 1, not {fraction}")
    if model is not None and x is None:
        raise ConfigError("a model needs the images, x")
    dataset = _dataset(x, y, held_out)
    context = Context(
        dataset=dataset,
        fraction=fraction,
        seed=seed,
        model=model,
        objective=loss,
        attack=AttackPolicy.create(norm=norm, eps=eps, steps=steps),
        outputs=None if logits is None else _outputs(dataset, logits, features),
        state={} if trajectory is None else _history(chosen, dataset, trajectory),
        epochs=0.0 if trajectory is None else float(len(trajectory)),
    )
    chosen.check(context)
    return chosen.select(context)


def _dataset(x: Array | None, y: Array, held_out: tuple[Array, Array] | None) -> Dataset:
    """All images as the training split, in their order; blank ones where there are none."""
    images = np.zeros((len(y), 1, 1), np.uint8) if x is None else x
    dataset = dataset_from_arrays(images, y, images[:1], y[:1], val_select=0, val_stop=0)
    if held_out is None:
        return dataset
    other = dataset_from_arrays(*held_out, *(part[:1] for part in held_out), val_select=0, val_stop=0)
    if other.classes > dataset.classes:
        raise ConfigError(f"held_out has {other.classes} classes, y has {dataset.classes}")
    return replace(dataset, val_select=Split(other.train.images, other.train.labels))


def _outputs(dataset: Dataset, logits: Array, features: Array | None) -> SplitOutputs:
    """One branch for both, because what was saved is what is meant."""
    n = len(dataset.train)
    features = np.empty((n, 0), np.float32) if features is None else features
    for name, value, columns in (("logits", logits, dataset.classes), ("features", features, 0)):
        if value.ndim != 2 or len(value) != n or value.shape[1] < columns or not np.isfinite(value).all():
            raise ConfigError(f"{name} must be finite, one row for each of {n} labels; the shape is {value.shape}")
    branch = Branch(_float(logits), _float(features))
    return SplitOutputs(dataset.train.labels, branch, branch)


def _history(pruner: Pruner, dataset: Dataset, trajectory: Array) -> dict[str, Tensor]:
    """What the pruner would have kept of these epochs."""
    n, state = len(dataset.train), dict[str, Tensor]()
    if trajectory.ndim != 3 or trajectory.shape[1] != n or not np.isfinite(trajectory).all():
        raise ConfigError(f"trajectory must be finite, (epochs, {n}, classes); the shape is {trajectory.shape}")
    y, ids, blank = dataset.train.labels, torch.arange(n), torch.zeros(n, 1, 1, 1)
    for epoch, logits in enumerate(_float(trajectory)):
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        batch = Batch(blank, y, ids, torch.full_like(ids, epoch), torch.ones(n))
        pruner.observe(batch, Outputs(losses, logits), state)
    return state


def _float(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def save_selection(selection: Selection, path: str | Path) -> Path:
    """Write ``indices`` (int64), ``weights`` (float32) and ``n_filled`` as an ``.npz``, whole or not at all."""
    target = Path(path)
    if target.suffix != ".npz":
        raise ConfigError(f"{path} must end in .npz")
    filled = np.array(selection.n_filled)
    write_atomically(
        target,
        lambda file: np.savez(file, indices=selection.indices, weights=selection.weights, n_filled=filled),
    )
    return target


def load_selection(path: str | Path) -> Selection:
    """Read what `save_selection` has written; nothing is unpickled."""
    with np.load(path, allow_pickle=False) as arrays:
        return Selection(arrays["indices"], arrays["weights"], int(arrays["n_filled"]))


#: Arrays of a file that `select_file` knows: those of `select`, under the names of data sets or short ones.
_NAMES = {"x": ("x", "x_train"), "y": ("y", "y_train"), "held_out_x": ("x_held_out",), "held_out_y": ("y_held_out",)}


def select_file(
    path: str | Path,
    *,
    pruner: str | dict[str, Any] | Pruner,
    fraction: float,
    model: Any = None,
    weights: str | Path | None = None,
    **options: Any,
) -> tuple[Selection, Split]:
    """`select` for arrays in an ``.npz``; nothing is unpickled.

    Parameters
    ----------
    path : path
        With ``y`` or ``y_train``, and as needed ``x`` (or ``x_train``), ``x_held_out`` and
        ``y_held_out``, ``logits``, ``features``, ``trajectory``: see `select`.
    model, weights : str or dict, path
        Network by name, specification or ``"module:factory"``, and its state dict (``.pt``).
    **options
        ``objective``, ``norm``, ``eps``, ``steps``, ``seed``: see `select`.

    Returns
    -------
    selection : Selection
    split : Split
        The images and labels that it refers to.

    Raises
    ------
    ConfigError
        A file that cannot be read, or lacks what is needed.
    """
    arrays = _arrays(Path(path))
    x, y = arrays.get("x"), arrays.get("y")
    if y is None:
        raise ConfigError(
            f"{path} has no labels: it needs y or y_train, and has {', '.join(sorted(arrays)) or 'nothing'}"
        )
    held_out = (arrays["held_out_x"], arrays["held_out_y"]) if {"held_out_x", "held_out_y"} <= set(arrays) else None
    dataset = _dataset(x, y, held_out)
    if (model is None) != (weights is None):
        raise ConfigError("a model needs its weights, and weights need their model: give both or neither")
    network = None
    if model is not None and weights is not None:
        if x is None:
            raise ConfigError(f"{path} has no images for the model: it needs x or x_train")
        network = with_weights(build_model(MODELS.parse(model), dataset), Path(weights))
    selection = select(
        y,
        x=x,
        pruner=pruner,
        fraction=fraction,
        model=network,
        held_out=held_out,
        logits=arrays.get("logits"),
        features=arrays.get("features"),
        trajectory=arrays.get("trajectory"),
        **options,
    )
    return selection, dataset.train


def _arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file that have a meaning here, by the names of `select`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            known = {name: short for short, names in _NAMES.items() for name in names}
            return {known.get(name, name): file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read as an .npz of arrays: {error}") from None
