"""The changes that Square proposes: a window of each image, at a random place, in a random direction.

Andriushchenko et al. 2020 (1912.00049), algorithms 2 (L-inf) and 3 (L2).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from advprune_core.attacks.geometry import Norm, lengths, per_image

#: Queries up to which the share of changed pixels is p / 1, p / 2, p / 4, ... (for 10,000 queries).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
#: Uniform numbers that a proposal takes, beside one sign for each channel.
DRAWS = 5


def side(query: int, size: tuple[int, int], *, norm: Norm, share: float = 0.8) -> int:
    """Side of the window at a query: it covers `share` of the pixels at first, half of that later, ..."""
    height, width = size
    halved = share / 2 ** sum(query > bound for bound in HALVINGS)
    length = round(math.sqrt(halved * height * width))
    if norm == "l2":
        length = max(length, 3) | 1  # a bump has a middle
    shortest = min(height, width)
    return max(1, min(length, shortest if norm == "linf" else shortest - 1 + shortest % 2))


def stripes(signs: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The first L-inf proposal: vertical stripes at the ends of the ball.

    Parameters
    ----------
    signs : Tensor of bool, shape (B, C, W)
    low, high : Tensor, shape (B, C, H, W)
        Smallest and largest pixels of ball and box.
    """
    return torch.where(signs[:, :, None], high, low)


def corners(draws: Tensor, length: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Top and left edge (B,) of windows of side `length` from two uniform numbers in [0, 1) each."""
    top, left = ((draws[:, i] * (n - length + 1)).long() for i, n in enumerate(size))
    return top, left


def square_linf(draws: Tensor, length: int, best: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Set a window of each channel to one end of the ball.

    Parameters
    ----------
    draws : Tensor, shape (B, DRAWS + C)
        Uniform in [0, 1).
    best, low, high : Tensor, shape (B, C, H, W)

    Returns
    -------
    proposal : Tensor, shape of `best`
    number : Tensor of int64, shape (B,)
        Different for different proposals of the same side.
    """
    height, width = best.shape[2:]
    top, left = corners(draws, length, (height, width))
    signs = draws[:, DRAWS:] < 0.5
    rows, columns = (torch.arange(n, device=best.device) for n in (height, width))
    down = (rows >= top[:, None]) & (rows < top[:, None] + length)
    across = (columns >= left[:, None]) & (columns < left[:, None] + length)
    window = (down[:, :, None] & across[:, None, :])[:, None]
    proposal = torch.where(window, torch.where(signs[:, :, None, None], high, low), best)
    bits = (signs * 2 ** torch.arange(signs.shape[1], device=best.device)).sum(1)
    return proposal, (top * width + left) * 2 ** signs.shape[1] + bits


@lru_cache(maxsize=64)
def bump(length: int) -> Tensor:
    """Two pyramids of opposite sign, one above the other, of L2 length 1: float32 (length, length)."""
    half = length // 2

    def pyramid(height: int) -> Tensor:
        if height == 0:
            return torch.zeros(0, length)
        layers = max(height, length) // 2 + 1
        heights = torch.tensor([1 / (k + 1) ** 2 for k in range(layers)]).flip(0).cumsum(0).flip(0)
        down = (torch.arange(height) - height // 2).abs()
        across = (torch.arange(length) - length // 2).abs()
        shape = heights[torch.maximum(down[:, None], across[None])]
        return shape / shape.norm()

    both = torch.cat([pyramid(half), -pyramid(length - half)])
    return both / both.norm()


def _bumps(length: int, upright: Tensor) -> Tensor:
    shape = bump(length).to(upright.device)
    return torch.where(upright.view(-1, 1, 1), shape, shape.T)


def tiles(draws: Tensor, x: Tensor, *, eps: float) -> Tensor:
    """The first L2 proposal: a grid of 5 x 5 bumps of random signs.

    Parameters
    ----------
    draws : Tensor, shape (B, 25, 1 + C)
        Uniform in [0, 1).
    x : Tensor, shape (B, C, H, W)
    """
    height, width = x.shape[2:]
    length = max(min(height, width) // 5, 1)
    count = min(5, height // length), min(5, width // length)
    delta = torch.zeros_like(x)
    first = (height - count[0] * length) // 2, (width - count[1] * length) // 2
    signs = (draws[:, :, 1:] < 0.5).to(x.dtype) * 2 - 1
    for row in range(count[0]):
        for column in range(count[1]):
            number = 5 * row + column
            piece = _bumps(length, draws[:, number, 0] < 0.5)[:, None] * signs[:, number, :, None, None]
            top, left = first[0] + row * length, first[1] + column * length
            delta[:, :, top : top + length, left : left + length] = piece
    return _stretched(delta, x, eps=eps)


def _stretched(delta: Tensor, x: Tensor, *, eps: float) -> Tensor:
    return (x + delta * per_image(eps / (lengths(delta, norm="l2") + 1e-12), x)).clamp(0, 1)


def square_l2(draws: Tensor, length: int, best: Tensor, x: Tensor, *, eps: float) -> Tensor:
    """Move the perturbation of one window into a bump in another one.

    Parameters
    ----------
    draws : Tensor, shape (B, DRAWS + C)
        Uniform in [0, 1).
    best, x : Tensor, shape (B, C, H, W)

    Returns
    -------
    Tensor, shape of `x`
        At distance `eps`, but for what the box cuts off.
    """
    batch, channels, height, width = x.shape
    delta = (best - x).flatten(2)
    inner = torch.arange(length, device=x.device)

    def places(draws: Tensor) -> Tensor:
        top, left = corners(draws, length, (height, width))
        flat = (top[:, None, None] + inner[:, None]) * width + left[:, None, None] + inner
        return flat.view(batch, 1, -1).expand(-1, channels, -1)

    to, source = places(draws[:, :2]), places(draws[:, 2:4])
    both = torch.zeros_like(delta).scatter_(2, to, 1.0).scatter_(2, source, 1.0)
    spare = (eps**2 - delta.square().sum((1, 2))).clamp(min=0)[:, None] / channels
    budget = (spare + (delta * both).square().sum(2)).sqrt()
    signs = (draws[:, DRAWS:] < 0.5).to(x.dtype) * 2 - 1
    old = delta.gather(2, to)
    old = old / (old.norm(p=2, dim=2, keepdim=True) + 1e-12)
    new = _bumps(length, draws[:, 4] < 0.5).flatten(1)[:, None] * signs[:, :, None] + old
    new = new / (new.norm(p=2, dim=2, keepdim=True) + 1e-12) * budget[:, :, None]
    delta = delta.scatter(2, source, 0.0).scatter(2, to, new)
    return _stretched(delta.view_as(x), x, eps=eps)
