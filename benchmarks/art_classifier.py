"""ART's wrapper of a network, which its attacks and its trainers want."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Whole(nn.Module):
    """A network that does not look like a sequence of layers, of which ART would take each for an output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


def art_classifier(model: nn.Module, shape: tuple[int, ...], optimiser: torch.optim.Optimizer | None = None) -> Any:
    """A network of images in [0, 1], of ten classes, as ART's classifier."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        Whole(model),
        loss=nn.CrossEntropyLoss(),
        optimizer=optimiser,
        input_shape=shape,
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
