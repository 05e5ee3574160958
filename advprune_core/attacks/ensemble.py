"""Attacks in turn, each on the images that withstood those before; the float32 model judges.

An attack proposes images. One counts as broken only if it lies in the ball and in [0, 1] and the
model misclassifies it once more, in the batch that the evaluation has anyway.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advprune_core.attacks.base import Attack
from advprune_core.attacks.geometry import ThreatModel, inside, per_image
from advprune_core.base.files import read_sealed, write_sealed
from advprune_core.base.ledger import count_passes, passes_counted
from advprune_core.base.progress import attack_bar
from advprune_core.base.randomness import stream
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Split
from advprune_core.models.mode import device_of, quiet_logits, true_float32, untouched
from advprune_core.models.passes import check_sound, described


@dataclass(frozen=True)
class Turn:
    """One attack of an evaluation: its name in records, the key of its noise, and the name of what it is a part of."""

    label: str
    attack: Attack
    key: int
    owner: str


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
        Why these numbers may say more than is true: what `attacks.guards.inspect` doubts, clean accuracy at chance,
        attacks that left the ball.
    x_adv : Tensor of float32, shape (n, C, H, W), or None
        Where they were asked for: the adversarial image of what is broken, else the clean one.
    outside : dict of str to int
        On how many images an attack, or part of one, left the ball or [0, 1]: to these it counts as having failed.
    """

    clean: NDArray[np.bool_]
    attacks: dict[str, NDArray[np.bool_]]
    warnings: tuple[str, ...] = ()
    x_adv: Tensor | None = None
    outside: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [f"{label}={right.mean():.3f}" for label, right in {"clean": self.clean, **self.attacks}.items()]
        parts += [f"warnings={len(self.warnings)}"] * bool(self.warnings)
        return f"Outcome(images={len(self.clean)}, {', '.join(parts)})"

    @property
    def robust(self) -> NDArray[np.bool_]:
        """Right under every attack, shape (n,)."""
        return np.logical_and.reduce([self.clean, *self.attacks.values()])

    @property
    def accuracy(self) -> float:
        """Share that is right under every attack."""
        return float(self.robust.mean())

    def broken(self) -> dict[str, int]:
        """How many images fell to each attack, or part of one, of those that all before it had left."""
        found, left = {}, self.clean
        for label, right in self.attacks.items():
            if not any(other.startswith(f"{label}/") for other in self.attacks):
                found[label] = int((left & ~right).sum())
                left = left & right
        return found


def turns(attacks: Sequence[Attack], *, seed: int) -> list[Turn]:
    """The parts of every attack in order, each with a stream of noise of its own."""
    result: list[Turn] = []
    for number, attack in enumerate(attacks):
        key, parts = stream(seed, "evaluate", number), attack.parts()
        owner = attack.label()
        if any(turn.owner == owner for turn in result):
            owner = f"{owner}_{number}"  # the same attack again, with other noise
        distinct = len({part.name for part in parts}) == len(parts)
        for place, part in enumerate(parts):
            label = part.name if distinct else f"{place}_{part.label()}"
            result.append(Turn(f"{owner}/{label}", part, stream(key, "part", place), owner))
        if not parts:
            result.append(Turn(owner, attack, key, owner))
    return result


def attack_split(
    model: nn.Module,
    split: Split,
    attacks: Sequence[Attack],
    *,
    threat: ThreatModel,
    seed: int,
    ids: Tensor | None = None,
    batch_size: int = 500,
    work: Path | None = None,
    keep_images: bool = False,
    progress: bool = False,
) -> Outcome:
    """What `evaluate` does with a model and images that were looked at; its parameters."""
    order, device, batches = turns(attacks, seed=seed), device_of(model, split.labels.device), []
    with attack_bar(len(split) * len(order), show=progress) as bar, true_float32(device):
        for places, x, y in split.batches(batch_size, device):
            names = places if ids is None else ids.to(device)[places]
            on_turn = bar.of_batch(int(places[0]), len(y), len(order))
            found = attack_batch(model, x, y, order, threat=threat, ids=names, work=work, on_turn=on_turn)
            batches.append(found if keep_images else replace(found, x_adv=None))
    return _joined(batches, order)


def _joined(batches: Sequence[Outcome], order: Sequence[Turn]) -> Outcome:
    """Batches one after the other; of an attack in parts, its own entry behind those of its parts."""
    attacks: dict[str, NDArray[np.bool_]] = {}
    for owner, own in groupby(order, key=lambda turn: turn.owner):
        parts = {turn.label: np.concatenate([batch.attacks[turn.label] for batch in batches]) for turn in own}
        # What an attack in parts leaves is what the last of them leaves.
        attacks |= parts | {owner: list(parts.values())[-1]}
    images = [batch.x_adv for batch in batches if batch.x_adv is not None]
    x_adv = torch.cat(images) if images else None
    outside = sum((Counter(batch.outside) for batch in batches), Counter[str]())
    return Outcome(np.concatenate([batch.clean for batch in batches]), attacks, x_adv=x_adv, outside=dict(outside))


def attack_batch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Sequence[Turn],
    *,
    threat: ThreatModel,
    ids: Tensor,
    work: Path | None = None,
    on_turn: Callable[[int, str], None] = lambda number, label: None,
) -> Outcome:
    """Let every attack have its turn at one batch, inside `mode.true_float32`.

    Parameters
    ----------
    model : nn.Module
        Images in [0, 1] to logits; left as it was.
    x, y, ids : Tensor, shapes (B, C, H, W), (B,), (B,)
        Images, labels, and what noise is keyed by.
    attacks : sequence of Turn
    threat : ThreatModel
    work : Path, optional
        Folder where the state is kept after each attack, with what it has cost: the same call goes on
        from there, to the same outcome and the same count of passes.
    on_turn : callable
        Called before each attack with its number and label.
    """
    begun = passes_counted()
    logits = quiet_logits(model, x)
    check_sound(logits)
    path = None if work is None else work / f"{fingerprint(model, x, y, ids, attacks, threat, logits)}.npz"
    found, spent = _load(path, x, attacks)
    if found is None:
        found = Outcome((logits.argmax(1) == y).cpu().numpy(), {}, x_adv=x.clone())
    else:  # what this call has counted so far, the one before it had counted as well
        count_passes(begun + spent - passes_counted())
    x_adv = cast(Tensor, found.x_adv)
    for number, turn in enumerate(attacks):
        if turn.label in found.attacks:
            continue
        right = standing = torch.from_numpy(found.robust).to(x.device)
        left = standing.nonzero().squeeze(1)
        on_turn(number, turn.label)
        if len(left):
            proposed = propose(turn.attack, model, x[left], y[left], threat=threat, seed=turn.key, ids=ids[left])
            allowed = inside(proposed, x[left], norm=threat.norm, eps=threat.eps)
            if not allowed.all():
                found = replace(found, outside={**found.outside, turn.label: int((~allowed).sum())})
            # In the batch that was judged without an attack: rounding depends on the batch's size.
            tried = x_adv.clone()
            tried[left[allowed]] = proposed[allowed]
            judged = quiet_logits(model, tried)
            check_sound(judged)
            right = standing & (judged.argmax(1) == y)
            x_adv = torch.where(per_image(standing & ~right, x), tried, x_adv)
        found = replace(found, attacks={**found.attacks, turn.label: right.cpu().numpy()}, x_adv=x_adv)
        _save(path, found, x_adv, passes_counted() - begun)
    return found


def propose(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor
) -> Tensor:
    """What an attack, which may be somebody's own, makes of images (B, C, H, W): float32, without a graph.

    The model is put in eval mode, and left as it was.

    Raises
    ------
    ConfigError
        What it gives are no floats of the images' shape.
    """
    with untouched(model):  # and torch's generators
        # One of one's own may draw from these: other noise in each batch, the same in each evaluation.
        torch.manual_seed(stream(seed, "attack", int(ids[0])))
        proposed = attack.perturb(model, x, y, threat=threat, seed=seed, ids=ids)
    if isinstance(proposed, Tensor) and proposed.is_floating_point() and proposed.shape == x.shape:
        return proposed.detach().to(x.device, torch.float32)
    raise ConfigError(
        f"the attack {attack.label()} gives {described(proposed)}, where adversarial images are wanted: a tensor of "
        f"floats of the images' shape, {tuple(x.shape)}"
    )


def fingerprint(
    model: nn.Module, x: Tensor, y: Tensor, ids: Tensor, attacks: Sequence[Turn], threat: ThreatModel, logits: Tensor
) -> str:
    """Hash of all that a batch's outcome depends on: another model, image or setting is another file.

    The clean `logits` tell apart what parameters and buffers do not show: attributes, a changed `forward`.
    """
    digest = hashlib.sha256(
        repr((threat, repr(model), [(turn.attack.canonical(), turn.key) for turn in attacks])).encode()
    )
    for name, tensor in [
        *(("x", x), ("y", y), ("ids", ids), ("logits", logits)),
        *(*model.named_parameters(), *model.named_buffers()),
    ]:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _save(path: Path | None, found: Outcome, x_adv: Tensor, spent: int) -> None:
    if path is None:
        return
    arrays: dict[str, Any] = {f"right {label}": right for label, right in found.attacks.items()}
    arrays |= {f"outside {label}": np.array(count) for label, count in found.outside.items()}
    content = io.BytesIO()
    np.savez(content, **arrays, clean=found.clean, x_adv=x_adv.cpu().numpy(), passes=np.array(spent))
    write_sealed(path, content.getvalue())


def _load(path: Path | None, x: Tensor, attacks: Sequence[Turn]) -> tuple[Outcome | None, int]:
    """How a batch stood when it was left, and the passes that this had taken."""
    payload = None if path is None else read_sealed(path)
    if payload is None:
        return None, 0
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        right = {turn.label: arrays[f"right {turn.label}"] for turn in attacks if f"right {turn.label}" in arrays}
        outside = {label: int(arrays[f"outside {label}"]) for label in right if f"outside {label}" in arrays}
        x_adv = torch.from_numpy(arrays["x_adv"]).to(x.device)
        return Outcome(arrays["clean"], right, x_adv=x_adv, outside=outside), int(arrays["passes"])
