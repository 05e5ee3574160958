"""Area under the margin: by how much the label leads, on average over training."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from advprune_core.attacks import losses
from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.history import History, HistoryPruner, completed, remembered, visit
from advprune_core.pruners.keep_rules import Lowest, Rule, Scores

Of = Literal["logits", "probabilities"]


def note_margin(state: History, *, ids: Tensor, logits: Tensor, y: Tensor, of: Of = "logits") -> None:
    """Take note of a batch: logits (B, classes) of the images `ids` (B,) with labels `y` (B,)."""
    visit(state, ids)
    values = torch.softmax(logits.float(), 1) if of == "probabilities" else logits.float()
    remembered(state, "margins", ids)[ids] -= losses.margin(values, y)


def aum(state: History, n: int) -> Scores:
    """Mean margin of the label over the largest other class, shape (n,): low is hard."""
    return completed(state["margins"] / state["visits"], state["visits"] > 0, n)


@PRUNERS.register
class AUM(HistoryPruner):
    """Area under the margin during the warm-up epochs (Pleiss et al. 2020), by keep rule; no cost but warm-up.

    The lowest are hard or mislabelled; `keep` `{stratified: {hard_cutoff: 0.1}}` is CCS, which is meant
    for small fractions. On the outputs of training, so under attack with an adversarial objective.

    References
    ----------
    Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, NeurIPS 2020
    (2001.10528), eq. (1), of logits; the public code of CCS (Zheng et al. 2023) takes probabilities.
    """

    name = "aum"
    keep: Rule = Lowest()
    of: Annotated[Of, Field(description="margins of logits (the paper) or of probabilities (CCS's code)")] = "logits"

    def hard_is_high(self) -> bool:
        """Low margins are hard."""
        return False

    def observe(self, batch: Batch, outputs: Outputs, state: dict[str, Tensor]) -> None:
        note_margin(state, ids=batch.ids, logits=outputs.logits, y=batch.y, of=self.of)

    def scores(self, context: Context) -> Scores:
        return aum(self.observed(context), context.n)
