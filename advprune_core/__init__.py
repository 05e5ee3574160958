"""advprune: which training images to keep for faster adversarial training, and what that costs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advprune_core.analysis.comparisons import compare, compare_outcomes
    from advprune_core.attacks import APGD, ATTACKS, FGSM, PGD, Attack, AutoAttack, ThreatModel, autoattack, fgsm, pgd
    from advprune_core.attacks.evaluate import Outcome, evaluate
    from advprune_core.base.settings import AdvpruneError
    from advprune_core.datasets.base import DATASETS, DatasetSource, dataset_from_arrays, load_dataset
    from advprune_core.datasets.packing import pack
    from advprune_core.datasets.splits import Dataset, Split
    from advprune_core.models.base import MODELS, ModelSettings
    from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective, Outputs, Trainer
    from advprune_core.objectives.batch import Batch
    from advprune_core.objectives.policy import AttackPolicy
    from advprune_core.objectives.starts import STARTS, Start
    from advprune_core.objectives.steps import STEPS, Steps
    from advprune_core.pruners import PRUNERS, Context, ModelPruner, Pruner, Selection
    from advprune_core.pruners.selecting import select
    from advprune_core.study.runner import run_study
    from advprune_core.study.runs import load_run
    from advprune_core.study.study import StudyConfig
    from advprune_core.study.table import collect
    from advprune_core.trainers.config import RunConfig
    from advprune_core.trainers.loop import train
    from advprune_core.trainers.optimisation import Optimisation
    from advprune_core.trainers.result import TrainResult
    from advprune_core.trainers.schedules import SCHEDULES, Schedule

__version__ = "0.1.0"

__all__ = [
    "APGD",
    "ATTACKS",
    "DATASETS",
    "FGSM",
    "MODELS",
    "OBJECTIVES",
    "PGD",
    "PRUNERS",
    "SCHEDULES",
    "STARTS",
    "STEPS",
    "TRAINERS",
    "AdvpruneError",
    "Attack",
    "AttackPolicy",
    "AutoAttack",
    "Batch",
    "Context",
    "Dataset",
    "DatasetSource",
    "ModelPruner",
    "ModelSettings",
    "Objective",
    "Optimisation",
    "Outcome",
    "Outputs",
    "Pruner",
    "RunConfig",
    "Schedule",
    "Selection",
    "Split",
    "Start",
    "Steps",
    "StudyConfig",
    "ThreatModel",
    "TrainResult",
    "Trainer",
    "autoattack",
    "collect",
    "compare",
    "compare_outcomes",
    "dataset_from_arrays",
    "evaluate",
    "fgsm",
    "load_dataset",
    "load_run",
    "pack",
    "pgd",
    "run_study",
    "select",
    "train",
]

#: Where a name comes from. It is imported when it is asked for, because PyTorch takes seconds that help does not need.
_HOMES = {
    "analysis.comparisons": ("compare", "compare_outcomes"),
    "attacks": ("APGD", "ATTACKS", "FGSM", "PGD", "Attack", "AutoAttack", "ThreatModel", "autoattack", "fgsm", "pgd"),
    "attacks.evaluate": ("Outcome", "evaluate"),
    "base.settings": ("AdvpruneError",),
    "datasets.base": ("DATASETS", "DatasetSource", "dataset_from_arrays", "load_dataset"),
    "datasets.splits": ("Dataset", "Split"),
    "datasets.packing": ("pack",),
    "objectives.batch": ("Batch",),
    "models.base": ("MODELS", "ModelSettings"),
    "objectives.base": ("OBJECTIVES", "TRAINERS", "Objective", "Outputs", "Trainer"),
    "objectives.policy": ("AttackPolicy",),
    "objectives.starts": ("STARTS", "Start"),
    "objectives.steps": ("STEPS", "Steps"),
    "pruners": ("PRUNERS", "Context", "ModelPruner", "Pruner", "Selection"),
    "pruners.selecting": ("select",),
    "study.runner": ("run_study",),
    "study.runs": ("load_run",),
    "study.study": ("StudyConfig",),
    "study.table": ("collect",),
    "trainers.config": ("RunConfig",),
    "trainers.loop": ("train",),
    "trainers.optimisation": ("Optimisation",),
    "trainers.result": ("TrainResult",),
    "trainers.schedules": ("SCHEDULES", "Schedule"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = {"analysis", "attacks", "base", "datasets", "explore", "models", "objectives", "pruners", "study", "trainers"}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
