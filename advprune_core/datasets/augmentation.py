"""Random crop with padding and horizontal flip, as batched tensor work that can be undone.

Three functions: `sample` draws what happens to each image, `apply` does it, `invert` puts a
cropped and flipped tensor back where it came from in the padded frame. What is drawn depends on
(stream, epoch, image id) only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from advprune_core.base.randomness import uniform


@dataclass(frozen=True, eq=False)
class Crops:
    """Where each image's crop begins in its padded frame, and whether it is mirrored.

    Attributes
    ----------
    top, left : Tensor of int64, shape (B,), in 0 .. 2 * padding
    flip : Tensor of bool, shape (B,)
    padding : int
        Of the frame on each side.
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    padding: int


def sample(key: int, ids: Tensor, epochs: Tensor, *, padding: int, flip: bool) -> Crops:
    """Draw a crop position and a flip for each image."""
    noise = uniform(key, ids, epochs, (3,))
    positions = (noise[:, :2] * (2 * padding + 1)).long()
    mirrored = noise[:, 2] < 0.5 if flip else torch.zeros_like(noise[:, 2], dtype=torch.bool)
    return Crops(positions[:, 0], positions[:, 1], mirrored, padding)


def pad(x: Tensor, padding: int) -> Tensor:
    """Zero-pad images (B, C, H, W) to the frame that crops are taken from."""
    return F.pad(x, (padding,) * 4)


def _window(crops: Crops, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (image, row, column) into the padded frame for every pixel of every crop."""
    device = crops.top.device
    columns = torch.arange(width, device=device).expand(len(crops.top), width)
    columns = torch.where(crops.flip[:, None], width - 1 - columns, columns)
    rows = crops.top[:, None] + torch.arange(height, device=device)
    images = torch.arange(len(crops.top), device=device)
    return images[:, None, None], rows[:, :, None], (crops.left[:, None] + columns)[:, None, :]


def apply(padded: Tensor, crops: Crops) -> Tensor:
    """Take each image's crop: (B, C, H + 2p, W + 2p) -> (B, C, H, W)."""
    height, width = padded.shape[2] - 2 * crops.padding, padded.shape[3] - 2 * crops.padding
    images = torch.arange(len(padded), device=padded.device)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: rows are copied whole, not pixel by pixel
    cropped = windows[images, :, crops.top, crops.left]
    return torch.where(crops.flip[:, None, None, None], cropped.flip(3), cropped)


def invert(cropped: Tensor, crops: Crops, *, onto: Tensor) -> Tensor:
    """Put crops back into copies of the padded frames `onto`; what no crop covers stays."""
    images, rows, columns = _window(crops, cropped.shape[2], cropped.shape[3])
    result = onto.clone()
    result[images, :, rows, columns] = cropped.permute(0, 2, 3, 1)
    return result
