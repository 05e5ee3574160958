"""The checks of a run on val_stop: what they measure, and which weights they keep."""

from __future__ import annotations

from typing import Any

from torch import nn

from advprune_core.attacks.base import PGD
from advprune_core.attacks.evaluate import accuracy_under
from advprune_core.datasets.splits import Dataset, Split
from advprune_core.objectives.batch import Batch
from advprune_core.trainers.alignment import has_one_step, perturbation_alignment
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.sentinel import attacked, checks, suspected
from advprune_core.trainers.state import RunState


def validate(
    config: RunConfig, state: RunState, dataset: Dataset, images: Split, *, row: dict[str, Any], batch: Batch | None
) -> dict[str, float]:
    """PGD-10 on val_stop, of the weights that are evaluated, the best so far being kept, and of those trained.

    Of the latter as well, after a training attack of one step, the alignment of its gradients on the last batch; and
    where a collapse is suspected, the same PGD-10 on as many of the images that are kept. A check of a plain phase,
    which nothing attacked, is the best only until another one comes.

    Parameters
    ----------
    config : RunConfig
    state : RunState
        Of the run, after the epoch; its best weights are changed.
    dataset : Dataset
    images : Split
        The training images, where the run is.
    row : dict
        Of the epoch's metrics, which the state does not have yet.
    batch : Batch, optional
        The last one of the epoch.

    Returns
    -------
    dict of str to float
        ``val_pgd`` in [0, 1], and where they apply ``val_pgd_trained``, ``train_pgd`` and ``pert_align``.
    """
    counters, plain = state.counters, bool(row.get("plain"))

    def robust(model: nn.Module, split: Split) -> float:
        return accuracy_under(model, split, PGD(steps=10), threat=config.threat, seed=config.seed)

    found = {"val_pgd": robust(state.final_model, dataset.val_stop)}
    of_plain = counters.best_epoch is not None and counters.best_epoch < config.optimisation.plain_epochs
    if found["val_pgd"] > counters.best or (of_plain and not plain):
        counters.best, counters.best_epoch, state.best = found["val_pgd"], row["epoch"], state.weights()
    if state.average is not None:
        found["val_pgd_trained"] = robust(state.model, dataset.val_stop)
    if config.objective.uses_adversarial and attacked(row):
        course = checks([*counters.metrics, {**row, **found}])
        if suspected(course, drop=config.collapse_drop):
            some = images.spread(len(dataset.val_stop), among=state.selection.indices)
            found["train_pgd"] = robust(state.model, images.take(some.to(state.device)))
    if batch is not None and not plain and has_one_step(config.objective, config.attack):
        attack = config.attack.bind(state.model, seed=config.seed, state=state.policy, remembers=False)
        found["pert_align"] = perturbation_alignment(state.model, batch, attack, config.objective)
    return found
