"""What an epoch's batches add up to: its row of metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advprune_core.objectives.base import Outputs


@dataclass(eq=False)
class Tally:
    """Sums over the batches of an epoch, kept where they are computed: no batch waits for them."""

    loss: Tensor
    correct: Tensor
    withstood: Tensor
    attacked: Tensor
    images: int = 0

    @classmethod
    def on(cls, device: torch.device) -> Tally:
        """Of nothing yet."""
        loss, correct, withstood, attacked = (torch.zeros((), device=device) for _ in range(4))
        return cls(loss, correct, withstood, attacked)

    def add(self, outputs: Outputs, y: Tensor) -> None:
        """Count a batch with its labels (B,)."""
        right = outputs.logits.argmax(1) == y
        self.loss += outputs.losses.float().sum()
        self.correct += right.sum()
        if outputs.attacked is not None:
            self.withstood += (right & outputs.attacked).sum()
            self.attacked += outputs.attacked.sum()
        self.images += len(y)

    def row(self) -> dict[str, Any]:
        """Mean loss and accuracy in training, 0 of no images; `attacked_accuracy` where some images stayed as they are.

        That is the accuracy of the images that were attacked alone.
        """
        images = max(self.images, 1)
        row = {"train_loss": float(self.loss) / images, "train_accuracy": float(self.correct) / images}
        return row | ({"attacked_accuracy": float(self.withstood / self.attacked)} if self.attacked else {})
