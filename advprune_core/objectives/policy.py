"""Attack policies: where the training attack starts, and how many steps each image gets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import BeforeValidator, Field, PlainSerializer, model_validator
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm, NormSetting, ascend, check_radius, project
from advprune_core.attacks.inputs import check_choice, check_images, check_labels, check_logits, check_width
from advprune_core.attacks.losses import LOSSES, AttackLoss
from advprune_core.attacks.pgd import climb
from advprune_core.attacks.steps import warn_of_long_steps
from advprune_core.base.components import component_field
from advprune_core.base.randomness import stream
from advprune_core.base.settings import ConfigError, Pixels, Settings
from advprune_core.models.mode import Mode, no_trace, quiet_logits
from advprune_core.objectives.batch import Batch, PolicyState
from advprune_core.objectives.starts import STARTS, RandomStart, Start, where_images
from advprune_core.objectives.steps import FixedSteps, Steps, parse_steps


class AttackPolicy(Settings):
    """The training attack: threat model, start and steps."""

    norm: Annotated[NormSetting, Field(description="norm of the threat model: linf or l2")] = "linf"
    eps: Annotated[
        Pixels | None,
        Field(gt=0, le=100, description="radius in units of [0, 1], a number or '8/255'; default: the data set's"),
    ] = None
    start: Annotated[Start, *component_field(STARTS), Field(description="where the training attack starts")] = (
        RandomStart()
    )
    steps: Annotated[
        Steps,
        BeforeValidator(parse_steps),
        PlainSerializer(lambda steps: steps.spec()),
        Field(description="attack steps: a number, or a policy of steps per image"),
    ] = FixedSteps()
    attack_mode: Annotated[Mode, Field(description="mode of BatchNorm and dropout in the training attack")] = "eval"

    @model_validator(mode="after")
    def _in_unit(self) -> AttackPolicy:
        if self.eps is not None:
            check_radius(self.norm, self.eps)
        return self

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

    def initial_state(self, images: int) -> PolicyState:
        """State of start and steps for a training split of `images` images."""
        return {**self.start.state(images), **self.steps.state()}

    def bind(self, model: nn.Module, *, seed: int, state: PolicyState, remembers: bool = True) -> BoundAttack:
        """The attack of a run: what a step of training calls, with images that were looked at before."""
        if isinstance(self.steps, FixedSteps):
            warn_of_long_steps(self.steps.length(self.radius), self.radius)
        return BoundAttack(self, model, seed, state, remembers)

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
        """Adversarial images for a batch, shape of ``batch.x``; see `BoundAttack`.

        Raises
        ------
        ConfigError
            Images that are no floats in [0, 1], an unknown loss, a target that it cannot have, labels of classes
            that the model has not.
        """
        check_choice("loss", loss, LOSSES)
        x = check_images(batch.x)
        batch = replace(batch, x=x, y=check_labels(batch.y, x))
        target = check_logits(target, x) if loss == "kl" else check_labels(target, x)
        largest = batch.y if loss == "kl" else torch.maximum(batch.y, target)
        check_width(quiet_logits(model, x[:1]), target, classes=int(largest.max()) + 1)
        return self.bind(model, seed=seed, state=state)(batch, target, loss)


@dataclass(frozen=True, eq=False)
class BoundAttack:
    """An attack policy with the model that it attacks, a seed and a state.

    One that does not `remember` only reads the state: the scoring attack of a pruner.
    """

    policy: AttackPolicy
    model: nn.Module
    seed: int
    state: PolicyState
    remembers: bool = True

    @property
    def norm(self) -> Norm:
        """Norm of the threat model."""
        return self.policy.norm

    @property
    def eps(self) -> float:
        """Radius of the threat model."""
        return self.policy.radius

    @property
    def step_size(self) -> float:
        """Length of a step, for objectives that take it themselves."""
        steps = self.policy.steps
        assert isinstance(steps, FixedSteps)
        return steps.length(self.eps)

    def __call__(self, batch: Batch, target: Tensor, loss: AttackLoss, *, clean: Tensor | None = None) -> Tensor:
        """Adversarial images, shape of ``batch.x``; the target is labels, or clean logits for KL.

        An image without steps stays as it is, and nothing is noted of it. Who knows the `clean` logits
        (B, classes) gives them, and saves the pass.
        """
        policy, eps, known = self.policy, self.eps, target if loss == "kl" else clean
        # A copy, because steps may replace entries.
        state = self.state if self.remembers else dict(self.state)

        def logits() -> Tensor:
            return quiet_logits(self.model, batch.x) if known is None else known

        steps, step_size = policy.steps.plan(batch, eps=eps, logits=logits, state=state)
        start, attacked = self.start(batch), None
        if isinstance(steps, Tensor):
            attacked = steps > 0
            start = where_images(attacked, start, batch.x)
        x_adv = start.clone()
        with no_trace(self.model, policy.attack_mode):
            climb(
                self.model,
                start if policy.start.augments else batch.x,
                target,
                x_adv,
                norm=self.norm,
                eps=eps,
                steps=steps,
                size=step_size,
                loss=LOSSES[loss],
            )
        if self.remembers:
            policy.start.end(batch, x_adv, norm=self.norm, eps=eps, state=state, attacked=attacked)
        return x_adv

    def start(self, batch: Batch) -> Tensor:
        """Where the attack starts."""
        with torch.no_grad():
            return self.policy.start.begin(
                batch, norm=self.norm, eps=self.eps, key=stream(self.seed, "attack"), state=self.state
            )

    def ascend(self, batch: Batch, x_adv: Tensor, gradient: Tensor) -> Tensor:
        """One step of the policy's step size along a gradient, projected onto ball and box."""
        centre = x_adv if self.policy.start.augments else batch.x
        moved = ascend(x_adv, gradient, norm=self.norm, step_size=self.step_size)
        return project(moved, centre, norm=self.norm, eps=self.eps)

    def finish(self, batch: Batch, x_adv: Tensor, start: Tensor, gradient: Tensor) -> None:
        """Take note of the result of one's own single step from a start, and of the gradient there."""
        self.policy.start.end(batch, x_adv, norm=self.norm, eps=self.eps, state=self.state, step=(start, gradient))
