"""advprune: which training images to keep for faster adversarial training, and what that costs."""

from advprune_core.attacks import PGD, ThreatModel, fgsm, pgd
from advprune_core.config import RunConfig
from advprune_core.data import Dataset, dataset_from_arrays, load_dataset, pack
from advprune_core.evaluate import evaluate
from advprune_core.pruners import PRUNERS, Context, Pruner, Selection
from advprune_core.runner import run_study
from advprune_core.runs import load_run
from advprune_core.study import StudyConfig
from advprune_core.table import collect
from advprune_core.trainers.loop import train

__version__ = "0.1.0"

__all__ = [
    "PGD",
    "PRUNERS",
    "Context",
    "Dataset",
    "Pruner",
    "RunConfig",
    "Selection",
    "StudyConfig",
    "ThreatModel",
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
