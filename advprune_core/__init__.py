"""advprune: which training images to keep for faster adversarial training, and what that costs."""

from advprune_core.attacks import PGD, AutoAttack, ThreatModel, autoattack, fgsm, pgd
from advprune_core.attacks.evaluate import evaluate
from advprune_core.base.settings import AdvpruneError
from advprune_core.datasets.base import Dataset, dataset_from_arrays, load_dataset
from advprune_core.datasets.packing import pack
from advprune_core.objectives.base import OBJECTIVES, Batch, Objective
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.starts import STARTS, Start
from advprune_core.objectives.steps import STEPS, Steps
from advprune_core.pruners import PRUNERS, Context, Pruner, Selection
from advprune_core.study.runner import run_study
from advprune_core.study.runs import load_run
from advprune_core.study.study import StudyConfig
from advprune_core.study.table import collect
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train

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
