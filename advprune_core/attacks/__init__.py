"""A model, a threat model and images in; verified adversarial images and outcomes out.

Pure functions (`fgsm`, `pgd`, `apgd`, ..., `autoattack`), and frozen settings that a config names. Knows networks and
tensors, and nothing of training. An image counts as broken only if it lies in the ball and in [0, 1] and the float32
model misclassifies it once more. Random starts in L2 are uniform in distance, as in public code, half of eps on
average; ``{pgd: {uniform: volume}}`` fills the ball evenly.

`autoattack` is APGD on cross-entropy, targeted APGD and targeted FAB at nine classes, and 5,000 queries of Square. It
spends no more on images and targets whose progress, extrapolated, does not reach a success. It stands side by side
with pyautoattack in results/reference/autoattack.

To add an attack: a function, and a subclass of `Attack` with its settings whose `perturb` calls it, in a file here,
registered with `ATTACKS`::

    from advprune_core import ATTACKS, Attack, fgsm, pgd


    @ATTACKS.register
    class Twice(Attack):
        "FGSM, then PGD from where it ended."

        name = "twice"
        steps: int = 10

        def perturb(self, model, x, y, *, threat, seed, ids=None):
            there = fgsm(model, x, y, threat=threat)
            return pgd(model, x, y, threat=threat, steps=self.steps, start=there, seed=seed, ids=ids)

What it returns need not lie in the ball: images that do not, or are not in [0, 1], count as unbroken, and how many they
are stands in the outcome's warnings.
"""

from advprune_core.attacks.apgd import APGD, APGDT, apgd, apgd_targeted
from advprune_core.attacks.autoattack import AutoAttack, autoattack
from advprune_core.attacks.base import ATTACKS, FGSM, PGD, Attack
from advprune_core.attacks.fab import FABT, fab_targeted
from advprune_core.attacks.geometry import Norm, ThreatModel
from advprune_core.attacks.pgd import fgsm, pgd
from advprune_core.attacks.square import Square, square

__all__ = [
    "APGD",
    "APGDT",
    "ATTACKS",
    "FABT",
    "FGSM",
    "PGD",
    "Attack",
    "AutoAttack",
    "Norm",
    "Square",
    "ThreatModel",
    "apgd",
    "apgd_targeted",
    "autoattack",
    "fab_targeted",
    "fgsm",
    "pgd",
    "square",
]
