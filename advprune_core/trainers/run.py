"""A run under way: one loop for every objective, attack policy and pruner."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advprune_core.base.randomness import torch_stream
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.models.mode import no_trace
from advprune_core.models.passes import NotFiniteError
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import Context, Pruner, keep
from advprune_core.pruners.selection import check_selected
from advprune_core.trainers.arithmetic import check_precision, run_passes
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.epoch import train_epoch
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.sentinel import checks, onset
from advprune_core.trainers.state import SCOUT, RunState
from advprune_core.trainers.validation import validate
from advprune_core.trainers.warmups import shared_key


class Run:
    """A run under way: its state, and what does not change.

    Parameters
    ----------
    config : RunConfig
        Checked, and fitted to the data set.
    observer : Pruner, optional
        What looks at the batches; by default the run's pruner.
    start : Path, optional
        Checkpoint of its warm-up, to go on from where `work` has none.
    warmup : str, optional
        Key of its warm-up, where that alone is to be trained.
    key : str, optional
        By which it knows its checkpoints; by default the run's own.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        model: nn.Module | None,
        work: Path | None,
        *,
        observer: Pruner | None = None,
        start: Path | None = None,
        warmup: str | None = None,
        key: str | None = None,
    ):
        self.config, self.dataset, self.work = config, dataset, work
        self.start = start
        self.until = None if warmup is None else config.pruner.epochs_before()
        self.observer = observer or config.pruner
        self.state = RunState(config, dataset, model, key=key or warmup or config.train_key(dataset))
        self.scout = copy.deepcopy(self.state.model) if config.pruner.scout_epochs() else None
        self.split = dataset.train.to(self.state.device)
        self.last_batch: Batch | None = None
        self.checkpoint_seconds = math.inf
        images = self.split.pixels(slice(0, 2))
        check_precision(config, self.state.model, images)
        with no_trace(self.state.model):
            config.pruner.check_model(self.state.model, images)

    def train(self, checkpoint_seconds: float, on_epoch: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        """Go on from the last checkpoint to the end; see `loop.train`."""
        state, epochs = self.state, self.config.optimisation.epochs
        self.checkpoint_seconds = checkpoint_seconds
        saved = time.monotonic()
        with self._passes(), state.ledger.watch(*{state.model, state.final_model}):
            # Once the passes are compiled: a run that cannot be leaves its network and its folder as they are.
            self._resume()
            status = self._status()
            while not self._at_end() and not self._over(status) and state.counters.epoch != self.until:
                epoch = state.counters.epoch
                self._select(epoch)
                with state.ledger.phase("train"):
                    row = self._epoch(epoch, share=min(1.0, epochs - epoch))
                state.counters.epoch += 1
                last = self._at_end()
                checked = self.config.best_every and (last or (epoch + 1) % self.config.best_every == 0)
                if not (math.isfinite(row["train_loss"]) and state.finite and (not checked or self._check(row))):
                    status = "diverged"
                state.ledger.sample_memory()
                state.counters.metrics.append(row)
                if status != "diverged":
                    status = self._status()
                with state.ledger.phase("save"):
                    self._append_metrics(row)
                    due = last or epoch + 1 == self.until or time.monotonic() - saved >= checkpoint_seconds
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
            collapse_epoch=self._onset(),
            steps=state.counters.steps,
            images_visited=state.counters.visited,
            unique_images=int(state.seen.sum()),
            state_bytes=sum(value.numel() * value.element_size() for value in kept),
            rows=self.dataset.train.rows.cpu().numpy()[state.selection.indices],
        )

    def _check(self, row: dict[str, Any]) -> bool:
        """Add what an epoch's check measures to its row; False where the outputs are no numbers any more."""
        with self.state.ledger.phase("validate"):
            try:
                row |= validate(self.config, self.state, self.dataset, self.split, row=row, batch=self.last_batch)
            except NotFiniteError:
                return False
        return True

    @contextmanager
    def _passes(self) -> Iterator[None]:
        """The passes of the run's speed during a block; compiling them is a phase of its own."""
        if self.config.speed == "exact":
            yield
            return
        state, models = self.state, {self.state.model, self.state.final_model}
        with ExitStack() as stack:
            for model in models:
                model.to(memory_format=torch.channels_last)
                stack.callback(model.to, memory_format=torch.contiguous_format)
            with state.ledger.phase("compile"):
                images = self.split.pixels(slice(0, self.config.optimisation.batch_size))
                passes = run_passes(self.config, state.model, images)
            for model in models:
                stack.enter_context(passes.instead_of(model))
            # The last update's gradients may lie in memory of a CUDA graph that later passes have used again.
            stack.callback(state.optimiser.zero_grad)
            yield

    def _at_end(self) -> bool:
        counters = self.state.counters
        return counters.spent or counters.epoch >= self.config.optimisation.epochs

    def _onset(self) -> int | None:
        """Epoch of a collapse, by what the checks have shown so far."""
        if not self.config.objective.uses_adversarial:
            return None
        course = checks(self.state.counters.metrics)
        return onset(course, drop=self.config.collapse_drop, ended=self._at_end())

    def _status(self) -> str:
        """How a run stands that has not diverged."""
        return "ok" if self._onset() is None else "collapsed"

    def _over(self, status: str) -> bool:
        return status == "diverged" or (status == "collapsed" and self.config.on_collapse != "flag")

    def _resume(self) -> None:
        if self.work is not None:
            self.work.mkdir(parents=True, exist_ok=True)
        compiled = self.state.ledger.state()
        begun = self.work is not None and self.state.load(self.work / "checkpoint.pt")
        if not begun and self.start is not None:
            begun = self.state.load(self.start, warmup=shared_key(self.config, self.dataset))
        if begun and any(compiled["seconds"].values()):
            self.state.ledger.absorb(compiled, phase="compile")
        if self.work is not None:
            lines = [json.dumps(row) + "\n" for row in self.state.counters.metrics]
            (self.work / "metrics.jsonl").write_text("".join(lines))

    def _append_metrics(self, row: dict[str, Any]) -> None:
        if self.work is not None:
            with open(self.work / "metrics.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")

    def _select(self, epoch: int) -> None:
        config, state, budget = self.config, self.state, self.config.optimisation.cost_budget
        if not config.pruner.due(epoch) or not self._pays_for_another():
            return
        before = state.ledger.passes.get("select", 0)
        model, observed, policy = state.model, state.pruner, state.policy
        if self.scout is not None:
            model, observed, policy = self._scouted(self.scout)
        context = Context(
            dataset=self.dataset,
            fraction=config.fraction,
            seed=config.seed,
            epoch=epoch,
            model=model,
            objective=config.objective,
            attack=config.attack,
            state=observed,
            policy=policy,
            model_epoch=epoch if self.scout is None else config.pruner.scout_epochs(),
            crop_padding=config.optimisation.crop_padding,
            epochs=config.optimisation.epochs,
            min_per_class=config.min_per_class,
        )
        scouting = nullcontext() if self.scout is None else state.ledger.watch(model)
        with state.ledger.phase("select"), scouting:
            state.selection = keep(config.pruner, context)
            check_selected(state.selection.indices, self.dataset, fraction=config.fraction)
        if budget and state.ledger.cost >= budget and not state.selections:
            raise ConfigError(
                f"cost_budget = {budget} is spent once {config.pruner.name} has selected ({state.ledger.cost:,} "
                "forward-equivalents so far): raise it, or choose more cheaply"
            )
        state.counters.choosing += state.ledger.passes["select"] - before
        state.selections[epoch] = state.selection

    def _pays_for_another(self) -> bool:
        """Whether the budget pays for one more selection that costs what those so far did, and for training on it.

        What the first costs nobody knows. One may cost more, such as steps to break a network that hardens: the run
        then ends that much further from it.
        """
        ledger, made, budget = self.state.ledger, len(self.state.selections), self.config.optimisation.cost_budget
        return not budget or not made or ledger.cost + ledger.passes.get("select", 0) / made < budget

    def _scouted(self, model: nn.Module) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
        """A network trained on all data only to be scored by; what was observed, and what its attack carries."""
        config, ledger = self.config, self.state.ledger
        length: dict[str, Any] = {"epochs": config.pruner.scout_epochs(), "cost_budget": None, "plain_epochs": 0}
        optimisation = config.optimisation.replace(**length)
        plain = config.replace(pruner="full", fraction=1.0, best_every=0, on_collapse="flag", optimisation=optimisation)
        work = None if self.work is None else self.work / SCOUT
        # Its checkpoint holds what this run's pruner has observed.
        key = f"{config.train_key(self.dataset)} {SCOUT}"
        run = Run(plain, self.dataset, copy.deepcopy(model), work, observer=config.pruner, key=key)
        run.state.given = self.state.given  # the copy has changed with what it is of, where that was interrupted
        with torch_stream(config.seed, "scout"):
            result = run.train(self.checkpoint_seconds, None)
        if result.status == "diverged":
            raise ConfigError("the network trained to be scored by diverged: the loss is not finite; try a smaller lr")
        ledger.absorb(result.ledger, phase="select")  # what a process that was killed had spent, too
        return run.state.model, run.state.pruner, run.state.policy

    def _epoch(self, epoch: int, *, share: float) -> dict[str, Any]:
        """Train one; its row of metrics."""
        row, self.last_batch = train_epoch(self.config, self.state, self.split, self.observer, epoch, share=share)
        return row
