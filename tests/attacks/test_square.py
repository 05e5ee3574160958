"""Square: schedule by hand, proposals inside the ball, no question asked twice, nothing shared by images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from advprune_core.attacks import square
from advprune_core.attacks.geometry import inside
from advprune_core.attacks.windows import DRAWS, bump, side, square_l2, square_linf, tiles
from advprune_core.base.ledger import Ledger

Pair = tuple[Tensor, Tensor]


@pytest.mark.parametrize(
    ("query", "size", "norm", "expected"),
    [
        # sqrt of 0.8, 0.4, 0.2, ... of the pixels, rounded
        (1, (32, 32), "linf", 29), (10, (32, 32), "linf", 29), (11, (32, 32), "linf", 20), (51, (32, 32), "linf", 14),
        (201, (32, 32), "linf", 10), (501, (32, 32), "linf", 7), (1001, (32, 32), "linf", 5),
        (2001, (32, 32), "linf", 4), (4001, (32, 32), "linf", 3), (5000, (32, 32), "linf", 3),
        (1, (8, 8), "linf", 7), (501, (8, 8), "linf", 2), (1001, (8, 8), "linf", 1), (5000, (8, 8), "linf", 1),
        # odd, at least 3, inside the image
        (1, (32, 32), "l2", 29), (11, (32, 32), "l2", 21), (5000, (32, 32), "l2", 3), (1, (8, 8), "l2", 7),
        (1, (3, 20), "linf", 3), (1, (4, 20), "l2", 3),
    ],
)  # fmt: skip
def test_side_of_the_window(query: int, size: tuple[int, int], norm: Any, expected: int) -> None:
    assert side(query, size, norm=norm) == expected


def test_bump() -> None:
    """A pyramid of nested rectangles of heights 1 / k^2, and its negative below it."""
    one = torch.tensor([[1 / 4, 1 / 4, 1 / 4], [1 / 4, 5 / 4, 1 / 4]])
    upper = one[1:] / one[1:].norm()
    lower = -one[[0, 1]] / one[[0, 1]].norm()
    torch.testing.assert_close(bump(3), torch.cat([upper, lower]) / 2**0.5)
    for length in (1, 2, 5, 9):
        assert bump(length).norm() == pytest.approx(1)


def _draws(batch: int, channels: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, DRAWS + channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 3, 6])
def test_linf_proposals(length: int) -> None:
    x = torch.rand(50, 2, 6, 7, generator=torch.Generator().manual_seed(1))
    low, high = (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1)
    proposal, number = square_linf(_draws(50, 2), length, x, low, high)
    for row in range(50):
        touched = (proposal[row] != x[row]).any(0).nonzero()
        assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [length, length]
        for channel in range(2):
            moved = proposal[row, channel] != x[row, channel]
            ends = [torch.equal(proposal[row, channel][moved], end[row, channel][moved]) for end in (low, high)]
            assert sum(ends) == 1
    same = number[:, None] == number
    places = proposal != x
    alike = torch.tensor([[torch.equal(one, other) for other in places] for one in places])
    assert not (same & ~alike).any()


def test_l2_proposals_stay_on_the_sphere() -> None:
    x = torch.full((20, 3, 12, 12), 0.5)
    best = tiles(torch.rand(20, 25, 4, generator=torch.Generator().manual_seed(2)), x, eps=0.4)
    for seed in range(30):
        new = square_l2(_draws(20, 3, seed), 5, best, x, eps=0.4)
        for image in (best, new):
            torch.testing.assert_close((image - x).flatten(1).norm(dim=1), torch.full((20,), 0.4))
        # A window that is its own source has nothing to move.
        assert (new != best).flatten(1).any(1).float().mean() > 0.8
        best = new


class Deaf(nn.Module):
    """Notes the images that it is asked about; nothing that is tried makes a difference but one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked += list(x.clone())
        return torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(x), 4)


def test_no_question_is_asked_twice() -> None:
    """After the side has come down to 1, a grey 4 x 4 image has 16 pixels to flip."""
    model, x, y = Deaf(), torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, dtype=torch.int64)
    square(model, x, y, eps=0.1, queries=1500)
    last = [image for image in model.asked[1:] if int((image != model.asked[0]).sum()) == 1]
    assert len({tuple(image.flatten().tolist()) for image in last}) == len(last) == 16


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.125), ("l2", 0.5)])
def test_queries_are_forward_passes(norm: Any, eps: float) -> None:
    model, x, y = Deaf(), torch.full((4, 3, 8, 8), 0.5), torch.zeros(4, dtype=torch.int64)
    ledger = Ledger()
    with ledger.watch(model):
        square(model, x, y, norm=norm, eps=eps, queries=40)
    assert ledger.passes == {"other": 4 * 40} if norm == "l2" else ledger.passes["other"] <= 4 * 40
    ledger = Ledger()
    with ledger.watch(model):
        square(model, x, y + 1, norm=norm, eps=eps, queries=40)
    assert ledger.passes == {"other": 4}  # broken by the first


@pytest.mark.parametrize(("norm", "eps", "theirs"), [("linf", 0.125, "Linf"), ("l2", 0.5, "L2")])
def test_breaks_no_less_than_the_reference(norm: Any, eps: float, theirs: str, trained: nn.Module, right: Pair) -> None:
    x, y = (tensor[:60] for tensor in right)
    peer = SquareAttack(trained, n_queries=500, norm=theirs, eps=eps, seed=0, device="cpu", resc_schedule=False)
    expected = peer.perturb(x, y)
    ours = square(trained, x, y, norm=norm, eps=eps, queries=500)
    with torch.no_grad():
        broken = [int((trained(x_adv).argmax(1) != y).sum()) for x_adv in (expected, ours)]
    assert broken[0] - 2 <= broken[1]
    assert 3 < broken[1] < 57
    assert inside(ours, x, norm=norm, eps=eps).all()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.2)])
def test_neither_batch_nor_order_matters(norm: Any, eps: float, network: Any, images: Any) -> None:
    model, (x, y) = network("double_small_cnn"), images(10)
    options: dict[str, Any] = {"norm": norm, "eps": eps, "queries": 250, "seed": 3}
    whole = square(model, x, y, ids=torch.arange(10), **options)
    some = torch.tensor([7, 2, 9])
    part = square(model, x[some], y[some], ids=some, **options)
    torch.testing.assert_close(whole[some], part, atol=1e-5, rtol=0)


class Linear(nn.Module):
    """Two logits; the margin falls from 1 to 0 as the attack gets `share` of all that signs of pixels can give."""

    def __init__(self, share: float, eps: float) -> None:
        super().__init__()
        weight = torch.randn(16 * 16, generator=torch.Generator().manual_seed(4))
        self.weight, self.middle = weight / (share * eps * weight.abs().sum()), 0.5

    def forward(self, x: Tensor) -> Tensor:
        margin = 1 - (x - self.middle).flatten(1) @ self.weight
        return torch.stack([margin, torch.zeros_like(margin)], 1)


@pytest.mark.parametrize(("share", "breaks"), [(0.7, True), (0.8, True), (0.85, True), (3.0, False)])
def test_gives_up_only_what_stands_still(share: float, breaks: bool) -> None:
    """Broken by query 2,258 to 4,120, after standing still as a side ran dry; or never, and left early."""
    model, x, y = Linear(share, 0.1), torch.full((3, 1, 16, 16), 0.5), torch.zeros(3, dtype=torch.int64)
    asked = []
    for give_up in (False, True):
        ledger = Ledger()
        with ledger.watch(model):
            x_adv = square(model, x, y, eps=0.1, give_up=give_up)
        assert (model(x_adv).argmax(1) != y).tolist() == 3 * [breaks]
        asked.append(ledger.passes["other"])
    assert asked[0] == asked[1] if breaks else asked[1] < 0.8 * asked[0]
