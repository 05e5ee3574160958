"""Adversarial training as it is written down in papers and tutorials: what this project's steps are compared with.

The attack calls ``loss.backward()``, which fills the gradients of the weights as well; TRADES passes the clean
images again in each step of its attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor], Tensor]
#: (images, labels, where the attack starts) to the loss of a batch, whose weights it has not changed.
BatchLoss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def pgd(model: nn.Module, x: Tensor, start: Tensor, loss: Loss, *, eps: float, steps: int, step_size: float) -> Tensor:
    """Projected gradient ascent (Madry et al. 2018) from `start`, on images (B, C, H, W) in [0, 1]."""
    model.eval()
    x_adv = start.clone()
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        loss(model(x_adv)).backward()
        assert x_adv.grad is not None
        moved = x_adv.detach() + step_size * x_adv.grad.sign()
        x_adv = torch.max(torch.min(moved, x + eps), x - eps).clamp(0, 1)
    model.train()
    return x_adv.detach()


def n_fgsm(*, eps: float) -> BatchLoss:
    """De Jorge et al. 2022: one step of eps from a noisy start, not projected onto the ball around the image."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        noisy = start.clone().requires_grad_()
        F.cross_entropy(model(noisy), y).backward()
        assert noisy.grad is not None
        return F.cross_entropy(model((noisy.detach() + eps * noisy.grad.sign()).clamp(0, 1)), y)

    return loss


def kl(adversarial: Tensor, clean: Tensor) -> Tensor:
    """KL(p(clean) || p(adversarial)) of each image, shape (B,)."""
    return F.kl_div(F.log_softmax(adversarial, 1), F.softmax(clean, 1), reduction="none").sum(1)


def pgd_at(*, eps: float, steps: int, step_size: float) -> BatchLoss:
    """Madry et al. 2018: the cross-entropy at the attack's images."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        x_adv = pgd(
            model, x, start, lambda logits: F.cross_entropy(logits, y), eps=eps, steps=steps, step_size=step_size
        )
        return F.cross_entropy(model(x_adv), y)

    return loss


def trades(*, eps: float, steps: int, step_size: float, beta: float = 6.0, attack_labels: bool = False) -> BatchLoss:
    """Zhang et al. 2019, eq. (5). With `attack_labels` the attack is on the cross-entropy, as in ART."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        def gap(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, y) if attack_labels else kl(logits, model(x)).sum()

        x_adv = pgd(model, x, start, gap, eps=eps, steps=steps, step_size=step_size)
        clean = model(x)
        return F.cross_entropy(clean, y) + beta * kl(model(x_adv), clean).mean()

    return loss


def mart(*, eps: float, steps: int, step_size: float, beta: float = 5.0) -> BatchLoss:
    """Wang et al. 2020, eq. (10) and (11)."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        x_adv = pgd(
            model, x, start, lambda logits: F.cross_entropy(logits, y), eps=eps, steps=steps, step_size=step_size
        )
        clean, adversarial = model(x), model(x_adv)
        rows, probabilities = torch.arange(len(y)), F.softmax(adversarial, 1)
        others = probabilities.masked_fill(F.one_hot(y, probabilities.shape[1]).bool(), -1.0)
        boosted = F.cross_entropy(adversarial, y) - torch.log(1.0001 - others.amax(1)).mean()
        unsure = 1 - F.softmax(clean, 1)[rows, y]
        return boosted + beta * (kl(adversarial, clean) * unsure).mean()

    return loss


def step(
    model: nn.Module, optimiser: torch.optim.Optimizer, loss: BatchLoss, x: Tensor, y: Tensor, start: Tensor
) -> None:
    """One update of the weights."""
    model.train()
    found = loss(model, x, y, start)
    optimiser.zero_grad()  # of what the attack has left as well
    found.backward()
    optimiser.step()


def train(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    count: int,
    loss: BatchLoss,
    start: Callable[[Tensor], Tensor],
    *,
    lr: float,
) -> None:
    """SGD with momentum over `count` batches, the learning rate up and down once (Smith and Topin 2017)."""
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=count, cycle_momentum=False)
    for x, y in batches:
        step(model, optimiser, loss, x, y, start(x))
        schedule.step()
    model.eval()


def random_start(x: Tensor, *, eps: float, reach: float = 1.0) -> Tensor:
    """Uniform noise of `reach` eps, in [0, 1]."""
    return (x + reach * eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
