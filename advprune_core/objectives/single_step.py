"""Adversarial training with one step: FGSM, Fast AT, N-FGSM, FGSM-PGI.

All but the last are PGD-AT's objective with one step from another start. They cost 5
forward-equivalents an image and can collapse (catastrophic overfitting): watch them with
``best_every``.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from advprune_core.base.ledger import count_passes
from advprune_core.objectives.base import OBJECTIVES, TRAINERS, Objective, Outputs, Trainer, Update
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import BoundAttack


def fgsm_pgi(start: Tensor, adversarial: Tensor, cross_entropy: Tensor, *, lam: float) -> Tensor:
    """``CE(adversarial) + lam mean_c (z_c(adversarial) - z_c(start))^2`` of each image, shape (B,).

    Parameters
    ----------
    start, adversarial : Tensor, shape (B, classes)
        Logits at the start of the step and at its end; both are differentiated through.
    cross_entropy : Tensor, shape (B,)
        Of the adversarial logits, with whatever label smoothing.
    lam : float

    References
    ----------
    Jia et al., Prior-Guided Adversarial Initialization for Fast Adversarial Training, ECCV 2022
    (2207.08859); mean over the classes as in public code.
    """
    return cross_entropy + lam * (adversarial - start).square().mean(1)


@OBJECTIVES.register
class FGSMPGI(Objective):
    """FGSM with the logits held near those at its start (Jia et al. 2022): 7 an image.

    One forward pass at the start gives the step's gradient and the logits to stay near, and is
    backpropagated through; so the step is taken in the mode of training, unlike other attacks
    here. The regulariser delays catastrophic overfitting. Usual settings: lam 10, label smoothing
    0.4, a carried start with momentum 0.3 from corners, reset every 40 of 100 epochs. Unlike the
    public code, carried perturbations here move with crop and flip, and gradients are scaled per
    image, not per batch, before they are added up. With AWP the statistics of normalisation see the
    start twice.
    """

    name = "fgsm_pgi"
    single_step = True
    own_step = True
    lam: Annotated[float, Field(ge=0, le=1_000_000, description="weight of the distance of the logits")] = 10.0

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        """The loss of FGSM-PGI, where `clean` holds the logits at the start (None: the cross-entropy alone)."""
        assert adversarial is not None
        cross_entropy = self.cross_entropy(adversarial, y)
        return cross_entropy if clean is None else fgsm_pgi(clean, adversarial, cross_entropy, lam=self.lam)

    def step(self, model: nn.Module, batch: Batch, attack: BoundAttack, update: Update) -> Outputs:
        """One pass at the start, the step, one pass at its end, one update through both."""
        start = attack.start(batch).detach().requires_grad_()
        before = model(start)
        loss = F.cross_entropy(before, batch.y, reduction="sum")  # no image's gradient depends on its company
        (gradient,) = torch.autograd.grad(loss, start, retain_graph=True)
        count_passes(len(start))
        x_adv = attack.ascend(batch, start.detach(), gradient)
        attack.finish(batch, x_adv, start.detach(), gradient)
        known = [before]

        def passes() -> tuple[Tensor, Tensor]:
            after = model(x_adv)
            return self.per_sample(known.pop() if known else model(start), after, batch.y), after

        return update(passes)

    def cost(self, steps: float, *, clean_logits: bool = False) -> float:
        """Two passes that are trained on, and the input gradient of one."""
        return 1.0 + self.training_cost

    @property
    def training_cost(self) -> float:
        """Two passes, of which that at the start serves the attack as well."""
        return 6.0


@TRAINERS.register
class FGSMTrainer(Trainer):
    """FGSM from the clean image (Goodfellow et al. 2015): cheapest, collapses on long schedules."""

    name = "fgsm"
    objective = "pgd_at"
    attack = {"start": "clean", "steps": 1}
    single_step = True


@TRAINERS.register
class FastTrainer(Trainer):
    """Fast AT, FGSM-RS (Wong et al. 2020): one step of 1.25 eps from a random start.

    A number of steps, ``steps: 1``, takes its length away: then it is one step of eps.
    """

    name = "fast"
    objective = "pgd_at"
    attack = {"start": "random", "steps": {"fixed": {"count": 1, "step_factor": 1.25}}}
    single_step = True


@TRAINERS.register
class NFGSMTrainer(Trainer):
    """N-FGSM (de Jorge et al. 2022): one step from noise of 2 eps, not projected onto the ball."""

    name = "n_fgsm"
    objective = "pgd_at"
    attack = {"start": "noise", "steps": 1}
    single_step = True


@TRAINERS.register
class FGSMPGITrainer(Trainer):
    """FGSM-PGI (Jia et al. 2022): one step from carried perturbations that lead ahead, regularised."""

    name = "fgsm_pgi"
    objective = {"fgsm_pgi": {"label_smoothing": 0.4}}
    attack = {"start": {"carried": {"first": "corner", "momentum": 0.3}}, "steps": 1}
    single_step = True


@TRAINERS.register
class ATTATrainer(Trainer):
    """PGD-AT with one step from carried perturbations (ATTA, Zheng et al. 2020)."""

    name = "atta"
    objective = "pgd_at"
    attack = {"start": "carried", "steps": 1}
