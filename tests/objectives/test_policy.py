"""Attack policies: starts by counter, steps, and what an attack of a batch is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm
from advprune_core.base.randomness import stream
from advprune_core.base.settings import ConfigError
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.starts import CleanStart, RandomStart
from advprune_core.objectives.steps import FixedSteps

KEY = stream(3, "attack")
NORMS: list[Norm] = ["linf", "l2"]


def batch(ids: list[int], epoch: int | list[int] = 0) -> Batch:
    """Images that depend on their id alone; some pixels are exactly 0 and 1."""
    x = torch.stack([torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(i)) for i in ids])
    x = ((x - 0.2) / 0.6).clamp(0, 1)
    rows = torch.tensor(ids)
    epochs = torch.tensor(epoch) if isinstance(epoch, list) else torch.full_like(rows, epoch)
    return Batch(x, rows % 4, rows, epochs, torch.ones(len(ids)))


def begin(given: Batch, *, norm: Norm = "linf", eps: float = 0.1, key: int = KEY) -> Tensor:
    return RandomStart().begin(given, norm=norm, eps=eps, key=key, state={})


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 24), nn.ReLU(), nn.Linear(24, 4))


def distance(moved: Tensor, x: Tensor, norm: Norm) -> Tensor:
    delta = (moved - x).flatten(1).double()
    return delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()


@pytest.mark.parametrize("norm", NORMS)
def test_a_start_belongs_to_its_image_not_to_its_batch(norm: Norm) -> None:
    together = begin(batch([5, 9, 2, 7]), norm=norm)
    order = [2, 0, 3, 1]
    permuted = begin(batch([[5, 9, 2, 7][i] for i in order]), norm=norm)
    assert torch.equal(permuted, together[order])
    for row, image in enumerate([5, 9, 2, 7]):
        assert torch.equal(begin(batch([image]), norm=norm)[0], together[row])


@pytest.mark.parametrize("norm", NORMS)
def test_a_start_is_keyed_by_seed_epoch_and_image(norm: Norm) -> None:
    def noise(image: int, epoch: int, seed: int) -> Tensor:
        given = batch([0], epoch)
        same_pixels = Batch(torch.full_like(given.x, 0.5), given.y, torch.tensor([image]), given.epochs, given.weights)
        return begin(same_pixels, norm=norm, key=stream(seed, "attack"))[0] - 0.5

    drawn = [noise(i, e, s) for i in range(3) for e in range(3) for s in range(3)]
    correlations = np.corrcoef(torch.stack(drawn).flatten(1).numpy())
    assert np.abs(correlations - np.eye(27)).max() < 0.6
    assert torch.equal(noise(1, 2, 0), noise(1, 2, 0))


def test_starts_of_a_carried_image_keep_its_epoch() -> None:
    mixed = begin(batch([5, 9], [0, 1]))
    assert torch.equal(mixed[0], begin(batch([5], 0))[0])
    assert torch.equal(mixed[1], begin(batch([9], 1))[0])


@pytest.mark.parametrize("norm", NORMS)
def test_starts_lie_in_the_ball_and_the_box_and_fill_them(norm: Norm) -> None:
    given = batch(list(range(400)))
    before = torch.get_rng_state()
    start = begin(given, norm=norm, eps=0.1)
    assert torch.equal(before, torch.get_rng_state())
    assert start.min() >= 0
    assert start.max() <= 1
    lengths = distance(start, given.x, norm)
    assert float(lengths.max()) <= 0.1 + 1e-6
    middle = Batch(torch.full_like(given.x, 0.5), given.y, given.ids, given.epochs, given.weights)
    delta = (begin(middle, norm=norm, eps=0.1) - 0.5).flatten(1)
    assert abs(float(delta.mean())) < 1e-3
    if norm == "linf":
        # Uniform in [-eps, eps]: variance eps^2 / 3.
        assert float(delta.var()) == pytest.approx(0.01 / 3, rel=0.02)
    else:
        # The radius is uniform in [0, eps].
        radii = delta.norm(dim=1).sort().values / 0.1
        assert float((radii - torch.linspace(0, 1, 400)).abs().max()) < 0.1


@pytest.mark.parametrize("norm", NORMS)
def test_a_clean_start_is_the_image(norm: Norm) -> None:
    given = batch([1, 2])
    assert torch.equal(CleanStart().begin(given, norm=norm, eps=0.1, key=KEY, state={}), given.x)


SIZES = [(1, None, 1.0), (2, None, 1.0), (3, None, 2.5 / 3), (7, None, 2.5 / 7), (10, None, 0.25), (7, 0.03, 0.3)]


@pytest.mark.parametrize(("count", "step_size", "share"), SIZES)
def test_step_sizes(count: int, step_size: float | None, share: float, model: nn.Module) -> None:
    steps = FixedSteps(count=count, step_size=step_size)
    planned, size = steps.plan(batch([0]), eps=0.1, logits=lambda: model(batch([0]).x), state={})
    assert planned == count
    assert size == pytest.approx(share * 0.1)
    assert steps.expected() == count


SHORT = [
    (3, FixedSteps(count=3)),
    ("fixed", FixedSteps()),
    ({"fixed": {"count": 3}}, FixedSteps(count=3)),
    ({"fixed": {"step_size": "2/255"}}, FixedSteps(step_size=2 / 255)),
    ({"fixed": {"count": 2, "step_size": 0.1}}, FixedSteps(count=2, step_size=0.1)),
]


@pytest.mark.parametrize(("spec", "steps"), SHORT)
def test_a_number_stands_for_fixed_steps(spec: Any, steps: FixedSteps) -> None:
    policy = AttackPolicy.create(steps=spec)
    assert policy.steps == steps
    assert AttackPolicy.create(**json.loads(json.dumps(policy.model_dump(mode="json")))) == policy
    assert AttackPolicy().replace(steps=spec) == policy


BAD = [
    ({"steps": 0}, "count = 0"),
    ({"steps": -3}, "count = -3"),
    ({"steps": True}, "steps is a name"),
    ({"steps": 1.5}, "steps is a name"),
    ({"steps": "fixedd"}, "did you mean 'fixed'"),
    ({"steps": {"fixed": {"step_size": 0}}}, "step_size = 0"),
    ({"start": "rnadom"}, "did you mean 'random'"),
    ({"norm": "l1"}, "norm = 'l1'"),
    ({"eps": 0}, "eps = 0"),
    ({"eps": "8/x"}, "8/x"),
    ({"attack_mode": "evil"}, "attack_mode"),
    ({"stat": "clean"}, "did you mean 'start'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_policies_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AttackPolicy.create(**options)


def test_a_radius_must_be_known() -> None:
    with pytest.raises(ConfigError, match="eps is not set"):
        _ = AttackPolicy().radius
    assert AttackPolicy(eps="8/255").radius == 8 / 255


def attack(policy: AttackPolicy, model: nn.Module, given: Batch, seed: int = 0) -> Tensor:
    state = policy.initial_state(100)
    return policy.attack(model, given, given.y, "cross_entropy", seed=seed, state=state)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("start", ["random", "clean"])
def test_an_attack_raises_the_loss_inside_ball_and_box(norm: Norm, start: str, model: nn.Module) -> None:
    given, eps = batch(list(range(20))), 0.05 if norm == "linf" else 0.5
    moved = attack(AttackPolicy(norm=norm, eps=eps, start=start, steps=5), model, given)
    assert not moved.requires_grad
    assert float(distance(moved, given.x, norm).max()) <= eps + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    losses = [nn.functional.cross_entropy(model(x), given.y, reduction="none") for x in (given.x, moved)]
    assert (losses[1] > losses[0]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_an_attack_of_an_image_does_not_depend_on_its_batch(norm: Norm, model: nn.Module) -> None:
    policy = AttackPolicy(norm=norm, eps=0.1, steps=3)
    together = attack(policy, model, batch([5, 9, 2]))
    torch.testing.assert_close(attack(policy, model, batch([2, 5, 9])), together[[2, 0, 1]], rtol=0, atol=1e-6)
    assert not torch.equal(attack(policy, model, batch([5, 9, 2]), seed=1), together)
    assert not torch.equal(attack(policy, model, batch([5, 9, 2], 1)), together)


LABELS, LOGITS = torch.tensor([1, 2, 3]), torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("target", "loss", "message"),
    [
        (LABELS, "ce", "unknown loss 'ce'; allowed: cross_entropy, kl, margin"),
        (LABELS, "kl", r"with loss = 'kl' the target holds the clean logits, floats of shape \(3, classes\)"),
        (LOGITS, "cross_entropy", "labels must be a tensor of whole numbers"),
        (LABELS[:2], "margin", r"labels have shape \(2,\), for 3 images it must be \(3,\)"),
        (LABELS + 1, "cross_entropy", "a label is 4, but the model has 4 classes"),
        (LABELS - 2, "cross_entropy", "labels are classes from 0, but the least is -1"),
        (LOGITS[:, :3], "kl", "target has logits of 3 classes, the model of 4"),
    ],
)
def test_targets_that_a_loss_cannot_have(target: Tensor, loss: Any, message: str, model: nn.Module) -> None:
    policy = AttackPolicy(eps=0.1)
    with pytest.raises(ConfigError, match=message):
        policy.attack(model, batch([1, 2, 3]), target, loss, seed=0, state={})


def test_labels_of_a_batch_are_looked_at(model: nn.Module) -> None:
    """Steps for each image may look at them, whatever the target is."""
    given = replace(batch([1, 2, 3]), y=LABELS + 1)
    with pytest.raises(ConfigError, match="a label is 4, but the model has 4 classes"):
        AttackPolicy(eps=0.1).attack(model, given, LOGITS, "kl", seed=0, state={})
