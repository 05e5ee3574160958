"""An epoch of training: batches of the selection, each at its learning rate, attacked, trained on, looked at."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Split
from advprune_core.models.mode import no_trace
from advprune_core.objectives.base import Outputs, Passes, check_losses, check_outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import Pruner
from advprune_core.trainers.arithmetic import autocast
from advprune_core.trainers.awp import perturbed_weights
from advprune_core.trainers.batches import batch_of, epoch_order
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.schedules import rate_at
from advprune_core.trainers.state import RunState
from advprune_core.trainers.tally import Tally


def train_epoch(
    config: RunConfig, state: RunState, images: Split, observer: Pruner, epoch: int, *, share: float
) -> tuple[dict[str, Any], Batch | None]:
    """Train on what is selected: the weights of the state move, and its counters.

    Parameters
    ----------
    config : RunConfig
    state : RunState
    images : Split
        The training images, where the run is.
    observer : Pruner
        What looks at the batches.
    epoch : int
    share : float
        How much of it is trained on, in (0, 1].

    Returns
    -------
    row : dict
        Of the epoch's metrics, without those of a check; see `TrainResult`.
    batch : Batch or None
        The last one, if there was any.

    Raises
    ------
    ConfigError
        What a part of one's own gives that is not what it has to.
    """
    size, batch = config.optimisation.batch_size, None
    budget, choosing = config.optimisation.cost_budget, state.counters.choosing
    state.model.train()
    n, whole, by_images = len(images), len(state.selection), _counts_images(config, state)
    ids = epoch_order(config.seed, epoch, n, state.selection, share)
    state.queue.add(ids, epoch, state.selection)
    attack = config.attack.bind(state.model, seed=config.seed, state=state.policy)
    plain = epoch < config.optimisation.plain_epochs
    objective = config.plain_objective if plain else config.objective
    tally, waiting, rate = Tally.on(state.device), len(state.queue), config.optimisation.lr
    for batch_ids, epochs, weights in state.queue.batches():
        # Progress before this step: what of this epoch has been trained on, in epochs; or what was spent.
        position, before = (len(ids) - waiting) / whole, state.ledger.cost
        waiting -= len(batch_ids)
        done = epoch + position
        if by_images:
            done = (state.counters.visited + tally.images) / n
        # The schedule spans the training: what choosing costs shortens that, and is no part of it.
        paid = (before - choosing) / max(budget - choosing, 1) if budget else 0.0
        progress = max(done / config.optimisation.epochs, paid)
        progress = min(max(progress, 0.0), 1.0)
        rate = rate_at(config.optimisation.schedule, progress, peak=config.optimisation.lr)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        batch = batch_of(
            images,
            batch_ids,
            epochs,
            weights,
            seed=config.seed,
            crop_padding=config.optimisation.crop_padding,
            flip=config.optimisation.flip,
        )
        if len(batch_ids) > size:
            with state.ledger.phase("select"), no_trace(state.model):
                batch = config.pruner.narrow(state.model, batch, size)
            if len(batch.x) != size or batch.ids.shape != (size,) or batch.weights.shape != (size,):
                raise ConfigError(
                    f"narrow of the pruner {config.pruner.name!r} returned {len(batch.x)} images with "
                    f"{tuple(batch.ids.shape)} ids and {tuple(batch.weights.shape)} weights, not {size} of each"
                )
            batch_ids = batch.ids.cpu().numpy()
        steps = state.counters.steps
        with autocast(config):
            outputs = objective.step(state.model, batch, attack, partial(update, config, state, batch))
        check_outputs(outputs, len(batch.x))
        if state.counters.steps == steps:
            raise ConfigError(f"the objective {objective.name!r} took a step that never calls update(passes)")
        if not plain:
            config.attack.steps.observe(batch, outputs.logits, state.policy)
        observer.observe(batch, outputs, state.pruner)
        tally.add(outputs, batch.y)
        state.seen[batch_ids] = True
        # Another batch like this one would end further from the budget.
        if budget and 3 * state.ledger.cost - before > 2 * budget:
            state.counters.spent = True
            break
    state.counters.visited += tally.images
    ratio = state.selection.step_ratio
    row = {
        "epoch": epoch,
        "lr": rate,
        **tally.row(),
        "images": tally.images,
        "kept": whole,
        **({"plain": True} if plain else {}),
        **({"cost": state.ledger.cost} if budget else {}),
        **({} if ratio is None else {"step_ratio": ratio}),
    }
    return row, batch


def _counts_images(config: RunConfig, state: RunState) -> bool:
    """Whether the schedule goes by images trained on, over as many as a full run has: once any are left out."""
    n, size = len(state.seen), config.optimisation.batch_size
    left_out = any(len(selection) < n for selection in state.selections.values())
    narrowed = config.pruner.candidates(size, config.fraction) > size
    return config.optimisation.schedule_span == "full_run" and (left_out or narrowed)


def update(config: RunConfig, state: RunState, batch: Batch, passes: Passes) -> Outputs:
    """Move the weights once along the gradient of the weighted mean loss."""
    gamma = config.optimisation.awp
    state.optimiser.zero_grad(set_to_none=True)

    def weighted(losses: Tensor) -> Tensor:
        check_losses(losses, len(batch.x))
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
