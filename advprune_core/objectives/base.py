"""What a training step is made of: an objective and an attack policy.

An *objective* turns clean logits, adversarial logits and labels into one loss per image. An
*attack policy* says where the training attack starts and how many steps each image gets. The two
compose freely. A method that is more than that overrides `Objective.step`, and uses the parts of
the attack that it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.losses import AttackLoss
from advprune_core.base.settings import Component, ConfigError, Registry
from advprune_core.datasets.augmentation import Crops
from advprune_core.models.mode import quiet_logits

if TYPE_CHECKING:
    from advprune_core.objectives.policy import BoundAttack

OBJECTIVES: Registry[Objective] = Registry("objective", "advprune_core.objectives")
TRAINERS: Registry[Trainer] = Registry("trainer", "advprune_core.objectives")


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch, on the device.

    Attributes
    ----------
    x : Tensor of float32, shape (B, C, H, W), in [0, 1], augmented
    y : Tensor of int64, shape (B,)
    ids, epochs : Tensor of int64, shape (B,)
        Positions in the training split, and the epoch each image was drawn in: noise is keyed by
        both, and what is kept from one visit to the next belongs to an id.
    weights : Tensor of float32, shape (B,)
        Of the losses; 1 unless given.
    crops : Crops or None
        How the images were cropped and flipped; None: they were not.
    """

    x: Tensor
    y: Tensor
    ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    epochs: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    weights: Tensor = field(default_factory=lambda: torch.empty(0))
    crops: Crops | None = None

    def __post_init__(self) -> None:
        if len(self.weights) == 0:
            object.__setattr__(self, "weights", torch.ones(len(self.x), device=self.x.device))

    def need_ids(self, purpose: str) -> None:
        """Refuse a batch whose images are not named.

        Raises
        ------
        ConfigError
            Without `ids` and `epochs` of the batch's length.
        """
        if len(self.ids) != len(self.x) or len(self.epochs) != len(self.x):
            raise ConfigError(
                f"{purpose} needs to know the images: give Batch(x, y, ids=..., epochs=...), one each per image, "
                "the ids being positions in the training split"
            )


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a step leaves for metrics: losses per image (B,), and the logits it trained on."""

    losses: Tensor
    logits: Tensor


#: The passes that are trained on: losses per image (B,) with their graph, and the logits to report.
Passes = Callable[[], tuple[Tensor, Tensor]]
#: Take the passes, go back through the weighted mean loss, and move the weights once.
Update = Callable[[Passes], Outputs]


@OBJECTIVES.family
class Objective(Component):
    """The loss that training minimises, per image."""

    #: Which logits `per_sample` looks at.
    uses_clean: ClassVar[bool] = False
    uses_adversarial: ClassVar[bool] = True
    #: What the training attack maximises.
    attack_loss: ClassVar[AttackLoss] = "cross_entropy"
    #: Works with one step of the attack, no more.
    single_step: ClassVar[bool] = False
    #: Takes that step in the pass that it trains on, whose gradient it knows.
    own_step: ClassVar[bool] = False
    #: Knows itself where to start.
    own_start: ClassVar[bool] = False
    #: Knows steps of the L-inf norm alone.
    only_linf: ClassVar[bool] = False

    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="weight of the uniform distribution in the labels")
    ] = 0.0

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        """Loss of each image, shape (B,), from logits (B, classes) and labels (B,)."""
        raise NotImplementedError

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy per image with this objective's label smoothing."""
        return F.cross_entropy(logits, y, reduction="none", label_smoothing=self.label_smoothing)

    def state(self, batch_size: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """What is kept from batch to batch, for images of `shape`; nothing by default."""
        return {}

    def step(self, model: nn.Module, batch: Batch, attack: BoundAttack, update: Update) -> Outputs:
        """Attack the batch, compute the losses, update the weights once."""
        target = quiet_logits(model, batch.x) if self.attack_loss == "kl" else batch.y
        x_adv = attack(batch, target, self.attack_loss) if self.uses_adversarial else None

        def passes() -> tuple[Tensor, Tensor]:
            clean = model(batch.x) if self.uses_clean else None
            adversarial = None if x_adv is None else model(x_adv)
            logits = adversarial if adversarial is not None else clean
            assert logits is not None
            return self.per_sample(clean, adversarial, batch.y), logits

        return update(passes)

    def cost(self, steps: float, *, clean_logits: bool = False) -> float:
        """Forward-equivalents of one image in one step of training with `steps` attack steps.

        `clean_logits`: the policy of steps looks at them; an attack on KL has them anyway.
        """
        reference = int(self.attack_loss == "kl" or clean_logits)
        attack = reference + 2 * steps if self.uses_adversarial else 0
        return attack + self.training_cost

    @property
    def training_cost(self) -> float:
        """The part of it that `Passes` costs, with the backward pass."""
        return 3.0 * (int(self.uses_clean) + int(self.uses_adversarial))


@TRAINERS.family
class Trainer(Component):
    """A preset of objective and attack policy under the name that the field knows."""

    objective: ClassVar[Any] = None
    attack: ClassVar[dict[str, Any]] = {}
    #: With several steps it would be another method.
    single_step: ClassVar[bool] = False
