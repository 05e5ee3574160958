"""What `speed: auto` stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advprune_core.attacks.compiled import Speed

if TYPE_CHECKING:
    from advprune_core.trainers.config import Device, RunConfig

#: Compiled from so many updates on all data: less time would be saved than compiling takes.
LEAST_UPDATES = 1000
#: ... and from images of so many pixels a side: the passes of smaller ones are too short to gain.
LEAST_SIDE = 32


def automatic_speed(config: RunConfig, device: Device) -> Speed:
    """What a run's ``speed: auto`` stands for on a device; by its settings alone, whatever this machine is good at.

    On a GPU compiled passes have to be asked for: a minute of compiling comes before steps that are
    1.8 times as fast (results/reference/compiled/gpu.csv, an H100).
    The fraction does not count, so that a pruned run and the full one are of one speed; nor do
    objectives that take their own step, because those passes stay plain.
    """
    data, optimisation = config.dataset, config.optimisation
    images = min(data.limit or data.images, data.images)
    long = optimisation.epochs * images >= LEAST_UPDATES * optimisation.batch_size
    gains = device == "cpu" and config.model.compiles and data.side >= LEAST_SIDE and not config.objective.own_step
    return "compiled" if gains and long else "exact"
