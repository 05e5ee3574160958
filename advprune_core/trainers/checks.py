"""What cannot be trained on a data set, or on this machine, is refused before any work."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.pruners.base import Context, keep
from advprune_core.pruners.history import HistoryPruner
from advprune_core.pruners.random import Full
from advprune_core.pruners.selection import Selection, budget, check_every_class, check_floors, check_selected
from advprune_core.trainers.batches import BatchQueue, epoch_order
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.schedules import rate_at

#: Progress at which a schedule is asked for its rate before the training.
_LOOKED_AT = (0.0, 0.25, 0.5, 0.75, 1.0)


def check_run(config: RunConfig, dataset: Dataset) -> None:
    """Refuse what cannot be trained here.

    Raises
    ------
    ConfigError
        What `check_machine` and `check_training` refuse.
    """
    check_machine(config)
    check_training(config, dataset)


def check_training(config: RunConfig, dataset: Dataset) -> None:
    """Refuse what cannot be trained on any machine.

    Raises
    ------
    ConfigError
        A fraction that leaves a class or a batch empty; no images for the best checkpoint; a budget that does not
        pay for a batch, or for the epochs before the first selection.
    """
    _check_images(config, dataset)
    _check_length(config, dataset)
    _check_selections(config, dataset)


def _check_images(config: RunConfig, dataset: Dataset) -> None:
    """Refuse a fraction that cannot fill a batch, or every class."""
    n, size = len(dataset.train), config.optimisation.batch_size
    k = _kept(config, n)
    if k < size or n < config.pruner.candidates(size, config.fraction):
        raise ConfigError(
            f"fraction {config.fraction:g} keeps {k} of {n} images: not one full batch of {size}; "
            f"use a fraction of at least {size / n:.3f} or a smaller batch_size"
        )
    had = np.bincount(dataset.train.labels.cpu().numpy(), minlength=dataset.classes)
    at_best = np.zeros_like(had)
    at_best[np.argsort(-had, kind="stable")[:k]] = 1
    check_every_class(at_best, had, fraction=config.fraction)
    check_floors(had, k, least=config.min_per_class, fraction=config.fraction)


def _check_length(config: RunConfig, dataset: Dataset) -> None:
    """Refuse a run without an attacked epoch or a batch, rates that are none, and checks that cannot be made."""
    optimisation, k = config.optimisation, _kept(config, len(dataset.train))
    epochs, size = optimisation.epochs, optimisation.batch_size
    if optimisation.plain_epochs >= epochs:
        raise ConfigError(
            f"plain_epochs = {optimisation.plain_epochs} leaves none of {epochs:g} epochs "
            "for the attack; train longer, or use the objective 'standard'"
        )
    if epochs * k < size:
        raise ConfigError(f"{epochs:g} epochs of {k} images are not one batch of {size}")
    for progress in _LOOKED_AT:
        rate_at(optimisation.schedule, progress, peak=optimisation.lr)
    if config.best_every == 0 and config.on_collapse != "flag":
        raise ConfigError(f"on_collapse = {config.on_collapse!r} needs checks: set best_every")
    if config.best_every and len(dataset.val_stop) == 0:
        raise ConfigError("best_every needs val_stop images; set dataset.val_stop")


def _check_selections(config: RunConfig, dataset: Dataset) -> None:
    """Refuse a pruner that would not select, or that would empty a class."""
    pruner, fraction = config.pruner, config.fraction
    bare = Context(dataset=dataset, fraction=fraction, seed=config.seed, min_per_class=config.min_per_class)
    pruner.check(bare)
    due = list(filter(pruner.due, range(math.ceil(config.optimisation.epochs))))
    epochs = _full_epochs(config, len(dataset.train))
    if not due or due[0] >= epochs:
        raise ConfigError(
            f"{pruner.name} would not select in {epochs:g} epochs, all of them warm-up; "
            "lower pruner.warmup_epochs or train longer"
        )
    _check_visits(config, len(dataset.train))
    # What needs no model is known now; the same draw comes again when it is due.
    for epoch in [] if pruner.uses_model else due:
        check_selected(keep(pruner, replace(bare, epoch=epoch)).indices, dataset, fraction=fraction)


def _check_visits(config: RunConfig, n: int) -> None:
    """Refuse epochs after which more than half of `n` images were not trained on as often as their score needs.

    What is left of an epoch waits for the next one. Where batches are so large that this is most of the images, a
    window as long as the warm-up is complete for the others alone.
    """
    pruner, size = config.pruner, config.optimisation.batch_size
    if not isinstance(pruner, HistoryPruner) or 2 * size <= n or pruner.observed_epochs() > pruner.needed_visits():
        return
    everything, queue, visits = Selection(np.arange(n)), BatchQueue(size), np.zeros(n, np.int64)
    for epoch in range(pruner.observed_epochs()):
        queue.add(epoch_order(config.seed, epoch, n, everything), epoch, everything)
        for ids, _, _ in queue.batches():
            visits[ids] += 1
    if (waiting := int((visits < pruner.needed_visits()).sum())) > n / 2:
        name = "score_epochs" if pruner.score_epochs else "warmup_epochs"
        raise ConfigError(
            f"{pruner.name} needs a window of {pruner.needed_visits()} epochs of most images, and after "
            f"{pruner.observed_epochs()} {name} {waiting} of {n} images would still wait for a batch of {size}: raise "
            f"pruner.{name} by 1, or use a shorter window or a smaller batch_size"
        )


def check_machine(config: RunConfig) -> None:
    """Refuse what this machine has not; the record of another machine's run can be read all the same.

    Raises
    ------
    ConfigError
        No GPU; more than four threads for each core; initial weights that are not there, or changed.

    Warns
    -----
    UserWarning
        bfloat16 on a processor that has to emulate it.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda', but there is no GPU that torch can use; try 'auto' or 'cpu'")
    cores = os.cpu_count() or 1
    if config.threads > 4 * cores:
        raise ConfigError(f"threads = {config.threads}, but this machine has {cores} cores: at most {4 * cores}")
    if config.init is not None:
        config.init.check()
    if is_emulated(config):
        warnings.warn(
            "precision = 'bfloat16', but this processor has no AVX-512: PyTorch emulates it, in ten to thirty times "
            "the time of float32, which is another run; train these on a processor with AVX-512 BF16 or AMX, or a GPU",
            stacklevel=3,
        )


def is_emulated(config: RunConfig) -> bool:
    """Whether a run's convolutions in bfloat16 are made of float32 ones number by number, as on x86 before AVX-512."""
    before = torch.backends.cpu.get_cpu_capability() in ("NO AVX", "AVX2")
    return config.precision == "bfloat16" and config.device == "cpu" and before


def check_weights(model: nn.Module, config: RunConfig) -> None:
    """Refuse a network without a weight that training may move.

    Raises
    ------
    ConfigError
        All are frozen, or there is none; with `awp`, those are biases and scales, which it leaves alone.
    """
    free = [weight for weight in model.parameters() if weight.requires_grad]
    if not free:
        raise ConfigError(
            "the model has no weight to train: all are frozen; call requires_grad_(True) on those that shall be trained"
        )
    if config.optimisation.awp and all(weight.dim() < 2 for weight in free):
        raise ConfigError("awp moves weight matrices, and all of the model's are frozen: leave it at 0")


def fitted(config: RunConfig, dataset: Dataset) -> RunConfig:
    """The run with a batch that is no larger than the training set.

    Warns
    -----
    UserWarning
        If it was.
    """
    n, size = len(dataset.train), config.optimisation.batch_size
    if size <= n:
        return config
    warnings.warn(
        f"batch_size = {size}, but there are only {n} training images: the batch is all of them", stacklevel=3
    )
    return config.with_settings({"optimisation.batch_size": n})


def _full_epochs(config: RunConfig, n: int) -> float:
    """Epochs on all `n` images that the run can last.

    Raises
    ------
    ConfigError
        If the budget is not expected to pay for a batch; for a pruner that has to know the epochs.
    """
    optimisation, size = config.optimisation, config.optimisation.batch_size
    if optimisation.cost_budget is None:
        return optimisation.epochs
    if not config.pruner.steady:
        raise ConfigError(
            f"cost_budget ends a run when so much is spent, and what the pruner {config.pruner.name!r} keeps depends "
            "on the number of epochs, which is then not known: set epochs alone"
        )
    plain, before = config.images(n, epochs=optimisation.plain_epochs), config.pruner.scout_epochs()
    left = optimisation.cost_budget - plain * config.plain_passes_per_image
    attacked = left / config.passes_per_image - before * n
    if attacked < size:
        first = f", after {before} score_epochs on all data" * (before > 0)
        first += f", after {optimisation.plain_epochs} plain_epochs" * (plain > 0)
        raise ConfigError(
            f"cost_budget = {optimisation.cost_budget} does not pay for one batch: {size} images cost about "
            f"{size * config.passes_per_image:,.0f} forward-equivalents{first}"
        )
    return min(optimisation.epochs, (plain + attacked) / n)


def _kept(config: RunConfig, n: int) -> int:
    return n if isinstance(config.pruner, Full) else budget(config.fraction, n)
