"""Networks with something before and after them, and every attack with a small budget, to put them to the test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from advprune_core.attacks import apgd, apgd_targeted, autoattack, fab_targeted, fgsm, pgd, square

Change = Callable[[Tensor], Any]
ATTACKS: dict[str, Callable[..., Any]] = {
    "pgd": partial(pgd, steps=2),
    "fgsm": fgsm,
    "apgd": partial(apgd, steps=2),
    "apgd_targeted": partial(apgd_targeted, steps=2, targets=2),
    "fab_targeted": partial(fab_targeted, steps=2, targets=2),
    "square": partial(square, queries=3),
    "autoattack": partial(autoattack, version=[{"apgd": {"steps": 2}}, {"square": {"queries": 3}}]),
}


def as_it_is(value: Any) -> Any:
    return value


class Around(nn.Module):
    """A network with something done to its images, and to its logits."""

    def __init__(
        self,
        network: nn.Module,
        *,
        after: Callable[[Tensor], Any] = as_it_is,
        before: Callable[[Tensor], Any] = as_it_is,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.network(self.before(x)))


def linear(after: Change = as_it_is, before: Change = as_it_is) -> Around:
    """A linear network for images of (1, 4, 4) and 4 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Around(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), after=after, before=before)
