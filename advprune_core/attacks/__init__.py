"""Attacks: pure functions (`fgsm`, `pgd`) and the settings objects that a config names."""

from advprune_core.attacks.base import ATTACKS, FGSM, PGD, Attack
from advprune_core.attacks.geometry import Norm, ThreatModel
from advprune_core.attacks.pgd import fgsm, pgd

__all__ = ["ATTACKS", "FGSM", "PGD", "Attack", "Norm", "ThreatModel", "fgsm", "pgd"]
