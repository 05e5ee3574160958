"""GradAlign: FGSM kept from collapsing by gradients that agree inside the ball."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.losses import cross_entropy
from advprune_core.attacks.pgd import input_gradient, start_point
from advprune_core.base.ledger import count_passes
from advprune_core.base.randomness import stream
from advprune_core.models.mode import no_trace
from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective, Outputs, Trainer, Update
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import BoundAttack

#: Squares of shorter gradients are 0 in float32, so that they have no direction.
SHORTEST = 1e-19


def misalignment(first: Tensor, second: Tensor) -> Tensor:
    """``1 - cos`` of the angle between two gradients of each image, shape (B,); 1 where one is 0.

    References
    ----------
    Andriushchenko and Flammarion, Understanding and Improving Fast Adversarial Training, NeurIPS
    2020 (2007.02617), eq. (4).
    """
    return 1 - F.cosine_similarity(first.flatten(1), second.flatten(1), dim=1, eps=SHORTEST)


@OBJECTIVES.register
class GradAlign(Objective):
    """FGSM with input gradients aligned inside the ball (Andriushchenko 2020): 13 an image, one step.

    Adds `lam` times the misalignment of the gradient at the image and at a random point of the
    ball. As in the public code the former is a constant; the latter is differentiated twice, which
    is what costs (counted as 3 beyond its forward and backward pass). Prevents collapse at radii
    where FGSM and Fast AT fail. Usual settings: lam 0.2 on CIFAR-10 at 8/255, a clean start.
    """

    name = "grad_align"
    version = 2
    single_step = True
    lam: Annotated[float, Field(ge=0, le=1_000_000, description="weight of the misalignment")] = 0.2

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        """Cross-entropy of the adversarial logits; the misalignment is added in `step`."""
        assert adversarial is not None
        return self.cross_entropy(adversarial, y)

    def step(self, model: nn.Module, batch: Batch, attack: BoundAttack, update: Update) -> Outputs:
        """FGSM, then its loss and the misalignment, one update."""
        x_adv = attack(batch, batch.y, "cross_entropy")
        batch.need_ids("grad_align")
        key = stream(attack.seed, "grad_align")
        beside = start_point(batch.x, norm=attack.norm, eps=attack.eps, key=key, ids=batch.ids, epochs=batch.epochs)
        beside.requires_grad_()

        def passes() -> tuple[Tensor, Tensor]:
            # Both gradients at the weights of these passes, in the mode of training, statistics as before.
            with no_trace(model, "train"):
                here, _ = input_gradient(model, batch.x, batch.y, cross_entropy)
                loss = F.cross_entropy(model(beside), batch.y, reduction="sum")
                (there,) = torch.autograd.grad(loss, beside, create_graph=True)
            count_passes(3 * len(batch.x))  # that gradient, and the backward pass through it
            adversarial = model(x_adv)
            losses = self.per_sample(None, adversarial, batch.y) + self.lam * misalignment(here, there)
            return losses, adversarial

        return update(passes)

    def cost(self, steps: float, *, clean_logits: bool = False) -> float:
        """The attack and the passes of training."""
        return 2 * steps + self.training_cost

    @property
    def training_cost(self) -> float:
        """The adversarial pass, one input gradient, and one that is backpropagated through."""
        return 3.0 + 2.0 + 6.0


@TRAINERS.register
class GradAlignTrainer(Trainer):
    """GradAlign (Andriushchenko and Flammarion 2020): FGSM from the clean image, lam 0.2."""

    name = "grad_align"
    objective = "grad_align"
    attack = {"start": "clean", "steps": 1}
    single_step = True
