"""One training batch, and what an attack policy keeps from one to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.augmentation import Crops

#: What a policy keeps between batches, part of every checkpoint.
PolicyState = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch, on the device.

    Attributes
    ----------
    x : Tensor of float32, shape (B, C, H, W), in [0, 1], augmented
    y : Tensor of int64, shape (B,)
    ids, epochs : Tensor of int64, shape (B,)
        Positions in the training split, and the epoch each image was drawn in: noise is keyed by
        both, and what is kept from one visit to the next belongs to an id.
    weights : Tensor of float32, shape (B,)
        Of the losses; 1 unless given.
    crops : Crops or None
        How the images were cropped and flipped; None: they were not.
    """

    x: Tensor
    y: Tensor
    ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    epochs: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    weights: Tensor = field(default_factory=lambda: torch.empty(0))
    crops: Crops | None = None

    def __post_init__(self) -> None:
        if len(self.weights) == 0:
            object.__setattr__(self, "weights", torch.ones(len(self.x), device=self.x.device))

    def need_ids(self, purpose: str) -> None:
        """Refuse a batch whose images are not named.

        Raises
        ------
        ConfigError
            Without `ids` and `epochs` of the batch's length.
        """
        if len(self.ids) != len(self.x) or len(self.epochs) != len(self.x):
            raise ConfigError(
                f"{purpose} needs to know the images: give Batch(x, y, ids=..., epochs=...), one each per image, "
                "the ids being positions in the training split"
            )
