"""The name that the field has for a way of training: the preset whose objective, start and steps a run has."""

from __future__ import annotations

from functools import cache

from advprune_core.objectives.base import TRAINERS
from advprune_core.trainers.config import RunConfig


@cache
def _presets() -> dict[str, RunConfig]:
    return {name: RunConfig.flat(trainer=name) for name in TRAINERS.classes()}


def trainer_name(config: RunConfig) -> str:
    """``n_fgsm`` of cross-entropy on one step from a noisy image.

    A preset of several steps keeps its name with another number of them, and with another policy of
    them, which is named; a way of training that is no preset is told by objective and start.
    """
    objective, attack = config.objective.name, config.attack
    near = {
        name: preset
        for name, preset in _presets().items()
        if (preset.objective.name, preset.attack.start) == (objective, attack.start)
    }
    exact = (name for name, preset in near.items() if preset.attack.steps == attack.steps)
    if (name := next(exact, None)) is not None:
        return name
    several = [name for name, preset in near.items() if preset.attack.steps.name == "fixed" and _count(preset) > 1]
    if not several or _count(config) <= 1:
        return f"{objective} from a {attack.start.name} start"
    return several[0] if attack.steps.name == "fixed" else f"{several[0]} with {attack.steps.name} steps"


def steps_told(config: RunConfig) -> str:
    """``1 attack step``: the steps that an image is expected to get."""
    steps = _count(config)
    return f"{steps:g} attack step{'s' * (steps != 1)}"


def _count(config: RunConfig) -> float:
    return config.attack.steps.expected()
