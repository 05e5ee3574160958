"""PertAlign: whether the gradient at the end of the attack's one step still points where the step went.

A predictor of catastrophic overfitting, beside the sentinel that sees it. The sentinel needs an attack of many steps
on held-out images; this needs two gradients at images of training, and falls before robust accuracy does, its authors
say. It only looks: training goes on as if it were not there.
"""

from __future__ import annotations

from torch import nn

from advprune_core.attacks.losses import LOSSES
from advprune_core.attacks.pgd import input_gradient
from advprune_core.models.mode import no_trace, quiet_logits
from advprune_core.objectives.base import Objective
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.grad_align import misalignment
from advprune_core.objectives.policy import AttackPolicy, BoundAttack


def has_one_step(objective: Objective, attack: AttackPolicy) -> bool:
    """Whether the training attack is one step that the policy describes, so that its two gradients are known.

    Free AT, FGSM-PGI and SORA take a step of their own in the pass that they train on.
    """
    return objective.uses_adversarial and attack.steps.single and not objective.own_step


def perturbation_alignment(model: nn.Module, batch: Batch, attack: BoundAttack, objective: Objective) -> float:
    """Mean cosine between the gradients at the start and at the end of the attack's step, in [-1, 1].

    Both in the mode of the training attack. Cost: 4 forward-equivalents an image (with KL one more). Leaves no trace,
    not in the attack's state either.

    Parameters
    ----------
    model : nn.Module
    batch : Batch
        Images as training has them.
    attack : BoundAttack
        Of one step; see `has_one_step`.
    objective : Objective
        Says what the attack maximises.

    References
    ----------
    Teymourian et al., SORA: Free Second-Order Attacks in Fast Adversarial Training, ICML 2026 (2606.00738), who take
    the second gradient from the pass that is trained on, of every batch. The file of the public code that has the
    formula could not be read: the cosine is taken image by image here.
    """
    loss = LOSSES[objective.attack_loss]
    target = quiet_logits(model, batch.x) if objective.attack_loss == "kl" else batch.y
    start = attack.start(batch)
    with no_trace(model, attack.policy.attack_mode):
        first, _ = input_gradient(model, start, target, loss)
        second, _ = input_gradient(model, attack.ascend(batch, start, first), target, loss)
    return float(1 - misalignment(first, second).mean())
