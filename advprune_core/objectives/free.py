"""Free adversarial training: each backward pass updates the weights and the perturbation."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.geometry import ascend, shrink
from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective, Outputs, Trainer, Update
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import BoundAttack

_DELTA = "free.delta"


@OBJECTIVES.register
class Free(Objective):
    """Free AT (Shafahi et al. 2019): one backward pass per replay for weights and attack, 3 a replay.

    A batch is trained on `replays` times in a row; the gradient of each pass moves the weights and,
    by a step of the policy's size, the perturbation, which goes on from batch to batch whatever the
    images. So an epoch takes `replays` times as many updates: divide the epochs by it to compare
    at equal updates. The step shares its backward pass with training, in the mode of training,
    unlike other attacks here. Usual settings: 8 replays and a step of eps (1904.12843); on the
    digits 4 replays cost 12 forward-equivalents an image, PGD-AT with 7 steps 17.
    """

    name = "free"
    single_step = True
    own_step = True
    own_start = True
    replays: Annotated[int, Field(ge=1, le=1000, description="updates on each batch")] = 4

    def state(self, batch_size: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """The perturbation that goes on from batch to batch."""
        return {_DELTA: torch.zeros(batch_size, *shape)}

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        assert adversarial is not None
        return self.cross_entropy(adversarial, y)

    def step(self, model: nn.Module, batch: Batch, attack: BoundAttack, update: Update) -> Outputs:
        """`replays` passes, each with an update of the weights and a step of the attack."""
        delta = attack.state[_DELTA]
        for _ in range(self.replays):
            x_adv = (batch.x + delta).clamp(0, 1).requires_grad_()

            def passes(x_adv: Tensor = x_adv) -> tuple[Tensor, Tensor]:
                logits = model(x_adv)
                return self.per_sample(None, logits, batch.y), logits

            outputs = update(passes)
            assert x_adv.grad is not None
            delta = ascend(delta, x_adv.grad, norm=attack.norm, step_size=attack.step_size)
            delta = shrink(delta, norm=attack.norm, eps=attack.eps)
        attack.state[_DELTA] = delta
        return outputs

    def cost(self, steps: float, *, clean_logits: bool = False) -> float:
        """A forward and a full backward pass for each replay."""
        return self.training_cost

    @property
    def training_cost(self) -> float:
        """Everything is trained on."""
        return 3.0 * self.replays


@TRAINERS.register
class FreeTrainer(Trainer):
    """Free AT (Shafahi et al. 2019): 4 replays of each batch, steps of eps."""

    name = "free"
    objective = "free"
    attack = {"start": "clean", "steps": 1}
    single_step = True
