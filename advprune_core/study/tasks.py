"""The pieces of work of a study: train a run, or the warm-up of several, evaluate a checkpoint. All run anywhere."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from filelock import Timeout
from pydantic import BeforeValidator, Field, PlainSerializer
from torch import Tensor

from advprune_core.attacks.base import ATTACKS, PGD, Attack
from advprune_core.attacks.compiled import CompiledPasses, Speed, compile_cache, compiled_passes
from advprune_core.attacks.evaluate import Outcome, evaluate
from advprune_core.attacks.geometry import L2_VERSION, ThreatModel
from advprune_core.base.environment import environment, git_state
from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError, Seed, Settings
from advprune_core.datasets.splits import Dataset, Split
from advprune_core.models.mode import true_float32
from advprune_core.study.columns import measured
from advprune_core.study.records import Accuracy, EvaluationRecord, RunRecord
from advprune_core.study.runs import load_model
from advprune_core.study.store import RunStore
from advprune_core.trainers.arithmetic import arithmetic
from advprune_core.trainers.config import RunConfig, content_key, json_data
from advprune_core.trainers.loop import train, train_warmup
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.warmups import warmup_key

#: Images of a compiled pass of a search; what is left of a batch is cut and filled up to it.
SEARCH_SIZE = 128


def _attacks(specs: Any) -> Any:
    return tuple(ATTACKS.parse(spec) for spec in ([specs] if isinstance(specs, str | dict) else specs))


Attacks = Annotated[
    tuple[Attack, ...],
    BeforeValidator(_attacks),
    PlainSerializer(lambda attacks: [attack.spec() for attack in attacks]),
]

#: PGD-40 with cross-entropy, then with the CW margin on what withstood: the quick standard here.
PGD_40: tuple[Attack, ...] = (PGD(), PGD(loss="margin"))


class EvaluationConfig(Settings):
    """How a checkpoint is evaluated on the test images."""

    attacks: Annotated[Attacks, Field(min_length=1, description="attacks, cheapest first")] = PGD_40
    threat: ThreatModel = ThreatModel()
    checkpoint: Annotated[Literal["last", "best"], Field(description="which weights")] = "last"
    seed: Annotated[Seed, Field(description="seed of the random starts")] = 0
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="images at once")] = 500
    images: Annotated[
        int | None, Field(ge=1, le=1_000_000_000, description="stratified subset: images attacked (default: all)")
    ] = None
    speed: Annotated[Speed, Field(description="passes of the searches; verdicts are always plain")] = "exact"

    def check(self, dataset: Dataset) -> None:
        """Refuse more images than there are.

        Raises
        ------
        ConfigError
        """
        if self.images is not None and self.images > len(dataset.test):
            raise ConfigError(f"images = {self.images}, but there are only {len(dataset.test)} test images")

    def split(self, dataset: Dataset) -> tuple[Split, Tensor | None]:
        """The images that are attacked, and their places among all test images (None: all in order)."""
        if self.images is None:
            return dataset.test, None
        ids = dataset.test.spread(self.images)
        return dataset.test.take(ids), ids

    def identity(self, test_hash: str) -> dict[str, Any]:
        """What determines the outcome, the weights aside, as JSON data."""
        identity = {**self.canonical(), "attacks": [attack.canonical() for attack in self.attacks], "test": test_hash}
        if self.threat.norm == "l2":
            identity["l2"] = L2_VERSION
        return json_data(identity)

    def key(self, test_hash: str) -> str:
        """Hash of what determines the outcome, the weights aside."""
        return content_key(self.identity(test_hash))


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


def is_done(store: RunStore, key: str, *, again: bool = False) -> bool:
    """Whether a run needs no training; with `again`, neither for the files that its record names."""
    record = store.finished(key)
    return record is not None and not (again and store.absent(record))


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
                work=_evaluation_work(store, self.key, self.number),
                progress=self.progress,
                steps=self.steps,
            )


Task = TrainTask | WarmupTask | EvaluateTask


def carry_out(task: Task, dataset: Dataset) -> tuple[Any, dict[str, Any]]:
    """What a task gives, and the environment that it was done in; what engines are handed."""
    return task(dataset), environment(task.config.device)


def evaluate_model(
    model: torch.nn.Module,
    dataset: Dataset,
    evaluation: EvaluationConfig,
    *,
    device: str = "cpu",
    work: Path | None = None,
    progress: bool = False,
    steps: int | None = None,
) -> tuple[Outcome, dict[str, Any]]:
    """Evaluate any network on a data set's test images: outcomes, and the ledger's state.

    With a folder `work`, an evaluation that was killed goes on where it was, to the same outcome;
    its ledger counts what an undisturbed one would have.

    Raises
    ------
    NotCompiled
        A compiled evaluation that cannot be compiled here.
    """
    ledger = Ledger(device)
    test, ids = evaluation.split(dataset)
    searches: AbstractContextManager[None] = nullcontext()
    if evaluation.speed == "compiled":
        with ledger.phase("compile"):
            searches = compiled_searches(model, test, evaluation, device=device).instead_of(model)
    with searches, ledger.watch(model), ledger.phase("evaluate"):
        outcome = evaluate(
            model,
            test,
            evaluation.attacks,
            threat=evaluation.threat,
            seed=evaluation.seed,
            batch_size=evaluation.batch_size,
            ids=ids,
            work=work,
            progress=progress,
            steps=steps,
        )
    return outcome, ledger.state()


def compiled_searches(
    model: torch.nn.Module, test: Split, evaluation: EvaluationConfig, *, device: str = "cpu"
) -> CompiledPasses:
    """The passes of an evaluation's searches, compiled.

    Raises
    ------
    NotCompiled
        See `compiled_passes`.
    """
    size = min(SEARCH_SIZE, evaluation.batch_size, len(test))
    images = test.pixels(slice(0, size)).to(device)
    with true_float32(images.device):
        return compiled_passes(model, images, training=False)


def run_record(
    key: str,
    config: RunConfig,
    dataset: Dataset,
    result: TrainResult | str,
    *,
    timed_alone: bool = False,
    where: dict[str, Any] | None = None,
) -> RunRecord:
    """The record of a finished run, or of one that failed with a message.

    It was carried out in the environment `where`, by default this one.
    """
    facts: dict[str, Any] = {
        "key": key,
        "canonical": config.identity(dataset.train_hash),
        "config": config.model_dump(mode="json"),
        "dataset": {
            "name": dataset.name,
            "train_hash": dataset.train_hash,
            "test_hash": dataset.test_hash,
            "classes": dataset.classes,
            "image_shape": dataset.image_shape,
        },
        "n": len(dataset.train),
        "environment": where or environment(config.device),
        "git": git_state(),
    }
    if isinstance(result, str):
        return RunRecord(status="failed", error=result, **facts)
    return RunRecord(
        status=result.status,
        **{name: result.ledger[name] for name in ("passes", "seconds", "cpu_seconds")},
        timed_alone=timed_alone,
        epochs=result.metrics,
        **measured(RunRecord, result, dataset),
        **facts,
    )


def evaluation_record(
    train_key: str,
    config: RunConfig,
    evaluation: EvaluationConfig,
    dataset: Dataset,
    outcome: Outcome,
    ledger: dict[str, Any],
    *,
    weights: str | None = None,
    where: dict[str, Any] | None = None,
) -> EvaluationRecord:
    """The record of an evaluation of weights with the SHA-256 `weights`, done in the environment `where`."""
    identity = evaluation.identity(dataset.test_hash)
    labels = evaluation.split(dataset)[0].labels.cpu().numpy()
    columns = {"images": np.ones_like(outcome.clean), "clean": outcome.clean, "robust": outcome.robust}
    return EvaluationRecord(
        key=content_key(identity),
        canonical=identity,
        weights=weights,
        train_key=train_key,
        config=evaluation.model_dump(mode="json"),
        n=len(outcome.clean),
        clean=Accuracy.of(outcome.clean),
        robust=Accuracy.of(outcome.robust),
        attacks={name: Accuracy.of(right) for name, right in outcome.attacks.items()},
        warnings=list(outcome.warnings),
        by_class={
            name: np.bincount(labels[right], minlength=dataset.classes).tolist() for name, right in columns.items()
        },
        passes=ledger["passes"],
        seconds=ledger["seconds"],
        environment=where or environment(config.device),
        git=git_state(),
    )


def _evaluation_work(store: RunStore, key: str, evaluation_key: str) -> Path:
    """Folder of an evaluation under way."""
    return store.work(key) / f"evaluation-{evaluation_key}"


def finish_evaluation(store: RunStore, record: EvaluationRecord) -> bool:
    """Write the record of an evaluation, then drop its state; False if another process did meanwhile."""
    work = _evaluation_work(store, record.train_key, record.key)
    with store.lock(record.train_key):  # or another study would go on from half of it
        first = store.evaluation(record.train_key, record.key) is None
        if first:
            store.write_evaluation(record)
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            work.parent.rmdir()  # unless something else is under way there
    return first


def drop_checkpoints(store: RunStore, key: str) -> None:
    """Drop what training has left of a finished run: it may have been killed between record and tidying up."""
    work = store.work(key)
    for path in work.glob("*"):
        if path.is_file():
            path.unlink(missing_ok=True)
    with suppress(OSError):
        work.rmdir()  # unless an evaluation is under way there


def drop_warmup(store: RunStore, key: str) -> None:
    """Drop a warm-up, unless somebody is training it."""
    with suppress(Timeout, OSError), store.warmup_lock(key).acquire(timeout=0):
        shutil.rmtree(store.warmup(key), ignore_errors=True)


def drop_work(store: RunStore, key: str) -> None:
    """Drop all that is under way of a run where its records are not."""
    shutil.rmtree(store.work(key), ignore_errors=True)


def finish(store: RunStore, record: RunRecord, result: TrainResult, *, again: bool = False) -> bool:
    """Write a run's files, then drop its checkpoints; False if another process did meanwhile."""
    with store.lock(record.key):
        if is_done(store, record.key, again=again):
            return False
        store.write_run(record, last=result.last, best=result.best, selections=result.selections)
        drop_checkpoints(store, record.key)
        return True


def finish_failed(store: RunStore, record: RunRecord) -> None:
    """Write the record of a run that failed, unless it worked elsewhere meanwhile."""
    with store.lock(record.key):
        if store.finished(record.key) is None:
            store.write_run(record)
