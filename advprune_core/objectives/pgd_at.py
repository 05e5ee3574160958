"""Standard training and adversarial training with PGD."""

from __future__ import annotations

from torch import Tensor

from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective, Trainer


@OBJECTIVES.register
class Standard(Objective):
    """Cross-entropy on clean images: no robustness, 3 forward-equivalents an image."""

    name = "standard"
    uses_clean = True
    uses_adversarial = False

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        assert clean is not None
        return self.cross_entropy(clean, y)


@OBJECTIVES.register
class PGDAT(Objective):
    """Cross-entropy on PGD images (Madry et al. 2018): 2k + 3 forward-equivalents with k steps.

    ``CE(f(x'), y)`` at the point x' of the ball that the attack policy finds: the outer problem of the robust
    optimisation whose inner one is the attack.

    References
    ----------
    Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018 (1706.06083), eq. (2.1).
    """

    name = "pgd_at"

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        assert adversarial is not None
        return self.cross_entropy(adversarial, y)


@TRAINERS.register
class StandardTrainer(Trainer):
    """Standard training on clean images."""

    name = "standard"
    objective = "standard"


@TRAINERS.register
class PGDATTrainer(Trainer):
    """PGD-AT (Madry et al. 2018): 7 steps from a random start."""

    name = "pgd_at"
    objective = "pgd_at"
    attack = {"start": "random", "steps": 7}
