"""What a network said of images: logits, and the features that its last layer made them of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advprune_core.base.settings import ConfigError


@dataclass(frozen=True, eq=False)
class Branch:
    """Logits (n, classes) and the features (n, d) that the last linear layer made them of.

    Features may be float16. Saved outputs may lack them, as a matrix of no columns.
    """

    logits: Tensor
    features: Tensor

    def stored_features(self) -> Tensor:
        """The features as they are stored.

        Raises
        ------
        ConfigError
            If there are none.
        """
        if self.features.shape[1] == 0:
            raise ConfigError("this needs the features under the last layer, and the outputs given have only logits")
        return self.features

    def known_features(self) -> Tensor:
        """The features in the type of the logits; errors as of `stored_features`."""
        return self.stored_features().to(self.logits.dtype)

    def __getitem__(self, rows: Tensor) -> Branch:
        return Branch(self.logits[rows], self.features[rows])

    def halved(self) -> Branch:
        """The same with features of float16, in which they have 11 bits; what lies beyond +-65504 ends there."""
        most = torch.finfo(torch.float16).max
        return Branch(self.logits, self.features.clamp(-most, most).to(torch.float16))


@dataclass(frozen=True, eq=False)
class SplitOutputs:
    """Labels (n,) and a branch for clean and for adversarial images, None where not asked for."""

    labels: Tensor
    clean: Branch | None = None
    adversarial: Branch | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> SplitOutputs:
        parts = (None if branch is None else branch[rows] for branch in (self.clean, self.adversarial))
        return SplitOutputs(self.labels[rows], *parts)
