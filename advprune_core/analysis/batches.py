"""The batch that advice gives for few images: that of the measured runs, or one that an epoch has enough of."""

from __future__ import annotations

from dataclasses import replace

from advprune_core.analysis.fronts import Plan
from advprune_core.trainers.config import RunConfig

#: Steps that an epoch on few images should have.
ENOUGH = 10
#: Images of the smallest batch.
LEAST = 8


def batch_for(images: float, batch: int, *, measured: float) -> int:
    """The batch for an epoch of so many images, where runs on `measured` ones had one of `batch`.

    That one, unless an epoch then has fewer than 10 steps and less than half of what the measured ones had: then the
    largest power of two, at least 8, of which there are 10 in an epoch.
    """
    steps = images // batch
    if batch <= LEAST or steps >= ENOUGH or 2 * steps >= measured // batch:
        return batch
    size = LEAST
    while 2 * size * ENOUGH <= images:
        size *= 2
    return size


def with_enough_steps(plan: Plan, images: int, *, measured: int) -> tuple[Plan, list[str]]:
    """A plan for so many training images, measured on others; and what is said of it, if it has another batch.

    The learning rate changes as the batch does: the linear scaling rule (Goyal et al. 2017, 1706.02677, section 2.1).
    """
    optimisation = RunConfig.flat(**plan.way.trainer).optimisation
    batch, lr, kept = optimisation.batch_size, optimisation.lr, int(plan.fraction * images)
    size = batch_for(kept, batch, measured=plan.fraction * measured)
    if size == batch:
        return plan, []
    scaled = float(f"{lr * size / batch:.4g}")
    note = (
        f"not measured: batch size {size} and learning rate {scaled:g} instead of {batch} and {lr:g}, scaled alike "
        f"(Goyal et al. 2017, 1706.02677), for {kept // size} steps in an epoch of your {kept:,} images instead of "
        f"{kept // batch}"
    )
    trainer = plan.way.trainer | {"batch_size": size, "lr": scaled}
    return replace(plan, way=replace(plan.way, trainer=trainer)), [note]
