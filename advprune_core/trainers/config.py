"""`RunConfig`: everything that determines the weights of one run, and its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator

from advprune_core.attacks.compiled import Speed
from advprune_core.attacks.geometry import ThreatModel
from advprune_core.base.components import component_field
from advprune_core.base.keys import content_key
from advprune_core.base.settings import ConfigError, Seed, Settings, check_names
from advprune_core.base.values import as_ratio
from advprune_core.datasets.base import DATASETS, DatasetSource
from advprune_core.datasets.digits import Digits
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import MODELS, ModelSettings
from advprune_core.models.cnns import SmallCNN
from advprune_core.models.weights import InitialWeights
from advprune_core.objectives.base import OBJECTIVES, Objective
from advprune_core.objectives.pgd_at import PGDAT, Standard
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.pruners.base import PRUNERS, Pruner
from advprune_core.pruners.lengths import check_share, lengthened, warm_start, warmed_up
from advprune_core.pruners.random import Full
from advprune_core.pruners.selection import budget
from advprune_core.trainers.identity import identity_of
from advprune_core.trainers.optimisation import Optimisation
from advprune_core.trainers.preset_values import with_preset, with_preset_paths
from advprune_core.trainers.speeds import automatic_speed

Device = Literal["auto", "cpu", "cuda"]
OnCollapse = Literal["flag", "stop", "roll_back"]


class RunConfig(Settings):
    """One run: what is trained, on what, how.

    ``trainer`` may be given instead of an objective: a preset that sets `objective` and `attack`,
    which explicit values override.
    """

    dataset: Annotated[DatasetSource, *component_field(DATASETS), Field(description="data set")] = Digits()
    model: Annotated[ModelSettings, *component_field(MODELS), Field(description="network")] = SmallCNN()
    init: Annotated[
        InitialWeights | None,
        BeforeValidator(InitialWeights.parse),
        Field(
            description="state dict (.pt) of the network to start from, or {path: ..., fresh: modules that stay "
            "random}; none: random weights"
        ),
    ] = None
    objective: Annotated[Objective, *component_field(OBJECTIVES), Field(description="training objective")] = PGDAT()
    attack: AttackPolicy = AttackPolicy()
    pruner: Annotated[Pruner, *component_field(PRUNERS), Field(description="what chooses the training images")] = Full()
    fraction: Annotated[float, Field(gt=0, le=1, description="share of the training images kept")] = 1.0
    min_per_class: Annotated[
        int,
        Field(ge=0, le=1_000_000, description="images kept of every class at least; 0: refuse to empty a class"),
    ] = 0
    warm_start: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="share of a pruned run's cost, selection aside, that its first epochs, on all data, take "
            "(kappa)",
        ),
    ] = 0.0
    equal_cost: Annotated[
        bool,
        Field(description="a pruned run goes on until it has cost what `epochs` on all data cost, selection aside"),
    ] = False
    optimisation: Optimisation = Optimisation()
    best_every: Annotated[
        int,
        Field(
            ge=0, le=100_000, description="epochs between PGD-10 checks on val_stop: best checkpoint, sentinel; 0: none"
        ),
    ] = 0
    collapse_drop: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="fall of that accuracy, beyond a fall in training, that is a collapse (as is, whatever the "
            "fall, less than a quarter of a training accuracy above 50 %), unless half of that stands on training "
            "images",
        ),
    ] = 0.2
    on_collapse: Annotated[
        OnCollapse, Field(description="flag it; stop there; or stop and return to the best checkpoint")
    ] = "flag"
    seed: Annotated[Seed, Field(description="seed of initial weights, order, noise, selection")] = 0
    device: Annotated[Device, Field(description="cpu, cuda, or auto: a GPU if there is one")] = "auto"
    threads: Annotated[
        int, Field(ge=1, le=1024, description="CPU threads of the run; their number changes the bits")
    ] = 1
    precision: Annotated[
        Literal["float32", "bfloat16"], Field(description="arithmetic of training (evaluation: float32)")
    ] = "float32"
    speed: Annotated[
        Literal["auto"] | Speed,
        Field(
            description="compiled: torch.compile, up to twice as fast, other rounding; exact: plain PyTorch; auto: "
            "compiled for long runs of residual networks on images of 32x32 on a CPU"
        ),
    ] = "auto"

    @classmethod
    def known(cls, name: str, *, also: Sequence[str] = ("trainer",)) -> str:
        """As of all settings; and what takes a name that is flat."""
        flat = f"; RunConfig.flat({name}=...) takes it as it is" if name in flat_fields() else ""
        return super().known(name, also=also) + flat

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("trainer") is None:
            return {k: v for k, v in values.items() if k != "trainer"} if isinstance(values, dict) else values
        return with_preset(values)

    @model_validator(mode="after")
    def _resolved(self) -> RunConfig:
        """Fill in what follows from the rest, so that equal runs have equal keys."""
        resolved: dict[str, Any] = {}
        asked: dict[str, Any] = {}
        if self.attack.eps is None or self.eps_of_dataset:
            attack = self.attack.model_copy(update={"eps": self.dataset.default_eps[self.attack.norm]})
            attack.__pydantic_fields_set__.discard("eps")  # `eps_of_dataset` tells by that
            resolved["attack"] = attack
        self.objective.check(self.attack)
        if self.objective.same_weights and self.optimisation.awp:
            raise ValueError(
                f"the objective {self.objective.name!r} compares gradients at the same weights, and awp moves the "
                "weights in between: leave awp at 0, or use another trainer (advprune list trainers)"
            )
        if self.device == "auto":
            resolved["device"] = "cuda" if torch.cuda.is_available() else "cpu"
        if isinstance(self.pruner, Full) and self.fraction < 1:
            raise ValueError(
                f"fraction {self.fraction:g} with the pruner 'full', which keeps everything; choose another "
                "(advprune list pruners)"
            )
        if self.speed == "auto":
            resolved["speed"] = automatic_speed(self, resolved.get("device", self.device))
            asked["speed"] = "auto"
        keeps_all = self.fraction == 1 and self.pruner.exact
        resolved["pruner"] = Full() if keeps_all else self.pruner.for_objective(self.objective)
        if self.optimisation.plain_epochs and not self.objective.uses_adversarial:
            raise ValueError(
                f"plain_epochs = {self.optimisation.plain_epochs}, but the objective {self.objective.name!r} has no "
                "attack in any epoch"
            )
        if not isinstance(resolved["pruner"], Full):
            length = self._length(resolved["pruner"])
            resolved |= length
            asked |= {name: getattr(self, name) for name in length}
        elif self.min_per_class:
            asked["min_per_class"] = self.min_per_class
            resolved["min_per_class"] = 0  # it has them all, and is the same run
        if asked:
            resolved["_asked"] = asked
        # The instance is frozen, and validators may not return another one.
        for name, value in resolved.items():
            self.__dict__[name] = value
        return self

    @property
    def eps_of_dataset(self) -> bool:
        """Whether nobody has said an eps, so that it is the usual one of the `dataset`."""
        return "eps" not in self.attack.model_fields_set

    def _length(self, pruner: Pruner) -> dict[str, Any]:
        """Settings of a pruned run whose length follows from its fraction; then it is a run of that length."""
        if not (self.warm_start or self.equal_cost):
            return {}
        if self.warm_start and self.equal_cost:
            raise ValueError(
                "warm_start makes a run as cheap as its fraction, equal_cost as dear as all data: give one of them"
            )
        epochs, plain = self.optimisation.epochs, self.optimisation.plain_epochs
        if self.optimisation.schedule_span == "full_run":
            raise ValueError(
                "schedule_span = 'full_run' is the schedule of a run that is no longer than on all data: with "
                "warm_start or equal_cost the length differs; use 'run'"
            )
        if self.warm_start:
            full, epochs = warm_start(epochs, self.fraction, self.warm_start, plain=plain)
            pruner = warmed_up(pruner, full)
        else:
            epochs = lengthened(pruner, epochs, self.fraction, plain=plain)
        check_share(pruner, self.fraction, size=self.optimisation.batch_size)
        optimisation = self.optimisation.replace(epochs=epochs)
        return {"pruner": pruner, "optimisation": optimisation, "warm_start": 0.0, "equal_cost": False}

    @cached_property
    def _asked(self) -> dict[str, Any]:
        """What was given in place of settings that follow from others: a `_length`, images kept of each class, a speed.

        No field, nor private attribute: a run whose length followed from its fraction equals one that was given it.
        """
        return {}

    def _as_asked(self, *, length: bool, speed: bool) -> dict[str, Any]:
        """What another pruner, or fraction, is to start from; with a length, or a speed, of its own it needs none."""
        wanted = {"min_per_class": True, "speed": speed}
        return {name: value for name, value in self._asked.items() if wanted.get(name, length)}

    def replace(self, /, **values: Any) -> Self:
        """Return a copy with some values changed, validated again.

        A length that followed from fraction and pruner (warm_start, equal_cost) follows from those of the copy, and
        min_per_class, of which a run on all data has no need, is there again. Who gives `optimisation` gives the
        length; `trainer` sets objective, start and steps, as in `with_settings`.
        """
        if values.get("trainer") is not None:
            return self.with_settings(values)
        copy = super().replace(**self._as_asked(length="optimisation" not in values, speed=False) | values)
        if "speed" in self._asked and "speed" not in values:  # it stays as it is, and may still follow
            copy.__dict__["_asked"] = {**copy._asked, "speed": self._asked["speed"]}
        return copy

    @classmethod
    def flat(cls, /, **options: Any) -> RunConfig:
        """Build a config from flat names: ``eps`` for ``attack.eps``, ``epochs``, ``seed``, ...

        Raises
        ------
        ConfigError
            Unknown names (with the near miss), values out of range.
        """
        paths = flat_fields()
        check_names(options, [*paths, "trainer"], what="parameter")
        nested: dict[str, Any] = {}
        for name, value in options.items():
            group, _, leaf = paths.get(name, name).rpartition(".")
            (nested.setdefault(group, {}) if group else nested)[leaf] = value
        return cls.create(**nested)

    @property
    def threat(self) -> ThreatModel:
        """The threat model of training, and of the test."""
        return ThreatModel(norm=self.attack.norm, eps=self.attack.radius)

    def with_settings(self, settings: dict[str, Any]) -> Self:
        """Set dotted paths: ``{"pruner.balanced": True, "optimisation.ema": 0.99}``.

        ``trainer`` sets objective, start and steps. A radius that nobody has given, the data set's own, follows a
        changed norm or data set, a speed that ``auto`` stands for what it depends on, and a length that
        followed from fraction and pruner those, unless epochs are among the settings.

        Raises
        ------
        ConfigError
            What does not fit; another norm than the one that a radius was given for, without its own.
        """
        config, changes = self, dict(settings)
        if "trainer" in changes:
            changes = with_preset_paths(changes)
        kept, norm = {"attack", "attack.eps"}.isdisjoint(changes), changes.get("attack.norm", self.attack.norm)
        if kept and norm != self.attack.norm and not self.eps_of_dataset:
            given = f"{as_ratio(self.attack.radius)} was given for {self.attack.norm}"
            raise ConfigError(f"attack.norm = {norm!r} needs its own attack.eps: {given}")
        if kept and self.eps_of_dataset:
            config = config.model_copy(update={"attack": config.attack.model_copy(update={"eps": None})})
        length = not {"optimisation", "optimisation.epochs"} & set(changes)
        config = config.model_copy(update=self._as_asked(length=length, speed=True))
        try:
            return config.with_paths(changes)
        except ConfigError as error:
            several = "settings" if len(settings) > 1 else "setting"
            raise ConfigError(f"{several} {', '.join(map(repr, settings))}: {error}") from None

    def train_key(self, dataset: Dataset) -> str:
        """Hash of what determines the weights: this config and the training data's content."""
        return content_key(self.identity(dataset.train_hash))

    def identity(self, train_hash: str) -> dict[str, Any]:
        """What determines the weights, as JSON data: settings, versions, sources, training data."""
        return identity_of(self, train_hash)

    @property
    def passes_per_image(self) -> float:
        """Expected forward-equivalents of one image in one step of training."""
        return self._cost(self.objective, self.attack.steps.expected())

    @property
    def least_passes_per_image(self) -> float:
        """The same of an image that gets no step of the attack."""
        return self._cost(self.objective, 0.0)

    @property
    def plain_passes_per_image(self) -> float:
        """The same in an epoch without an attack."""
        return self._cost(self.plain_objective, 0.0)

    @property
    def plain_objective(self) -> Objective:
        """What the epochs without an attack train on."""
        return Standard(label_smoothing=self.objective.label_smoothing)

    def _cost(self, objective: Objective, steps: float) -> float:
        twice = objective.training_cost if self.optimisation.awp else 0.0
        return objective.cost(steps, clean_logits=self.attack.steps.uses_logits) + twice

    def images(self, n: int, *, epochs: float) -> float:
        """Expected images in the updates of the first `epochs`, of `n` training images."""
        kept = budget(self.fraction, n) if self.fraction < 1 else n
        full = min(self.pruner.epochs_before(), epochs)
        return full * n + (epochs - full) * kept

    def passes(self, n: int, *, epochs: float | None = None) -> float:
        """Expected forward-equivalents of training with `n` training images, or of the first `epochs` of it."""
        epochs = self.optimisation.epochs if epochs is None else min(epochs, self.optimisation.epochs)
        plain = self.images(n, epochs=min(self.optimisation.plain_epochs, epochs))
        attacked = self.images(n, epochs=epochs) - plain + (self.pruner.scout_epochs() * n if epochs else 0)
        passes = plain * self.plain_passes_per_image + attacked * self.passes_per_image
        return min(passes, self.optimisation.cost_budget or passes)

    def passes_done(self, n: int, metrics: Sequence[Mapping[str, Any]]) -> float:
        """How many of these are done, by the rows of metrics that the run has written so far."""
        if self.optimisation.cost_budget is not None:
            return min(float(metrics[-1]["cost"]), self.passes(n)) if metrics else 0.0
        return self.passes(n, epochs=len(metrics))


def flat_fields() -> dict[str, str]:
    """Flat name to dotted path of every `RunConfig` field: ``{"eps": "attack.eps", ...}``."""
    paths = {}
    for name, field in RunConfig.model_fields.items():
        if name in ("attack", "optimisation"):
            group = type(field.get_default())
            paths.update({leaf: f"{name}.{leaf}" for leaf in group.model_fields})
        else:
            paths[name] = name
    return paths


def flat_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dumped `RunConfig` by flat name; None where it lacks one, as an older record may."""
    found = {}
    for name, path in flat_fields().items():
        value: Any = config
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found[name] = value
    return found
