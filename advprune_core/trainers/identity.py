"""What determines the weights of a run, as the JSON data that its key is hashed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advprune_core.attacks.geometry import L2_VERSION
from advprune_core.attacks.steps import default_step_size
from advprune_core.base.keys import json_data
from advprune_core.objectives.grad_align import GradAlign
from advprune_core.objectives.partial import PartialSteps
from advprune_core.pruners.base import Pruner
from advprune_core.pruners.history import HistoryPruner
from advprune_core.pruners.infobatch import InfoBatch
from advprune_core.pruners.keep_modes import KeepFragile
from advprune_core.pruners.outputs import AttackingPruner
from advprune_core.pruners.random import Full
from advprune_core.pruners.scores import Score
from advprune_core.pruners.steps_to_break import FEWEST

if TYPE_CHECKING:
    from advprune_core.trainers.config import RunConfig

#: Raised when the training loop, `Optimisation` or `AttackPolicy` give other results than before.
LOOP_VERSION = 1


def identity_of(config: RunConfig, train_hash: str) -> dict[str, Any]:
    """What determines the weights of a run on training data of this content: settings, versions, sources."""
    canonical = config.canonical()
    if not (config.objective.uses_adversarial or config.best_every or config.pruner.uses_model):
        canonical.pop("attack", None)
    elif config.attack.norm == "l2":
        canonical["l2"] = L2_VERSION
    if config.device != "cpu":
        canonical.pop("threads", None)
    if isinstance(config.pruner, Full):  # the run on all data
        canonical = {name: value for name, value in canonical.items() if name not in ("warm_start", "equal_cost")}
        canonical.get("optimisation", {}).pop("schedule_span", None)
        canonical = {name: value for name, value in canonical.items() if name != "optimisation" or value}
    if config.speed == "exact":  # what all runs were before there was a choice
        canonical.pop("speed", None)
    # Content, not the name or the path of the data, and not what concerns the test images.
    canonical["dataset"] = train_hash
    if config.dataset.tested_on != "test":  # what chooses settings is no run of those that are tested
        canonical["tested_on"] = config.dataset.tested_on
    canonical["device"] = config.device
    if mended := _mended(config):
        canonical["mended"] = mended
    if LOOP_VERSION != 1:
        canonical["loop"] = LOOP_VERSION
    return json_data(canonical)


def _mended(config: RunConfig) -> list[str]:
    """What of this run, and of few others, came out otherwise in an earlier version under the same settings."""
    told = {
        "aligned": isinstance(config.objective, GradAlign) and config.optimisation.awp > 0,  # gradients at two weights
    }
    if not isinstance(config.pruner, Full):
        told |= _mended_where_pruned(config)
    return [name for name, otherwise in told.items() if otherwise]


def _mended_where_pruned(config: RunConfig) -> dict[str, bool]:
    """Of pruned runs, what came out otherwise, and whether this one did."""
    narrows = config.pruner.candidates(config.optimisation.batch_size, config.fraction) > config.optimisation.batch_size
    return {
        "scout": bool(config.pruner.scout_epochs()),  # what its attack carries, and its weights with an average
        "partial": config.pruner.uses_model
        and isinstance(config.attack.steps, PartialSteps),  # now all are scored attacked
        "scoring": _scored_by_other_steps(config),
        "full_run": config.optimisation.schedule_span == "full_run" and (narrows or not config.pruner.exact),
        "breaks": _broken_by_fewer_steps(config),
        "infobatch": isinstance(config.pruner, InfoBatch)
        and config.fraction < 1
        and config.min_per_class > 0,  # images were exchanged
        "budget": config.optimisation.cost_budget is not None
        and _chooses_by_passes(config.pruner),  # which the schedule ran ahead by
        "sora": config.objective.same_weights,  # its step's length, where images have weights
    }


def _chooses_by_passes(pruner: Pruner) -> bool:
    """Whether selections cost passes of a network."""
    return bool(pruner.scout_epochs()) or (pruner.uses_model and not isinstance(pruner, HistoryPruner))


def _broken_by_fewer_steps(config: RunConfig) -> bool:
    """Whether steps to break were counted by an attack of fewer steps than images have that training attacks."""
    pruner, steps = config.pruner, config.attack.steps
    if not (isinstance(pruner, KeepFragile) or (isinstance(pruner, Score) and pruner.score == "steps_to_break")):
        return False
    return pruner.steps is None and max(FEWEST, round(steps.expected())) != max(FEWEST, steps.attacked)


def _scored_by_other_steps(config: RunConfig) -> bool:
    """Whether images are scored by another number of steps than in training, of a length that was given."""
    if not (isinstance(config.pruner, AttackingPruner) and config.pruner.steps):
        return False
    steps, radius = config.pruner.steps, config.attack.radius
    return config.attack.steps.length_of(radius, steps) != default_step_size(radius, steps)
