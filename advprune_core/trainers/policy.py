"""Attack policies: where the training attack starts, and how many steps each image gets."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, Field, PlainSerializer
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm, project
from advprune_core.attacks.losses import AttackLoss
from advprune_core.attacks.mode import Mode
from advprune_core.attacks.pgd import default_step_size, pgd, start_point
from advprune_core.randomness import normal, stream
from advprune_core.settings import Component, ConfigError, Pixels, Registry, Settings, component_field
from advprune_core.trainers.base import Batch

STARTS: Registry[Start] = Registry("start", "advprune_core.trainers")
STEPS: Registry[Steps] = Registry("steps", "advprune_core.trainers")

#: What a policy keeps between batches (per image id), part of every checkpoint.
PolicyState = dict[str, Tensor]


@STARTS.family
class Start(Component):
    """Where the training attack starts."""

    def state(self, images: int, shape: tuple[int, ...]) -> PolicyState:
        """What is kept per image of a training split of `images` images; nothing by default."""
        return {}

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """Images that the attack starts from, shape of ``batch.x``."""
        raise NotImplementedError

    def end(self, batch: Batch, x_adv: Tensor, state: PolicyState) -> None:
        """Take note of the attack's result."""


@STARTS.register
class RandomStart(Start):
    """A random point of the ball: uniform for L-inf, uniform direction and radius for L2."""

    name: ClassVar[str] = "random"

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """Noise keyed by seed, epoch and image."""
        return start_point(batch.x, norm=norm, eps=eps, key=key, ids=batch.ids, epochs=batch.epochs)


@STARTS.register
class CleanStart(Start):
    """The clean image."""

    name: ClassVar[str] = "clean"

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """The images as they are."""
        return batch.x


@STARTS.register
class NearStart(Start):
    """Beside the clean image, where TRADES and MART start: Gaussian noise of `sigma`, in the ball."""

    name: ClassVar[str] = "near"
    sigma: Annotated[Pixels, Field(gt=0, description="standard deviation of the noise")] = 0.001

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """Noise keyed by seed, epoch and image, projected onto ball and box."""
        noise = normal(key, batch.ids, batch.epochs, tuple(batch.x.shape[1:]))
        return project(batch.x + self.sigma * noise, batch.x, norm=norm, eps=eps)


@STEPS.family
class Steps(Component):
    """How many steps each image gets."""

    def state(self) -> PolicyState:
        """Running averages and the like; nothing by default."""
        return {}

    def plan(
        self, model: nn.Module, batch: Batch, *, eps: float, state: PolicyState
    ) -> tuple[int | Tensor, float | Tensor]:
        """Steps and step size: for all images, or one of each per image (B,)."""
        raise NotImplementedError

    def expected(self) -> float:
        """Steps per image, for estimates before a run."""
        raise NotImplementedError


@STEPS.register
class FixedSteps(Steps):
    """The same number of steps for every image."""

    name: ClassVar[str] = "fixed"
    count: Annotated[int, Field(ge=1, description="gradient steps")] = 7
    step_size: Annotated[
        Pixels | None, Field(gt=0, description="length of a step; default min(2.5 / steps, 1) eps")
    ] = None

    def spec(self) -> Any:
        """A plain number where only the number is set."""
        return self.count if self.step_size is None else super().spec()

    def plan(
        self, model: nn.Module, batch: Batch, *, eps: float, state: PolicyState
    ) -> tuple[int | Tensor, float | Tensor]:
        """`count` steps of `step_size`."""
        size = default_step_size(eps, self.count) if self.step_size is None else self.step_size
        return self.count, size

    def expected(self) -> float:
        """`count`."""
        return float(self.count)


def _steps(spec: Any) -> Any:
    """A number stands for that many fixed steps."""
    plain = isinstance(spec, int) and not isinstance(spec, bool)
    return FixedSteps.create(count=spec) if plain else STEPS.parse(spec)


class AttackPolicy(Settings):
    """The training attack: threat model, start and steps."""

    norm: Annotated[Norm, Field(description="norm of the threat model: linf or l2")] = "linf"
    eps: Annotated[
        Pixels | None,
        Field(gt=0, description="radius in units of [0, 1], a number or '8/255'; default: the data set's"),
    ] = None
    start: Annotated[Start, *component_field(STARTS), Field(description="where the training attack starts")] = (
        RandomStart()
    )
    steps: Annotated[
        Steps,
        BeforeValidator(_steps),
        PlainSerializer(lambda steps: steps.spec()),
        Field(description="attack steps: a number, or a policy of steps per image"),
    ] = FixedSteps()
    attack_mode: Annotated[Mode, Field(description="mode of BatchNorm and dropout in the training attack")] = "eval"

    @property
    def radius(self) -> float:
        """`eps`, which a `RunConfig` has filled in.

        Raises
        ------
        ConfigError
            Outside a run, if it was not given.
        """
        if self.eps is None:
            raise ConfigError("eps is not set: give the radius of the threat model")
        return self.eps

    def initial_state(self, images: int, shape: tuple[int, ...]) -> PolicyState:
        """State of start and steps for a training split."""
        return {**self.start.state(images, shape), **self.steps.state()}

    def attack(
        self,
        model: nn.Module,
        batch: Batch,
        target: Tensor,
        loss: AttackLoss,
        *,
        seed: int,
        state: PolicyState,
    ) -> Tensor:
        """Adversarial images for a batch, shape of ``batch.x``."""
        eps = self.radius
        key = stream(seed, "attack")
        steps, step_size = self.steps.plan(model, batch, eps=eps, state=state)
        with torch.no_grad():
            start = self.start.begin(batch, norm=self.norm, eps=eps, key=key, state=state)
        x_adv = pgd(
            model,
            batch.x,
            target,
            norm=self.norm,
            eps=eps,
            steps=steps,
            step_size=step_size,
            start=start,
            loss=loss,
            mode=self.attack_mode,
        )
        self.start.end(batch, x_adv, state)
        return x_adv
