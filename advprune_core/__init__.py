"""advprune: which training images to keep for faster adversarial training, and what that costs."""

from advprune_core.attacks import PGD, AutoAttack, ThreatModel, autoattack, fgsm, pgd
from advprune_core.config import RunConfig
from advprune_core.data import Dataset, dataset_from_arrays, load_dataset
from advprune_core.evaluate import evaluate
from advprune_core.packing import pack
from advprune_core.pruners import PRUNERS, Context, Pruner, Selection
from advprune_core.runner import run_study
from advprune_core.runs import load_run
from advprune_core.settings import AdvpruneError
from advprune_core.study import StudyConfig
from advprune_core.table import collect
from advprune_core.trainers.base import OBJECTIVES, Batch, Objective
from advprune_core.trainers.loop import train
from advprune_core.trainers.policy import AttackPolicy
from advprune_core.trainers.starts import STARTS, Start
from advprune_core.trainers.steps import STEPS, Steps

__version__ = "0.1.0"

__all__ = [
    "OBJECTIVES",
    "PGD",
    "PRUNERS",
    "STARTS",
    "STEPS",
    "AdvpruneError",
    "AttackPolicy",
    "AutoAttack",
    "Batch",
    "Context",
    "Dataset",
    "Objective",
    "Pruner",
    "RunConfig",
    "Selection",
    "Start",
    "Steps",
    "StudyConfig",
    "ThreatModel",
    "autoattack",
    "collect",
    "dataset_from_arrays",
    "evaluate",
    "fgsm",
    "load_dataset",
    "load_run",
    "pack",
    "pgd",
    "run_study",
    "train",
]
