"""Warm-ups: the epochs of a pruned run on all data, before it selects anything. Runs that begin alike share them.

Until then a run depends neither on what its pruner will keep nor on how much of it, unless that pruner
looks on meanwhile. So one training of the warm-up serves all runs with the same `warmup_key`: each goes
on from its checkpoint, to the same bits as by itself, and is charged its passes and seconds (compiling is
counted twice, as of a run that was interrupted). A network of one's own has to keep its state in its
`state_dict`, as for any checkpoint.
"""

from __future__ import annotations

from advprune_core.base.keys import content_key, json_data
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.pruners.base import Pruner
from advprune_core.trainers.config import RunConfig


def warmup_key(config: RunConfig, dataset: Dataset) -> str | None:
    """Hash of what determines a run's state at the end of its warm-up; None for a run without one."""
    pruner, epochs, size = config.pruner, config.pruner.epochs_before(), config.optimisation.batch_size
    selects_before = pruner.scout_epochs() or any(pruner.due(epoch) for epoch in range(epochs))
    narrows = pruner.candidates(size, config.fraction) != size or type(pruner).narrow is not Pruner.narrow
    if not 0 < epochs < config.optimisation.epochs or selects_before or narrows:
        return None
    looks_on = type(pruner).observe is not Pruner.observe
    full = config.replace(pruner="full", fraction=1.0, min_per_class=0, optimisation=config.optimisation)
    identity = full.identity(dataset.train_hash)
    # A run without attacks still keeps what the attack's policy notes of its batches.
    alike = {
        "warmup": epochs,
        "observer": pruner.canonical() if looks_on else None,
        "attack": config.attack.canonical(),
    }
    return content_key(json_data(identity | alike))


def shared_key(config: RunConfig, dataset: Dataset) -> str:
    """The `warmup_key` of a run that has one.

    Raises
    ------
    ConfigError
        It has not.
    """
    key = warmup_key(config, dataset)
    if key is None:
        raise ConfigError(f"a run with the pruner {config.pruner.name!r} as it is set has no warm-up to share")
    return key


def warmup_passes(config: RunConfig, n: int) -> float:
    """Expected forward-equivalents of a run's warm-up with `n` training images."""
    return config.passes(n, epochs=config.pruner.epochs_before())
