"""Crops and flips against a loop over images, and undone again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from advprune_core.datasets.augmentation import Crops, apply, invert, pad, sample

LAW = settings(derandomize=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Crops, int]:
    """Images with a different number at every pixel, and any crops."""
    n, channels, height, width = (draw(st.integers(1, most)) for most in (4, 3, 6, 5))
    padding = draw(st.integers(0, 3))
    positions = st.lists(st.integers(0, 2 * padding), min_size=n, max_size=n)
    crops = Crops(
        torch.tensor(draw(positions)),
        torch.tensor(draw(positions)),
        torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n))),
        padding,
    )
    x = torch.arange(1, n * channels * height * width + 1, dtype=torch.float32)
    return x.view(n, channels, height, width), crops, padding


def crop_by_loop(padded: Tensor, crops: Crops, height: int, width: int) -> Tensor:
    """One image at a time, by slices."""
    images = []
    for image, top, left, flip in zip(
        padded, crops.top.tolist(), crops.left.tolist(), crops.flip.tolist(), strict=True
    ):
        window = image[:, top : top + height, left : left + width]
        images.append(window.flip(2) if flip else window)
    return torch.stack(images)


@LAW
@given(cases())
def test_apply(case: tuple[Tensor, Crops, int]) -> None:
    x, crops, padding = case
    padded = pad(x, padding)
    ours = apply(padded, crops)
    assert torch.equal(ours, crop_by_loop(padded, crops, *x.shape[2:]))
    assert ours.is_contiguous()


@LAW
@given(cases())
def test_pad(case: tuple[Tensor, Crops, int]) -> None:
    x, _, padding = case
    n, channels, height, width = x.shape
    expected = torch.zeros(n, channels, height + 2 * padding, width + 2 * padding)
    expected[:, :, padding : padding + height, padding : padding + width] = x
    assert torch.equal(pad(x, padding), expected)


@LAW
@given(cases())
def test_invert_undoes_apply(case: tuple[Tensor, Crops, int]) -> None:
    x, crops, padding = case
    padded = pad(x, padding)
    cropped = apply(padded, crops)
    assert torch.equal(invert(cropped, crops, onto=padded), padded)
    # Onto another frame: the content of the crop is back in its place, the rest is the frame's.
    frame = -1 - torch.arange(padded.numel(), dtype=torch.float32).view(padded.shape)
    before = frame.clone()
    result = invert(cropped, crops, onto=frame)
    covered = invert(torch.ones_like(x), crops, onto=torch.zeros_like(padded)).bool()
    assert torch.equal(frame, before)
    assert torch.equal(result[covered], padded[covered])
    assert torch.equal(result[~covered], frame[~covered])
    assert int(covered.sum()) == x.numel()


@LAW
@given(cases())
def test_apply_undoes_invert(case: tuple[Tensor, Crops, int]) -> None:
    x, crops, padding = case
    frame = torch.full_like(pad(x, padding), -1.0)
    assert torch.equal(apply(invert(x, crops, onto=frame), crops), x)


@pytest.mark.parametrize(
    ("top", "left", "flip", "row", "column"),
    [
        (2, 2, False, 1, 3),  # the middle: nothing happens
        (2, 2, True, 1, 1),
        (1, 2, False, 2, 3),  # the window moves up, the content down
        (2, 1, False, 1, 4),
        (2, 3, True, 1, 2),
        (0, 3, False, 3, 2),
    ],
)
def test_a_marked_pixel(top: int, left: int, flip: bool, row: int, column: int) -> None:
    x = torch.zeros(1, 2, 5, 5)
    x[0, 1, 1, 3] = 1
    crops = Crops(torch.tensor([top]), torch.tensor([left]), torch.tensor([flip]), 2)
    ours = apply(pad(x, 2), crops)
    assert ours.nonzero().tolist() == [[0, 1, row, column]]
    assert invert(ours, crops, onto=torch.zeros(1, 2, 9, 9)).nonzero().tolist() == [[0, 1, 3, 5]]


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_positions_are_uniform_and_flips_fair(padding: int) -> None:
    ids = torch.arange(9_000)
    crops = sample(5, ids, torch.zeros_like(ids), padding=padding, flip=True)
    for positions in (crops.top, crops.left):
        counts = torch.bincount(positions, minlength=2 * padding + 1)
        assert len(counts) == 2 * padding + 1
        assert chisquare(counts.numpy()).pvalue > 1e-3
    assert abs(float(crops.flip.float().mean()) - 0.5) < 3 * 0.5 / 9_000**0.5
    joint = torch.bincount((crops.top * (2 * padding + 1) + crops.left) * 2 + crops.flip)
    assert chisquare(joint.numpy()).pvalue > 1e-3


def test_no_padding_and_no_flip() -> None:
    ids = torch.arange(50)
    assert not sample(5, ids, ids, padding=2, flip=False).flip.any()
    flipped = sample(5, ids, ids, padding=0, flip=True)
    assert not (flipped.top | flipped.left).any()


@LAW
@given(st.permutations(range(8)), st.integers(1, 8), st.integers(0, 2**62))
def test_an_image_does_not_depend_on_its_batch(order: list[int], size: int, key: int) -> None:
    ids, epochs = torch.tensor([5, 3, 3, 9, 0, 1, 2, 77]), torch.tensor([0, 0, 1, 4, 4, 4, 5, 5])
    whole = sample(key, ids, epochs, padding=3, flip=True)
    rows = torch.tensor(order[:size])
    part = sample(key, ids[rows], epochs[rows], padding=3, flip=True)
    for name in ("top", "left", "flip"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[rows])


def test_images_epochs_and_keys_differ() -> None:
    ids = torch.arange(64)
    draws = [
        sample(key, ids, torch.full((64,), epoch), padding=4, flip=True) for key, epoch in [(0, 0), (0, 1), (9, 0)]
    ]
    tops = [tuple(crops.top.tolist()) for crops in draws]
    assert len(set(tops)) == 3
    assert len(set(tops[0])) == 9
