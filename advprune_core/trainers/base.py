"""What a training step is made of: an objective and an attack policy.

An *objective* turns clean logits, adversarial logits and labels into one loss per image. An
*attack policy* says where the training attack starts and how many steps each image gets. The two
compose freely. A method that is more than that overrides `Objective.step`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.losses import AttackLoss
from advprune_core.attacks.mode import quiet_logits
from advprune_core.settings import Component, Registry

OBJECTIVES: Registry[Objective] = Registry("objective", "advprune_core.trainers")
TRAINERS: Registry[Trainer] = Registry("trainer", "advprune_core.trainers")


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch, on the device.

    Attributes
    ----------
    x : Tensor of float32, shape (B, C, H, W), in [0, 1], augmented
    y : Tensor of int64, shape (B,)
    ids, epochs : Tensor of int64, shape (B,)
        Positions in the training split, and the epoch each image was drawn in: noise is keyed by
        both.
    weights : Tensor of float32, shape (B,)
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    epochs: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a step leaves for metrics: losses per image (B,), and the logits it trained on."""

    losses: Tensor
    logits: Tensor


#: Adversarial images for a batch; the target is labels, or clean logits for KL.
AttackBatch = Callable[[Batch, Tensor, AttackLoss], Tensor]
#: Backward pass of the weighted mean loss, and one optimiser step.
Update = Callable[[Tensor], None]


@OBJECTIVES.family
class Objective(Component):
    """The loss that training minimises, per image."""

    #: Which logits `per_sample` looks at.
    uses_clean: ClassVar[bool] = False
    uses_adversarial: ClassVar[bool] = True
    #: What the training attack maximises.
    attack_loss: ClassVar[AttackLoss] = "cross_entropy"

    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="weight of the uniform distribution in the labels")
    ] = 0.0

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        """Loss of each image, shape (B,), from logits (B, classes) and labels (B,)."""
        raise NotImplementedError

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy per image with this objective's label smoothing."""
        return F.cross_entropy(logits, y, reduction="none", label_smoothing=self.label_smoothing)

    def step(self, model: nn.Module, batch: Batch, attack: AttackBatch, update: Update) -> Outputs:
        """Attack the batch, compute the losses, update the weights once."""
        target = quiet_logits(model, batch.x) if self.attack_loss == "kl" else batch.y
        x_adv = attack(batch, target, self.attack_loss) if self.uses_adversarial else None
        clean = model(batch.x) if self.uses_clean else None
        adversarial = None if x_adv is None else model(x_adv)
        losses = self.per_sample(clean, adversarial, batch.y)
        update(losses)
        logits = adversarial if adversarial is not None else clean
        assert logits is not None
        return Outputs(losses.detach(), logits.detach())

    def cost(self, steps: float) -> float:
        """Forward-equivalents of one image in one step of training with `steps` attack steps."""
        reference = 1 if self.attack_loss == "kl" else 0
        attack = 2 * steps if self.uses_adversarial else 0
        return reference + attack + 3 * (int(self.uses_clean) + int(self.uses_adversarial))


@TRAINERS.family
class Trainer(Component):
    """A preset of objective and attack policy under the name that the field knows."""

    objective: ClassVar[Any] = None
    attack: ClassVar[dict[str, Any]] = {}
