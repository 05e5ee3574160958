"""The controls that every pruned run is judged beside.

"Less data" mixes data, steps, optimiser and selection. Each control changes one of them and is
resolved from the finished record of the run that it matches, because only that says what the run
really cost. What a control resolves to is a plain `RunConfig` on which nothing depends but the
numbers in it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from advprune_core.config import RunConfig
from advprune_core.pruners.base import PRUNERS, ScheduledPruner
from advprune_core.pruners.random import Full, Random
from advprune_core.records import RunRecord
from advprune_core.settings import ConfigError

Control = Literal["same_cost", "same_steps", "same_step_size", "cheaper_attack", "carried_attack"]

#: What each control is, for lists and legends.
CONTROLS: dict[Control, str] = {
    "same_cost": "full data, same cost: fewer epochs",
    "same_steps": "the same subset, as many steps as the full run",
    "same_step_size": "random subset, steps as long: another learning rate",
    "cheaper_attack": "full data, PGD-2, same cost",
    "carried_attack": "full data, one carried step, same cost",
}
_CHEAPER: dict[Control, dict[str, Any]] = {
    "cheaper_attack": {"steps": 2},
    "carried_attack": {"start": "carried", "steps": 1},
}


def check_control(control: Control, config: RunConfig) -> None:
    """Refuse, before any work, a control that a run cannot have.

    Raises
    ------
    ConfigError
        A cheaper attack for a run that takes one step, or none; as many steps for a pruner of which
        nobody can say beforehand how many an epoch would have; steps as long as those of a pruner
        that does not measure them.
    """
    measured = config.pruner.measures_steps or isinstance(config.pruner, Full)
    if control == "same_step_size" and not measured:
        able = [name for name, cls in PRUNERS.classes().items() if cls.measures_steps]
        raise ConfigError(
            "the control 'same_step_size' takes steps as long as the run's, and the pruner "
            f"{config.pruner.name!r} does not measure them; these do: {', '.join(able)}"
        )
    if control == "same_steps" and not config.pruner.steady:
        raise ConfigError(
            f"the control 'same_steps' lengthens a run, and what the pruner {config.pruner.name!r} keeps depends on "
            "its length; allowed with it: same_cost, cheaper_attack, carried_attack"
        )
    if control in _CHEAPER and (config.objective.single_step or not config.objective.uses_adversarial):
        raise ConfigError(
            f"the control {control!r} attacks more cheaply, but the objective {config.objective.name!r} has no attack "
            "that could; allowed with it: same_cost, same_steps"
        )


def resolve(control: Control, config: RunConfig, record: RunRecord) -> RunConfig:
    """The configuration of a control.

    Parameters
    ----------
    control : "same_cost", "same_steps", "same_step_size", "cheaper_attack" or "carried_attack"
        Same cost: full data for the number of epochs that costs as many forward-equivalents as
        training and selection of the matched run. Same steps: the matched run for as many
        batches as the full run takes. Same step size: a random subset, drawn when the matched run
        selects, at the learning rate that makes its steps as long as that run's. Cheaper or
        carried attack: same cost with PGD-2, or with one step from carried perturbations.
    config, record : RunConfig, RunRecord
        Of the matched run, which is finished.

    Raises
    ------
    ConfigError
        Same step size, where the record does not say how long the steps were.
    """
    epochs = config.optimisation.epochs
    if control == "same_step_size":
        return _with_steps_of(config, record)
    if control == "same_steps":
        # As many images in updates as in the full run; the epochs added are like the last one, and
        # so are those that a run stopped early did not get to.
        size = config.optimisation.batch_size
        used = size / config.pruner.candidates(size, config.fraction)
        kept = [row["kept"] for row in record.epochs]
        kept += [record.kept] * (math.ceil(epochs) - len(kept))
        trained = sum(used * count * min(1.0, epochs - epoch) for epoch, count in enumerate(kept))
        return _with_epochs(config, epochs + (epochs * record.n - trained) / (used * record.kept))
    full = config.replace(pruner="full", fraction=1.0)
    per_image = record.passes["train"] / record.images_visited
    if control in _CHEAPER:
        full = full.replace(attack=config.attack.replace(**_CHEAPER[control]))
        per_image = full.passes_per_image
    return _with_epochs(full, record.cost / (per_image * record.n))


def _with_steps_of(config: RunConfig, record: RunRecord) -> RunConfig:
    """A random subset at the same moments, the learning rate times the ratio that the run has measured."""
    if not record.step_ratio:
        raise ConfigError(
            f"the control 'same_step_size' needs the step ratio of the run {record.key}, and its record has none: "
            "its gradients were 0, or it is older than this measure (without its folder it is trained again)"
        )
    pruner, scheduled = config.pruner, {}
    if isinstance(pruner, ScheduledPruner) and not pruner.scout_epochs():
        scheduled = {"warmup_epochs": pruner.warmup_epochs, "every": pruner.every}
    lr = float(f"{config.optimisation.lr * record.step_ratio:.6g}")
    return config.replace(pruner=Random.create(**scheduled), optimisation=config.optimisation.replace(lr=lr))


def _with_epochs(config: RunConfig, epochs: float) -> RunConfig:
    return config.replace(optimisation=config.optimisation.replace(epochs=round(epochs, 6)))


def expected_passes(control: Control, config: RunConfig, n: int) -> float:
    """Forward-equivalents of a control before the run that it matches is finished."""
    return config.replace(pruner="full", fraction=1.0).passes(n) if control == "same_steps" else config.passes(n)
