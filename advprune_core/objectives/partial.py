"""An attack on part of every batch: the images that the network is least sure of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from advprune_core.attacks.geometry import StepSize
from advprune_core.attacks.steps import default_step_size
from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import TRAINERS, Trainer
from advprune_core.objectives.batch import Batch, PolicyState
from advprune_core.objectives.steps import STEPS, FixedSteps, Steps, parse_steps


def least_sure(logits: Tensor, count: int) -> Tensor:
    """The `count` images of the highest entropy among logits (B, classes): bool, shape (B,); ties: the first."""
    log_p = torch.log_softmax(logits.double(), 1)
    entropy = -(log_p.exp() * log_p).sum(1)
    chosen = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    chosen[torch.argsort(entropy, descending=True, stable=True)[:count]] = True
    return chosen


@STEPS.register
class PartialSteps(Steps):
    """Steps for a share of every batch, the others stay clean: SAT (Losch et al. 2024).

    Attacked are the images whose clean prediction has the highest entropy, one at least. A clean forward pass finds
    them, so a share s of k steps costs about 2ks + 4 an image instead of 2k + 3. The paper ranks the images once, by
    the entropy of a network trained without attacks, and weights the attacked ones more; here the network under
    training ranks each batch, and all images weigh the same.

    References
    ----------
    Losch, Omran, Stutz, Fritz, Schiele, On Adversarial Training without Perturbing all Examples, ICLR 2024.
    """

    name = "partial"
    uses_logits = True
    #: So many of each batch, whichever they are: the cost is known before.
    adaptive = False
    count: Annotated[int, Field(ge=1, le=10_000, description="gradient steps of an attacked image")] = 7
    share: Annotated[float, Field(gt=0, le=1, description="share of every batch that is attacked")] = 0.5
    step_size: StepSize = None

    def plan(
        self, batch: Batch, *, eps: float, logits: Callable[[], Tensor], state: PolicyState
    ) -> tuple[int | Tensor, float | Tensor]:
        """`count` steps for the least sure images, none for the others."""
        chosen = least_sure(logits(), max(1, round(self.share * len(batch.y))))
        return torch.where(chosen, self.count, 0), self.length_of(eps, self.count)

    def length_of(self, eps: float, steps: int) -> float:
        """The length that is given, or the usual one."""
        return default_step_size(eps, steps) if self.step_size is None else self.step_size

    @property
    def of_parts(self) -> bool:
        return self.share < 1

    @property
    def leaves_out(self) -> bool:
        return True

    def expected(self) -> float:
        return self.share * self.count

    @property
    def attacked(self) -> int:
        return self.count


@TRAINERS.register
class SATTrainer(Trainer):
    """PGD-AT that attacks half of every batch, the images it is least sure of (SAT, Losch et al. 2024)."""

    name = "sat"
    objective = "pgd_at"
    attack = {"start": "random", "steps": "partial"}

    def attack_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """As any trainer's; a number of steps is that of the images that are attacked.

        Raises
        ------
        ConfigError
            A `step_factor`, which partial steps have none of: with steps for all images it would be PGD-AT.
        """
        found = super().attack_with(given)
        steps = parse_steps(found["steps"])
        if isinstance(steps, FixedSteps):
            if steps.step_factor is not None:
                raise ConfigError(
                    f"the trainer {self.name!r} attacks a part of each batch, whose steps have no step_factor: give "
                    "the length as step_size, in pixel units"
                )
            found["steps"] = PartialSteps.create(count=steps.count, step_size=steps.step_size)
        return found
