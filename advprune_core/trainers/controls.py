"""The controls that every pruned run is judged beside.

"Less data" mixes data, steps, optimiser and selection. Each control changes one of them and is
resolved from the finished record of the run that it matches, because only that says what the run
really cost. What a control resolves to is a plain `RunConfig` on which nothing depends but the
numbers in it: epochs where an image costs the same whenever it is trained on, and a budget where
that shows only in training.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

from advprune_core.base.settings import ConfigError
from advprune_core.pruners.base import PRUNERS
from advprune_core.pruners.random import Full
from advprune_core.pruners.random_steps import RandomSteps
from advprune_core.pruners.weights import GradientPruner
from advprune_core.trainers.config import RunConfig

Control = Literal["same_cost", "same_steps", "same_step_size", "cheaper_attack", "carried_attack"]

#: What each control is, for lists and legends.
CONTROLS: dict[Control, str] = {
    "same_cost": "full data, same cost: fewer epochs",
    "same_steps": "the same subset, as many steps as the full run",
    "same_step_size": "random subset, steps as long",
    "cheaper_attack": "full data, PGD-2, same cost",
    "carried_attack": "full data, one carried step, same cost",
}
#: Those that keep another share of the data than the run that they match: all of it.
OF_ALL_DATA: frozenset[Control] = frozenset({"same_cost", "cheaper_attack", "carried_attack"})


def control_of(arm: str) -> Control | None:
    """Which control an arm is, ``way: same_steps(random)``: ``same_steps``; None of any other arm."""
    name = arm.rpartition(": ")[2].partition("(")[0]
    return next((control for control in CONTROLS if control == name), None)


def matched_arm(arm: str) -> str:
    """The arm that a control matches, ``way: same_steps(random)``: ``way: random``; any other arm itself."""
    if control_of(arm) is None:
        return arm
    way, colon, own = arm.rpartition(": ")
    return f"{way}{colon}{own.partition('(')[2].removesuffix(')')}"


def control_arm(control: Control, arm: str) -> str:
    """The arm that is a control of another one, as `matched_arm` undoes it."""
    way, colon, own = arm.rpartition(": ")
    return f"{way}{colon}{control}({own})"


class Finished(Protocol):
    """What a control has to know of the run that it matches: what it cost, and what it kept; see `RunRecord`."""

    @property
    def key(self) -> str:
        """Of the run."""

    @property
    def status(self) -> str:
        """How it ended."""

    @property
    def trained(self) -> bool:
        """Whether it has weights and a cost worth comparing."""

    @property
    def n(self) -> int:
        """Training images."""

    @property
    def kept(self) -> int:
        """Images of the last selection."""

    @property
    def images_visited(self) -> int:
        """Images in all updates."""

    @property
    def passes(self) -> dict[str, int]:
        """Forward-equivalents by phase."""

    @property
    def cost(self) -> int:
        """Of training and selection together."""

    @property
    def step_ratio(self) -> float | None:
        """Length of its steps, where it was measured."""

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """Metrics of each epoch."""


_CHEAPER: dict[Control, dict[str, Any]] = {
    "cheaper_attack": {"steps": 2},
    "carried_attack": {"start": "carried", "steps": 1},
}


def check_control(control: Control, config: RunConfig, *, full: RunConfig) -> None:
    """Refuse, before any work, a control that a run cannot have.

    Parameters
    ----------
    control : str
        See `CONTROLS`.
    config, full : RunConfig
        Of the run, and of its way of training on all the data.

    Raises
    ------
    ConfigError
        A cheaper attack that would not be cheaper, or for an objective whose attack is its own; as many
        steps for a run whose length is not known in epochs or is not the full run's, or whose pruner goes by it;
        steps as long as those of a pruner that does not measure them.
    """
    if reason := _refusal(control, config, full):
        possible = [name for name in CONTROLS if _refusal(name, config, full) is None]
        raise ConfigError(f"the control {control!r} {reason}; possible here: {', '.join(possible)}")


def _refusal(control: Control, config: RunConfig, full: RunConfig) -> str | None:
    """Why a run cannot have a control, or None."""
    objective = config.objective
    if control == "same_step_size" and not (config.pruner.measures_steps or isinstance(config.pruner, Full)):
        able = ", ".join(name for name, cls in PRUNERS.classes().items() if cls.measures_steps)
        return f"takes steps as long as the run's, which {config.pruner.name!r} does not measure as {able} do"
    if control == "same_steps" and not config.pruner.steady:
        return f"lengthens a run, and what the pruner {config.pruner.name!r} keeps depends on its length"
    if control == "same_steps" and config.optimisation.epochs != full.optimisation.epochs:
        return "lengthens a run to as many steps as the full run's, and warm_start or equal_cost gave it its own length"
    if control == "same_steps" and config.optimisation.cost_budget is not None:
        return "lengthens a run, and this one ends at its cost_budget"
    if control == "same_steps" and config.optimisation.schedule_span == "full_run":
        return "lengthens a run, whose schedule would then span more than a run on all data"
    if control not in _CHEAPER:
        return None
    if objective.single_step or not objective.uses_adversarial:
        return f"attacks more cheaply, and the objective {objective.name!r} has no attack that could"
    cheaper = _attacking(config, control).passes_per_image
    if cheaper >= config.passes_per_image:
        own = config.passes_per_image
        return f"would cost {cheaper:g} passes an image, no less than the run's own attack ({own:g})"
    return None


def resolve(control: Control, config: RunConfig, record: Finished) -> RunConfig:
    """The configuration of a control.

    Parameters
    ----------
    control : "same_cost", "same_steps", "same_step_size", "cheaper_attack" or "carried_attack"
        Same cost: full data for as many forward-equivalents as training and selection of the matched
        run cost, to a batch. Same steps: the matched run for as many batches as the full run takes.
        Same step size: a random subset, drawn when the matched run selects and weighted alike so that its
        steps are as long (`random_steps` at that run's step ratio), at the same cost but for a solver's.
        Cheaper or carried attack: same cost with PGD-2, or with one step from carried perturbations.
    config, record : RunConfig, Finished
        Of the matched run.

    Raises
    ------
    ConfigError
        Where the run did not get to its end; same cost, where all of it would not pay for a plain phase on
        all data; same step size, where the record does not say how long the steps were.
    """
    if not record.trained:
        raise ConfigError(f"the control {control!r}: the run it matches has the status {record.status!r}")
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
        return _with_length(config, epochs + (epochs * record.n - trained) / (used * record.kept))
    full = config.replace(pruner="full", fraction=1.0, optimisation=config.optimisation)
    plain = sum(row["images"] for row in record.epochs if row.get("plain"))
    if plain == record.images_visited:
        raise ConfigError(f"the control {control!r}: the run that it matches ended before an attack did")
    attacked = record.passes["train"] - plain * config.plain_passes_per_image
    per_image = attacked / (record.images_visited - plain)
    if control in _CHEAPER:
        full = _attacking(full, control)
        per_image = full.passes_per_image
    elif config.objective.uses_adversarial and config.attack.steps.adaptive:
        # More epochs than the cost can pay for, so that nothing but the budget ends the run.
        kinds = [full.least_passes_per_image, *([full.plain_passes_per_image] if plain else [])]
        epochs = math.ceil(record.cost / (min(kinds) * record.n)) + 1
        return _with_length(full, epochs, cost_budget=record.cost)
    first = config.optimisation.plain_epochs
    left = record.cost - first * record.n * full.plain_passes_per_image
    if left <= 0:
        raise ConfigError(
            f"the control {control!r} would have {first} epochs without an attack on all data, which cost more "
            "than all of the run that it matches"
        )
    return _with_length(full, first + left / (per_image * record.n))


def _attacking(config: RunConfig, control: Control) -> RunConfig:
    """The run with the attack of a control."""
    return config.replace(attack=config.attack.replace(**_CHEAPER[control]))


def _with_steps_of(config: RunConfig, record: Finished) -> RunConfig:
    """A random subset at the same moments, whose steps are as long as the run has measured its own to be."""
    if not record.step_ratio:
        raise ConfigError(
            f"the control 'same_step_size' needs the step ratio of the run {record.key}, and its record has none: "
            "its gradients were 0, or it is older than this measure (without its folder it is trained again)"
        )
    # When it selects, and by which outputs it measures: whatever the pruner has of that, an own one may lack some.
    alike = {name: getattr(config.pruner, name) for name in GradientPruner.model_fields if hasattr(config.pruner, name)}
    if not config.objective.uses_adversarial:
        alike.pop("steps", None)  # of an attack that only the pruner itself makes
    settings = {"warmup_epochs": 0, "every": 0, **alike, "ratio": float(f"{record.step_ratio:.6g}")}
    return config.replace(pruner=RandomSteps.create(**settings))


def _with_length(config: RunConfig, epochs: float, *, cost_budget: int | None = None) -> RunConfig:
    length = {"epochs": round(epochs, 6), "cost_budget": cost_budget}
    return config.replace(optimisation=config.optimisation.replace(**length))


def expected_passes(control: Control, config: RunConfig, n: int) -> float:
    """Forward-equivalents of a control before the run that it matches is finished."""
    return config.replace(pruner="full", fraction=1.0).passes(n) if control == "same_steps" else config.passes(n)
