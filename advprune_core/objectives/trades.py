"""TRADES: a trade-off between clean accuracy and the stability of predictions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from advprune_core.attacks.losses import kl
from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective, Trainer


def trades(clean: Tensor, adversarial: Tensor, cross_entropy: Tensor, *, beta: float) -> Tensor:
    """``CE(clean) + beta KL(p(clean) || p(adversarial))`` of each image, shape (B,).

    Parameters
    ----------
    clean, adversarial : Tensor, shape (B, classes)
        Logits; both are differentiated through. Finite where a probability underflows.
    cross_entropy : Tensor, shape (B,)
        Of the clean logits, with whatever label smoothing.
    beta : float
        The paper's 1 / lambda.

    References
    ----------
    Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML 2019, eq. (5).
    """
    return cross_entropy + beta * kl(adversarial, clean)


@OBJECTIVES.register
class TRADES(Objective):
    """Clean cross-entropy + beta KL(clean || adversarial) (Zhang et al. 2019): 2k + 7 an image.

    The clean logits are computed once in eval mode as the attack's target, and once in the mode of
    training for the loss. Helps where clean accuracy matters as well; a larger `beta` buys
    robustness with it. Usual settings: beta 6, ten steps from beside the clean image.
    """

    name = "trades"
    uses_clean = True
    attack_loss = "kl"
    beta: Annotated[float, Field(ge=0, le=1_000_000, description="weight of the KL term")] = 6.0

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        assert clean is not None
        assert adversarial is not None
        return trades(clean, adversarial, self.cross_entropy(clean, y), beta=self.beta)


@TRAINERS.register
class TRADESTrainer(Trainer):
    """TRADES (Zhang et al. 2019): beta 6, 10 steps from beside the clean image."""

    name = "trades"
    objective = "trades"
    attack = {"start": "near", "steps": 10}
