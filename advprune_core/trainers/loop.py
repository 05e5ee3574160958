"""The training loop: one for every objective, attack policy and pruner."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from advprune_core import augmentation
from advprune_core.attacks.base import PGD
from advprune_core.attacks.losses import AttackLoss
from advprune_core.config import RunConfig, check_classes
from advprune_core.data import Dataset
from advprune_core.evaluate import accuracy_under
from advprune_core.files import write_atomically
from advprune_core.ledger import Ledger
from advprune_core.models import build_model, check_model
from advprune_core.pruners.base import Context, Selection
from advprune_core.randomness import stream, torch_stream
from advprune_core.trainers.base import Batch
from advprune_core.trainers.batches import BatchQueue, epoch_order

Weights = dict[str, Tensor]


@dataclass
class TrainResult:
    """What a run leaves: plain data and weights on the CPU.

    Attributes
    ----------
    status : "ok" or "diverged"
    metrics : list of dict
        One row per epoch.
    selections : dict of int to Selection
        By the epoch from which each holds.
    ledger : dict
        State of the `Ledger`.
    last, best : state dicts
        Weights at the end, and at the best epoch by PGD-10 on val_stop (None without checks).
    """

    status: str
    metrics: list[dict[str, Any]]
    selections: dict[int, Selection]
    ledger: dict[str, Any]
    last: Weights
    best: Weights | None
    best_epoch: int | None
    steps: int
    images_visited: int
    unique_images: int


@dataclass
class Counters:
    """Running totals of a run."""

    epoch: int = 0
    steps: int = 0
    visited: int = 0
    best: float = -1.0
    best_epoch: int | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)


def train(
    config: RunConfig,
    dataset: Dataset,
    *,
    model: nn.Module | None = None,
    work: Path | None = None,
    checkpoint_seconds: float = 30.0,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train one run.

    Parameters
    ----------
    config : RunConfig
    dataset : Dataset
        From `load_dataset`.
    model : nn.Module, optional
        Your own network, trained in place; takes images in [0, 1]. Default: ``config.model``.
    work : path, optional
        Folder for epoch checkpoints and per-epoch metrics. A run that finds a checkpoint of its
        own there goes on from it and ends with the same bits.
    checkpoint_seconds : float
        An epoch's end is saved when so many seconds have passed since the last one.
    on_epoch : callable, optional
        Called with each epoch's row of metrics.

    Raises
    ------
    ConfigError
        What cannot be trained, before any work.
    """
    config.check(dataset)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads if config.device == "cpu" else threads)
    try:
        with torch_stream(config.seed, "training"):
            return _Run(config, dataset, model, work).train(checkpoint_seconds, on_epoch)
    finally:
        torch.set_num_threads(threads)


class _Run:
    """The mutable state of a run between its epochs; all of it is in the checkpoint."""

    def __init__(self, config: RunConfig, dataset: Dataset, model: nn.Module | None, work: Path | None):
        self.config, self.dataset, self.work = config, dataset, work
        self.device = torch.device(config.device)
        if model is None:
            model = build_model(config.model, dataset, seed=config.seed)
        else:
            check_model(model, dataset)
        self.model = model.to(self.device)
        self.split = dataset.train.to(self.device)
        optimisation = config.optimisation
        self.optimiser = torch.optim.SGD(
            self.model.parameters(),
            lr=optimisation.lr,
            momentum=optimisation.momentum,
            weight_decay=optimisation.weight_decay,
        )
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(optimisation.ema), use_buffers=True)
            if optimisation.ema
            else None
        )
        self.queue = BatchQueue(optimisation.batch_size)
        self.policy_state = config.attack.initial_state(len(dataset.train), dataset.image_shape)
        self.ledger = Ledger(self.device)
        self.counters = Counters()
        self.seen = np.zeros(len(dataset.train), dtype=bool)
        self.selection = Selection(np.arange(len(dataset.train)))
        self.selections: dict[int, Selection] = {}
        self.best: Weights | None = None

    def train(self, checkpoint_seconds: float, on_epoch: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        epochs = self.config.optimisation.epochs
        self._resume()
        saved = time.monotonic()
        status = "ok"
        with self.ledger.watch(self.model):
            while self.counters.epoch < math.ceil(epochs) and status == "ok":
                epoch = self.counters.epoch
                self._select(epoch)
                with self.ledger.phase("train"):
                    row = self._epoch(epoch, share=min(1.0, epochs - epoch))
                if not math.isfinite(row["train_loss"]):
                    status = "diverged"
                last = epoch + 1 >= epochs
                if self.config.best_every and (last or (epoch + 1) % self.config.best_every == 0):
                    with self.ledger.phase("validate"):
                        row["val_pgd"] = self._validate(epoch)
                self.ledger.sample_memory()
                self.counters.metrics.append(row)
                self.counters.epoch += 1
                with self.ledger.phase("save"):
                    self._append_metrics(row)
                    if last or time.monotonic() - saved >= checkpoint_seconds:
                        self._save()
                        saved = time.monotonic()
                if on_epoch is not None:
                    on_epoch(row)
        return TrainResult(
            status=status,
            metrics=self.counters.metrics,
            selections=self.selections,
            ledger=self.ledger.state(),
            last=self._weights(),
            best=self.best,
            best_epoch=self.counters.best_epoch,
            steps=self.counters.steps,
            images_visited=self.counters.visited,
            unique_images=int(self.seen.sum()),
        )

    def _select(self, epoch: int) -> None:
        pruner = self.config.pruner
        if not pruner.due(epoch):
            return
        with self.ledger.phase("select"):
            self.selection = pruner.select(
                Context(
                    dataset=self.dataset,
                    fraction=self.config.fraction,
                    seed=self.config.seed,
                    epoch=epoch,
                    model=self.model,
                )
            )
            check_classes(self.selection.indices, self.dataset, fraction=self.config.fraction)
        self.selections[epoch] = self.selection

    def _epoch(self, epoch: int, *, share: float) -> dict[str, Any]:
        config, size = self.config, self.config.optimisation.batch_size
        self.model.train()
        n, whole = len(self.dataset.train), len(self.selection)
        ids = epoch_order(config.seed, epoch, n, self.selection, share)
        self.queue.add(ids, epoch, self.selection)
        loss = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        images = 0
        rate = config.optimisation.lr
        waiting = len(self.queue)
        for batch_ids, epochs, weights in self.queue.batches():
            # Progress before this step: what of this epoch has been trained on, in epochs.
            position = (len(ids) - waiting) / whole
            waiting -= size
            progress = min(max((epoch + position) / config.optimisation.epochs, 0.0), 1.0)
            rate = config.optimisation.lr * config.optimisation.schedule.factor(progress)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            batch = self._batch(batch_ids, epochs, weights)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
                outputs = config.objective.step(self.model, batch, self._attack, partial(self._update, batch))
            loss += outputs.losses.float().sum()
            correct += (outputs.logits.argmax(1) == batch.y).sum()
            images += size
            self.seen[batch_ids] = True
            self.counters.steps += 1
        self.counters.visited += images
        return {
            "epoch": epoch,
            "lr": rate,
            "train_loss": float(loss) / images if images else 0.0,
            "train_accuracy": float(correct) / images if images else 0.0,
            "images": images,
            "kept": whole,
        }

    def _batch(self, ids: np.ndarray, epochs: np.ndarray, weights: np.ndarray) -> Batch:
        rows, drawn, importance = (
            torch.from_numpy(array).to(self.device, non_blocking=True) for array in (ids, epochs, weights)
        )
        x = self.split.pixels(rows)
        optimisation = self.config.optimisation
        if optimisation.crop_padding or optimisation.flip:
            key, padding = stream(self.config.seed, "augmentation"), optimisation.crop_padding
            crops = augmentation.sample(key, rows, drawn, padding=padding, flip=optimisation.flip)
            x = augmentation.apply(augmentation.pad(x, padding), crops, padding=padding)
        labels = self.split.labels[rows]
        return Batch(x=x, y=labels, ids=rows, epochs=drawn, weights=importance)

    def _attack(self, batch: Batch, target: Tensor, loss: AttackLoss) -> Tensor:
        policy, seed = self.config.attack, self.config.seed
        return policy.attack(self.model, batch, target, loss, seed=seed, state=self.policy_state)

    def _update(self, batch: Batch, losses: Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        ((losses * batch.weights).sum() / len(losses)).backward()
        self.ledger.full_backward()
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _final_model(self) -> nn.Module:
        return self.model if self.average is None else self.average.module

    def _weights(self) -> Weights:
        return {name: value.detach().cpu().clone() for name, value in self._final_model().state_dict().items()}

    def _validate(self, epoch: int) -> float:
        attack, model = PGD(steps=10), self._final_model()
        watched = self.ledger.watch(model) if model is not self.model else self.ledger.phase("validate")
        with watched:
            robust = accuracy_under(
                model, self.dataset.val_stop.to(self.device), attack, threat=self.config.threat, seed=self.config.seed
            )
        if robust > self.counters.best:
            self.counters.best, self.counters.best_epoch = robust, epoch
            self.best = self._weights()
        return robust

    def _checkpoint_file(self) -> Path | None:
        return None if self.work is None else self.work / "checkpoint.pt"

    def _save(self) -> None:
        path = self._checkpoint_file()
        if path is None:
            return
        state = {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "queue": self.queue.state(),
            "policy": self.policy_state,
            "ledger": self.ledger.state(),
            "counters": dict(vars(self.counters)),
            "seen": torch.from_numpy(self.seen),
            "selections": {
                epoch: (torch.from_numpy(s.indices), torch.from_numpy(s.weights), s.n_filled)
                for epoch, s in self.selections.items()
            },
            "best": self.best,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        write_atomically(path, lambda file: torch.save(state, file))

    def _resume(self) -> None:
        path = self._checkpoint_file()
        if path is None or self.work is None:
            return
        self.work.mkdir(parents=True, exist_ok=True)
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.queue.load({name: value.cpu() for name, value in state["queue"].items()})
            self.policy_state = state["policy"]
            self.ledger.load(state["ledger"])
            self.counters = Counters(**state["counters"])
            self.seen = state["seen"].cpu().numpy()
            for epoch, (indices, weights, filled) in state["selections"].items():
                self.selections[epoch] = Selection(indices.cpu().numpy(), weights.cpu().numpy(), filled)
            if self.selections:
                self.selection = self.selections[max(self.selections)]
            self.best = None if state["best"] is None else {k: v.cpu() for k, v in state["best"].items()}
            torch.set_rng_state(state["rng"].cpu())
            if state["cuda_rng"] is not None:
                torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        lines = [json.dumps(row) + "\n" for row in self.counters.metrics]
        (self.work / "metrics.jsonl").write_text("".join(lines))

    def _append_metrics(self, row: dict[str, Any]) -> None:
        if self.work is not None:
            with open(self.work / "metrics.jsonl", "a") as file:
                file.write(json.dumps(row) + os.linesep)
