"""The two pieces of work of a study: train a run, evaluate a checkpoint. Both run anywhere."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from filelock import FileLock
from pydantic import BeforeValidator, Field, PlainSerializer

from advprune_core.attacks.base import ATTACKS, PGD, Attack
from advprune_core.attacks.geometry import L2_VERSION, ThreatModel
from advprune_core.config import RunConfig, content_key
from advprune_core.data import Dataset, load_dataset
from advprune_core.engines import stop_if_orphaned
from advprune_core.environment import environment, git_state
from advprune_core.evaluate import Outcome, evaluate
from advprune_core.files import write_text
from advprune_core.ledger import Ledger
from advprune_core.records import Accuracy, EvaluationRecord, RunRecord, RunStore
from advprune_core.runs import load_model
from advprune_core.settings import Settings
from advprune_core.trainers.arithmetic import arithmetic
from advprune_core.trainers.loop import train
from advprune_core.trainers.result import TrainResult


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
    seed: Annotated[int, Field(ge=0, description="seed of the random starts")] = 0
    batch_size: Annotated[int, Field(ge=1, description="images at once")] = 500
    images: Annotated[int | None, Field(ge=1, description="stratified subset: images attacked (default: all)")] = None

    def key(self, test_hash: str) -> str:
        """Hash of what determines the outcome, the weights aside."""
        canonical = self.canonical()
        canonical["attacks"] = [attack.canonical() for attack in self.attacks]
        if self.threat.norm == "l2":
            canonical["l2"] = L2_VERSION
        return content_key({**canonical, "test": test_hash})


@dataclass(frozen=True)
class TrainTask:
    """Train one run, with checkpoints under its key in the results folder (None: without)."""

    config: RunConfig
    key: str
    data: str | None
    results: str | None
    checkpoint_seconds: float = 30.0

    def __call__(self) -> TrainResult | None:
        """The result, or None if another process finished the run meanwhile."""
        dataset = load_dataset(self.config.dataset, folder=self.data)
        if self.results is None:
            return train(self.config, dataset)
        store = RunStore(self.results)
        with run_lock(store, self.key):
            if store.finished(self.key) is not None:
                return None
            return train(
                self.config,
                dataset,
                work=store.work(self.key),
                checkpoint_seconds=self.checkpoint_seconds,
                on_epoch=lambda row: stop_if_orphaned(),
            )


def run_lock(store: RunStore, key: str) -> FileLock:
    """Held by whoever trains or evaluates a run or writes its files, so that two studies can share it."""
    store.folder(key).mkdir(parents=True, exist_ok=True)
    return FileLock(store.folder(key) / ".lock")


def warm_up(config: RunConfig, dataset: Dataset) -> None:
    """Train a few batches and forget them: first calls load and compile what later ones reuse."""
    full = config.replace(pruner="full", fraction=1.0, best_every=0)
    epochs = 5 * config.optimisation.batch_size / len(dataset.train)
    train(full.replace(optimisation=full.optimisation.replace(epochs=epochs)), dataset)


@dataclass(frozen=True)
class EvaluateTask:
    """Evaluate weights, with the state after every attack under their key in the results folder."""

    config: RunConfig
    key: str
    evaluation: EvaluationConfig
    data: str | None
    results: str
    weights: str
    progress: bool = False

    def __call__(self) -> tuple[Outcome, dict[str, Any]] | None:
        """The outcome of every image and the ledger's state, or None if another process did it meanwhile."""
        dataset = load_dataset(self.config.dataset, folder=self.data)
        model = load_model(self.config, dataset, Path(self.weights)).to(self.config.device)
        store, number = RunStore(self.results), self.evaluation.key(dataset.test_hash)
        # Who shares the run waits, be it the orphan of a killed driver: the state has one writer.
        with run_lock(store, self.key), arithmetic(self.config):
            if store.evaluation(self.key, number) is not None:
                return None
            return evaluate_model(
                model,
                dataset,
                self.evaluation,
                device=self.config.device,
                work=_evaluation_work(store, self.key, number),
                progress=self.progress,
            )


def evaluate_model(
    model: torch.nn.Module,
    dataset: Dataset,
    evaluation: EvaluationConfig,
    *,
    device: str = "cpu",
    work: Path | None = None,
    progress: bool = False,
) -> tuple[Outcome, dict[str, Any]]:
    """Evaluate any network on a data set's test images: outcomes, and the ledger's state.

    With a folder `work`, an evaluation that was killed goes on where it was, to the same outcome;
    its ledger counts the passes of all calls together, but for the attack that was cut short.
    """
    ledger = Ledger(device)
    kept = None if work is None else work / "passes.json"
    before = json.loads(kept.read_text()) if kept is not None and kept.exists() else None

    def on_turn() -> None:
        nonlocal before
        stop_if_orphaned()
        if before is not None:
            # What this call has counted so far, the one before it had counted as well.
            ledger.passes, before = before, None
        if kept is not None:
            write_text(kept, json.dumps(ledger.passes))

    test, ids = dataset.test, None
    if evaluation.images is not None:
        ids = test.spread(evaluation.images)
        test = test.take(ids)
    with ledger.watch(model), ledger.phase("evaluate"):
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
            on_turn=on_turn,
        )
    if before is not None:
        ledger.passes = before  # nothing was left to do
    return outcome, ledger.state()


def run_record(
    key: str, config: RunConfig, dataset: Dataset, result: TrainResult | str, *, timed_alone: bool = False
) -> RunRecord:
    """The record of a finished run, or of one that failed with a message."""
    facts: dict[str, Any] = {
        "key": key,
        "config": config.model_dump(mode="json"),
        "dataset": {
            "name": dataset.name,
            "train_hash": dataset.train_hash,
            "test_hash": dataset.test_hash,
            "classes": dataset.classes,
            "image_shape": dataset.image_shape,
        },
        "n": len(dataset.train),
        "environment": environment(config.device),
        "git": git_state(),
    }
    if isinstance(result, str):
        return RunRecord(status="failed", error=result, **facts)
    selection = result.selections[max(result.selections)] if result.selections else None
    ledger = result.ledger
    return RunRecord(
        status=result.status,
        passes=ledger["passes"],
        seconds=ledger["seconds"],
        cpu_seconds=ledger["cpu_seconds"],
        peak_memory=ledger["peak_memory"],
        timed_alone=timed_alone,
        kept=len(selection) if selection is not None else len(dataset.train),
        n_filled=selection.n_filled if selection is not None else 0,
        unique_images=result.unique_images,
        images_visited=result.images_visited,
        steps=result.steps,
        best_epoch=result.best_epoch,
        collapse_epoch=result.collapse_epoch,
        state_bytes=result.state_bytes,
        epochs=result.metrics,
        **facts,
    )


def evaluation_record(
    train_key: str,
    config: RunConfig,
    evaluation: EvaluationConfig,
    dataset: Dataset,
    outcome: Outcome,
    ledger: dict[str, Any],
) -> EvaluationRecord:
    """The record of an evaluation."""
    return EvaluationRecord(
        key=evaluation.key(dataset.test_hash),
        train_key=train_key,
        config=evaluation.model_dump(mode="json"),
        n=len(outcome.clean),
        clean=Accuracy.of(outcome.clean),
        robust=Accuracy.of(outcome.robust),
        attacks={name: Accuracy.of(right) for name, right in outcome.attacks.items()},
        warnings=list(outcome.warnings),
        passes=ledger["passes"],
        seconds=ledger["seconds"],
        environment=environment(config.device),
        git=git_state(),
    )


def _evaluation_work(store: RunStore, key: str, evaluation_key: str) -> Path:
    """Folder of an evaluation under way."""
    return store.work(key) / f"evaluation-{evaluation_key}"


def finish_evaluation(store: RunStore, record: EvaluationRecord) -> None:
    """Write the record of an evaluation, then drop its state."""
    work = _evaluation_work(store, record.train_key, record.key)
    with run_lock(store, record.train_key):  # or another study would go on from half of it
        store.write_evaluation(record)
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            work.parent.rmdir()  # unless something else is under way there


def drop_checkpoints(store: RunStore, key: str) -> None:
    """Drop what training has left of a finished run: it may have been killed between record and tidying up."""
    work = store.work(key)
    for name in ("checkpoint.pt", "metrics.jsonl"):
        (work / name).unlink(missing_ok=True)
    with suppress(OSError):
        work.rmdir()  # unless an evaluation is under way there


def finish(store: RunStore, record: RunRecord, result: TrainResult) -> None:
    """Write a run's files, then drop its checkpoints."""
    with run_lock(store, record.key):
        if store.finished(record.key) is not None:
            return  # by another study meanwhile
        store.write_run(record, last=result.last, best=result.best, selections=result.selections)
        shutil.rmtree(store.work(record.key), ignore_errors=True)
