"""RCS: batches after whose training step natural and adversarial outputs of held-out images differ least."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from advprune_core.attacks import losses
from advprune_core.objectives.base import Objective
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.pruners.blocks import blocks, in_batches
from advprune_core.pruners.branches import SplitOutputs
from advprune_core.pruners.glister import HeldOutPruner, with_change
from advprune_core.pruners.gradients import LastLayerGradients, group_means, last_layer_gradients
from advprune_core.pruners.selection import Selection


class Divergence(Objective):
    """KL divergence of the adversarial prediction from the natural one, which needs no label."""

    name = "divergence"
    uses_clean = True
    attack_loss = "kl"

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        """``KL(natural || adversarial)``, shape (B,), differentiated through both."""
        assert clean is not None
        assert adversarial is not None
        return losses.kl(adversarial, clean)


def rcs(
    gradients: LastLayerGradients,
    held_out: SplitOutputs,
    k: int,
    *,
    batch_size: int,
    chunk: int = 100,
    eta: float = 0.001,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Pick k images, one batch after the other, that take most off the divergence of held-out outputs.

    Random batches come in chunks, each with its share of k. After each pick the held-out logits follow a step
    of `eta` along the batch's mean gradient, and the gains are new; each chunk begins with the network as it is.

    Parameters
    ----------
    gradients : LastLayerGradients
        Of n candidates.
    held_out : SplitOutputs
        With both branches.
    k : int
        Images to pick; a chunk's last batch gives only as many as its share leaves.
    batch_size : int
        Images of a batch, about.
    chunk : int
        Batches of a chunk, about.
    eta : float
        Length of the step after each pick.
    rng : Generator
        Draws the batches.

    Returns
    -------
    array of int64, shape (k,)
        In the order of the picks.

    References
    ----------
    Xu et al., Efficient Adversarial Contrastive Learning via Robustness-aware Coreset Selection, NeurIPS 2023
    (2302.03857), alg. 1, of which the public code has a supervised variant.
    """
    picks = []
    for rows, quota in blocks(rng.permutation(len(gradients)), k, chunk * batch_size):
        groups = in_batches(rows, batch_size)
        steps = group_means(gradients, groups).matrix
        taken = torch.zeros(len(groups), dtype=torch.bool, device=steps.device)
        judges, found = held_out, list[NDArray[np.int64]]()
        while sum(map(len, found)) < quota:
            target = last_layer_gradients(Divergence(), judges).total() / len(judges)
            pick = int(torch.where(taken, -torch.inf, steps @ target.flatten()).argmax())
            taken[pick] = True
            found.append(groups[pick])
            judges = after_batch(judges, steps[pick].view_as(target), eta)
        picks.append(np.concatenate(found)[:quota])
    return np.concatenate(picks)


def after_batch(held_out: SplitOutputs, gradient: Tensor, step: float) -> SplitOutputs:
    """Held-out outputs after the last layer has moved by -`step` times a dense gradient (classes, d + 1): exact."""
    return with_change(held_out, lambda features: -step * (features @ gradient.T))


@PRUNERS.register
class RCS(HeldOutPruner):
    """Robustness-aware coreset of whole batches, judged without labels (Xu et al. 2023); 2k + 1 an image.

    What a step on a batch takes off, to first order, of the KL divergence between natural and adversarial outputs
    of held-out images (val_select), whose labels are not looked at; batches are taken greedily. So it is GLISTER
    per batch with another target. Reconstructed from the supervised variant of the public code. Unlike there: the
    batches' gradients are those of the run's objective (PGD-AT: the adversarial cross-entropy, as there); the
    held-out adversarial images are found once, and not again after each pick; whole last-layer gradients are
    compared, where the code compares their means over the classes, which vanish for losses of a softmax. Of its
    three distances KL alone is here. Settings: `batch_size`, `chunk` (100 there) and `eta` (0.001 there), the
    schedule. Unit weights. Cost per selection: 2k + 1 forward-equivalents an image of the training split (TRADES
    and MART 2k + 2), 2k + 2 an image of val_select.
    """

    name = "rcs"
    attacks_in_any_case = True
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="images of a candidate batch")] = 16
    chunk: Annotated[int, Field(ge=1, le=1_000_000, description="candidate batches that are compared at a time")] = 100
    eta: Annotated[float, Field(gt=0, le=1_000_000, description="length of the virtual step after each pick")] = 0.001

    def pick(self, gradients: LastLayerGradients, context: Context) -> Selection:
        _, held_out = self.outputs(replace(context, objective=Divergence()), context.dataset.val_select)
        picks = rcs(
            gradients,
            held_out,
            context.k,
            batch_size=self.batch_size,
            chunk=self.chunk,
            eta=self.eta,
            rng=context.rng,
        )
        return Selection(picks)
