"""Networks that take images in [0, 1]: normalisation lives inside them.

The registered ones are built from a `ModelSettings`; any `nn.Module` of your own works too, named
as ``"module:factory"`` or passed to `advprune_core.trainers.loop.train` directly.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import PrivateAttr, model_validator
from torch import Tensor, nn

from advprune_core.base.components import Component, Registry
from advprune_core.base.factories import network_factory
from advprune_core.base.failures import message_of, note_place
from advprune_core.base.machine import machine_error
from advprune_core.base.randomness import torch_stream
from advprune_core.base.settings import AdvpruneError, ConfigError
from advprune_core.base.sources import source_hash
from advprune_core.datasets.splits import Dataset
from advprune_core.models.mode import device_of, first_logits
from advprune_core.models.passes import PROBABILITIES, check_network, look_like_probabilities


class ModelSettings(Component):
    """Settings of a network."""

    #: Whether compiled passes are faster by enough to be taken where nothing is said.
    compiles: ClassVar[bool] = False

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """Build the network for normalised images of `channels` x `size`."""
        raise NotImplementedError


class OwnModel(ModelSettings):
    """Your own network: ``"module:factory"``, called without arguments (or with `arguments`)."""

    name = "own"
    factory: str
    arguments: dict[str, Any] = {}
    #: Goes along to workers: they cannot import what a script or a notebook defines.
    _build: Callable[..., Any] = PrivateAttr()

    @model_validator(mode="after")
    def _imported(self) -> OwnModel:
        self._build = network_factory(self.factory)
        try:
            inspect.signature(self._build).bind(**self.arguments)
        except TypeError as error:
            raise ConfigError(f"{self.factory} cannot be called with {self.arguments}: {error}") from None
        return self

    def build(self) -> Any:
        """What the factory returns.

        Raises
        ------
        ConfigError
            What goes wrong in it, with its place.
        """
        try:
            return self._build(**self.arguments)
        except Exception as error:  # whatever somebody's own code does
            if isinstance(error, AdvpruneError) or machine_error(error) is not None:
                raise
            note_place(error)
            raise ConfigError(f"{self.factory} with {self.arguments or 'no arguments'}: {message_of(error)}") from error

    def spec(self) -> str | dict[str, Any]:
        """``"module:factory"``, with its arguments where there are any."""
        return {self.factory: self.arguments} if self.arguments else self.factory

    def canonical(self) -> dict[str, Any]:
        """Name, arguments and source: an edited network is another one."""
        return {**super().canonical(), "source": source_hash(self._build)}


class _ModelRegistry(Registry[ModelSettings]):
    def parse(self, spec: Any) -> Any:
        """As `Registry.parse`; ``"module:factory"`` names a function that returns a network.

        Raises
        ------
        ConfigError
            A network itself, or its class, among others.
        """
        if isinstance(spec, nn.Module) or (inspect.isclass(spec) and issubclass(spec, nn.Module)):
            raise ConfigError(
                "settings name a network, as 'module:factory', a function that returns it, or as one of "
                f"{', '.join(self.classes())}; a network itself is given to train(config, dataset, model=network)"
            )
        name, arguments = next(iter(spec.items())) if isinstance(spec, dict) and len(spec) == 1 else (spec, {})
        if isinstance(name, str) and ":" in name:
            return OwnModel.create(factory=name, arguments=arguments or {})
        return super().parse(spec)


MODELS: Registry[ModelSettings] = _ModelRegistry("model", "advprune_core.models")
MODELS.family(ModelSettings)


class Normalise(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images (B, C, H, W)."""
        return (x - self.mean) / self.std


def build_model(settings: ModelSettings, dataset: Dataset, *, seed: int = 0) -> nn.Module:
    """Build a network for a data set, with the initial weights of `seed`.

    Raises
    ------
    ConfigError
        If an own factory does not return an `nn.Module` with one logit per class.
    """
    channels, height, width = dataset.image_shape
    with torch_stream(seed, "init"):
        if not isinstance(settings, OwnModel):
            network = settings.network(channels, dataset.classes, (height, width))
            return nn.Sequential(Normalise(dataset.mean, dataset.std), network)
        own = settings.build()
    check_model(own, dataset)
    return own


def check_model(model: Any, dataset: Dataset) -> None:
    """Refuse what is not a classifier of this data set's images, in either mode; leaves both as they were.

    Raises
    ------
    ConfigError
        What is no `nn.Module`, or on the meta device; outputs other than one tensor of a logit for
        each class, be it in training mode alone; a model that changes its input in place.

    Warns
    -----
    UserWarning
        Outputs that look like probabilities.
    """
    check_network(model)
    images = dataset.train.pixels(slice(0, 2)).to(device_of(model))
    logits = first_logits(model, images)
    if logits.shape != (2, dataset.classes):
        raise ConfigError(
            f"the model gives outputs of shape {tuple(logits.shape)} for 2 images; "
            f"{dataset.name} has {dataset.classes} classes, so it must be (2, {dataset.classes}); a factory is told "
            f"as in {{torchvision.models:resnet18: {{num_classes: {dataset.classes}}}}}"
        )
    if look_like_probabilities(logits):
        warnings.warn(PROBABILITIES, stacklevel=2)
    try:
        first_logits(model, images, "train")  # some have more outputs there, for losses of their own
    except ConfigError as error:
        raise ConfigError(f"in training mode, {error}") from error
