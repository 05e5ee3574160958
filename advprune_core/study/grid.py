"""The grid of a study: its runs, the controls of each, and what each is tested by."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from advprune_core.attacks.base import Attack
from advprune_core.attacks.compiled import Speed
from advprune_core.base.settings import ConfigError, near_miss
from advprune_core.datasets.base import DatasetSource, load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model, check_model
from advprune_core.pruners.base import PRUNERS
from advprune_core.pruners.random import Full
from advprune_core.study.cluster import cluster_device
from advprune_core.study.evaluations import PGD_40, EvaluationConfig
from advprune_core.study.study import StudyConfig, pruner_label
from advprune_core.trainers.arithmetic import check_precision
from advprune_core.trainers.checks import check_machine, check_training, fitted, is_emulated
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.controls import Control, Finished, check_control, control_arm, resolve

Datasets = Mapping[DatasetSource, Dataset]


@dataclass(frozen=True)
class Entry:
    """One point of a study: a run, or a control of one.

    Attributes
    ----------
    arm : str
        What a line in a figure stands for: a pruner's label, or ``control(pruner)``; after
        ``variant:`` where there are several ways of training.
    fraction, seed
        Of the run, or of the run that a control matches.
    config : RunConfig
        Of the run, or of the run that a control matches.
    control : Control or None
        None for the run itself.
    variant : str
        Name of the way of training, where there are several.
    attacks, images
        Of the test: attacks, cheapest first, and how many test images (None: all).
    part : int
        Which part of its study it belongs to: earlier parts are carried out first.
    """

    arm: str
    fraction: float
    seed: int
    config: RunConfig
    control: Control | None = None
    variant: str = ""
    attacks: tuple[Attack, ...] = PGD_40
    images: int | None = None
    part: int = 0

    @property
    def evaluation(self) -> EvaluationConfig:
        """How the run is tested: on the threat model of its training."""
        speed: Speed = "compiled" if self.config.speed == "compiled" else "exact"
        return EvaluationConfig(attacks=self.attacks, threat=self.config.threat, images=self.images, speed=speed)

    @property
    def derived(self) -> bool:
        """Whether another run must be finished first; a control of the full run is that run."""
        return self.control is not None and not isinstance(self.config.pruner, Full)

    def resolved(self, matched: Finished | None) -> RunConfig | None:
        """The run itself; of a derived control what its matched run's record makes of it, None without one.

        Raises
        ------
        ConfigError
            A control that this record makes impossible.
        """
        if self.control is None or not self.derived:
            return self.config
        return None if matched is None else resolve(self.control, self.config, matched)

    def identity(self) -> str:
        """Equal for entries that stand for the same run."""
        control = self.control if self.derived else None
        return json.dumps([self.config.model_dump(mode="json"), control], sort_keys=True)

    def describe(self) -> str:
        """``random 40 % seed 3``."""
        return f"{self.arm} {100 * self.fraction:g} % seed {self.seed}"


def grid(
    ways: RunConfig | Mapping[str, RunConfig],
    *,
    pruners: Sequence[Any],
    fractions: Sequence[float],
    seeds: Sequence[int],
    controls: Sequence[Control] = (),
    attacks: tuple[Attack, ...] = PGD_40,
    images: int | None = None,
    part: int = 0,
) -> list[Entry]:
    """Every way of training with every pruner at every fraction with every seed, and controls of each.

    At fraction 1 a pruner, and any control of it, is the run on full data.

    Parameters
    ----------
    ways : RunConfig or mapping of str to RunConfig
        How to train on full data: one way, or several by name.
    attacks, images, part
        See `Entry`.
    """
    named, entries = {"": ways} if isinstance(ways, RunConfig) else ways, []
    for seed, (variant, way), spec in itertools.product(seeds, named.items(), pruners):
        pruner = PRUNERS.parse(spec)
        label, prefix = pruner_label(pruner), f"{variant}: " if variant else ""
        for fraction in fractions:
            config = way.replace(pruner=pruner, fraction=fraction, seed=seed)
            run = Entry(prefix + label, fraction, seed, config, None, variant, attacks, images, part)
            entries.append(run)
            for control in controls:
                check_control(control, config, full=way)
                entries.append(replace(run, arm=control_arm(control, run.arm), control=control))
    return entries


def study_grid(config: StudyConfig, *, shard: tuple[int, int] | None = None) -> list[Entry]:
    """The grid of a study, part after part, or the i-th of n shards of it: a run and its controls stay together.

    Raises
    ------
    ConfigError
        Two parts that test the same point in two ways; an impossible shard.
    """
    if config.engine == "ray" and config.device == "auto":
        config = config.replace(device=cluster_device(config.address) or "auto")
    entries: dict[tuple[str, float, int], Entry] = {}
    for number, part in enumerate(config.all_parts()):
        for entry in grid(
            part.ways(),
            pruners=part.pruners,
            fractions=part.fractions,
            seeds=part.seeds,
            controls=part.controls,
            attacks=part.attacks,
            images=part.images,
            part=number,
        ):
            there = entries.setdefault((entry.arm, entry.fraction, entry.seed), entry)
            if there.evaluation != entry.evaluation:
                raise ConfigError(
                    f"parts: part {there.part + 1} and part {number + 1} both have {entry.describe()}, and test it in "
                    "two ways; leave it to one of them, or give them one evaluation and one number of images"
                )
    return _shard(list(entries.values()), shard)


def _shard(entries: list[Entry], shard: tuple[int, int] | None) -> list[Entry]:
    if shard is None:
        return entries
    part, parts = shard
    if not 1 <= part <= parts:
        raise ConfigError(f"shard {part}/{parts}: the part must be in 1..{parts}")
    runs = list(dict.fromkeys(replace(entry, control=None).identity() for entry in entries))
    return [e for e in entries if runs.index(replace(e, control=None).identity()) % parts == part - 1]


def check_arms(config: StudyConfig, named: Mapping[str, Any]) -> None:
    """Refuse names of arms that a study does not have, before any work.

    Parameters
    ----------
    config : StudyConfig
    named : mapping of str to any
        By what they are given as: an arm, or lists of arms, of any depth.

    Raises
    ------
    ConfigError
        The first such name, with those that there are.
    """
    asked = [(name, arm) for name, value in named.items() for arm in _flat(value)]
    arms = {entry.arm for entry in study_grid(config)} if asked else set()
    for name, arm in asked:
        if arm not in arms:
            raise ConfigError(f"{name}: no arm of this study is called {arm!r}{near_miss(arm, arms)}")


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield str(value)


def check_entries(
    entries: Sequence[Entry],
    *,
    data: str | None = None,
    here: bool = True,
    left: Callable[[Entry, Dataset], tuple[bool, bool]] = lambda entry, dataset: (True, True),
) -> tuple[list[Entry], Datasets]:
    """Load the data and refuse a grid of which any run cannot be trained or tested, before any work.

    Batches larger than the training set are cut to it.

    Parameters
    ----------
    here : bool
        On this machine; the nodes of a cluster look for themselves whether they can.
    left : callable
        From an entry and its data set to whether it is still to be trained, and to be tested. What is finished may
        have been made on a machine that has what this one has not.

    Returns
    -------
    list of Entry
        The entries as they can be carried out.
    mapping of DatasetSource to Dataset
        The data sets of all entries.

    Warns
    -----
    UserWarning
        Batches that are cut; of what is still to do, what `check_machine` warns of.
    """
    sources = dict.fromkeys(entry.config.dataset for entry in entries)
    datasets = {source: load_dataset(source, folder=data) for source in sources}
    entries = [replace(entry, config=fitted(entry.config, datasets[entry.config.dataset])) for entry in entries]
    networks: dict[str, list[Entry]] = {}
    for entry in entries:
        dataset = datasets[entry.config.dataset]
        try:
            check_training(entry.config, dataset)
            entry.evaluation.check(dataset)
        except ConfigError as error:
            raise ConfigError(f"{entry.describe()}: {error}") from None
        try:
            if not is_emulated(entry.config) or any(left(entry, dataset)):  # what is finished takes no time
                check_machine(entry.config)
        except ConfigError:
            if not any(left(entry, dataset)):
                continue
            if here:
                raise
        networks.setdefault(_network(entry.config), []).append(entry)
    for alike in networks.values():
        config = alike[0].config
        dataset = datasets[config.dataset]
        model = build_model(config.model, dataset)
        check_model(model, dataset)
        images = dataset.train.pixels(slice(0, 2))
        try:
            check_precision(config, model, images)
        except ConfigError:  # which concerns training alone
            if any(left(entry, dataset)[0] for entry in alike):
                raise
        by_pruner: dict[str, list[Entry]] = {}
        for entry in alike:
            by_pruner.setdefault(json.dumps(entry.config.pruner.canonical()), []).append(entry)
        for same in by_pruner.values():
            try:
                same[0].config.pruner.check_model(model, images)
            except ConfigError as error:
                for entry in same:
                    if left(entry, dataset)[0]:
                        raise ConfigError(f"{entry.describe()}: {error}") from None
        if config.init is not None:
            config.init.load(model)
    return entries, datasets


def _network(config: RunConfig) -> str:
    """Equal for runs of one network with the same data and initial weights."""
    weights = None if config.init is None else config.init.canonical()
    return json.dumps([config.model.spec(), config.dataset.spec(), config.precision, weights], sort_keys=True)


def timed_entries(entries: Sequence[Entry], repeats: int) -> list[Entry]:
    """Runs to be timed alone: the first seed's, controls aside, in random order (no drift)."""
    if repeats == 0:
        return []
    chosen = [e for e in entries if e.seed == entries[0].seed and e.control is None]
    unique = list({entry.identity(): entry for entry in chosen}.values())
    return [unique[i] for i in np.random.default_rng(0).permutation(len(unique))]
