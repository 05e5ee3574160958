"""The training of a run, or of the warm-up that several share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from advprune_core.attacks.compiled import NotCompiled
from advprune_core.base.files import own_path
from advprune_core.base.randomness import torch_stream
from advprune_core.base.values import as_ratio
from advprune_core.datasets.base import DatasetSource, load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.trainers.arithmetic import arithmetic
from advprune_core.trainers.checks import check_run, fitted
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.run import Run
from advprune_core.trainers.warmups import shared_key


def train(
    config: RunConfig,
    dataset: Dataset | None = None,
    *,
    model: nn.Module | None = None,
    work: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    fall_back: bool = True,
    start: str | Path | None = None,
) -> TrainResult:
    """Train one run.

    Parameters
    ----------
    config : RunConfig
    dataset : Dataset, optional
        From `load_dataset` or `dataset_from_arrays`, in place of ``config.dataset``, whose settings (a limit, label
        noise) then say nothing. Default: ``load_dataset(config.dataset)``.
    model : nn.Module, optional
        Your own network, trained in place: afterwards it has the weights of the result (``last``: the moving average
        where there is one), and is in eval mode. Takes images in [0, 1]. Default: ``config.model``.
    work : path, optional
        Folder for epoch checkpoints and per-epoch metrics. A run that finds a checkpoint of its own there (its
        settings, data and network, with whatever weights this comes) goes on from it and ends with the same bits;
        that of another run is set aside.
    checkpoint_seconds : float
        An epoch's end is saved when so many seconds have passed since the last one.
    on_epoch : callable, optional
        Called with each epoch's row of metrics.
    fall_back : bool
        Train a compiled run that cannot be compiled as an exact one; else refuse it.
    start : path, optional
        Checkpoint that `train_warmup` has left of the same warm-up, to go on from where `work` has none: to the
        same bits as without it, and its cost is counted.

    Raises
    ------
    ConfigError
        What cannot be trained, before any work; a `start` that is of another warm-up.

    Warns
    -----
    UserWarning
        A compiled run that is carried out as an exact one; a batch that is cut to the training set; an eps that is
        another data set's; a data set other than the one that the config names; outputs that look like probabilities.
    """
    work, start = None if work is None else own_path(work), None if start is None else own_path(start)
    data = load_dataset(config.dataset) if dataset is None else dataset
    named, unnamed = config.dataset, RunConfig.model_fields["dataset"].default
    if named != unnamed and named.spec() != data.source:
        warnings.warn(
            f"the config's dataset, {named.spec()}, has no effect: the data set that was given is made of "
            f"{data.source or 'arrays'}; give load_dataset(config.dataset), or leave one of the two out",
            stacklevel=2,
        )
    if config.objective.uses_adversarial and config.eps_of_dataset and data.name != config.dataset.name:
        usual = as_ratio(DatasetSource.default_eps[config.threat.norm])
        warnings.warn(
            f"no eps was given: these images are attacked within {as_ratio(config.threat.eps)}, what is usual for "
            f"{config.dataset.name!r}; say eps= (of photographs {usual} is usual)",
            stacklevel=2,
        )
    config = fitted(config, data)
    check_run(config, data)

    def trained(config: RunConfig, start: Path | None) -> TrainResult:
        with arithmetic(config), torch_stream(config.seed, "training"):
            result = Run(config, data, model, work, start=start).train(checkpoint_seconds, on_epoch)
        if model is not None:
            model.load_state_dict(result.last, strict=False)  # all tensors of it; a module may keep more
            model.eval()
        return result

    try:
        return trained(config, start)
    except NotCompiled as error:
        if not fall_back:
            raise
        warnings.warn(f"{error}: the run is an exact one", stacklevel=2)
    exact = config.replace(speed="exact")
    check_run(exact, data)
    return trained(exact, None)


def train_warmup(config: RunConfig, dataset: Dataset, *, work: str | Path, checkpoint_seconds: float = 30.0) -> None:
    """Train the warm-up of a run, to be the `start` of all that begin alike (see `warmups`).

    Parameters
    ----------
    work : path
        Folder for ``checkpoint.pt``, which it goes on from if it is there, and per-epoch metrics.

    Raises
    ------
    ConfigError, NotCompiled
        What cannot be trained; a run without a warm-up that others may have.
    """
    config = fitted(config, dataset)
    check_run(config, dataset)
    key = shared_key(config, dataset)
    with arithmetic(config), torch_stream(config.seed, "training"):
        Run(config, dataset, None, own_path(work), warmup=key).train(checkpoint_seconds, None)
