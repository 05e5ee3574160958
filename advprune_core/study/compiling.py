"""Before work starts: what cannot be compiled here becomes exact, under keys of its own."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from advprune_core.attacks.compiled import NotCompiled, compile_cache
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.study.elsewhere import finished, needed_again, untested
from advprune_core.study.evaluations import EvaluationConfig, compiled_searches
from advprune_core.study.execution import Execution
from advprune_core.study.grid import Datasets, Entry, check_entries
from advprune_core.study.store import RunStore
from advprune_core.trainers.arithmetic import arithmetic, run_passes
from advprune_core.trainers.checks import check_machine
from advprune_core.trainers.config import RunConfig


@dataclass(frozen=True)
class Settled:
    """A grid as this machine can carry it out.

    Attributes
    ----------
    entries : list of Entry
        Exact ones where a compiled run cannot be trained here.
    plain_tests : set of str
        `tested_thing` of compiled runs whose tests have to be exact ones.
    """

    entries: list[Entry]
    plain_tests: set[str]


def settle_speed(entries: Sequence[Entry], datasets: Datasets, store: RunStore, execution: Execution) -> Settled:
    """Compile what a grid will need, each network once for all its runs, and see what cannot be.

    Nothing is compiled for runs that are trained and tested.

    Warns
    -----
    UserWarning
        Why runs or tests that were to be compiled are exact ones.
    """
    trained: dict[str, str | None] = {}
    tested: dict[str, str | None] = {}
    with compile_cache(store.results):
        for entry in entries:
            if entry.config.speed == "exact" or not _device_here(entry.config):
                continue
            dataset = datasets[entry.config.dataset]
            trains, tests = _left(entry, dataset, store, execution)
            thing = _trained_thing(entry.config)
            if trains and thing not in trained:
                trained[thing] = against_training(entry.config, dataset)
            falls = trained.get(thing) is not None
            thing = tested_thing(entry)
            if tests and not falls and thing not in tested:
                tested[thing] = against_testing(entry.config, dataset, entry.evaluation)
    for reason in dict.fromkeys(filter(None, trained.values())):
        warnings.warn(f"{reason}: its runs are exact ones, as with speed = exact", stacklevel=3)
    for reason in dict.fromkeys(filter(None, tested.values())):
        warnings.warn(f"{reason}: its tests are exact ones, under keys of their own", stacklevel=3)
    return Settled(
        [
            replace(entry, config=entry.config.replace(speed="exact"))
            if trained.get(_trained_thing(entry.config)) is not None
            else entry
            for entry in entries
        ],
        {thing for thing, reason in tested.items() if reason is not None},
    )


def checked_entries(
    entries: Sequence[Entry], execution: Execution, *, read_only: bool = False
) -> tuple[list[Entry], Datasets]:
    """As `check_entries`, for the results folder, which may be only looked at, and the engine of an execution."""
    store, here = RunStore(execution.root, read_only=read_only), execution.engine != "ray"
    if here and not store.run_keys():  # nothing can be finished: refused before any data are loaded
        for entry in entries:
            check_machine(entry.config)

    def left(entry: Entry, dataset: Dataset) -> tuple[bool, bool]:
        return _left(entry, dataset, store, execution)

    return check_entries(entries, data=execution.data, here=here, left=left)


def _device_here(config: RunConfig) -> bool:
    """A node of a cluster may have a GPU where the driver has none: what cannot be compiled there fails there."""
    return config.device != "cuda" or torch.cuda.is_available()


def against_training(config: RunConfig, dataset: Dataset) -> str | None:
    """Why a compiled run cannot be trained here, or None."""
    images = dataset.train.pixels(slice(0, config.optimisation.batch_size)).to(config.device)
    return _reason(config, dataset, lambda model: run_passes(config, model, images))


def against_testing(config: RunConfig, dataset: Dataset, evaluation: EvaluationConfig) -> str | None:
    """Why a compiled evaluation of a run cannot be done here, or None."""
    test = evaluation.split(dataset)[0]
    return _reason(config, dataset, lambda model: compiled_searches(model, test, evaluation, device=config.device))


def _reason(config: RunConfig, dataset: Dataset, compiled: Callable[[torch.nn.Module], object]) -> str | None:
    model = build_model(config.model, dataset, seed=config.seed).to(config.device)
    try:
        with arithmetic(config):
            compiled(model.to(memory_format=torch.channels_last))
    except NotCompiled as error:
        return str(error)
    return None


def _trained_thing(config: RunConfig) -> str:
    """Equal for runs that share what is compiled for their training."""
    shape = (config.optimisation.batch_size, config.precision, config.device, config.threads)
    return json.dumps([config.speed, config.dataset.canonical(), config.model.canonical(), *shape], sort_keys=True)


def tested_thing(entry: Entry) -> str:
    """Equal for runs that share what is compiled for their tests."""
    config = entry.config
    shape = (entry.images, config.device, config.threads)
    return json.dumps([config.dataset.canonical(), config.model.canonical(), *shape], sort_keys=True)


def _left(entry: Entry, dataset: Dataset, store: RunStore, execution: Execution) -> tuple[bool, bool]:
    """Whether a run is still to be trained, and to be tested."""
    record = finished(entry.config, entry.evaluation, dataset, store, execution)
    try:
        config = entry.resolved(record)
    except ConfigError:  # the driver says so
        return False, False
    if config is not None and entry.derived:
        record = finished(config, entry.evaluation, dataset, store, execution)
    if record is None or needed_again(record, entry.evaluation, dataset, store, execution):
        return True, True
    has_weights = (store.folder(record.key) / "last.pt").exists()
    return False, has_weights and untested(record, entry.evaluation, dataset, store, execution)
