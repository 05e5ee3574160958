"""How many steps of the training attack each image gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from advprune_core.attacks.geometry import StepSize
from advprune_core.attacks.steps import default_step_size
from advprune_core.base.components import Component, Registry
from advprune_core.objectives.batch import Batch, PolicyState

STEPS: Registry[Steps] = Registry("steps", "advprune_core.objectives")


@STEPS.family
class Steps(Component):
    """How many steps each image gets."""

    #: Looks at the clean logits: one more forward pass, unless the attack needs them anyway.
    uses_logits: ClassVar[bool] = False
    #: How many steps an image gets shows only in training.
    adaptive: ClassVar[bool] = True

    @property
    def leaves_out(self) -> bool:
        """Whether images that the network is sure of stay as they are."""
        return False

    @property
    def of_parts(self) -> bool:
        """Whether some steps are taken on a part of the batch alone, the images that still have steps."""
        return False

    @property
    def single(self) -> bool:
        """Whether every image gets one step."""
        return False

    def state(self) -> PolicyState:
        """Running averages and the like; nothing by default."""
        return {}

    def plan(
        self, batch: Batch, *, eps: float, logits: Callable[[], Tensor], state: PolicyState
    ) -> tuple[int | Tensor, float | Tensor]:
        """Steps and step size: for all images, or one of each per image (B,).

        `logits` gives the clean logits (B, classes) in eval mode, for a forward pass.
        """
        raise NotImplementedError

    def length_of(self, eps: float, steps: int) -> float:
        """Length of a step of an attack like this one that takes `steps` steps on every image."""
        return default_step_size(eps, steps)

    def observe(self, batch: Batch, logits: Tensor, state: PolicyState) -> None:
        """Look at the logits (B, classes) that were trained on."""

    def expected(self) -> float:
        """Steps per image, for estimates before a run."""
        raise NotImplementedError

    @property
    def attacked(self) -> int:
        """Steps of an image that is attacked in earnest; those expected of any, unless some get fewer."""
        return round(self.expected())


@STEPS.register
class FixedSteps(Steps):
    """The same number of steps for every image."""

    name = "fixed"
    adaptive = False
    count: Annotated[int, Field(ge=1, le=10_000, description="gradient steps")] = 7
    step_size: StepSize = None
    step_factor: Annotated[
        float | None, Field(gt=0, le=100, description="the same in units of eps; give one of the two")
    ] = None

    @model_validator(mode="after")
    def _one_length(self) -> FixedSteps:
        if self.step_size is not None and self.step_factor is not None:
            raise ValueError("step_size and step_factor both say how long a step is: give one of them")
        return self

    def spec(self) -> Any:
        """A plain number where only the number is set."""
        return self.count if self.step_size is None and self.step_factor is None else super().spec()

    def plan(
        self, batch: Batch, *, eps: float, logits: Callable[[], Tensor], state: PolicyState
    ) -> tuple[int | Tensor, float | Tensor]:
        """`count` steps of the same `length`."""
        return self.count, self.length(eps)

    def length(self, eps: float) -> float:
        """Length of a step."""
        if self.step_factor is not None:
            return self.step_factor * eps
        return default_step_size(eps, self.count) if self.step_size is None else self.step_size

    def length_of(self, eps: float, steps: int) -> float:
        """The length that is given; by default, or where it is that of a single step, the usual one."""
        several = self.single and steps > 1
        return default_step_size(eps, steps) if several else self.replace(count=steps).length(eps)

    def expected(self) -> float:
        return float(self.count)

    @property
    def single(self) -> bool:
        return self.count == 1


def parse_steps(spec: Any) -> Any:
    """A policy of steps from its specification; a number stands for that many fixed steps."""
    plain = isinstance(spec, int) and not isinstance(spec, bool)
    return FixedSteps.create(count=spec) if plain else STEPS.parse(spec)
