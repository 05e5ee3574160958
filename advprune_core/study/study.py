"""What a study is: its parameters, from notebooks and profiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from advprune_core.attacks.base import Attack
from advprune_core.attacks.geometry import NormSetting
from advprune_core.base.settings import ConfigError, Pixels, Seed, Settings, check_names
from advprune_core.base.yaml_files import read_yaml
from advprune_core.pruners.base import PRUNERS, Pruner
from advprune_core.study.evaluations import PGD_40, parsed_attacks
from advprune_core.study.execution import CarriedOut, Execution
from advprune_core.study.manifest import STUDY_NAME
from advprune_core.trainers.config import Device, RunConfig
from advprune_core.trainers.controls import CONTROLS, Control

#: Fields of a run that the grid sets.
OF_THE_GRID = frozenset({"pruner", "fraction", "seed"})
#: What a part of a study may have of its own; `variants` by name.
PART_FIELDS = ("variants", "pruners", "fractions", "controls", "seeds", "evaluation", "images")


class Study(Settings):
    """What a study consists of: a grid of runs and their tests."""

    study: Annotated[str, Field(pattern=STUDY_NAME, description="name: tables, figures go to results/<study>/")] = (
        "digits"
    )
    dataset: Annotated[Any, Field(description="data set: a name or {name: settings}")] = "digits"
    model: Annotated[Any, Field(description="network: a name, {name: settings} or 'module:factory'")] = "small_cnn"
    trainer: Annotated[Any, Field(description="preset of objective and training attack")] = "pgd_at"
    norm: Annotated[NormSetting, Field(description="norm of the threat model: linf or l2")] = "linf"
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
    controls: Annotated[tuple[Control, ...], Field(description="any of " + ", ".join(CONTROLS))] = ("same_cost",)
    seeds: Annotated[
        tuple[Seed, ...],
        Field(min_length=1, description="one run of everything for each seed"),
    ] = (0, 1, 2, 3, 4)
    evaluation: Annotated[tuple[Any, ...], Field(min_length=1, description="attacks of the test, cheapest first")] = (
        tuple(attack.spec() for attack in PGD_40)
    )
    images: Annotated[
        int | None, Field(ge=1, le=1_000_000_000, description="test images, of all classes; none: all of them")
    ] = None
    parts: Annotated[
        tuple[dict[str, Any], ...],
        Field(description="grids to carry out instead, one after the other, each with the values above but its own"),
    ] = ()
    device: Annotated[Device, Field(description="auto, cpu or cuda")] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024, description="CPU threads of a run; changes the bits")] = 1

    @model_validator(mode="after")
    def _valid_parts(self) -> Self:
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
        parsed_attacks(self.evaluation)
        self.ways()
        self.all_parts()
        return self

    def all_parts(self) -> list[Self]:
        """The grids that this study is made of, most important first: itself, unless it has parts.

        Raises
        ------
        ConfigError
            A part that sets what is the same for all, or names a variant that there is not.
        """
        if not self.parts:
            return [self]
        grids = []
        for number, part in enumerate(self.parts, 1):
            try:
                check_names(part, PART_FIELDS, what="part parameter")
                named = part.get("variants", list(self.variants))
                check_names(named, self.variants, what="variant")
                variants = {name: self.variants[name] for name in named}
                grids.append(self.replace(**{**part, "variants": variants, "parts": ()}))
            except ConfigError as error:
                raise ConfigError(f"parts: part {number}: {error}") from None
        return grids

    def ways(self) -> dict[str, RunConfig]:
        """The run of each variant on full data with the first seed; without variants one, unnamed.

        Raises
        ------
        ConfigError
            An empty name, settings that cannot be set, or that the grid sets.
        """
        configs = {}
        _check_not_of_the_grid(self.settings, "the settings set")
        for name, settings in self.variants.items():
            if not name.strip() or ": " in name:
                raise ConfigError(f"variants: {name!r} is no name for a way of training (letters, without ': ')")
            _check_not_of_the_grid(settings, f"variants: {name!r} sets")
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
        return parsed_attacks(self.evaluation)


class StudyConfig(CarriedOut, Study):
    """A study, and how it is carried out: the fields are exactly the parameters of the experiment notebooks."""

    @property
    def execution(self) -> Execution:
        """How the study is carried out."""
        options = {name: getattr(self, name) for name in CarriedOut.model_fields}
        if self.engine != "ray" and self.workers is None and self.base_config().device == "cuda":
            # Three at once do 2.6 times as much (results/reference/compiled/gpu.csv), but may not fit: to be asked for.
            options["workers"] = 1
        return Execution(**options)

    @property
    def folder(self) -> Path:
        """Folder of this study's manifest, tables and figures."""
        return self.execution.root / self.study


def _check_not_of_the_grid(settings: Mapping[str, Any], who: str) -> None:
    """Refuse settings of a way of training that its grid would overwrite."""
    for path in sorted(settings):
        if (name := path.partition(".")[0]) in OF_THE_GRID:
            example = ' (a pruner with a setting: pruners = [{"random": {"balanced": true}}])' * (name == "pruner")
            raise ConfigError(f"{who} {path!r}, which is the grid's: use {name}s{example}")


def study_config(parameters: dict[str, Any]) -> StudyConfig:
    """Validate parameters, with an error for people.

    Raises
    ------
    ConfigError
        Unknown names with the near miss named, values out of range.
    """
    check_names(parameters, StudyConfig.model_fields, what="parameter")
    return StudyConfig.create(**parameters)


#: What a profile says beside parameters: the notebooks that are executed for it.
NOTEBOOKS = "notebooks"


def read_profile(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Parameters from a YAML file, and the notebooks that it names (none: the default ones)."""
    parameters = read_yaml(path, what=f"the profile {path}")
    if not isinstance(parameters, dict):
        raise ConfigError(f"the profile {path} must be a list of 'name: value' lines")
    notebooks = parameters.pop(NOTEBOOKS, [])
    if not isinstance(notebooks, list) or not all(isinstance(name, str) for name in notebooks):
        raise ConfigError(f"the profile {path}: {NOTEBOOKS} = {notebooks!r} is no list of names: [trainers]")
    return parameters, notebooks


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
