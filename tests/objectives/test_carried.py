"""Carried perturbations: against a dictionary of images by hand, under crops, resets and rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.augmentation import Crops, apply, pad, sample
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.carried import CarriedStart
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.starts import Start

SHAPE, EPS = (2, 6, 5), 0.1
NORMS: list[Norm] = ["linf", "l2"]


def images(count: int = 12) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def batch(ids: list[int], epoch: int = 0, **others: Any) -> Batch:
    rows = torch.tensor(ids)
    given = Batch(images()[rows], rows % 4, ids=rows, epochs=torch.full_like(rows, epoch))
    return replace(given, **others)


def nudged(x: Tensor, seed: int, norm: Norm = "linf") -> Tensor:
    """Some point of the ball and the box, as an attack would leave it."""
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
    return (x + noise * (2 * EPS if norm == "linf" else EPS / 4)).clamp(0, 1)


def begin(start: Start, given: Batch, state: Any, norm: Norm = "linf") -> Tensor:
    return start.begin(given, norm=norm, eps=EPS, key=7, state=state)


@pytest.mark.parametrize("norm", NORMS)
def test_each_image_goes_on_from_its_own_last_result(norm: Norm) -> None:
    start, kept, tolerance = CarriedStart(), {}, EPS / 254 if norm == "linf" else 1e-4
    state = start.state(12)
    for visit, ids in enumerate([[3, 0, 7], [7, 1, 3], [11, 0, 2], [3, 7, 11]]):
        given = batch(ids, visit)
        begun, fresh = begin(start, given, state, norm), begin(start.first, given, {}, norm)
        for row, image in enumerate(ids):
            if image in kept:
                assert float((begun[row] - kept[image]).abs().max()) <= tolerance + 1e-6
            else:
                assert torch.equal(begun[row], fresh[row])  # a first start is not rounded
        x_adv = nudged(given.x, visit, norm)
        start.end(given, x_adv, norm=norm, eps=EPS, state=state)
        kept |= dict(zip(ids, x_adv, strict=True))
    assert state["carried.delta"].dtype == (torch.int8 if norm == "linf" else torch.float16)


@pytest.mark.parametrize("first", ["random", "clean", "near", "corner"])
def test_reset_at_every_epoch_is_the_first_start_bit_for_bit(first: str, network: nn.Module) -> None:
    plain = AttackPolicy(eps=EPS, start=first, steps=2)
    carried = AttackPolicy(eps=EPS, start={"carried": {"first": first, "reset_every": 1}}, steps=2)
    state = carried.initial_state(12)
    for epoch in range(3):
        given = batch([5, 2, 9], epoch)
        ours = carried.attack(network, given, given.y, "cross_entropy", seed=1, state=state)
        assert torch.equal(ours, plain.attack(network, given, given.y, "cross_entropy", seed=1, state={}))


def test_reset_every_third_epoch() -> None:
    start = CarriedStart(reset_every=3)
    state = start.state(12)
    for epoch in range(8):
        given = batch([4, 5], epoch)
        fresh = torch.equal(begin(start, given, state), begin(start.first, given, {}))
        assert fresh == (epoch % 3 == 0)
        start.end(given, nudged(given.x, epoch), norm="linf", eps=EPS, state=state)
    # An image that was left out meanwhile is reset as well, whenever it comes back.
    start.end(batch([6], 2), nudged(batch([6]).x, 2), norm="linf", eps=EPS, state=state)
    late = batch([6], 4)
    assert torch.equal(begin(start, late, state), begin(start.first, late, {}))


def crops(top: int, left: int, flip: bool, padding: int = 2) -> Crops:
    return Crops(torch.tensor([top]), torch.tensor([left]), torch.tensor([flip]), padding)


def test_a_marked_pixel_stays_on_its_image_content() -> None:
    """Stored under one crop and flip and used under another, a perturbation lies on the same content."""
    start, state = CarriedStart(first="clean"), CarriedStart().state(12)
    x = torch.full((1, *SHAPE), 0.5)
    x[0, 1, 3, 2] = 0.7  # the mark; its perturbation is the only one
    views = [crops(2, 2, False), crops(1, 3, True), crops(4, 2, True), crops(2, 1, False)]
    for epoch, view in enumerate(views):
        seen = apply(pad(x, 2), view)
        given = Batch(seen, torch.tensor([0]), ids=torch.tensor([8]), epochs=torch.tensor([epoch]), crops=view)
        mark = seen == 0.7
        assert mark.sum() == 1
        if epoch:
            begun = begin(start, given, state)
            assert float(begun[mark]) == pytest.approx(0.8, abs=EPS / 254)
            assert torch.equal(begun[~mark], seen[~mark])
        start.end(given, torch.where(mark, 0.8, seen), norm="linf", eps=EPS, state=state)


def test_what_a_crop_leaves_out_is_kept_and_what_was_never_seen_is_zero() -> None:
    start, state = CarriedStart(first="clean"), CarriedStart().state(12)
    x = torch.full((1, *SHAPE), 0.5)
    name = {"ids": torch.tensor([3]), "y": torch.tensor([0])}

    def view(epoch: int, crop: Crops) -> Batch:
        return Batch(apply(pad(x, 2), crop), epochs=torch.tensor([epoch]), crops=crop, **name)

    low = view(0, crops(4, 4, False))
    start.end(low, (low.x + 0.05).clamp(0, 1), norm="linf", eps=EPS, state=state)
    high = view(1, crops(0, 0, False))
    moved = begin(start, high, state) - high.x
    assert torch.allclose(moved[..., 4:, 4:], torch.tensor(0.05), atol=EPS / 254)
    moved[..., 4:, 4:] = 0
    assert not moved.any()
    start.end(high, high.x, norm="linf", eps=EPS, state=state)  # moves back what it sees
    again = begin(start, replace(low, epochs=torch.tensor([2])), state) - low.x
    assert not again[..., :2, :1].any()
    assert torch.allclose(again[..., 2:, :], torch.tensor(0.05), atol=EPS / 254)


def test_random_crops_and_flips_are_undone() -> None:
    """Over many epochs of random crops, against a frame for each image kept by slices."""
    start, state, frames = CarriedStart(first="clean"), CarriedStart().state(12), torch.zeros(12, 2, 10, 9)
    for epoch in range(12):
        ids = torch.randperm(12, generator=torch.Generator().manual_seed(epoch))[:5]
        epochs = torch.full_like(ids, epoch)
        drawn = sample(3, ids, epochs, padding=2, flip=True)
        given = Batch(apply(pad(images()[ids], 2), drawn), ids % 4, ids=ids, epochs=epochs, crops=drawn)
        begun, x_adv = begin(start, given, state), nudged(given.x, epoch)
        for row, image in enumerate(ids.tolist()):
            top, left, flip = int(drawn.top[row]), int(drawn.left[row]), bool(drawn.flip[row])
            window = frames[image, :, top : top + 6, left : left + 5]
            expected = window.flip(2) if flip else window
            assert float((begun[row] - (given.x[row] + expected).clamp(0, 1)).abs().max()) <= EPS / 254 + 1e-6
            delta = x_adv[row] - given.x[row]
            window.copy_(delta.flip(2) if flip else delta)
        start.end(given, x_adv, norm="linf", eps=EPS, state=state)


def test_only_visited_images_take_memory() -> None:
    start = CarriedStart()
    state = start.state(12)
    given = batch([2, 9])
    start.end(given, nudged(given.x, 0), norm="linf", eps=EPS, state=state)
    assert len(state["carried.delta"]) == 2
    start.end(batch([9, 2]), nudged(given.x, 0), norm="linf", eps=EPS, state=state)
    assert len(state["carried.delta"]) == 2
    assert state["carried.delta"][0].numel() * state["carried.delta"].element_size() == given.x[0].numel()


def test_an_image_without_steps_is_left_alone(network: nn.Module) -> None:
    """As outliers of BulletTrain: the clean image is trained on, and nothing is stored."""
    policy = AttackPolicy(eps=EPS, start="carried", steps={"bullet": {"boundary": 3}})
    state = policy.initial_state(12)
    given = batch([0, 1, 2, 3, 4, 5])
    right = network(given.x).argmax(1)
    given = replace(given, y=torch.where(torch.arange(6) < 3, right, (right + 1) % 4))
    x_adv = policy.attack(network, given, given.y, "cross_entropy", seed=0, state=state)
    assert torch.equal(x_adv[3:], given.x[3:])
    assert not torch.equal(x_adv[:3], given.x[:3])
    assert (state["carried.cycle"][:6] >= 0).tolist() == [True] * 3 + [False] * 3
    assert len(state["carried.delta"]) == 3


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_a_visit_adds_up_to_many(norm: Norm, network: nn.Module) -> None:
    """On a network that stands still, ten visits of one step end near ten steps at once."""
    eps = EPS if norm == "linf" else 0.5
    given = batch(list(range(12)))
    target = network(given.x).argmax(1)

    def loss(x: Tensor) -> float:
        return float(nn.functional.cross_entropy(network(x), target).detach())

    policy = AttackPolicy(norm=norm, eps=eps, start="carried", steps={"fixed": {"count": 1, "step_factor": 0.25}})
    state = policy.initial_state(12)
    for epoch in range(10):
        visit = replace(given, epochs=torch.full_like(given.ids, epoch))
        x_adv = policy.attack(network, visit, target, "cross_entropy", seed=0, state=state)
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        delta = (x_adv - given.x).flatten(1)
        reach = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert float(reach.max()) <= eps + 1e-6
    at_once = AttackPolicy(norm=norm, eps=eps, steps=10).attack(
        network, given, target, "cross_entropy", seed=0, state={}
    )
    once = AttackPolicy(norm=norm, eps=eps, steps={"fixed": {"count": 1, "step_factor": 0.25}}).attack(
        network, given, target, "cross_entropy", seed=0, state={}
    )
    assert loss(x_adv) > loss(once) + 0.8 * (loss(at_once) - loss(once)) > loss(given.x)


def test_momentum_leads_ahead_along_earlier_gradients() -> None:
    """The next start is clip(start + eps sign(g_t / |g_t| + momentum g_{t-1} / |g_{t-1}| + ...))."""
    start, state = CarriedStart(first="clean", momentum=0.5), CarriedStart().state(12)
    rng, sums = torch.Generator().manual_seed(0), torch.zeros(3, *SHAPE)
    for epoch in range(4):
        given = batch([1, 5, 6], epoch)
        begun = begin(start, given, state)
        gradient = torch.randn(given.x.shape, generator=rng) * 10 ** float(-3 * epoch)  # of any size
        sums = gradient / gradient.flatten(1).norm(p=1, dim=1).view(-1, 1, 1, 1) + 0.5 * sums
        start.end(given, given.x, norm="linf", eps=EPS, state=state, step=(begun, gradient))
        expected = (begun + EPS * sums.sign()).clamp(given.x - EPS, given.x + EPS).clamp(0, 1)
        there = begin(start, batch([1, 5, 6], epoch + 1), state)
        clear = sums.abs() > 1e-3 * sums.abs().amax()  # the sign of what cancels is float16's to say
        assert float((there - expected)[clear].abs().max()) <= EPS / 254 + 1e-6


BAD: list[tuple[Any, str]] = [
    ({"first": "carried"}, "cannot be carried on from; allowed: clean, corner, near, random"),
    ({"first": "noise"}, "cannot be carried on from"),
    ({"first": "rnadom"}, "did you mean 'random'"),
    ({"reset_every": 0}, "reset_every = 0"),
    ({"momentum": 1}, "momentum = 1"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CarriedStart.create(**settings)


def test_what_an_own_loop_forgets_is_named() -> None:
    start = CarriedStart()
    given = batch([1, 2])
    nameless = Batch(given.x, given.y)
    with pytest.raises(ConfigError, match=r"'carried' needs to know the images: give Batch\(x, y, ids"):
        begin(start, nameless, start.state(12))
    with pytest.raises(ConfigError, match=r"AttackPolicy.initial_state"):
        begin(start, given, {})


def test_an_augmentation_that_cannot_be_undone_is_refused() -> None:
    start = CarriedStart()
    state, given = start.state(12), batch([1, 2])
    start.end(given, nudged(given.x, 0), norm="linf", eps=EPS, state=state)
    resized = batch([1, 2], 1, x=torch.rand(2, 2, 9, 9))
    with pytest.raises(ConfigError, match="with no other augmentation"):
        begin(start, resized, state)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("visited", [[], [1, 3]])
def test_a_batch_without_an_attacked_image_leaves_what_is_stored(
    visited: list[int], norm: Norm, momentum: float
) -> None:
    start = CarriedStart(momentum=momentum)
    state = start.state(12)

    def end(ids: list[int], attacked: bool) -> None:
        given = batch(ids)
        step = (given.x, torch.ones_like(given.x)) if momentum else None
        which = torch.full((len(ids),), attacked)
        start.end(given, nudged(given.x, 3, norm), norm=norm, eps=EPS, state=state, attacked=which, step=step)

    if visited:
        end(visited, True)
    before = {name: value.clone() for name, value in state.items()}
    end([3, 0, 7], False)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], value) for name, value in before.items())
