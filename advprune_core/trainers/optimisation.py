"""How the weights are updated: SGD, its schedule, and what is done to each batch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from advprune_core.base.components import component_field
from advprune_core.base.settings import Settings
from advprune_core.trainers.schedules import SCHEDULES, OneCycle, Schedule


class Optimisation(Settings):
    """SGD with momentum, its schedule, and what is done to each batch."""

    epochs: Annotated[float, Field(gt=0, le=100_000, description="passes over the selection (may be fractional)")] = (
        30.0
    )
    plain_epochs: Annotated[
        int,
        Field(ge=0, le=100_000, description="the first epochs train without an attack, on clean images (2506.15685)"),
    ] = 0
    cost_budget: Annotated[
        int | None,
        Field(
            ge=1,
            lt=2**63,
            description="end where training and selection cost so much, if before `epochs`; none: no bound",
        ),
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="images in every batch")] = 64
    lr: Annotated[float, Field(gt=0, le=100, description="peak learning rate")] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1, description="SGD momentum")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1, description="weight decay")] = 5e-4
    schedule: Annotated[Schedule, *component_field(SCHEDULES), Field(description="learning-rate schedule")] = OneCycle()
    schedule_span: Annotated[
        Literal["run", "full_run"],
        Field(description="what the schedule spans: the run, or a run on all data, whose end a pruned one never sees"),
    ] = "run"
    ema: Annotated[float | None, Field(gt=0, lt=1, description="decay of the weight average; none: no average")] = None
    awp: Annotated[
        float, Field(ge=0, lt=1, description="adversarial weight perturbation, relative to each layer; 0: none")
    ] = 0.0
    crop_padding: Annotated[int, Field(ge=0, le=1000, description="zero padding of the random crop; 0: no crop")] = 0
    flip: Annotated[bool, Field(description="random horizontal flip")] = False

    #: Raised when the average of the weights is another than before.
    ema_version: ClassVar[int] = 2

    def canonical(self) -> dict[str, Any]:
        """What a key is hashed from; with the version of the average where there is one."""
        values = super().canonical()
        return values if self.ema is None else {**values, "ema_version": self.ema_version}
