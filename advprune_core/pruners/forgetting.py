"""Forgetting events: how often an image that was right becomes wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.history import History, HistoryPruner, completed, remembered, visit
from advprune_core.pruners.keep_rules import Scores


def note_forgetting(state: History, *, ids: Tensor, logits: Tensor, y: Tensor) -> None:
    """Take note of a batch: logits (B, classes) of the images `ids` (B,) with labels `y` (B,)."""
    visit(state, ids)
    right = (logits.argmax(1) == y).float()
    last, ever, events = (remembered(state, name, ids) for name in ("right", "ever_right", "events"))
    events[ids] += ((last[ids] == 1) & (right == 0)).float()
    last[ids] = right
    ever[ids] = torch.maximum(ever[ids], right)


def forgetting(state: History, n: int) -> Scores:
    """Forgetting events of each image, shape (n,): high is hard.

    An image that never was right counts as forgotten at every visit, so that it is the hardest.
    """
    values = torch.where(state["ever_right"] == 1, state["events"], state["visits"])
    return completed(values, state["visits"] > 0, n)


@PRUNERS.register
class Forgetting(HistoryPruner):
    """Forgetting events during the warm-up epochs (Toneva et al. 2019), by keep rule; no cost but warm-up.

    Counted on the outputs of training, so under attack with an adversarial objective. With few
    warm-up epochs most images share a count, and chance decides: raise `warmup_epochs`.

    References
    ----------
    Toneva et al., An Empirical Study of Example Forgetting, ICLR 2019 (1812.05159), def. 3.1; there
    the events of a whole training are counted, here those of the epochs before the selection.
    """

    name = "forgetting"

    def observe(self, batch: Batch, outputs: Outputs, state: dict[str, Tensor]) -> None:
        note_forgetting(state, ids=batch.ids, logits=outputs.logits, y=batch.y)

    def scores(self, context: Context) -> Scores:
        return forgetting(self.observed(context), context.n)
