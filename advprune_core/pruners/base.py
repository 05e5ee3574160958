"""What to keep: the contract of all pruners.

A pruner is frozen settings plus one method, ``select(context) -> Selection``. The context is
read-only and shows the training images, the model and the objective; it asks for what costs
passes through the model only when the pruner does. When it is asked is part of its settings.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from advprune_core.base.components import Component, Registry
from advprune_core.base.randomness import generator
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset, largest_remainder
from advprune_core.models.mode import no_trace
from advprune_core.pruners.selection import Selection, budget, by_class, check_every_class, with_every_class

if TYPE_CHECKING:
    from advprune_core.objectives.base import Objective, Outputs
    from advprune_core.objectives.batch import Batch
    from advprune_core.objectives.policy import AttackPolicy
    from advprune_core.pruners.branches import SplitOutputs

PRUNERS: Registry[Pruner] = Registry("pruner", "advprune_core.pruners")


@dataclass(frozen=True, eq=False)
class Context:
    """What a pruner may look at.

    Attributes
    ----------
    dataset : Dataset
        With the training split that indices refer to, and `val_select`. Not for the test split. Values that belong to
        the arrays that it was made from, such as scores of one's own, are those of the images at ``train.rows``.
    fraction : float
        Share to keep; `k` is the number of images.
    seed, epoch : int
        For `rng`, which no other draw of the run shares.
    model : nn.Module or None
        The network as it stands, in eval mode; None where a selection is checked before training.
    objective, attack : Objective, AttackPolicy or None
        What the run trains with; None like the model.
    state : dict of str to Tensor
        What `Pruner.observe` has kept.
    policy : dict of str to Tensor
        What the attack policy carries from batch to batch, such as perturbations; only read.
    crop_padding : int
        Of the frames that perturbations are carried in.
    epochs : float
        Length of the run in epochs; 0 where it is not known.
    min_per_class : int
        Images of every class that are kept at least, as far as it has so many; 0: nothing is promised.
    outputs : SplitOutputs or None
        Outputs for the training images, in place of those that the model would give.
    model_epoch : int or None
        Epochs that the model was trained for, by which an attack uses what it carries; None: `epoch`.
    """

    dataset: Dataset
    fraction: float
    seed: int
    epoch: int = 0
    model: nn.Module | None = None
    objective: Objective | None = None
    attack: AttackPolicy | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    policy: dict[str, Tensor] = field(default_factory=dict)
    crop_padding: int = 0
    epochs: float = 0.0
    min_per_class: int = 0
    outputs: SplitOutputs | None = None
    model_epoch: int | None = None

    @property
    def network(self) -> nn.Module:
        """The model, in eval mode, so that passes leave its BatchNorm statistics alone.

        Raises
        ------
        ConfigError
            Where there is none.
        """
        if self.model is None and self.objective is None:
            raise ConfigError(
                "this pruner looks at what a network makes of the images, and there is none before training: a class "
                "that does says uses_model = True, or is a ModelPruner, and is asked in training alone"
            )
        if self.model is None:
            raise ConfigError(
                "this pruner looks at what a network makes of the images, and there is none: name a model and its "
                "weights, or put its logits and features for them beside the images"
            )
        return self.model

    @property
    def n(self) -> int:
        """Number of training images."""
        return len(self.dataset.train)

    @property
    def k(self) -> int:
        """Number of images to keep."""
        return budget(self.fraction, self.n)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of the training images."""
        return np.asarray(self.dataset.train.labels.cpu().numpy())

    @property
    def rng(self) -> np.random.Generator:
        """A generator for this seed and epoch, the same at every call."""
        return generator(self.seed, "pruner", self.epoch)

    def quotas(self) -> NDArray[np.int64]:
        """Images to keep of each class: by largest remainder, small classes lifted to `min_per_class`.

        Raises
        ------
        ConfigError
            If a class that has training images would keep none.
        """
        counts = np.bincount(self.labels, minlength=self.dataset.classes)
        quotas = largest_remainder(self.k, counts)
        floors = np.minimum(counts, self.min_per_class)
        for _ in range(int(np.maximum(floors - quotas, 0).sum())):
            if (quotas > floors).any():  # one image from the class that keeps most
                quotas[np.where(quotas > floors, quotas, -1).argmax()] -= 1
                quotas[(quotas < floors).argmax()] += 1
        check_every_class(quotas, counts, fraction=self.fraction)
        return quotas

    def per_class(self, order: NDArray[np.int64] | None = None) -> list[tuple[NDArray[np.int64], int]]:
        """The training images of each class that has some, and how many of them to keep; see `by_class`."""
        return by_class(self.labels, self.quotas(), order)


@PRUNERS.family
class Pruner(Component):
    """Chooses the training images of a run."""

    #: Keeps exactly ``budget(fraction, n)`` images.
    exact: ClassVar[bool] = True
    #: What an epoch keeps does not depend on how long the run is.
    steady: ClassVar[bool] = True
    #: Looks at the model, so that its selection is not known before training.
    uses_model: ClassVar[bool] = False
    #: Says how long the steps on its selections are (`Selection.step_ratio`).
    measures_steps: ClassVar[bool] = False

    def due(self, epoch: int) -> bool:
        """Whether to select before `epoch`; full data is used before the first selection."""
        return epoch == 0

    def epochs_before(self) -> int:
        """Epochs of the run on all data, before the first selection."""
        return 0

    def scout_epochs(self) -> int:
        """Epochs that a network is trained on all data before the run, only to be looked at."""
        return 0

    def for_objective(self, objective: Objective) -> Pruner:
        """The same pruner with what follows from the training objective filled in."""
        return self

    def check(self, context: Context) -> None:
        """Refuse, before any work, what cannot be selected in a run; the context has no model yet.

        Raises
        ------
        ConfigError
            With what would have to be changed.
        """

    def check_model(self, model: nn.Module, images: Tensor) -> None:
        """Refuse, before any work, a network that cannot be looked at; `images` (B, C, H, W) are two of the data.

        Raises
        ------
        ConfigError
            With what would have to be changed.
        """

    def observe(self, batch: Batch, outputs: Outputs, state: dict[str, Tensor]) -> None:
        """Look at a batch that was trained on, at no cost; `state` is part of every checkpoint."""

    def candidates(self, batch_size: int, fraction: float) -> int:
        """Images drawn for an update of `batch_size` images: as many, unless `narrow` drops some."""
        return batch_size

    def narrow(self, model: nn.Module, batch: Batch, size: int) -> Batch:
        """Choose `size` images of a batch of `candidates`, before the training attack; the model is in eval mode."""
        return batch

    def select(self, context: Context) -> Selection:
        """Choose ``context.k`` of ``context.n`` training images."""
        raise NotImplementedError


class ScheduledPruner(Pruner):
    """A pruner that can wait for warm-up epochs on full data, and select again now and then."""

    warmup_epochs: Annotated[int, Field(ge=0, le=100_000, description="epochs on full data before selecting")] = 0
    every: Annotated[int, Field(ge=0, le=100_000, description="select again every so many epochs; 0: once")] = 0

    def epochs_before(self) -> int:
        return self.warmup_epochs

    def due(self, epoch: int) -> bool:
        """After the warm-up, then every `every` epochs."""
        since = epoch - self.warmup_epochs
        return since == 0 or (since > 0 and self.every > 0 and since % self.every == 0)


class ModelPruner(ScheduledPruner):
    """A pruner that looks at the model, which is worth looking at after a warm-up epoch at least.

    A class that the method itself would leave without any image keeps one at random, counted in
    `Selection.n_filled`: after warm-up epochs it is too late to ask for a larger fraction.
    """

    uses_model = True
    warmup_epochs: Annotated[int, Field(ge=0, le=100_000, description="epochs on full data before selecting")] = 1
    score_epochs: Annotated[
        int,
        Field(ge=0, le=100_000, description="look at a network trained so long before the run; 0: at the run's own"),
    ] = 0

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        # Defaults are not held against anyone: in a record they look like values that were given.
        changed = {
            name: value
            for name in ("warmup_epochs", "every")
            if (value := getattr(self, name)) != type(self).model_fields[name].default
        }
        if self.score_epochs and changed:
            told = " and ".join(f"{name} = {value}" for name, value in changed.items())
            raise ValueError(
                f"score_epochs = {self.score_epochs} selects once, before the run, by a network trained for that: "
                f"{told} would have no effect; give either score_epochs or a schedule within the run"
            )
        return self

    def observed_epochs(self) -> int:
        """Epochs of training before the (first) selection."""
        return self.score_epochs or self.warmup_epochs

    def epochs_before(self) -> int:
        """The warm-up, unless a network is trained for it."""
        return 0 if self.score_epochs else self.warmup_epochs

    def scout_epochs(self) -> int:
        """The setting. Selection then comes before the first epoch, and is charged that training."""
        return self.score_epochs

    def due(self, epoch: int) -> bool:
        """With a network trained for it, before the run; else as scheduled."""
        return epoch == 0 if self.score_epochs else super().due(epoch)

    def select(self, context: Context) -> Selection:
        """Everything at fraction 1, else what `choose` says.

        Raises
        ------
        ConfigError
            A fraction that keeps nothing.
        """
        if context.k == 0:
            raise ConfigError(f"fraction {context.fraction:g} keeps none of {context.n} images")
        if context.k >= context.n:
            return Selection(np.arange(context.n))
        least = max(1, context.min_per_class)
        return with_every_class(self.choose(context), context.labels, context.rng, least=least)

    def choose(self, context: Context) -> Selection:
        """Choose ``context.k`` of ``context.n`` training images, fewer than all."""
        raise NotImplementedError


def keep(pruner: Pruner, context: Context) -> Selection:
    """What a pruner selects, with `Context.min_per_class` images of every class at least.

    Its model is in eval mode meanwhile, and has its modes back afterwards; the global generators as well.

    Raises
    ------
    ConfigError
        A pruner that says it is exact and is not, or returns what is no selection of these images.
    """
    with nullcontext() if context.model is None else no_trace(context.model):
        selection = pruner.select(context)
    if not isinstance(selection, Selection):
        raise ConfigError(
            f"the pruner {pruner.name!r} returned a {type(selection).__name__} where a selection is wanted: "
            "return Selection(indices)"
        )
    if len(selection) and selection.indices[-1] >= context.n:
        raise ConfigError(
            f"the pruner {pruner.name!r} selected image {selection.indices[-1]} of 0..{context.n - 1}: indices are "
            "positions in context.dataset.train, which has no image that is held out"
        )
    if pruner.exact and len(selection) != context.k:
        raise ConfigError(
            f"the pruner {pruner.name!r} selected {len(selection)} images where {context.k} were asked for; one whose "
            "number depends on the data says so: exact = False"
        )
    if not context.min_per_class:
        return selection
    return with_every_class(selection, context.labels, context.rng, least=context.min_per_class)
