"""What a training step is made of: an objective and an attack policy.

An *objective* turns clean logits, adversarial logits and labels into one loss per image. An
*attack policy* says where the training attack starts and how many steps each image gets. The two
compose freely. A method that is more than that overrides `Objective.step`, and uses the parts of
the attack that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.losses import AttackLoss
from advprune_core.base.components import Component, Registry
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import quiet_logits
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.starts import CleanStart
from advprune_core.objectives.steps import parse_steps

if TYPE_CHECKING:
    from advprune_core.objectives.policy import AttackPolicy, BoundAttack

OBJECTIVES: Registry[Objective] = Registry("objective", "advprune_core.objectives")
TRAINERS: Registry[Trainer] = Registry("trainer", "advprune_core.objectives")


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a step leaves for metrics: losses per image (B,), the logits it trained on, and which are of an attack.

    `attacked` (B,) is None where all are.
    """

    losses: Tensor
    logits: Tensor
    attacked: Tensor | None = None


def check_losses(losses: Any, images: int) -> None:
    """Refuse losses that are not one for each of so many images, with a graph: others would be broadcast in silence.

    Raises
    ------
    ConfigError
        With what they are.
    """
    if not isinstance(losses, Tensor) or losses.shape != (images,):
        found = f"of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
        raise ConfigError(
            f"the losses of {images} images are {found}: one loss per image is wanted, a tensor of shape ({images},) "
            "(of PyTorch's losses, reduction='none')"
        )
    if not losses.requires_grad:
        raise ConfigError(
            "the losses have no gradient: they are computed without the network's logits, or detached from them "
            "(detach, numpy, torch.no_grad)"
        )


def check_outputs(outputs: Any, images: int) -> None:
    """Refuse what a step of one's own returns where `Outputs` of so many images are wanted.

    Raises
    ------
    ConfigError
        With what it is.
    """
    if not isinstance(outputs, Outputs):
        raise ConfigError(
            f"a step returned a {type(outputs).__name__} where Outputs are wanted: return what update(passes) gives"
        )
    given = {"losses": outputs.losses, "logits": outputs.logits, "attacked": outputs.attacked}
    wanted = {"losses": (1, "B"), "logits": (2, "B, classes"), "attacked": (1, "B")}
    for name, value in given.items():
        dimensions, shape = wanted[name]
        if value is not None and (value.dim() != dimensions or len(value) != images):
            raise ConfigError(
                f"a step returned {name} of shape {tuple(value.shape)}, not ({shape}), B = {images} images"
            )


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
    #: Compares a gradient with that of the pass that it trains on: both at the same weights.
    same_weights: ClassVar[bool] = False

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
        """Attack the batch, compute the losses, and `update` the weights by them: once, or as often as wanted."""
        target = quiet_logits(model, batch.x) if self.attack_loss == "kl" else batch.y
        x_adv = attack(batch, target, self.attack_loss) if self.uses_adversarial else None

        def passes() -> tuple[Tensor, Tensor]:
            clean = model(batch.x) if self.uses_clean else None
            adversarial = None if x_adv is None else model(x_adv)
            logits = adversarial if adversarial is not None else clean
            assert logits is not None
            return self.per_sample(clean, adversarial, batch.y), logits

        outputs = update(passes)
        if x_adv is None or not attack.policy.steps.leaves_out:
            return outputs
        return replace(outputs, attacked=(x_adv != batch.x).flatten(1).any(1))

    def check(self, attack: AttackPolicy) -> None:
        """Refuse an attack that does not fit.

        Raises
        ------
        ConfigError
            Several steps, or steps by image, with a single-step objective; a start without a
            gradient; a start that needs a gradient which the objective does not hand over; KL, or
            steps on parts of a batch, in training mode.
        """
        if not self.uses_adversarial:
            return
        if self.single_step and not attack.steps.single:
            raise ConfigError(
                f"the objective {self.name!r} takes a single step of the attack; steps = {attack.steps.spec()!r} "
                "does not fit, only steps = 1 does"
            )
        if self.only_linf and attack.norm != "linf":
            raise ConfigError(
                f"the objective {self.name!r} takes steps of the L-inf norm: norm = {attack.norm!r} does not fit"
            )
        if self.own_step and attack.attack_mode != "eval":
            raise ConfigError(
                f"the objective {self.name!r} attacks in the pass that it trains on: attack_mode has no effect"
            )
        if attack.attack_mode != "eval" and attack.steps.of_parts:
            raise ConfigError(
                f"steps = {attack.steps.name!r} attack parts of a batch, whose statistics are not those of the batch "
                f"(of one image there are none): attack_mode = {attack.attack_mode!r} does not fit, leave it at 'eval'"
            )
        if self.attack_loss == "kl" and attack.attack_mode != "eval":
            raise ConfigError(
                f"the objective {self.name!r} attacks the KL divergence from the clean prediction, which is taken in "
                f"eval mode: attack_mode = {attack.attack_mode!r} does not fit, leave it at 'eval'"
            )
        if self.attack_loss == "kl" and attack.start.clean:
            raise ConfigError(
                f"the objective {self.name!r} attacks the KL divergence from the clean prediction, which has no "
                "gradient at the clean image: use start = 'near', 'random' or 'carried'"
            )
        if self.own_start and attack.start != CleanStart():
            raise ConfigError(
                f"the objective {self.name!r} carries one perturbation from batch to batch: start = "
                f"{attack.start.spec()!r} has no effect, leave it at 'clean'"
            )
        if attack.start.needs_gradient and (not self.own_step or self.own_start):
            raise ConfigError(
                f"the start {attack.start.name!r} with momentum needs the gradient at the start, which only "
                "the objective 'fgsm_pgi' hands over"
            )

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

    def attack_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of its attack policy, and over them those that are given.

        Raises
        ------
        ConfigError
            Steps that would make another method of one that takes a single step.
        """
        steps = given.get("steps")
        if self.single_step and steps is not None and not parse_steps(steps).single:
            raise ConfigError(
                f"the trainer {self.name!r} takes one step: steps = {steps!r} does not fit; "
                "several steps, or steps by image, are for trainers such as 'pgd_at'"
            )
        return {**self.attack, **given}
