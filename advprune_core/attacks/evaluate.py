"""Clean and robust accuracy with Wilson intervals, image by image."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor, nn

from advprune_core.attacks.base import Attack, parse_attacks
from advprune_core.attacks.ensemble import Outcome, attack_split
from advprune_core.attacks.geometry import ThreatModel, threat_model
from advprune_core.attacks.guards import SAMPLE, inspect
from advprune_core.attacks.inputs import check_images, check_labels, check_numbers, check_whole, in_unit
from advprune_core.base.files import own_path
from advprune_core.base.settings import ConfigError, check_names
from advprune_core.datasets.splits import Split
from advprune_core.models.mode import device_of, quiet_logits
from advprune_core.models.passes import check_network

__all__ = ["Outcome", "accuracy_under", "evaluate", "inspected", "pack_bits", "predictions", "unpack_bits", "wilson"]


@lru_cache(maxsize=4096)  # records are verified whenever they are read, and scipy takes a millisecond
def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of an accuracy (Wilson 1927)."""
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def as_constant(accuracy: float, classes: float) -> bool:
    """Whether an accuracy in [0, 1] is that of a constant answer among so many classes, to a tenth, or less."""
    return accuracy <= 1.1 / classes


def pack_bits(values: NDArray[np.bool_]) -> str:
    """Outcomes of n images in n / 6 characters."""
    return base64.b64encode(np.packbits(values).tobytes()).decode()


def unpack_bits(text: str, n: int) -> NDArray[np.bool_]:
    """Inverse of `pack_bits`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:n].astype(bool)


def predictions(model: nn.Module, x: Tensor) -> Tensor:
    """Predicted classes (B,) in eval mode, without gradients."""
    return quiet_logits(model, x).argmax(1)


def evaluate(
    model: nn.Module,
    split: Split,
    attacks: Attack | str | Sequence[Any],
    *,
    threat: ThreatModel | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    seed: int = 0,
    batch_size: int = 500,
    ids: Tensor | None = None,
    work: str | Path | None = None,
    progress: bool = False,
    **misplaced: Never,
) -> Outcome:
    """Attack every image that is classified correctly.

    An attack succeeds if the model misclassifies the image it returns, checked with one more
    pass at the evaluation's batch size; the attacks run in the order given, each on the images
    that all before it failed on. One that is listed again has other noise, and its place behind its name.

    Parameters
    ----------
    model : nn.Module
        Images in [0, 1] to logits; left as it was.
    split : Split
        On any device; batches go to the model's.
    attacks : Attack, its name or specification, or several of them
    threat, or norm and eps
        Threat model; `eps` in pixel units of [0, 1], a number or "8/255"; `norm` is "linf" unless given.
    seed : int
        For random starts: each attack has a stream of its own, and each image its own noise in it,
        whatever the batch and the model.
    batch_size : int
    ids : Tensor of int64, shape (n,), optional
        What noise is keyed by; default: the places in the split.
    work : path, optional
        Folder that keeps the state after every attack and batch: a killed evaluation goes on from
        there, to the same outcome.
    progress : bool
        Show a bar with the images left and the time.
    **misplaced
        Refused: settings of an attack (steps, ...) are given with it.

    Returns
    -------
    Outcome
        With whatever is to be doubted in its `warnings`.

    Raises
    ------
    ConfigError
        No images, pixels outside [0, 1], an unknown attack, settings out of range; an attack that gives no images of
        the shape it was given; what `guards.inspect` refuses.

    Warns
    -----
    UserWarning
        What stands in the outcome's `warnings`.
    """
    ball, chosen = threat_model(threat, norm, eps), parse_attacks(attacks)
    if misplaced:
        _refuse(next(iter(misplaced)), chosen)
    options: dict[str, Any] = {"seed": seed, "ids": ids, "batch_size": batch_size, "work": work, "progress": progress}
    return inspected(model, split, chosen, threat=ball, **options)


def _refuse(name: str, attacks: Sequence[Attack]) -> None:
    """Say where a keyword belongs that `evaluate` has not."""
    for attack in attacks:
        if name in type(attack).model_fields:
            cls = type(attack).__name__
            raise ConfigError(f"{name} is a setting of the attack {attack.name}: give {cls}({name}=...) as the attack")
    check_names([name], evaluate.__kwdefaults__ or (), what="parameter")


def inspected(
    model: nn.Module,
    split: Split,
    attacks: Sequence[Attack],
    *,
    threat: ThreatModel,
    seed: int,
    ids: Tensor | None = None,
    batch_size: int = 500,
    work: str | Path | None = None,
    keep_images: bool = False,
    progress: bool = False,
    remedy: str | None = None,
) -> Outcome:
    """What `evaluate` does with attacks and a threat model that were looked at; its caller warns of the doubts.

    Parameters
    ----------
    keep_images : bool
        Let the outcome have the adversarial images.
    remedy : str, optional
        What to do about a model that has learnt nothing, from who knows how it was trained.
    """
    check_whole("seed", seed, least=0)
    check_whole("batch_size", batch_size, least=1)
    check_network(model)
    if not isinstance(split, Split):
        raise ConfigError(
            f"images and labels to evaluate on are a Split, as dataset.test is, not a {type(split).__name__}; of "
            "tensors: Split(x, y)"
        )
    if len(split) == 0:
        raise ConfigError("there are no images to evaluate on: the split is empty")
    names = None if ids is None else check_numbers("ids", ids, split.labels)
    folder = None if work is None else own_path(work)
    device = device_of(model, split.labels.device)
    sample = check_images(split.pixels(slice(0, SAMPLE))).to(device)
    labels = check_labels(split.labels, split.images)
    if split.images.is_floating_point():  # of all, because any may lie outside
        split = replace(split, images=in_unit(split.images))
    doubts, classes = inspect(model, sample, labels.to(device), threat=threat)
    doubts += tuple(doubt for attack in attacks for doubt in attack.doubts(classes=classes))
    options: dict[str, Any] = {"batch_size": batch_size, "keep_images": keep_images, "progress": progress}
    outcome = attack_split(model, split, attacks, threat=threat, seed=seed, ids=names, work=folder, **options)
    doubts += tuple(_doubts_of_outcome(outcome, classes=classes, threat=threat, remedy=remedy))
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=3)
    return replace(outcome, warnings=doubts)


def _doubts_of_outcome(outcome: Outcome, *, classes: int, threat: ThreatModel, remedy: str | None) -> Iterator[str]:
    """What only the attacked images show."""
    if not outcome.clean.any():
        yield (
            "every image is misclassified without an attack, so there was nothing to attack; "
            f"{remedy or 'check the labels, and that images and model go together'}"
        )
    elif wilson(int(outcome.clean.sum()), len(outcome.clean))[0] <= 1 / classes:
        longer = "train for longer, or with another learning rate or a smaller eps, and check the labels"
        yield (
            f"clean accuracy is at chance: {100 * outcome.clean.mean():.1f} % of {len(outcome.clean)} images, where "
            f"guessing one of {classes} classes is right for {100 / classes:.1f} %; robust accuracy says nothing then; "
            f"{remedy or longer}"
        )
    for label, count in outcome.outside.items():
        yield (
            f"{label} left the ball of radius {threat.eps:g} ({threat.norm}) or [0, 1] on {count} images, which count "
            "as not broken by it and flatter the model; let it project what it returns onto both"
        )


def accuracy_under(model: nn.Module, split: Split, attack: Attack, *, threat: ThreatModel, seed: int = 0) -> float:
    """Share of images that are right under one attack, as training asks: of a model that was looked at before."""
    return attack_split(model, split, [attack], threat=threat, seed=seed).accuracy
