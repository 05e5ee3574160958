"""Attacks in turn, each on the images that withstood those before; the float32 model judges.

An attack proposes images. One counts as broken only if it lies in the ball and in [0, 1] and the
model misclassifies it once more, in the batch that the evaluation has anyway.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from advprune_core.attacks.base import Attack
from advprune_core.attacks.geometry import ThreatModel, inside, per_image
from advprune_core.base.files import read_sealed, write_sealed
from advprune_core.base.ledger import count_passes, passes_counted
from advprune_core.base.randomness import stream
from advprune_core.models.mode import quiet_logits
from advprune_core.models.passes import check_sound


@dataclass(frozen=True)
class Turn:
    """One attack of an evaluation: its name in records, the key of its noise, and the name of what it is a part of."""

    label: str
    attack: Attack
    key: int
    owner: str


@dataclass(frozen=True, eq=False, repr=False)
class Stand:
    """How a batch came through.

    Attributes
    ----------
    clean : Tensor of bool, shape (B,)
        Right without an attack.
    right : dict of str to Tensor of bool, shape (B,)
        By the turn's label: right after it and all before it.
    x_adv : Tensor of float32, shape (B, C, H, W)
        The adversarial image of what is broken, else the clean one.
    """

    clean: Tensor
    right: dict[str, Tensor]
    x_adv: Tensor

    def __repr__(self) -> str:
        return (
            f"Stand(images={len(self.clean)}, clean={float(self.clean.double().mean()):.3f}, left={self.accuracy:.3f})"
        )

    @property
    def accuracy(self) -> float:
        """Share that is right after every attack."""
        return float(self.left.double().mean())

    def broken(self) -> dict[str, int]:
        """How many images fell to each attack, of those that the attacks before it had left."""
        columns = [self.clean, *self.right.values()]
        return {label: int((columns[i] & ~right).sum()) for i, (label, right) in enumerate(self.right.items())}

    @property
    def left(self) -> Tensor:
        """Right so far, bool (B,)."""
        return list(self.right.values())[-1] if self.right else self.clean


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


def joined(stands: Sequence[Stand]) -> Stand:
    """Batches one after the other."""
    right = {label: torch.cat([stand.right[label] for stand in stands]) for label in stands[0].right}
    return Stand(torch.cat([s.clean for s in stands]), right, torch.cat([s.x_adv for s in stands]))


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
) -> Stand:
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
    stand, spent = _load(path, x, attacks)
    if stand is None:
        stand = Stand(logits.argmax(1) == y, {}, x.clone())
    else:  # what this call has counted so far, the one before it had counted as well
        count_passes(begun + spent - passes_counted())
    for number, turn in enumerate(attacks):
        if turn.label in stand.right:
            continue
        left = stand.left.nonzero().squeeze(1)
        on_turn(number, turn.label)
        right, x_adv = stand.left.clone(), stand.x_adv
        if len(left):
            proposed = turn.attack.perturb(model, x[left], y[left], threat=threat, seed=turn.key, ids=ids[left])
            allowed = inside(proposed, x[left], norm=threat.norm, eps=threat.eps)
            if not allowed.all():
                warnings.warn(
                    f"{turn.label} left the ball of radius {threat.eps:g} or [0, 1] on "
                    f"{int((~allowed).sum())} images; these do not count",
                    stacklevel=2,
                )
            # In the batch that was judged without an attack: rounding depends on the batch's size.
            tried = x_adv.clone()
            tried[left[allowed]] = proposed[allowed]
            judged = quiet_logits(model, tried)
            check_sound(judged)
            right = right & (judged.argmax(1) == y)
            x_adv = torch.where(per_image(stand.left & ~right, x), tried, x_adv)
        stand = Stand(stand.clean, {**stand.right, turn.label: right}, x_adv)
        _save(path, stand, passes_counted() - begun)
    return stand


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


def _save(path: Path | None, stand: Stand, spent: int) -> None:
    if path is None:
        return
    arrays = {f"right {label}": right.cpu().numpy() for label, right in stand.right.items()}
    arrays |= {"clean": stand.clean.cpu().numpy(), "x_adv": stand.x_adv.cpu().numpy(), "passes": np.array(spent)}
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_sealed(path, content.getvalue())


def _load(path: Path | None, x: Tensor, attacks: Sequence[Turn]) -> tuple[Stand | None, int]:
    """How a batch stood when it was left, and the passes that this had taken."""
    payload = None if path is None else read_sealed(path)
    if payload is None:
        return None, 0
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]).to(x.device) for name in file.files}
    right = {turn.label: arrays[f"right {turn.label}"] for turn in attacks if f"right {turn.label}" in arrays}
    return Stand(arrays["clean"], right, arrays["x_adv"]), int(arrays["passes"])
