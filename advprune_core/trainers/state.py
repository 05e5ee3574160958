"""Everything of a run that changes between its epochs, and the checkpoint that holds it all."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from advprune_core.base.files import read_sealed, set_aside, write_sealed
from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model, check_model
from advprune_core.models.weights import finite_entries, tensors
from advprune_core.pruners.selection import Selection
from advprune_core.trainers.batches import BatchQueue
from advprune_core.trainers.checks import check_weights
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.given import Given

Weights = dict[str, Tensor]
#: Where the network that is only scored by is trained, in the folder of a run's work.
SCOUT = "scout"
_FORMAT = 2


@dataclass
class Counters:
    """Running totals of a run; `spent`: its cost budget is; `choosing`: forward-equivalents that selections cost."""

    epoch: int = 0
    steps: int = 0
    visited: int = 0
    best: float = -1.0
    best_epoch: int | None = None
    spent: bool = False
    choosing: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)


def left_in(work: Path) -> list[Path]:
    """What training keeps in the folder of a run's work; other folders there are of evaluations."""
    return [path for path in sorted(work.glob("*")) if path.is_file() or path.name == SCOUT]


def unbiased_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """The update of an exponential moving average that does not favour the first weights.

    After t steps the average is the sum of ``decay ** (t - i)`` times the weights of step i, divided by
    the sum of these factors, as the moments of Adam are (Kingma and Ba 2015, section 3). An average that
    merely starts at the first weights still owes them a share of ``decay ** (t - 1)``: 60 % after
    515 steps at 0.999.

    Parameters
    ----------
    decay : float
        In (0, 1).

    Returns
    -------
    callable
        ``(averages, values, count)``, lists of tensors and how many values the averages hold so far, for
        torch's ``AveragedModel(multi_avg_fn=...)``; changes the averages in place.
    """

    def update(averages: Any, values: Any, count: Tensor | int) -> None:
        weight = (1 - decay) / (1 - decay ** (int(count) + 1))
        get_ema_multi_avg_fn(1 - weight)(averages, values, count)

    return update


class RunState:
    """The mutable state of a run.

    Attributes
    ----------
    model, average : nn.Module
        The network, and its moving average (None without).
    queue : BatchQueue
        Images drawn but not trained on yet.
    policy : dict of str to Tensor
        What attack policy and objective keep between batches.
    pruner : dict of str to Tensor
        What the pruner keeps of the batches that it has observed.
    key : str
        Of the run, or of the warm-up, so that a checkpoint is taken up by nothing that it is not of.
    given : Given or None
        The network that the run was given; None of one that its settings name.
    selection, selections
        The images kept now; all selections so far, by the epoch from which each holds.
    seen : array of bool, shape (n,)
        Images trained on at least once.
    best : state dict or None
        Weights at the best epoch so far.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, model: nn.Module | None, *, key: str) -> None:
        optimisation, n = config.optimisation, len(dataset.train)
        self.given: Given | None = None
        self.device = torch.device(config.device)
        if model is None:
            model = build_model(config.model, dataset, seed=config.seed)
        else:
            check_model(model, dataset)
            self.given = Given.of(model)
        check_weights(model, config)
        if config.init is not None:
            config.init.load(model)
        self.model = model.to(self.device)
        self.optimiser = torch.optim.SGD(
            self.model.parameters(),
            lr=optimisation.lr,
            momentum=optimisation.momentum,
            weight_decay=optimisation.weight_decay,
        )
        self.average = (
            AveragedModel(self.model, multi_avg_fn=unbiased_average(optimisation.ema), use_buffers=True)
            if optimisation.ema
            else None
        )
        #: A mask of minus infinity among the buffers is none.
        self._numbers = finite_entries(self.model)
        self.queue = BatchQueue(config.pruner.candidates(optimisation.batch_size, config.fraction))
        policy = {
            **config.attack.initial_state(n),
            **config.objective.state(optimisation.batch_size, dataset.image_shape),
        }
        self.policy = {name: value.to(self.device) for name, value in policy.items()}
        self.pruner: dict[str, Tensor] = {}
        self.key = key
        self.ledger = Ledger(self.device)
        self.counters = Counters()
        self.seen = np.zeros(n, dtype=bool)
        self.selection = Selection(np.arange(n))
        self.selections: dict[int, Selection] = {}
        self.best: Weights | None = None

    @property
    def final_model(self) -> nn.Module:
        """What is evaluated: the moving average where there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def finite(self) -> bool:
        """Whether all weights are numbers that were: the last update of an epoch may have made others of them."""
        return self._numbers <= finite_entries(self.final_model)

    def weights(self) -> Weights:
        """A copy of the final model's state on the CPU."""
        # In one layout: a file's digest does not depend on how the run kept its weights.
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in tensors(self.final_model).items()
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {
            "format": _FORMAT,
            "key": self.key,
            "given": None if self.given is None else self.given.kept(self.model),
            "pruner": self.pruner,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "queue": self.queue.state(),
            "policy": self.policy,
            "ledger": self.ledger.state(),
            "counters": dict(vars(self.counters)),
            "seen": torch.from_numpy(self.seen),
            "selections": {
                epoch: (torch.from_numpy(s.indices), torch.from_numpy(s.weights), s.n_filled, s.step_ratio)
                for epoch, s in self.selections.items()
            },
            "best": self.best,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_sealed(path, content.getvalue())

    def load(self, path: Path, *, warmup: str | None = None) -> bool:
        """Go on from this run's checkpoint, if there is one that can be believed; nothing is unpickled.

        Parameters
        ----------
        warmup : str, optional
            Or from the checkpoint of its warm-up, which has this key and is others' as well.

        Returns
        -------
        bool
            Whether there is; else the run begins anew.

        Raises
        ------
        ConfigError
            The checkpoint of another warm-up.
        """
        payload = read_sealed(path)
        if payload is None:
            return False
        state = torch.load(io.BytesIO(payload), map_location=self.device, weights_only=True)
        key = warmup or self.key
        if warmup is not None and state["key"] != key:
            raise ConfigError(f"{path} is not of this run's warm-up {key}, but of {state['key']}")
        reason, what = "", "is of another run"
        if state["key"] != key:
            reason = f"its key is {state['key']}"
        elif state["format"] != _FORMAT:
            reason, what = f"its format is {state['format']}, not {_FORMAT}", "was written by another version"
        elif warmup is None and self.given is not None and not self.given.fits(state.get("given")):
            reason = "which was given another network"
        if reason:
            set_aside(path, reason, fate="the run begins anew", what=what)
            return False
        self.pruner = state["pruner"]
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.queue.load({name: value.cpu() for name, value in state["queue"].items()})
        self.policy = state["policy"]
        self.ledger.load(state["ledger"])
        self.counters = Counters(**state["counters"])
        self.seen = state["seen"].cpu().numpy()
        for epoch, (indices, weights, filled, ratio) in state["selections"].items():
            self.selections[epoch] = Selection(indices.cpu().numpy(), weights.cpu().numpy(), filled, ratio)
        if self.selections:
            self.selection = self.selections[max(self.selections)]
        self.best = None if state["best"] is None else {k: v.cpu() for k, v in state["best"].items()}
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        return True
