"""The training loop: one for every objective, attack policy and pruner."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advprune_core import augmentation
from advprune_core.attacks.base import PGD
from advprune_core.config import RunConfig, check_classes
from advprune_core.data import Dataset
from advprune_core.evaluate import accuracy_under
from advprune_core.pruners.base import Context, Pruner
from advprune_core.randomness import stream, torch_stream
from advprune_core.settings import ConfigError
from advprune_core.trainers.arithmetic import arithmetic
from advprune_core.trainers.awp import perturbed_weights
from advprune_core.trainers.base import Batch, Outputs, Passes
from advprune_core.trainers.batches import epoch_order
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.sentinel import collapsed
from advprune_core.trainers.state import RunState


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
    with arithmetic(config), torch_stream(config.seed, "training"):
        return _Run(config, dataset, model, work).train(checkpoint_seconds, on_epoch)


class _Run:
    """A run under way: its state, and what does not change."""

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        model: nn.Module | None,
        work: Path | None,
        observer: Pruner | None = None,
    ):
        self.config, self.dataset, self.work = config, dataset, work
        self.observer = observer or config.pruner
        self.state = RunState(config, dataset, model)
        self.scout = copy.deepcopy(self.state.model) if config.pruner.scout_epochs() else None
        self.split = dataset.train.to(self.state.device)

    def train(self, checkpoint_seconds: float, on_epoch: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        state, epochs, status = self.state, self.config.optimisation.epochs, "ok"
        self._resume()
        if state.counters.collapse_epoch is not None:
            status = "collapsed"
        saved = time.monotonic()
        with state.ledger.watch(*{state.model, state.final_model}):
            while state.counters.epoch < math.ceil(epochs) and not self._over(status):
                epoch = state.counters.epoch
                last = epoch + 1 >= epochs
                self._select(epoch)
                with state.ledger.phase("train"):
                    row = self._epoch(epoch, share=min(1.0, epochs - epoch))
                if not (math.isfinite(row["train_loss"]) and state.finite):
                    status = "diverged"
                elif self.config.best_every and (last or (epoch + 1) % self.config.best_every == 0):
                    with state.ledger.phase("validate"):
                        row["val_pgd"] = self._validate(epoch, row["train_accuracy"])
                    if state.counters.collapse_epoch is not None:
                        status = "collapsed"
                state.ledger.sample_memory()
                state.counters.metrics.append(row)
                state.counters.epoch += 1
                with state.ledger.phase("save"):
                    self._append_metrics(row)
                    due = last or time.monotonic() - saved >= checkpoint_seconds
                    if self.work is not None and due and status != "diverged":
                        state.save(self.work / "checkpoint.pt")
                        saved = time.monotonic()
                if on_epoch is not None:
                    on_epoch(row)
        kept = [*state.policy.values(), *state.pruner.values()]
        back = status == "collapsed" and self.config.on_collapse == "roll_back"
        return TrainResult(
            status=status,
            metrics=state.counters.metrics,
            selections=state.selections,
            ledger=state.ledger.state(),
            last=state.best if back and state.best is not None else state.weights(),
            best=state.best,
            best_epoch=state.counters.best_epoch,
            collapse_epoch=state.counters.collapse_epoch,
            steps=state.counters.steps,
            images_visited=state.counters.visited,
            unique_images=int(state.seen.sum()),
            state_bytes=sum(value.numel() * value.element_size() for value in kept),
        )

    def _over(self, status: str) -> bool:
        return status == "diverged" or (status == "collapsed" and self.config.on_collapse != "flag")

    def _resume(self) -> None:
        if self.work is None:
            return
        self.work.mkdir(parents=True, exist_ok=True)
        checkpoint = self.work / "checkpoint.pt"
        if checkpoint.exists():
            self.state.load(checkpoint)
        lines = [json.dumps(row) + "\n" for row in self.state.counters.metrics]
        (self.work / "metrics.jsonl").write_text("".join(lines))

    def _append_metrics(self, row: dict[str, Any]) -> None:
        if self.work is not None:
            with open(self.work / "metrics.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")

    def _select(self, epoch: int) -> None:
        config, state = self.config, self.state
        if not config.pruner.due(epoch):
            return
        model, observed = state.model, state.pruner
        if self.scout is not None:
            with state.ledger.phase("select"):
                model, observed = self._scouted(self.scout)
        context = Context(
            dataset=self.dataset,
            fraction=config.fraction,
            seed=config.seed,
            epoch=epoch,
            model=model,
            objective=config.objective,
            attack=config.attack,
            state=observed,
            policy=state.policy,
            crop_padding=config.optimisation.crop_padding,
            epochs=config.optimisation.epochs,
        )
        scouting = nullcontext() if self.scout is None else state.ledger.watch(model)
        with state.ledger.phase("select"), scouting:
            state.selection = config.pruner.select(context)
            check_classes(state.selection.indices, self.dataset, fraction=config.fraction)
        state.selections[epoch] = state.selection

    def _scouted(self, model: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
        """A network trained on all data only to be scored by, and what was observed of it; all in `select`."""
        config, ledger = self.config, self.state.ledger
        optimisation = config.optimisation.replace(epochs=config.pruner.scout_epochs())
        plain = config.replace(pruner="full", fraction=1.0, best_every=0, on_collapse="flag", optimisation=optimisation)
        run = _Run(plain, self.dataset, copy.deepcopy(model), None, observer=config.pruner)
        with torch_stream(config.seed, "scout"):
            result = run.train(math.inf, None)
        if result.status == "diverged":
            raise ConfigError("the network trained to be scored by diverged: the loss is not finite; try a smaller lr")
        ledger.add(sum(result.ledger["passes"].values()))
        return run.state.final_model, run.state.pruner

    def _epoch(self, epoch: int, *, share: float) -> dict[str, Any]:
        config, state, size = self.config, self.state, self.config.optimisation.batch_size
        state.model.train()
        n, whole = len(self.dataset.train), len(state.selection)
        ids = epoch_order(config.seed, epoch, n, state.selection, share)
        state.queue.add(ids, epoch, state.selection)
        attack = config.attack.bind(state.model, seed=config.seed, state=state.policy)
        loss = torch.zeros((), device=state.device)
        correct = torch.zeros((), device=state.device)
        images, waiting, rate = 0, len(state.queue), config.optimisation.lr
        for batch_ids, epochs, weights in state.queue.batches():
            # Progress before this step: what of this epoch has been trained on, in epochs.
            position = (len(ids) - waiting) / whole
            waiting -= len(batch_ids)
            progress = min(max((epoch + position) / config.optimisation.epochs, 0.0), 1.0)
            rate = config.optimisation.lr * config.optimisation.schedule.factor(progress)
            for group in state.optimiser.param_groups:
                group["lr"] = rate
            batch = self._batch(batch_ids, epochs, weights)
            if len(batch_ids) > size:
                with state.ledger.phase("select"):
                    batch = config.pruner.narrow(state.model, batch, size)
                batch_ids = batch.ids.cpu().numpy()
            bf16 = config.precision == "bfloat16"
            with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=bf16):
                outputs = config.objective.step(state.model, batch, attack, partial(self._update, batch))
            config.attack.steps.observe(batch, outputs.logits, state.policy)
            self.observer.observe(batch, outputs, state.pruner)
            loss += outputs.losses.float().sum()
            correct += (outputs.logits.argmax(1) == batch.y).sum()
            images += size
            state.seen[batch_ids] = True
        state.counters.visited += images
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
            torch.from_numpy(array).to(self.state.device, non_blocking=True) for array in (ids, epochs, weights)
        )
        x, crops = self.split.pixels(rows), None
        optimisation = self.config.optimisation
        if optimisation.crop_padding or optimisation.flip:
            key, padding = stream(self.config.seed, "augmentation"), optimisation.crop_padding
            crops = augmentation.sample(key, rows, drawn, padding=padding, flip=optimisation.flip)
            x = augmentation.apply(augmentation.pad(x, padding), crops)
        return Batch(x, self.split.labels[rows], ids=rows, epochs=drawn, weights=importance, crops=crops)

    def _update(self, batch: Batch, passes: Passes) -> Outputs:
        state, gamma = self.state, self.config.optimisation.awp
        state.optimiser.zero_grad(set_to_none=True)

        def weighted(losses: Tensor) -> Tensor:
            state.ledger.full_backward()  # of the pass that gave them
            return (losses * batch.weights).sum() / len(losses)

        awp = perturbed_weights(state.model, lambda: weighted(passes()[0]), gamma=gamma) if gamma else nullcontext()
        with awp:
            losses, logits = passes()
            weighted(losses).backward()
        state.optimiser.step()
        torch.clear_autocast_cache()  # its copies are of the weights before this step
        state.counters.steps += 1
        if state.average is not None:
            state.average.update_parameters(state.model)
        return Outputs(losses.detach(), logits.detach())

    def _validate(self, epoch: int, train_accuracy: float) -> float:
        """PGD-10 on val_stop: the best checkpoint so far, and the sentinel of collapse."""
        state, counters = self.state, self.state.counters
        robust = accuracy_under(
            state.final_model,
            self.dataset.val_stop,
            PGD(steps=10),
            threat=self.config.threat,
            seed=self.config.seed,
        )
        if robust > counters.best:
            counters.best, counters.best_epoch, counters.best_train = robust, epoch, train_accuracy
            state.best = state.weights()
        watched = self.config.objective.uses_adversarial and counters.collapse_epoch is None
        if not watched or not collapsed(
            robust=robust,
            training=train_accuracy,
            best_robust=counters.best,
            training_at_best=counters.best_train,
            drop=self.config.collapse_drop,
        ):
            counters.suspect_epoch = None
            return robust
        # One check may be a dip at a high learning rate; two in a row, or the last one, are none.
        first = epoch if counters.suspect_epoch is None else counters.suspect_epoch
        if counters.suspect_epoch is not None or epoch + 1 >= self.config.optimisation.epochs:
            counters.collapse_epoch = first
        counters.suspect_epoch = first
        return robust
