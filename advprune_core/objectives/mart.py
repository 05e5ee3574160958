"""MART: more weight on the images that are misclassified without an attack."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from advprune_core.attacks.losses import kl
from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective, Trainer

# The public code's: 1 - p can be 0, and its logarithm must not be infinite.
_MARGIN = 1e-4


def mart(clean: Tensor, adversarial: Tensor, y: Tensor, cross_entropy: Tensor, *, beta: float) -> Tensor:
    """``BCE(adversarial, y) + beta KL(p(clean) || p(adversarial)) (1 - p_y(clean))``, shape (B,).

    BCE, the boosted cross-entropy, is ``CE(adversarial) - log(1 - max_{c != y} p_c(adversarial))``.

    Parameters
    ----------
    clean, adversarial : Tensor, shape (B, classes)
        Logits; both are differentiated through.
    y : Tensor of int64, shape (B,)
    cross_entropy : Tensor, shape (B,)
        Of the adversarial logits, with whatever label smoothing.
    beta : float

    References
    ----------
    Wang et al., Improving Adversarial Robustness Requires Revisiting Misclassified Examples, ICLR
    2020, eq. (10) and (11); the margin of 1e-4 inside the logarithm is that of their code.
    """
    rival = torch.softmax(adversarial, 1).scatter(1, y[:, None], -1.0).amax(1)
    # It is no less than the margin, but in bfloat16, where 1 + 1e-4 is 1, a rival that is sure would give log(0).
    boosted = cross_entropy - torch.log((1 + _MARGIN - rival).clamp_min(_MARGIN))
    unsure = 1 - torch.softmax(clean, 1).gather(1, y[:, None]).squeeze(1)
    return boosted + beta * kl(adversarial, clean) * unsure


@OBJECTIVES.register
class MART(Objective):
    """Boosted cross-entropy + beta KL weighted by the clean doubt (Wang et al. 2020): 2k + 6 an image.

    The attack maximises the cross-entropy. PGD overstates its robustness: judge it by the margin
    loss or AutoAttack. Usual settings: beta 5, ten steps, a low learning rate and strong decay.
    """

    name = "mart"
    uses_clean = True
    beta: Annotated[float, Field(ge=0, le=1_000_000, description="weight of the KL term")] = 5.0

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        assert clean is not None
        assert adversarial is not None
        return mart(clean, adversarial, y, self.cross_entropy(adversarial, y), beta=self.beta)


@TRAINERS.register
class MARTTrainer(Trainer):
    """MART (Wang et al. 2020): beta 5, 10 steps from beside the clean image."""

    name = "mart"
    objective = "mart"
    attack = {"start": "near", "steps": 10}
