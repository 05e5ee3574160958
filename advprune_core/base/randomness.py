"""Named random streams and per-image noise by counter.

A run has one seed. What is drawn for a purpose depends on the seed and the names of that purpose
only, never on how many numbers were drawn before, so that two runs with the same seed share
whatever they have in common. Per-image noise is a function of (stream, epoch, image id, pixel):
it does not depend on the batch an image happens to be in, nor on the order of the batches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014),
# written for the wrap-around int64 arithmetic that every torch device has.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def stream(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream called `names` of the run seed `seed`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for a named stream."""
    return np.random.default_rng(stream(seed, *names))


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put torch's global generators back after a block."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def torch_stream(seed: int, *names: str | int) -> Iterator[None]:
    """Run a block under torch's global generators seeded for a named stream, then restore them."""
    with generators_kept():
        torch.manual_seed(stream(seed, *names))
        yield


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """A new tensor, in place from there: for a batch of images memory is what takes the time."""
    z = _shift_right(z, 30).bitwise_xor_(z).mul_(_MIX_1)
    z = _shift_right(z, 27).bitwise_xor_(z).mul_(_MIX_2)
    return _shift_right(z, 31).bitwise_xor_(z)


def random_bits(key: int, ids: Tensor, epochs: Tensor, count: int) -> Tensor:
    """Return `count` pseudo-random int64 for each image, by counter.

    Parameters
    ----------
    key : int
        A stream, from `stream`.
    ids, epochs : Tensor of int64, shape (B,)
        Image ids and the epoch each image was drawn in.
    count : int
        Numbers per image.

    Returns
    -------
    Tensor of int64, shape (B, count)
        Row b is the SplitMix64 sequence whose seed is the hash of (key, epoch, id).
    """
    base = _mix(_mix(epochs + key) + ids * _GAMMA)
    counters = torch.arange(1, count + 1, device=ids.device, dtype=torch.int64) * _GAMMA
    return _mix(base[:, None] + counters)


def uniform(key: int, ids: Tensor, epochs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Per-image uniform noise in [0, 1): float32, shape ``(B, *shape)``."""
    bits = random_bits(key, ids, epochs, math.prod(shape))
    return _shift_right(bits, 40).to(torch.float32).mul_(2.0**-24).view(-1, *shape)


def normal(key: int, ids: Tensor, epochs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Per-image standard normal noise by Box-Muller: float32, shape ``(B, *shape)``."""
    size = math.prod(shape)
    first, second = uniform(key, ids, epochs, (2, size)).unbind(1)
    radius = torch.sqrt(-2.0 * torch.log1p(-first))
    return (radius * torch.cos(2.0 * math.pi * second)).view(-1, *shape)
