"""The pieces of work of a study: train a run, or the warm-up of several, evaluate a checkpoint. All run anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advprune_core.attacks.compiled import compile_cache
from advprune_core.attacks.evaluate import Outcome
from advprune_core.base.environment import environment
from advprune_core.base.failures import note_place
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.study.evaluations import EvaluationConfig, evaluate_model
from advprune_core.study.finished import evaluation_work, is_done
from advprune_core.study.runs import load_model
from advprune_core.study.store import RunStore
from advprune_core.trainers.arithmetic import arithmetic
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train, train_warmup
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.warmups import warmup_key


@dataclass(frozen=True)
class TrainTask:
    """Train one run, with checkpoints under its key in the results folder (None: without).

    With `again`, a finished run whose files are not all there is trained once more. A run that begins goes on
    from the warm-up with the key `warmup`, which is trained where somebody else has dropped it.
    """

    config: RunConfig
    key: str
    results: str | None
    checkpoint_seconds: float = 30.0
    again: bool = False
    warmup: str | None = None

    def __call__(self, dataset: Dataset) -> TrainResult | None:
        """The result, or None if another process finished the run meanwhile."""
        _check_key(self.config.train_key(dataset), self.key)
        if self.results is None:
            return train(self.config, dataset, fall_back=False)
        store = RunStore(self.results)
        with store.lock(self.key), compile_cache(store.results):
            if is_done(store, self.key, again=self.again):
                return None
            work, start = store.work(self.key), None
            if self.warmup is not None and not (work / "checkpoint.pt").exists():
                start = store.warmup(self.warmup) / "checkpoint.pt"
                if not start.exists():
                    WarmupTask(self.config, self.warmup, self.results, self.checkpoint_seconds)(dataset)
            return train(
                self.config,
                dataset,
                work=work,
                checkpoint_seconds=self.checkpoint_seconds,
                fall_back=False,  # what is written has the key of what was asked for
                start=start,
            )


@dataclass(frozen=True)
class WarmupTask:
    """Train the warm-up that several runs share, this one among them, and leave its checkpoint under its key."""

    config: RunConfig
    key: str
    results: str
    checkpoint_seconds: float = 30.0

    def __call__(self, dataset: Dataset) -> None:
        _check_key(warmup_key(self.config, dataset), self.key)
        store = RunStore(self.results)
        with store.warmup_lock(self.key), compile_cache(store.results):
            train_warmup(self.config, dataset, work=store.warmup(self.key), checkpoint_seconds=self.checkpoint_seconds)


def _check_key(here: str | None, given: str) -> None:
    """Refuse to work on other data, or with other code, than the key stands for: keys come from the driver.

    Raises
    ------
    ConfigError
        If they are not the ones that the driver has seen.
    """
    if here != given:
        raise ConfigError(
            "the data or your own code has changed since this study was started; start it again, and the "
            "runs with what is there now will have names of their own"
        )


def few_steps(config: RunConfig, dataset: Dataset, *, steps: int, size: int) -> RunConfig:
    """A run's way of training for a few steps on batches of `size` of all images."""
    epochs = (steps + 0.5) * size / len(dataset.train)
    optimisation = config.optimisation.replace(epochs=epochs, plain_epochs=0, cost_budget=None, batch_size=size)
    return config.replace(pruner="full", fraction=1.0, best_every=0, on_collapse="flag", optimisation=optimisation)


def warm_up(config: RunConfig, dataset: Dataset) -> None:
    """Train a few batches and forget them: first calls load and compile what later ones reuse."""
    train(few_steps(config, dataset, steps=5, size=config.optimisation.batch_size), dataset)


@dataclass(frozen=True)
class EvaluateTask:
    """Evaluate weights, with the state after every attack under their key in the results folder.

    `number` is the key of the evaluation; `steps`: of the optimiser in the run, if it is known.
    """

    config: RunConfig
    key: str
    evaluation: EvaluationConfig
    number: str
    results: str
    weights: str
    progress: bool = False
    steps: int | None = None

    def __call__(self, dataset: Dataset) -> tuple[Outcome, dict[str, Any]] | None:
        """The outcome of every image and the ledger's state, or None if another process did it meanwhile."""
        _check_key(self.evaluation.key(dataset.test_hash), self.number)
        model = load_model(self.config, dataset, Path(self.weights)).to(self.config.device)
        store = RunStore(self.results)
        # Who shares the run waits, be it the orphan of a killed driver: the state has one writer.
        with store.lock(self.key), compile_cache(store.results), arithmetic(self.config):
            if store.evaluation(self.key, self.number) is not None:
                return None
            return evaluate_model(
                model,
                dataset,
                self.evaluation,
                device=self.config.device,
                work=evaluation_work(store, self.key, self.number),
                progress=self.progress,
                steps=self.steps,
            )


Task = TrainTask | WarmupTask | EvaluateTask


def carry_out(task: Task, dataset: Dataset) -> tuple[Any, dict[str, Any]]:
    """What a task gives, and the environment that it was done in; what engines are handed."""
    try:
        return task(dataset), environment(task.config.device)
    except Exception as error:
        note_place(error)
        raise
