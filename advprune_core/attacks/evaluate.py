"""Clean and robust accuracy with Wilson intervals, image by image."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor, nn

from advprune_core.attacks.base import Attack, parse_attacks
from advprune_core.attacks.ensemble import attack_batch, turns
from advprune_core.attacks.geometry import ThreatModel, threat_model
from advprune_core.attacks.guards import SAMPLE, inspect
from advprune_core.attacks.inputs import check_images, check_numbers, check_whole
from advprune_core.base.progress import attack_bar
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import Split
from advprune_core.models.mode import quiet_logits, true_float32
from advprune_core.models.passes import check_network


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """Which images a model got right: on clean images, and under each attack.

    Attributes
    ----------
    clean : array of bool, shape (n,)
    attacks : dict of str to array of bool, shape (n,)
        True where the attack failed, and all before it. An image that is wrong without an attack is
        False. An attack in parts has an entry of its own, and ``label/part`` for each of them.
    warnings : tuple of str
        Why these numbers may say more than is true: see `attacks.guards.inspect`.
    """

    clean: NDArray[np.bool_]
    attacks: dict[str, NDArray[np.bool_]]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = [f"{label}={right.mean():.3f}" for label, right in {"clean": self.clean, **self.attacks}.items()]
        parts += [f"warnings={len(self.warnings)}"] * bool(self.warnings)
        return f"Outcome(images={len(self.clean)}, {', '.join(parts)})"

    @property
    def robust(self) -> NDArray[np.bool_]:
        """Right under every attack, shape (n,)."""
        return np.logical_and.reduce([self.clean, *self.attacks.values()])

    def broken(self) -> dict[str, int]:
        """How many images fell to each attack, or part of one, of those that all before it had left."""
        found, left = {}, self.clean
        for label, right in self.attacks.items():
            if not any(other.startswith(f"{label}/") for other in self.attacks):
                found[label] = int((left & ~right).sum())
                left = left & right
        return found


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of an accuracy (Wilson 1927)."""
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


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
    work: Path | None = None,
    progress: bool = False,
) -> Outcome:
    """Attack every image that is classified correctly.

    An attack succeeds if the model misclassifies the image it returns, checked with one more
    pass at the evaluation's batch size; the attacks run in the order given, each on the images
    that all before it failed on.

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
    work : Path, optional
        Folder that keeps the state after every attack and batch: a killed evaluation goes on from
        there, to the same outcome.
    progress : bool
        Show a bar with the images left and the time.

    Returns
    -------
    Outcome
        With whatever is to be doubted in its `warnings`.

    Raises
    ------
    ConfigError
        No images, an unknown attack, settings out of range; what `guards.inspect` refuses.

    Warns
    -----
    UserWarning
        What stands in the outcome's `warnings`.
    """
    ball, chosen = threat_model(threat, norm, eps), parse_attacks(attacks)
    check_whole("seed", seed, least=0)
    check_whole("batch_size", batch_size, least=1)
    check_network(model)
    if len(split) == 0:
        raise ConfigError("there are no images to evaluate on: the split is empty")
    device = device_of(model, split)
    sample = check_images(split.pixels(slice(0, SAMPLE))).to(device)
    doubts, classes = inspect(model, sample, split.labels.to(device), threat=ball)

    doubts += tuple(doubt for attack in chosen for doubt in attack.doubts(classes=classes))
    names = torch.arange(len(split)) if ids is None else check_numbers("ids", ids, split.labels)
    outcome = _outcome(
        model,
        split,
        chosen,
        threat=ball,
        seed=seed,
        batch_size=batch_size,
        names=names,
        work=work,
        progress=progress,
    )
    if not outcome.clean.any():
        doubts += (
            "every image is misclassified without an attack, so there was nothing to attack; check the labels, and "
            "that images and model go together",
        )
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=2)
    return replace(outcome, warnings=doubts)


def device_of(model: nn.Module, split: Split) -> torch.device:
    """Where the model is, or the split where it has no weights."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), split.labels.device)


def _outcome(
    model: nn.Module,
    split: Split,
    attacks: Sequence[Attack],
    *,
    threat: ThreatModel,
    seed: int,
    names: Tensor,
    batch_size: int = 500,
    work: Path | None = None,
    progress: bool = False,
) -> Outcome:
    """`evaluate` without a look at its arguments."""
    n, device, order = len(split), device_of(model, split), turns(attacks, seed=seed)
    clean = np.zeros(n, dtype=bool)
    right = {turn.label: np.zeros(n, dtype=bool) for turn in order}
    with attack_bar(n * len(order), name="evaluate", show=progress) as bar, true_float32(device):
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            stand = attack_batch(
                model,
                split.pixels(rows).to(device, torch.float32),
                split.labels[rows].to(device),
                order,
                threat=threat,
                ids=names[rows].to(device),
                work=work,
                on_turn=bar.of_batch(start, rows.stop - start, len(order)),
            )
            clean[rows] = stand.clean.cpu().numpy()
            for label, column in stand.right.items():
                right[label][rows] = column.cpu().numpy()
    standing: dict[str, NDArray[np.bool_]] = {}
    for owner in dict.fromkeys(turn.owner for turn in order):
        own = {turn.label: right[turn.label] for turn in order if turn.owner == owner}
        # What an attack in parts leaves is what the last of them leaves.
        standing |= own | {owner: list(own.values())[-1]}
    return Outcome(clean, standing)


def accuracy_under(model: nn.Module, split: Split, attack: Attack, *, threat: ThreatModel, seed: int = 0) -> float:
    """Share of images that are right under one attack, as training asks: of a model that was looked at before."""
    names = torch.arange(len(split))
    return float(_outcome(model, split, [attack], threat=threat, seed=seed, names=names).robust.mean())
