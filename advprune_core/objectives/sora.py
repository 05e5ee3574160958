"""SORA: one step whose length follows how linear the loss is, as the training pass itself shows."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.pgd import input_gradient
from advprune_core.base.randomness import stream, uniform
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import no_trace
from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective, Outputs, Trainer, Update
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.carried import CarriedStart
from advprune_core.objectives.policy import AttackPolicy, BoundAttack
from advprune_core.objectives.steps import FixedSteps

_LINEARITY = "sora.linearity"


def linearity(first: Tensor, second: Tensor) -> Tensor:
    """``sum(g1 sign(g0)) / sum |g0|`` of each image, in [-1, 1], shape (B,).

    1 where the loss goes on rising as it did at the start of the step, below where it bends; 1, too, of an image
    without a gradient.

    Parameters
    ----------
    first, second : Tensor, shape (B, C, H, W)
        Gradients g0 at the start of the step and g1 at its end.
    """
    ascent, expected = (second * first.sign()).flatten(1).sum(1), first.abs().flatten(1).sum(1)
    return torch.where(expected > 0, ascent / expected, 1.0).clamp(-1, 1)


@OBJECTIVES.register
class SORA(Objective):
    """One step, shorter as the loss bends more (2606.00738): 5 an image; the bend costs nothing.

    From a random start, every pixel moves by a random part of ``2 eps min(1, slack / (1 - c))`` along the sign of the
    gradient, into the box, not back into the ball. `c` is a running average of the `linearity` between the gradient
    of the step and that at its end, which the training pass gives for free; both are of the loss that is trained, with
    its label smoothing and the images' weights. L-inf alone, without AWP. Both are taken in the mode of training; the
    start stays in the box here.
    """

    name = "sora"
    single_step = True
    own_step = True
    only_linf = True
    same_weights = True
    slack: Annotated[
        float, Field(gt=0, le=1, description="distance of the linearity from 1 that still has full steps")
    ] = 0.02
    momentum: Annotated[float, Field(ge=0, lt=1, description="of the running average over batches")] = 0.95

    def canonical(self) -> dict[str, Any]:
        """As of `Component`; a second version with label smoothing, which only one of the two gradients had."""
        return super().canonical() | ({"version": 2} if self.label_smoothing else {})

    def check(self, attack: AttackPolicy) -> None:
        """As of `Objective`; and refuse what its own step does not look at."""
        super().check(attack)
        if isinstance(attack.start, CarriedStart):
            raise ConfigError("the objective 'sora' carries nothing from epoch to epoch: use start = 'random'")
        if isinstance(attack.steps, FixedSteps) and attack.steps != FixedSteps(count=1):
            raise ConfigError("the objective 'sora' sets the length of its step itself: use steps = 1")

    def state(self, batch_size: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """The running average of the linearity, from 0.99."""
        return {_LINEARITY: torch.tensor(0.99)}

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        assert adversarial is not None
        return self.cross_entropy(adversarial, y)

    def step(self, model: nn.Module, batch: Batch, attack: BoundAttack, update: Update) -> Outputs:
        """The gradient at the start, the step, one update, and what its gradient says of the next step's length."""
        start, average = attack.start(batch), attack.state[_LINEARITY]
        with no_trace(model, "train"):
            first, _ = input_gradient(model, start, batch.y, lambda *pair: self.cross_entropy(*pair) * batch.weights)
        # More than 1 - slack is as good as linear; it is 1 at most.
        length = 2 * attack.eps * min(1.0, self.slack / max(1.0 - float(average), 1e-12))
        part = uniform(stream(attack.seed, "sora"), batch.ids, batch.epochs, tuple(batch.x.shape[1:]))
        x_adv = (start + length * part * first.sign()).clamp(0, 1).detach().requires_grad_()

        def passes() -> tuple[Tensor, Tensor]:
            x_adv.grad = None  # of the pass that moves the weights alone
            logits = model(x_adv)
            return self.per_sample(None, logits, batch.y), logits

        outputs = update(passes)
        assert x_adv.grad is not None
        second = x_adv.grad * len(batch.x)  # of the sum of the weighted losses, as the first, not of their mean
        attack.state[_LINEARITY] = self.momentum * average + (1 - self.momentum) * linearity(first, second).mean()
        return outputs

    def cost(self, steps: float, *, clean_logits: bool = False) -> float:
        """The gradient at the start and the training pass."""
        return 2.0 + self.training_cost


@TRAINERS.register
class SORATrainer(Trainer):
    """SORA (2606.00738): one step from a random start, as long as the loss is linear."""

    name = "sora"
    objective = "sora"
    attack = {"start": "random", "steps": 1}
    single_step = True
