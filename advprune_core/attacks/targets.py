"""Searches that aim at one class at a time: which classes, and several of them in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Jobs in one batch: more do not make a pass of one image cheaper on a processor.
AT_ONCE = {"cpu": 128, "cuda": 4096}


@dataclass(frozen=True)
class Jobs:
    """Searches side by side; an image of several targets occurs several times.

    Attributes
    ----------
    x : Tensor, shape (J, C, H, W)
        Clean images.
    y, target : Tensor of int64, shape (J,)
        Label, and the class aimed at (the label, where the search has no target).
    owner : Tensor of int64, shape (J,)
        Place of the job's image: who is broken by one job needs no other.
    rank : Tensor of int64, shape (J,)
        Number of the target, 0 for the likeliest class: what noise is keyed by.
    """

    x: Tensor
    y: Tensor
    target: Tensor
    owner: Tensor
    rank: Tensor


#: Jobs to points (J, C, H, W) and values (J,): infinite where the image is broken, else the larger the closer.
Attempt = Callable[[Jobs], tuple[Tensor, Tensor]]


def likeliest(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The `count` classes of largest logit other than the label: int64 (B, min(count, classes - 1))."""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, : min(count, logits.shape[1] - 1)]


def untargeted(x: Tensor, y: Tensor) -> Jobs:
    """One job for each image."""
    rows = torch.arange(len(x), device=x.device)
    return Jobs(x, y, y, rows, torch.zeros_like(rows))


def in_waves(x: Tensor, y: Tensor, targets: Tensor, run: Attempt) -> Tensor:
    """Aim at every target of every image, likeliest first, until one breaks it.

    As many targets at once as make a full batch (`AT_ONCE`): one while many images stand, so that
    those that break do so before they have cost much; all together when few are left. Half as many
    where the device's memory does not hold them.

    Parameters
    ----------
    targets : Tensor of int64, shape (B, T)
        From `likeliest`.

    Returns
    -------
    Tensor, shape of `x`
        A broken image, or the point that came closest.
    """
    result = x.clone()
    value = torch.full((len(x),), -torch.inf, device=x.device)
    rank, count, at_once = 0, targets.shape[1], AT_ONCE.get(x.device.type, 128)
    while rank < count:
        left = torch.isposinf(value).logical_not().nonzero().squeeze(1)
        if len(left) == 0:
            break
        width = min(max(1, at_once // len(left)), count - rank)
        owner = left.repeat_interleave(width)
        ranks = torch.arange(rank, rank + width, device=x.device).repeat(len(left))
        try:
            points, values = run(Jobs(x[owner], y[owner], targets[owner, ranks], owner, ranks))
        except torch.cuda.OutOfMemoryError:
            if width == 1:
                raise
            at_once = len(left) * width // 2
            continue
        best, choice = values.view(len(left), width).max(1)
        better = best > value[left]
        chosen = choice + width * torch.arange(len(left), device=x.device)
        result[left[better]] = points[chosen[better]]
        value[left[better]] = best[better]
        rank += width
    return result
