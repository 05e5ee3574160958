"""Small convolutional networks, for digits and clothes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from advprune_core.models.base import MODELS, ModelSettings


@MODELS.register
class SmallCNN(ModelSettings):
    """Two convolutions and a hidden layer: for 8x8 to 28x28 images on a CPU."""

    name = "small_cnn"
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

    name = "mnist_cnn"
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
