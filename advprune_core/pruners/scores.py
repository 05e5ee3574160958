"""Scores of the network as it stands: one number for each image, and a pruner that keeps by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from advprune_core.attacks import losses
from advprune_core.objectives.base import Objective
from advprune_core.pruners.base import PRUNERS, Context, Pruner
from advprune_core.pruners.branches import Branch
from advprune_core.pruners.gradients import CHUNK, with_bias
from advprune_core.pruners.keep_rules import Highest, KeepRule, Rule, ScorePruner, Scores
from advprune_core.pruners.outputs import OutputPruner, split_branch
from advprune_core.pruners.steps_to_break import split_steps_to_break


def loss(branch: Branch, y: Tensor) -> Tensor:
    """Cross-entropy, shape (n,): high is hard."""
    return losses.cross_entropy(branch.logits, y)


def probability_margin(branch: Branch, y: Tensor) -> Tensor:
    """Probability of the label minus the largest other one, shape (n,): low is hard."""
    return -losses.margin(torch.softmax(branch.logits, 1), y)


def entropy(branch: Branch, y: Tensor) -> Tensor:
    """Entropy of the prediction in nats, whatever the label, shape (n,): high is hard."""
    log_p = torch.log_softmax(branch.logits, 1)
    return -(log_p.exp() * log_p).sum(1)


def el2n(branch: Branch, y: Tensor) -> Tensor:
    """Euclidean length of softmax minus one-hot label, shape (n,) (Paul et al. 2021, 2107.07075): high is hard."""
    errors = torch.softmax(branch.logits, 1)
    errors[torch.arange(len(y), device=y.device), y] -= 1
    return errors.norm(dim=1)


def grand(branch: Branch, y: Tensor) -> Tensor:
    """Length of the cross-entropy's last-layer gradient, shape (n,) (Paul et al. 2021): high is hard."""
    lengths = [with_bias(chunk).norm(dim=1) for chunk in branch.known_features().split(CHUNK)]
    return el2n(branch, y) * torch.cat(lengths)


class _Kind(NamedTuple):
    function: Callable[[Branch, Tensor], Tensor]
    hard_is_high: bool


KINDS = {
    "loss": _Kind(loss, True),
    "margin": _Kind(probability_margin, False),
    "entropy": _Kind(entropy, True),
    "el2n": _Kind(el2n, True),
    "grand": _Kind(grand, True),
}
#: Scores that look at the last layer's inputs; the others look at logits alone, of any network.
OF_FEATURES = ("grand",)
ScoreName = Literal["loss", "margin", "entropy", "el2n", "grand", "steps_to_break"]


def split_scores(context: Context, score: ScoreName, *, steps: int | None = None, head: str | None = None) -> Scores:
    """Scores of all training images, array of float64, shape (n,).

    Parameters
    ----------
    context : Context
        With a model.
    score : str
        What is measured.
    steps : int, optional
        Of the scoring attack, 0 for clean images; default: as training has them (`scoring_steps`, and
        for steps to break `split_steps_to_break`).
    head : str, optional
        Name of the last layer, where it is not found; GraNd alone looks at it.

    Raises
    ------
    ConfigError
        A context without model (or, for adversarial outputs, without attack); for GraNd, a model
        whose logits are not the last layer's.
    """
    if score == "steps_to_break":
        values: Tensor = split_steps_to_break(context, steps=steps)
    else:
        branch = split_branch(context, steps=steps, head=head, features=score in OF_FEATURES)
        values = KINDS[score].function(branch, context.dataset.train.labels.to(branch.logits.device))
    return np.asarray(values.cpu().numpy(), np.float64)


@PRUNERS.register
class Score(OutputPruner, ScorePruner):
    """Any score (loss, margin, entropy, EL2N, GraNd, steps to break) with any keep rule.

    Helps to compare what is worth keeping. Of standard training it is said that hard images (`highest` loss, EL2N,
    GraNd, entropy; `lowest` margin, steps to break) win where much data is left, easy ones or `stratified` where
    little is; the published runs, adversarial and short, do not show it.
    Settings: the score, the keep rule, class balance, and `steps`: of the scoring attack, 0 for clean
    images, by default those of the training attack and clean images where there is none (standard
    training). Steps to break count those of an attack in any case, see `keep_fragile`. Cost per
    selection: 2k + 1 forward-equivalents an image (one more with KL), 1 on clean images.

    References
    ----------
    Coleman et al. 2020 (1906.11829) for loss, margin, entropy; Paul et al. 2021 (2107.07075) for EL2N
    and GraNd (here of the last layer, at one point of one run); Zhang et al. 2021 (2010.01736) for
    steps to break. All of them were made for clean outputs; on adversarial ones they are ours.
    """

    name = "score"
    score: Annotated[ScoreName, Field(description="what is measured of each image")] = "loss"
    keep: Rule = Highest()

    @model_validator(mode="after")
    def _breaks_by_attack(self) -> Score:
        if self.score == "steps_to_break" and self.steps == 0:
            raise ValueError("steps_to_break counts the steps of an attack: steps must be at least 1")
        return self

    @model_validator(mode="after")
    def _head_is_looked_at(self) -> Score:
        if self.head is not None and not self.uses_features:
            raise ValueError(
                f"head = {self.head!r} has no effect on the score {self.score!r}, which does not look at the last "
                f"layer; of the scores {', '.join(OF_FEATURES)} alone does: leave head out"
            )
        return self

    @property
    def uses_features(self) -> bool:
        return self.score in OF_FEATURES

    def for_objective(self, objective: Objective) -> Pruner:
        """As of `OutputPruner`; steps to break need an attack in any case."""
        return self if self.score == "steps_to_break" else super().for_objective(objective)

    def canonical(self) -> dict[str, Any]:
        """As of `Component`; steps to break, and no other score, are of a second version."""
        return super().canonical() | ({"version": 2} if self.score == "steps_to_break" else {})

    def rule(self) -> KeepRule:
        return self.keep

    def scores(self, context: Context) -> Scores:
        return split_scores(context, self.score, steps=self.steps, head=self.head)

    def hard_is_high(self) -> bool:
        return self.score in KINDS and KINDS[self.score].hard_is_high
