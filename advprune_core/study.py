"""Studies: a grid of runs and their controls, carried out, resumed and written down."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from advprune_core.attacks.base import ATTACKS, Attack
from advprune_core.attacks.geometry import Norm
from advprune_core.config import Device, RunConfig
from advprune_core.controls import CONTROLS, Control, check_control
from advprune_core.data import Dataset, load_dataset
from advprune_core.engines import EngineName, default_workers
from advprune_core.environment import results_root
from advprune_core.models import build_model, check_model
from advprune_core.pruners.base import PRUNERS, Pruner
from advprune_core.pruners.random import Full
from advprune_core.settings import ConfigError, Pixels, Seed, Settings, check_names
from advprune_core.tasks import PGD_40
from advprune_core.trainers.arithmetic import check_precision
from advprune_core.yaml_files import read_yaml


class Execution(Settings):
    """How a grid is carried out; nothing here changes a result."""

    engine: Annotated[EngineName, Field(description="serial; processes: one run per core; ray: a cluster")] = (
        "processes"
    )
    workers: Annotated[int | None, Field(ge=1, le=1024, description="processes; none: one per core")] = None
    timed_repeats: Annotated[
        int, Field(ge=0, le=1000, description="how often the first seed's runs are timed alone")
    ] = 1
    data: Annotated[str | None, Field(description="folder of downloads; none: $ADVPRUNE_DATA")] = None
    results: Annotated[str | None, Field(description="results folder; none: $ADVPRUNE_RESULTS, or the project's")] = (
        None
    )
    checkpoint_seconds: Annotated[
        float, Field(ge=0, le=1_000_000, description="least time between checkpoints of a run")
    ] = 30.0
    retrain: Annotated[bool, Field(description="train runs again whose weights are not here")] = False

    @property
    def root(self) -> Path:
        """Results folder."""
        return results_root(self.results)

    @property
    def worker_count(self) -> int:
        """Tasks that are under way at once."""
        return 1 if self.engine == "serial" else self.workers or default_workers()


class StudyConfig(Settings):
    """A study: the fields are exactly the parameters of the experiment notebooks."""

    study: Annotated[str, Field(pattern=r"^\w[\w.-]*$", description="name: tables, figures go to results/<study>/")] = (
        "digits"
    )
    dataset: Annotated[Any, Field(description="data set: a name or {name: settings}")] = "digits"
    model: Annotated[Any, Field(description="network: a name, {name: settings} or 'module:factory'")] = "small_cnn"
    trainer: Annotated[Any, Field(description="preset of objective and training attack")] = "pgd_at"
    norm: Annotated[Norm, Field(description="norm of the threat model: linf or l2")] = "linf"
    eps: Annotated[
        Pixels | None, Field(gt=0, le=100, description="radius in units of [0, 1]; none: the data set's own")
    ] = None
    steps: Annotated[Any, Field(description="steps of the training attack; none: the trainer's own")] = None
    epochs: Annotated[float, Field(gt=0, le=100_000, description="passes over the selection")] = 30.0
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="images in every batch")] = 64
    lr: Annotated[float, Field(gt=0, le=100, description="peak learning rate")] = 0.1
    settings: Annotated[
        dict[str, Any], Field(description="any other setting of a run: {'optimisation.ema': 0.99}")
    ] = {}
    variants: Annotated[
        dict[str, dict[str, Any]],
        Field(description="ways of training to compare: {name: settings by path}; none: the one above"),
    ] = {}
    pruners: Annotated[tuple[Any, ...], Field(min_length=1, description="pruners to compare")] = ("random",)
    fractions: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...],
        Field(min_length=1, description="shares of the training images kept, in (0, 1]"),
    ] = (1.0, 0.8, 0.6, 0.4, 0.2)
    controls: Annotated[tuple[Control, ...], Field(description=f"any of {', '.join(CONTROLS)}")] = ("same_cost",)
    seeds: Annotated[
        tuple[Seed, ...],
        Field(min_length=1, description="one run of everything for each seed"),
    ] = (0, 1, 2, 3, 4)
    evaluation: Annotated[tuple[Any, ...], Field(min_length=1, description="attacks of the test, cheapest first")] = (
        tuple(attack.spec() for attack in PGD_40)
    )
    device: Annotated[Device, Field(description="auto, cpu or cuda")] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024, description="CPU threads of a run; changes the bits")] = 1
    timed_repeats: Annotated[int, Field(ge=0, le=1000)] = 1
    engine: EngineName = "processes"
    workers: Annotated[int | None, Field(ge=1, le=1024)] = None
    data: str | None = None
    results: str | None = None

    @model_validator(mode="after")
    def _valid_parts(self) -> StudyConfig:
        """Names and values inside the parts are checked here, before anything is loaded."""
        if self.study in ("runs", "reference", "trash", "cache"):
            raise ValueError(f"study = {self.study!r}: results/{self.study}/ has another use; take another name")
        pruners = [PRUNERS.parse(spec) for spec in self.pruners]
        labels = [pruner_label(pruner) for pruner in pruners]
        for repeated in {label for label in labels if labels.count(label) > 1}:
            raise ValueError(f"the pruner {repeated!r} is listed twice")
        for name, values in (("fractions", self.fractions), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has repeated values: {list(values)}")
        labels = [attack.label() for attack in self.attacks]
        if len(set(labels)) < len(labels):
            raise ValueError(f"evaluation lists an attack twice: {labels}")
        self.ways()
        return self

    def ways(self) -> dict[str, RunConfig]:
        """The run of each variant on full data with the first seed; without variants one, unnamed.

        Raises
        ------
        ConfigError
            An empty name, settings that cannot be set, or that the grid sets.
        """
        configs = {}
        for name, settings in self.variants.items():
            if not name.strip() or ": " in name:
                raise ConfigError(f"variants: {name!r} is no name for a way of training (letters, without ': ')")
            for path in {"pruner", "fraction", "seed", "dataset"} & {path.partition(".")[0] for path in settings}:
                raise ConfigError(f"variants: {name!r} sets {path!r}, which is the same for all, or the grid's")
            try:
                configs[name] = self.base_config(settings)
            except ConfigError as error:
                raise ConfigError(f"variants: {name!r}: {error}") from None
        return configs or {"": self.base_config()}

    def base_config(self, variant: Mapping[str, Any] = MappingProxyType({})) -> RunConfig:
        """The run on full data with the first seed, and with the settings of a variant over all others."""
        options = {
            name: getattr(self, name)
            for name in (
                "dataset",
                "model",
                "trainer",
                "norm",
                "eps",
                "epochs",
                "batch_size",
                "lr",
                "device",
                "threads",
            )
        }
        if self.steps is not None:
            options["steps"] = self.steps
        config, settings = RunConfig.flat(**options, seed=self.seeds[0]), {**self.settings, **variant}
        return config.with_settings(settings) if settings else config

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """Attacks of the test."""
        return tuple(ATTACKS.parse(spec) for spec in self.evaluation)

    @property
    def execution(self) -> Execution:
        """How the study is carried out."""
        names = ("engine", "workers", "timed_repeats", "data", "results")
        options = {name: getattr(self, name) for name in names}
        if options["workers"] is None and self.base_config().device == "cuda":
            options["workers"] = 1  # runs that share a GPU slow each other down and may not fit
        return Execution(**options)

    @property
    def folder(self) -> Path:
        """Folder of this study's manifest, tables and figures."""
        return self.execution.root / self.study


def study_config(parameters: dict[str, Any]) -> StudyConfig:
    """Validate parameters, with an error for people.

    Raises
    ------
    ConfigError
        Unknown names with the near miss named, values out of range.
    """
    check_names(parameters, StudyConfig.model_fields, what="parameter")
    return StudyConfig.create(**parameters)


def read_profile(path: str | Path) -> dict[str, Any]:
    """Parameters from a YAML file."""
    parameters = read_yaml(path, what=f"the profile {path}")
    if not isinstance(parameters, dict):
        raise ConfigError(f"the profile {path} must be a list of 'name: value' lines")
    return parameters


def pruner_label(pruner: Pruner) -> str:
    """Name of a pruner's arm: ``random``, ``random balanced=True``, ..."""
    settings = pruner.model_dump(mode="json", exclude_defaults=True)
    return " ".join([pruner.name, *(f"{name}={_said(value)}" for name, value in settings.items())])


def _said(value: Any) -> str:
    """A setting in a label: ``0.1``, ``highest``, ``stratified(hard_cutoff=0.1)``."""
    if not isinstance(value, dict):
        return str(value)
    parts = [
        f"{name}({', '.join(f'{key}={_said(inner)}' for key, inner in settings.items())})"
        if isinstance(settings, dict)
        else f"{name}={settings}"
        for name, settings in value.items()
    ]
    return ", ".join(parts)


@dataclass(frozen=True)
class Entry:
    """One point of a study: a run, or a control of one.

    Attributes
    ----------
    arm : str
        What a line in a figure stands for: a pruner's label, or ``control(pruner)``; after
        ``variant: `` where there are several ways of training.
    fraction, seed
        Of the run, or of the run that a control matches.
    config : RunConfig
        Of the run, or of the run that a control matches.
    control : Control or None
        None for the run itself.
    variant : str
        Name of the way of training, where there are several.
    """

    arm: str
    fraction: float
    seed: int
    config: RunConfig
    control: Control | None = None
    variant: str = ""

    @property
    def derived(self) -> bool:
        """Whether another run must be finished first; a control of the full run is that run."""
        return self.control is not None and not isinstance(self.config.pruner, Full)

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
) -> list[Entry]:
    """Every way of training with every pruner at every fraction with every seed, and controls of each.

    At fraction 1 a pruner, and any control of it, is the run on full data.

    Parameters
    ----------
    ways : RunConfig or mapping of str to RunConfig
        How to train on full data: one way, or several by name.
    """
    named, entries = {"": ways} if isinstance(ways, RunConfig) else ways, []
    for seed, (variant, way), spec in itertools.product(seeds, named.items(), pruners):
        pruner = PRUNERS.parse(spec)
        label, prefix = pruner_label(pruner), f"{variant}: " if variant else ""
        for fraction in fractions:
            config = way.replace(pruner=pruner, fraction=fraction, seed=seed)
            entries.append(Entry(prefix + label, fraction, seed, config, None, variant))
            for control in controls:
                check_control(control, config)
                entries.append(Entry(f"{prefix}{control}({label})", fraction, seed, config, control, variant))
    return entries


def study_grid(config: StudyConfig, *, shard: tuple[int, int] | None = None) -> list[Entry]:
    """The grid of a study, or the i-th of n parts of it: a run and its controls stay together."""
    entries = grid(
        config.ways(),
        pruners=config.pruners,
        fractions=config.fractions,
        seeds=config.seeds,
        controls=config.controls,
    )
    if shard is None:
        return entries
    part, parts = shard
    if not 1 <= part <= parts:
        raise ConfigError(f"shard {part}/{parts}: the part must be in 1..{parts}")
    runs = list(dict.fromkeys(replace(entry, control=None).identity() for entry in entries))
    return [e for e in entries if runs.index(replace(e, control=None).identity()) % parts == part - 1]


def check_entries(entries: Sequence[Entry], *, data: str | None = None) -> Dataset:
    """Load the data and refuse a grid of which any run cannot be trained, before any work."""
    sources = list(dict.fromkeys(entry.config.dataset for entry in entries))
    if len(sources) != 1:
        raise ConfigError(f"a grid has one data set; this one has {len(sources)}")
    for entry in entries:
        entry.config.check_machine()
    dataset = load_dataset(sources[0], folder=data)
    for entry in entries:
        try:
            entry.config.check(dataset)
        except ConfigError as error:
            raise ConfigError(f"{entry.describe()}: {error}") from None
    check_model(build_model(entries[0].config.model, dataset), dataset)
    rounded = {entry.config.model.model_dump_json(): entry for entry in entries if entry.config.precision == "bfloat16"}
    for entry in rounded.values():
        images = dataset.train.pixels(slice(0, 2))
        check_precision(entry.config, build_model(entry.config.model, dataset), images)
    return dataset


def timed_entries(entries: Sequence[Entry], repeats: int) -> list[Entry]:
    """Runs to be timed alone: the first seed's, controls aside, in random order (no drift)."""
    if repeats == 0:
        return []
    chosen = [e for e in entries if e.seed == entries[0].seed and e.control is None]
    unique = list({entry.identity(): entry for entry in chosen}.values())
    return [unique[i] for i in np.random.default_rng(0).permutation(len(unique))]
