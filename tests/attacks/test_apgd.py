"""Auto-PGD against the reference from the same start, its schedule by hand, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from advprune_core.attacks import PGD, ThreatModel, apgd, apgd_targeted, pgd
from advprune_core.attacks.apgd import windows
from advprune_core.attacks.geometry import inside, per_image, project
from advprune_core.attacks.targets import Jobs, in_waves, likeliest
from advprune_core.base.ledger import Ledger

Pair = tuple[Tensor, Tensor]
#: Norm, radius, and what the reference calls the norm.
NORMS = pytest.mark.parametrize(("norm", "eps", "theirs"), [("linf", 0.125, "Linf"), ("l2", 0.5, "L2")])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(100, [22, 19, 16, 13, 10, 7, 6, 6, 6]), (20, [4, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), (1, [1])],
)
def test_windows(steps: int, expected: list[int]) -> None:
    """Checkpoints at 0.22, then 0.03 closer each time but never under 0.06, of all steps."""
    assert windows(steps) == expected


def standing(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(1) == y


@NORMS
def test_same_start_same_outcome_as_the_reference(
    norm: Any, eps: float, theirs: str, trained: nn.Module, right: Pair
) -> None:
    x, y = right
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    start = project(x + eps * (2 * noise - 1), x, norm=norm, eps=eps)
    peer = APGDAttack(trained, n_iter=100, norm=theirs, eps=eps, seed=0, loss="ce", device="cpu")
    peer.init_hyperparam(x)
    _, expected, *_ = peer.attack_single_run(x, y, x_init=start.clone())
    ours = apgd(trained, x, y, norm=norm, eps=eps, start=start)
    assert 0.1 < expected.float().mean() < 0.9
    assert torch.equal(standing(trained, ours, y), expected.bool())
    assert inside(ours, x, norm=norm, eps=eps).all()


@NORMS
def test_targets_break_what_they_break_for_the_reference(
    norm: Any, eps: float, theirs: str, trained: nn.Module, right: Pair
) -> None:
    x, y = (tensor[:60] for tensor in right)
    peer = APGDAttack_targeted(trained, n_iter=20, norm=theirs, eps=eps, seed=0, device="cpu", n_target_classes=9)
    expected = standing(trained, peer.perturb(x, y), y)
    ours = standing(trained, apgd_targeted(trained, x, y, norm=norm, eps=eps, steps=20), y)
    assert (ours != expected).sum() <= 1  # their starts are others


@NORMS
def test_never_far_from_pgd(norm: Any, eps: float, theirs: str, trained: nn.Module, right: Pair) -> None:
    """At most 2 points below PGD-40: more would mean that PGD loses its way."""
    x, y = right
    auto, plain = (
        standing(trained, attack(trained, x, y, norm=norm, eps=eps, steps=steps), y).float().mean()
        for attack, steps in ((apgd, 100), (pgd, 40))
    )
    assert -0.02 <= plain - auto <= 0.02
    assert 0.1 < auto < 0.9
    assert PGD().perturb(trained, x, y, threat=ThreatModel(norm=norm, eps=eps), seed=0).shape == x.shape


class Fixed(nn.Module):
    """Class 0 leads whatever the image, but the image still has gradients; class 1 where a pixel is 0.9."""

    def forward(self, x: Tensor) -> Tensor:
        small = 0.01 * x.flatten(1)[:, :5]
        lead = torch.where(x.flatten(1)[:, :1] >= 0.9, -1.0, 1.0)
        return small + torch.cat([lead, torch.zeros(len(x), 4)], 1)


@pytest.mark.parametrize(
    ("attack", "options", "passes"),
    [
        (apgd, {"steps": 10}, 21),  # a gradient at ten points, and a look at the eleventh
        (apgd, {"steps": 10, "restarts": 3}, 63),
        (apgd_targeted, {"steps": 10, "targets": 9}, 1 + 4 * 21),  # five classes have four others
        (apgd_targeted, {"steps": 10, "targets": 2}, 1 + 2 * 21),
    ],
)
def test_passes(attack: Any, options: dict[str, int], passes: int) -> None:
    model, x, y = Fixed(), torch.full((3, 1, 2, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    ledger = Ledger()
    with ledger.watch(model):
        attack(model, x, y, eps=0.1, **options)
    assert ledger.passes == {"other": 3 * passes}


@pytest.mark.parametrize("attack", [apgd, apgd_targeted])
def test_broken_images_leave_with_all_their_targets(attack: Any) -> None:
    model, x, y = Fixed(), torch.full((3, 1, 2, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    x[0, 0, 0, 0], clean = 1.0, 1 if attack is apgd_targeted else 0  # broken wherever the attack starts
    ledger = Ledger()
    with ledger.watch(model):
        attack(model, x, y, eps=0.05, steps=10)
    jobs = 4 if attack is apgd_targeted else 1
    assert ledger.passes["other"] == 3 * clean + 2 * jobs + 2 * jobs * 21


@pytest.mark.parametrize("eps", [0.125, 0.15])
def test_what_is_given_up_costs_less_and_breaks_nothing_else(trained: nn.Module, right: Pair, eps: float) -> None:
    x, y = right
    results, costs = [], []
    for give_up in (False, True):
        ledger = Ledger()
        with ledger.watch(trained):
            results.append(standing(trained, apgd_targeted(trained, x, y, eps=eps, give_up=give_up), y))
        costs.append(ledger.passes["other"])
    assert costs[1] < 0.8 * costs[0]
    assert not (results[0] & ~results[1]).any()
    assert (results[0] != results[1]).sum() <= 1


@pytest.mark.parametrize("room", [200, 13, 6])
def test_waves_fit_into_memory(room: int) -> None:
    """Six images of nine targets, on a device that holds `room` jobs."""
    x, y = torch.zeros(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64)
    seen: list[int] = []

    def run(jobs: Jobs) -> tuple[Tensor, Tensor]:
        if len(jobs.x) > room:
            raise torch.cuda.OutOfMemoryError
        seen.append(len(jobs.x))
        return jobs.x + per_image(jobs.target / 10 + jobs.owner, jobs.x), jobs.target.float()

    found = in_waves(x, y, torch.arange(1, 10).expand(6, -1), run)
    assert torch.equal(found[:, 0, 0, 0], torch.arange(6) + 0.9), "the best of all targets"
    assert (sum(seen), max(seen)) == (54, {200: 54, 13: 12, 6: 6}[room])
    room = 5  # not even one target of each
    with pytest.raises(torch.cuda.OutOfMemoryError):
        in_waves(x, y, torch.arange(1, 10).expand(6, -1), run)


def test_likeliest_classes() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0], [0.0, 9.0, 9.0, 1.0]])
    assert likeliest(logits, torch.tensor([0, 2]), 2).tolist() == [[2, 3], [1, 3]]
    assert likeliest(logits, torch.tensor([2, 0]), 9).tolist() == [[0, 3, 1], [1, 2, 3]]


@pytest.mark.parametrize("attack", [apgd, apgd_targeted])
@NORMS
def test_neither_batch_nor_order_matters(
    norm: Any, eps: float, theirs: str, attack: Any, network: Any, images: Any
) -> None:
    model, (x, y) = network("double_small_cnn"), images(12)
    options: dict[str, Any] = {"norm": norm, "eps": eps / 4, "steps": 8, "seed": 3}
    whole = attack(model, x, y, ids=torch.arange(12), **options)
    some = torch.tensor([7, 2, 11])
    part = attack(model, x[some], y[some], ids=some, **options)
    torch.testing.assert_close(whole[some], part, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(0, 1, 2, 4), "y": torch.zeros(0).long()}, "the batch is empty"),
        ({"x": torch.full((2, 1, 2, 4), 2.0)}, r"must lie in \[0, 1\]"),
        ({"y": torch.zeros(3).long()}, "labels have shape"),
        ({"eps": 0}, "eps must be a number above 0"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"restarts": 0}, "restarts must be a whole number of at least 1"),
    ],
)
def test_what_is_refused(change: dict[str, Any], message: str) -> None:
    given = {"x": torch.full((2, 1, 2, 4), 0.5), "y": torch.zeros(2, dtype=torch.int64), "eps": 0.1}
    with pytest.raises(ValueError, match=message):
        apgd(Fixed(), **(given | change))
