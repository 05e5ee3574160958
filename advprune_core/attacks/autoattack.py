"""AutoAttack: APGD-CE, targeted APGD-DLR, targeted FAB and Square in turn, an image falls with the first.

Croce and Hein 2020b (2003.01690). Every part works on what withstood those before it, in the
order of their cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import torch
from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer, model_validator
from torch import Tensor, nn

from advprune_core.attacks.apgd import APGD, APGDT
from advprune_core.attacks.base import ATTACKS, Attack, parse_attacks
from advprune_core.attacks.ensemble import Outcome, propose, turns
from advprune_core.attacks.evaluate import inspected
from advprune_core.attacks.fab import FABT
from advprune_core.attacks.geometry import ThreatModel
from advprune_core.attacks.inputs import check_inputs
from advprune_core.attacks.search import GiveUp, Precision
from advprune_core.attacks.square import Square
from advprune_core.datasets.splits import Split
from advprune_core.models.mode import quiet_logits
from advprune_core.models.passes import check_sound

Version = Literal["standard", "apgd"]


def _version(value: Any) -> Any:
    if isinstance(value, list | tuple) and value:
        return parse_attacks(value)
    if value not in (versions := get_args(Version)):
        raise ValueError(f"{value!r} is no version: {' or '.join(map(repr, versions))}, or a list of attacks")
    return value


def parts(
    version: str | Sequence[Attack],
    *,
    precision: Literal["float32", "bfloat16"] = "float32",
    give_up: bool = True,
) -> tuple[Attack, ...]:
    """The attacks of a version, cheapest first; those of a custom list as they are.

    The numbers of steps, targets, restarts and queries are those of the papers.
    """
    if not isinstance(version, str):
        return tuple(version)
    gradient = (APGD(precision=precision), APGDT(precision=precision, give_up=give_up))
    if version == "apgd":
        return gradient
    fab, square = FABT(precision=precision, give_up=give_up), Square(precision=precision, give_up=give_up)
    return (*gradient, fab, square)


@ATTACKS.register
class AutoAttack(Attack):
    """AutoAttack (Croce and Hein 2020b): four attacks in turn, the number the field compares by.

    APGD on cross-entropy, targeted APGD, targeted FAB and 5,000 queries of Square, each on the images that withstood
    those before. Cost: what these cost; about 9,700 forward-equivalents an image that withstands all, less what
    `give_up` saves.

    References
    ----------
    Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks,
    ICML 2020 (2003.01690).
    """

    name = "autoattack"
    version = 2
    #: Also taken as `version`, its name elsewhere (here a component's version is another thing).
    attacks: Annotated[
        Version | tuple[Attack, ...],
        BeforeValidator(_version),
        PlainSerializer(lambda value: value if isinstance(value, str) else [attack.spec() for attack in value]),
        Field(
            validation_alias=AliasChoices("attacks", "version"),
            description="standard (four attacks), apgd (the first two), or a list; also called version",
        ),
    ] = "standard"
    precision: Precision = "float32"
    give_up: GiveUp = True

    @model_validator(mode="after")
    def _of_each(self) -> Self:
        if not isinstance(self.attacks, str) and (self.precision != "float32" or not self.give_up):
            raise ValueError(
                "attacks in a list have a precision and give_up of their own: [{apgd: {precision: bfloat16}}]"
            )
        return self

    def label(self) -> str:
        """``autoattack``, ``autoattack_apgd_bfloat16``, ``autoattack_fgsm+square``, ``autoattack_apgd_alone``, ..."""
        if isinstance(self.attacks, str):
            version: str = self.attacks
        else:  # apgd by itself is a version, of two attacks
            version = "+".join(part.label() for part in self.attacks) + "_alone" * (len(self.attacks) == 1)
        words = [self.name] + ([version] if version != "standard" else [])
        words += ["bfloat16"] if self.precision == "bfloat16" else []
        words += [] if self.give_up else ["to_the_end"]
        return "_".join(words)

    def canonical(self) -> dict[str, Any]:
        """As `Component.canonical`; attacks of a custom list by their own."""
        identity = super().canonical()
        if not isinstance(self.attacks, str):
            identity["settings"] |= {"attacks": [attack.canonical() for attack in self.attacks]}
        return identity

    def parts(self) -> tuple[Attack, ...]:
        return parts(self.attacks, precision=self.precision, give_up=self.give_up)

    def doubts(self, *, classes: int) -> tuple[str, ...]:
        """The targeted DLR loss needs four classes."""
        if classes >= 4:
            return ()
        instead = "that of the untargeted one" if classes == 3 else "1, so that the loss is the margin"
        return (f"the model has {classes} classes, and the targeted DLR loss needs 4: its denominator is {instead}",)

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        """The first adversarial image of each, or the last attempt; `autoattack` says which is which."""
        given = check_inputs(model, x, y, threat=threat, seed=seed, ids=ids)
        x, y, names = given.x, given.y, given.ids
        result, left = x.clone(), torch.arange(len(x), device=x.device)
        for turn in turns([self], seed=seed):
            if len(left) == 0:
                break
            result[left] = propose(turn.attack, model, x[left], y[left], threat=threat, seed=turn.key, ids=names[left])
            logits = quiet_logits(model, result[left])
            check_sound(logits)
            left = left[logits.argmax(1) == y[left]]
        return result


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    version: str | Sequence[Any] = "standard",
    seed: int = 0,
    ids: Tensor | None = None,
    batch_size: int = 500,
    precision: Literal["float32", "bfloat16"] = "float32",
    give_up: bool = True,
    work: str | Path | None = None,
    progress: bool = False,
) -> Outcome:
    """Evaluate a model on images in [0, 1] with AutoAttack.

    Parameters
    ----------
    model : nn.Module
        Images (B, C, H, W) to logits (B, classes); normalises inside. Left as it was.
    x : Tensor of float32, shape (n, C, H, W)
    y : Tensor of int64, shape (n,)
    threat, or norm and eps
        Threat model; `eps` in pixel units of [0, 1], a number or "8/255"; `norm` is "linf" unless given.
    version : "standard", "apgd" or list of attacks
        A list holds attacks, names or ``{name: settings}``, cheapest first.
    seed, ids
        Noise is keyed by both; `ids` (n,) default to the places of the images.
    batch_size : int
        Images at once; in these batches the model judges, in float32.
    precision : "float32" or "bfloat16"
        Of the search.
    give_up : bool
        Leave images and targets whose progress, extrapolated, does not reach a success.
    work : path, optional
        Folder that keeps the state after every attack and batch: a killed call goes on from there,
        to the same result.
    progress : bool
        Show a bar with the images left and the time.

    Returns
    -------
    Outcome
        With the adversarial images; its `accuracy` is that of the model on them.

    Raises
    ------
    ConfigError
        An unknown version or attack; what `guards.inspect` refuses.

    Warns
    -----
    UserWarning
        What stands in the outcome's `warnings`.
    """
    attack = AutoAttack.create(version=version, precision=precision, give_up=give_up)
    given = check_inputs(model, x, y, threat=threat, norm=norm, eps=eps, seed=seed, ids=ids, batch_size=batch_size)
    options: dict[str, Any] = {"seed": seed, "ids": given.ids, "batch_size": batch_size, "progress": progress}
    return inspected(
        model, Split(given.x, given.y), [attack], threat=given.threat, work=work, keep_images=True, **options
    )
