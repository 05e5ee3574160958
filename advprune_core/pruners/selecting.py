"""Prune your own data without training here: arrays and a model, or saved outputs, to a selection."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm
from advprune_core.base.components import Registry
from advprune_core.base.settings import ConfigError, Pixels
from advprune_core.base.values import as_ratio
from advprune_core.datasets.arrays import (
    Array,
    Layout,
    as_array,
    check_classes_begin,
    checked_images,
    checked_labels,
    same_count,
)
from advprune_core.datasets.base import DatasetSource
from advprune_core.datasets.splits import Dataset, Split, channel_statistics
from advprune_core.objectives.base import OBJECTIVES, Objective, Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.pruners.base import PRUNERS, Context, Pruner, keep
from advprune_core.pruners.branches import Branch, SplitOutputs
from advprune_core.pruners.outputs import scoring_steps
from advprune_core.pruners.selection import Selection, check_floors, check_selected


def select(
    y: Array,
    *,
    pruner: str | dict[str, Any] | Pruner,
    fraction: float,
    x: Array | None = None,
    model: nn.Module | None = None,
    logits: Array | None = None,
    features: Array | None = None,
    adversarial_logits: Array | None = None,
    adversarial_features: Array | None = None,
    trajectory: Array | None = None,
    held_out: tuple[Array, Array] | None = None,
    layout: Layout | None = None,
    objective: str | dict[str, Any] | Objective = "pgd_at",
    norm: Norm = "linf",
    eps: Pixels | str | None = None,
    steps: int = 7,
    seed: int = 0,
    min_per_class: int = 0,
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
        Saved outputs in place of the model, for pruners that look at outputs only; features where they
        are looked at as well; of float16 they take half the memory. Without adversarial ones they stand for
        whatever the pruner looks at, except for an objective of both (TRADES, MART), where they are the
        clean ones.
    adversarial_logits, adversarial_features : arrays of the same shapes, optional
        Saved outputs for adversarial images.
    trajectory : array, shape (epochs, n, classes), optional
        Logits after each epoch of a training of your own, for scores of a history (forgetting, AUM,
        dynamic uncertainty, TDDS): the canonical ones, of a whole training.
    held_out : (images, labels), optional
        Held-out data, for GLISTER.
    layout : "NHWC" or "NCHW", optional
        As for `dataset_from_arrays`.
    objective : str, dict or Objective
        The loss that you will train with, for gradients.
    norm, eps, steps
        Threat model and steps of the scoring attack: eps in units of [0, 1], by default what is usual of photographs
        (8/255, in L2 128/255). Scores for standard training take clean images unless their own ``steps`` say otherwise.
    seed : int
    min_per_class : int
        Images kept of every class at least, as far as it has so many; 0: a class that would be emptied is refused.

    Returns
    -------
    Selection
        Positions in your arrays, and weights for your loss.

    Raises
    ------
    ConfigError
        What does not fit together, and what the pruner lacks.

    Warns
    -----
    UserWarning
        Images that are attacked within an eps that nobody has given.
    """
    chosen, loss = parsed(PRUNERS, pruner), parsed(OBJECTIVES, objective)
    if isinstance(fraction, bool) or not isinstance(fraction, int | float | np.floating) or not 0 < fraction <= 1:
        raise ConfigError(f"fraction must be above 0 and at most 1, not {fraction!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"seed must be a whole number, at least 0, not {seed!r}")
    if isinstance(min_per_class, bool) or not isinstance(min_per_class, int) or min_per_class < 0:
        raise ConfigError(f"min_per_class must be a whole number, at least 0, not {min_per_class!r}")
    if model is not None and x is None:
        raise ConfigError("a model needs the images, x")
    chosen = chosen.for_objective(loss)
    dataset = whole(x, y, held_out, layout)
    saved = _outputs(dataset, logits, features, what="")
    adversarial = _outputs(dataset, adversarial_logits, adversarial_features, what="adversarial_")
    if adversarial is None and not (loss.uses_clean and loss.uses_adversarial):
        adversarial = saved  # one branch for both, because what was saved is what is meant
    outputs = SplitOutputs(dataset.train.labels, saved, adversarial)
    attack = AttackPolicy.create(norm=norm, eps=eps, steps=steps)
    if attack.eps is None:
        attack = attack.replace(eps=DatasetSource.default_eps[attack.norm])
        attacked = scoring_steps(getattr(chosen, "steps", None), loss) != 0
        if model is not None and adversarial is None and chosen.uses_model and attacked:
            warnings.warn(
                f"no eps was given: the images are attacked within {as_ratio(attack.radius)}, what is usual of "
                "photographs; say eps=",
                stacklevel=2,
            )
    context = Context(
        dataset=dataset,
        fraction=float(fraction),
        seed=int(seed),
        model=model,
        objective=loss,
        attack=attack,
        outputs=None if saved is adversarial is None else outputs,
        state={} if trajectory is None else _history(chosen, dataset, trajectory),
        epochs=0.0 if trajectory is None else float(len(trajectory)),
        min_per_class=min_per_class,
    )
    if context.k == 0:
        raise ConfigError(f"fraction {fraction:g} keeps none of {context.n} images")
    counts = np.bincount(dataset.train.labels.cpu().numpy(), minlength=dataset.classes)
    check_floors(counts, context.k, least=min_per_class, fraction=context.fraction)
    chosen.check(context)
    selection = keep(chosen, context)
    check_selected(selection.indices, dataset, fraction=context.fraction)
    if len(selection) == context.n > context.k:
        raise ConfigError(
            f"{chosen.name} keeps all {context.n} images here: what it drops, it drops in training, from batch to "
            "batch or once there is something to go by; choose another pruner (advprune list pruners)"
        )
    return selection


def parsed(registry: Registry[Any], spec: Any) -> Any:
    """A component by its specification, with errors for people."""
    try:
        return registry.parse(spec)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _split(x: Any, y: Any, layout: Layout | None, *, suffix: str = "") -> Split:
    """Images and labels, checked; blank images where there are none."""
    labels = checked_labels(y, what=f"y{suffix}")
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    if x is not None:
        images = checked_images(x, what=f"x{suffix}", layout=layout)
    same_count(images, labels, x_name=f"x{suffix}", y_name=f"y{suffix}")
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def whole(x: Any, y: Any, held_out: tuple[Any, Any] | None, layout: Layout | None) -> Dataset:
    """All images as the training split, in their order, and the held-out ones as `val_select`; see `select`."""
    train = _split(x, y, layout)
    check_classes_begin(train.labels.numpy(), what="y")
    none = train.take(torch.arange(0))
    other = none if held_out is None else _split(*held_out, layout, suffix="_held_out")
    if len(other) and (other.labels.max() > train.labels.max() or other.images.shape[1:] != train.images.shape[1:]):
        raise ConfigError(
            f"held-out labels go up to {other.labels.max()} and images have the shape {tuple(other.images.shape[1:])}, "
            f"the others up to {train.labels.max()} and {tuple(train.images.shape[1:])}"
        )
    mean, std = channel_statistics(train.images)
    classes = int(train.labels.max()) + 1
    return Dataset("own", train, other, none, none, classes, mean, std, train_hash="", test_hash="")


def _outputs(dataset: Dataset, logits: Any, features: Any, *, what: str) -> Branch | None:
    """Saved outputs, if there are any."""
    if logits is None:
        if features is not None:
            raise ConfigError(f"{what}features need their {what}logits")
        return None
    n = len(dataset.train)
    found = _finite(logits, what=f"{what}logits")
    if found.ndim != 2 or len(found) != n or found.shape[1] < dataset.classes:
        raise ConfigError(
            f"{what}logits must have one row for each of {n} labels and a column for each of {dataset.classes} "
            f"classes; their shape is {tuple(found.shape)}"
        )
    known = torch.empty(n, 0) if features is None else _finite(features, what=f"{what}features", half=True)
    if known.ndim != 2 or len(known) != n:
        raise ConfigError(
            f"{what}features must have one row for each of {n} labels; their shape is {tuple(known.shape)}"
        )
    return Branch(found, known)


def _history(pruner: Pruner, dataset: Dataset, trajectory: Any) -> dict[str, Tensor]:
    """What the pruner would have kept of these epochs."""
    n, state = len(dataset.train), dict[str, Tensor]()
    epochs = _finite(trajectory, what="trajectory")
    if epochs.ndim != 3 or epochs.shape[1] != n or epochs.shape[2] < dataset.classes:
        raise ConfigError(
            f"trajectory must be (epochs, {n}, classes), with {dataset.classes} classes at least; its shape is "
            f"{tuple(epochs.shape)}"
        )
    y, ids, blank = dataset.train.labels, torch.arange(n), torch.zeros(n, 1, 1, 1)
    for epoch, logits in enumerate(epochs):
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        batch = Batch(blank, y, ids, torch.full_like(ids, epoch), torch.ones(n))
        pruner.observe(batch, Outputs(losses, logits), state)
    return state


def _finite(array: Any, *, what: str, half: bool = False) -> Tensor:
    """Numbers as float32, or with `half` as float16 where they are; copied only where they are of another type."""
    found = as_array(array, what=what)
    if found.dtype.kind not in "iuf":
        raise ConfigError(f"{what} must be numbers; they are {found.dtype}")
    kept = half and found.dtype == np.float16
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(found, np.float16 if kept else np.float32).reshape(found.shape)
    if values.size and not np.isfinite([values.min(), values.max()]).all():  # NaN is the least of all, and the largest
        bad = np.argwhere(~np.isfinite(values))
        raise ConfigError(
            f"{what} must be finite, and {len(bad)} of {values.size} are not (the first at {bad[0].tolist()})"
        )
    return torch.from_numpy(values)
