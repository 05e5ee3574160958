"""Networks that take images in [0, 1]: normalisation lives inside them.

The registered ones are built from a `ModelSettings`; any `nn.Module` of your own works too, named
as ``"module:factory"`` or passed to `advprune_core.trainers.loop.train` directly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor, nn

from advprune_core.attacks.mode import first_logits
from advprune_core.attacks.passes import check_network
from advprune_core.data import Dataset
from advprune_core.factories import network_factory
from advprune_core.randomness import torch_stream
from advprune_core.settings import (
    Component,
    ConfigError,
    Registry,
    source_hash,
)


class ModelSettings(Component):
    """Settings of a network."""

    #: Whether compiled passes are faster by enough to be taken where nothing is said.
    compiles: ClassVar[bool] = False

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """Build the network for normalised images of `channels` x `size`."""
        raise NotImplementedError


class OwnModel(ModelSettings):
    """Your own network: ``"module:factory"``, called without arguments (or with `arguments`)."""

    name: ClassVar[str] = "own"
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
        """What the factory returns."""
        return self._build(**self.arguments)

    def spec(self) -> str | dict[str, Any]:
        """``"module:factory"``, with its arguments where there are any."""
        return {self.factory: self.arguments} if self.arguments else self.factory

    def canonical(self) -> dict[str, Any]:
        """Name, arguments and source: an edited network is another one."""
        return {**super().canonical(), "source": source_hash(self._build)}


class _ModelRegistry(Registry[ModelSettings]):
    def parse(self, spec: Any) -> Any:
        """As `Registry.parse`; ``"module:factory"`` names a function that returns a network."""
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
    """Refuse what is not a classifier of this data set's images; leaves both as they were.

    Raises
    ------
    ConfigError
        What is no `nn.Module`, or on the meta device; outputs other than one tensor of a logit for
        each class; a model that changes its input in place.
    """
    check_network(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = dataset.train.pixels(slice(0, 2)).to(device)
    logits = first_logits(model, images)
    if logits.shape != (2, dataset.classes):
        raise ConfigError(
            f"the model gives outputs of shape {tuple(logits.shape)} for 2 images; "
            f"{dataset.name} has {dataset.classes} classes, so it must be (2, {dataset.classes})"
        )


def with_weights(model: nn.Module, weights: Path) -> nn.Module:
    """Load a state dict into a network, and put it in eval mode.

    Raises
    ------
    ConfigError
        What is no state dict, or does not fit.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{weights} is not a state dict saved by torch.save: {reason}") from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"{weights} does not fit the model: {error}") from None
    if not all(bool(value.isfinite().all()) for value in state.values() if isinstance(value, torch.Tensor)):
        raise ConfigError(f"{weights} has weights that are not finite (NaN or infinity): there is nothing to evaluate")
    return model.eval()


@MODELS.register
class SmallCNN(ModelSettings):
    """Two convolutions and a hidden layer: for 8x8 to 28x28 images on a CPU."""

    name: ClassVar[str] = "small_cnn"
    width: Annotated[int, Field(ge=1, le=10_000, description="channels of the first layer")] = 32

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """conv 3x3 (width) - conv 3x3 stride 2 (2 width) - fully connected (4 width)."""
        width, pooled = self.width, ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * pooled, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, classes),
        )


@MODELS.register
class MNISTCNN(ModelSettings):
    """Two strided convolutions and a hidden layer: the MNIST network of Wong et al. 2020."""

    name: ClassVar[str] = "mnist_cnn"
    width: Annotated[int, Field(ge=1, le=10_000, description="channels of the first layer")] = 16

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """conv 4x4 stride 2 (width) - conv 4x4 stride 2 (2 width) - fully connected (100)."""
        width, pooled = self.width, (size[0] // 4) * (size[1] // 4)
        return nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * pooled, 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )


class PreActBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016b): BN - ReLU - conv, twice."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Residual step; a projecting shortcut sees the activated input."""
        active = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + shortcut


class BasicBlock(nn.Module):
    """Residual block (He et al. 2016a): conv - BN - ReLU - conv - BN, then add and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Residual step."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


def _stages(
    block: type[PreActBlock] | type[BasicBlock],
    start: int,
    widths: Sequence[int],
    strides: Sequence[int],
    depth: int,
) -> list[nn.Module]:
    """Stages of `depth` blocks each; the first block of a stage has its stride."""
    layers: list[nn.Module] = []
    inputs = start
    for outputs, stride in zip(widths, strides, strict=True):
        for position in range(depth):
            layers.append(block(inputs, outputs, stride if position == 0 else 1))
            inputs = outputs
    return layers


def _head(features: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]


def _preact(channels: int, classes: int, *, width: int, blocks: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    """Four stages of `blocks` pre-activation blocks, widths 1, 2, 4, 8 times `width`, strides 1, 2, 2, 2."""
    widths = [width * factor for factor in (1, 2, 4, 8)]
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, stride, 1, bias=False),
        *_stages(PreActBlock, width, widths, (1, 2, 2, 2), blocks),
        nn.BatchNorm2d(widths[-1]),
        nn.ReLU(),
        *_head(widths[-1], classes),
    )


@MODELS.register
class PreActResNet18(ModelSettings):
    """PreActResNet-18 with a CIFAR stem: the usual network of fast adversarial training."""

    name: ClassVar[str] = "preact_resnet18"
    compiles: ClassVar[bool] = True
    width: Annotated[int, Field(ge=1, le=10_000, description="channels of the first stage")] = 64

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """Four stages of two pre-activation blocks, widths 1, 2, 4, 8 times `width`."""
        return _preact(channels, classes, width=self.width, blocks=2)


@MODELS.register
class PreActResNet(ModelSettings):
    """Wide and shallow PreActResNet on maps of half the size: for CIFAR-10 on a CPU."""

    name: ClassVar[str] = "preact_resnet"
    compiles: ClassVar[bool] = True
    width: Annotated[int, Field(ge=1, le=10_000, description="channels of the first stage")] = 16
    blocks: Annotated[int, Field(ge=1, le=100, description="blocks of each of the four stages")] = 1
    stem: Annotated[
        Literal["3x3", "4x4/2"],
        Field(description="first convolution; 4x4 with stride 2 halves the maps, and quarters the cost"),
    ] = "4x4/2"

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """PreActResNet-10 by default, PreActResNet-18 with two blocks and the 3x3 stem."""
        kernel, stride = (3, 1) if self.stem == "3x3" else (4, 2)
        return _preact(channels, classes, width=self.width, blocks=self.blocks, kernel=kernel, stride=stride)


@MODELS.register
class ResNet18(ModelSettings):
    """ResNet-18 with a CIFAR stem (3x3 convolution, no pooling)."""

    name: ClassVar[str] = "resnet18"
    compiles: ClassVar[bool] = True
    width: Annotated[int, Field(ge=1, le=10_000, description="channels of the first stage")] = 64

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """Four stages of two basic blocks, widths 1, 2, 4, 8 times `width`."""
        widths = [self.width * factor for factor in (1, 2, 4, 8)]
        return nn.Sequential(
            nn.Conv2d(channels, self.width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(self.width),
            nn.ReLU(),
            *_stages(BasicBlock, self.width, widths, (1, 2, 2, 2), 2),
            *_head(widths[-1], classes),
        )


@MODELS.register
class WRN2810(ModelSettings):
    """WideResNet-28-10 (Zagoruyko and Komodakis 2016), without dropout."""

    name: ClassVar[str] = "wrn_28_10"
    compiles: ClassVar[bool] = True
    width: Annotated[int, Field(ge=1, le=1000, description="widening factor")] = 10

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """Three stages of four pre-activation blocks, 16, 32, 64 times `width` channels."""
        widths = [self.width * factor for factor in (16, 32, 64)]
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, 1, 1, bias=False),
            *_stages(PreActBlock, 16, widths, (1, 2, 2), 4),
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(),
            *_head(widths[-1], classes),
        )
