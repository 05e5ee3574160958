"""Attacks: pure functions (`fgsm`, `pgd`, `apgd`, ..., `autoattack`) and the settings objects that a config names."""

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
