"""Residual networks, from one for two processor cores to those that the field compares on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from advprune_core.models.base import MODELS, ModelSettings


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

    name = "preact_resnet18"
    compiles = True
    width: Annotated[int, Field(ge=1, le=10_000, description="channels of the first stage")] = 64

    def network(self, channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
        """Four stages of two pre-activation blocks, widths 1, 2, 4, 8 times `width`."""
        return _preact(channels, classes, width=self.width, blocks=2)


@MODELS.register
class PreActResNet(ModelSettings):
    """Wide and shallow PreActResNet on maps of half the size: for CIFAR-10 on a CPU."""

    name = "preact_resnet"
    compiles = True
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

    name = "resnet18"
    compiles = True
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

    name = "wrn_28_10"
    compiles = True
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
