"""Attacks as frozen settings: what an evaluation or a training run names in its config."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from advprune_core.attacks.geometry import StepSize, ThreatModel, UniformSetting
from advprune_core.attacks.inputs import check_images
from advprune_core.attacks.losses import AttackLoss
from advprune_core.attacks.pgd import fgsm, pgd
from advprune_core.base.components import Component, Registry
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import quiet_logits

ATTACKS: Registry[Attack] = Registry("attack", "advprune_core.attacks")


@ATTACKS.family
class Attack(Component):
    """An attack with its settings; the threat model comes from the run."""

    def label(self) -> str:
        """A short name for tables: unique among attacks with different settings."""
        settings = self.model_dump(mode="json", exclude_defaults=True)
        return "_".join([self.name, *(f"{name}={value}" for name, value in settings.items())])

    def parts(self) -> tuple[Attack, ...]:
        """The attacks that this one consists of, if an evaluation is to keep their outcomes apart."""
        return ()

    def doubts(self, *, classes: int) -> tuple[str, ...]:
        """What this attack cannot judge well of a model with so many classes; see `guards.inspect` for the rest."""
        return ()

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        """Adversarial images for `x` (B, C, H, W) in [0, 1] with labels `y` (B,).

        Noise is keyed by `seed` and `ids` (B,), the images' places in their data set. An evaluation undoes what this
        does to the model's mode, statistics and gradients, and to torch's generators.
        """
        raise NotImplementedError


def parse_attacks(specs: Any) -> tuple[Attack, ...]:
    """Attacks from one or several of them, their names or ``{name: settings}``.

    Raises
    ------
    ConfigError
        An unknown name or setting; none at all; one of your own that cannot be called.
    """
    one = isinstance(specs, Component | str | Mapping) or not isinstance(specs, Iterable)
    found = tuple(ATTACKS.parse(spec) for spec in ([specs] if one else specs))
    if not found:
        raise ConfigError("no attack is given; allowed: " + ", ".join(ATTACKS.classes()))
    for attack in found:
        _check_perturb(attack)
    return found


def _check_perturb(attack: Attack) -> None:
    """Refuse an attack without a `perturb` that takes what the one of `Attack` takes."""
    if attack.parts():  # which are called instead
        return
    own, whole = type(attack).perturb, "perturb(self, model, x, y, *, threat, seed, ids=None)"
    if own is Attack.perturb:
        raise ConfigError(f"the attack {attack.label()} has no {whole}")
    try:
        inspect.signature(own).bind(attack, None, None, None, threat=None, seed=0, ids=None)
    except TypeError as error:
        raise ConfigError(f"the attack {attack.label()} cannot be called as {whole}: {error}") from None


@ATTACKS.register
class FGSM(Attack):
    """Fast gradient sign method (Goodfellow et al. 2015): one step of length eps.

    ``x + eps sign(g)`` for L-inf and ``x + eps g / |g|`` for L2, in the box, with `g` the gradient of the loss at the
    clean image. Cost: 2 forward-equivalents an image. Says little about robustness by itself: a network can hide its
    gradient at the image.

    References
    ----------
    Goodfellow et al., Explaining and Harnessing Adversarial Examples, ICLR 2015 (1412.6572).
    """

    name = "fgsm"
    loss: Annotated[Literal["cross_entropy", "margin"], Field(description="what the step maximises")] = "cross_entropy"

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        """Starts from the clean images."""
        return fgsm(model, x, y, threat=threat, loss=self.loss, seed=seed)


@ATTACKS.register
class PGD(Attack):
    """Projected gradient descent (Madry et al. 2018), with restarts; stops at the first success.

    From a point of the ball k times a step along the sign of the gradient (L2: along the gradient), each followed by
    the projection onto ball and box. Cost: at most 2k forward-equivalents an image, and 2k + 1 for each start more; an
    image that is broken costs no more.

    References
    ----------
    Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018 (1706.06083).
    """

    name = "pgd"
    steps: Annotated[int, Field(ge=1, le=100_000, description="gradient steps")] = 40
    step_size: StepSize = None
    restarts: Annotated[int, Field(ge=1, le=10_000, description="random starts")] = 1
    random_start: Annotated[bool, Field(description="begin at a random point of the ball")] = True
    uniform: UniformSetting = "radius"
    loss: Annotated[AttackLoss, Field(description="what is maximised")] = "cross_entropy"

    @model_validator(mode="after")
    def _moves(self) -> PGD:
        if self.loss == "kl" and not self.random_start:
            raise ValueError("KL has no gradient at the clean image: it needs random_start")
        return self

    def label(self) -> str:
        """``pgd40``, ``pgd40_margin``, ``pgd10_kl_x5``, ..."""
        parts = [f"pgd{self.steps}"]
        parts += [self.loss] if self.loss != "cross_entropy" else []
        parts += [f"x{self.restarts}"] if self.restarts > 1 else []
        parts += [f"step{self.step_size:g}"] if self.step_size is not None else []
        parts += [] if self.random_start else ["clean"]
        parts += [] if self.uniform == "radius" else ["in_volume"]
        return "_".join(parts)

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        """KL is measured from the clean logits."""
        target = quiet_logits(model, check_images(x)) if self.loss == "kl" else y
        return pgd(
            model,
            x,
            target,
            labels=y,
            threat=threat,
            steps=self.steps,
            step_size=self.step_size,
            start="random" if self.random_start else "clean",
            uniform=self.uniform,
            restarts=self.restarts,
            loss=self.loss,
            seed=seed,
            ids=ids,
            stop_early=True,
        )
