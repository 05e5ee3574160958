"""Law 2 for confident networks: no attack, and no start of training, depends on its company."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks import ATTACKS, ThreatModel, fab_targeted, pgd
from advprune_core.attacks.pgd import climb
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.starts import STARTS

N = 9
THREATS = {"linf": ThreatModel(norm="linf", eps=0.125), "l2": ThreatModel(norm="l2", eps=0.5)}
#: In float64 a loss of such logits is not flat yet; its gradients are as short as 1e-30.
FACTORS = [1, 5, 100]
#: Attacks that three steps do not make quick.
QUICK: dict[str, dict[str, Any]] = {
    "square": {"queries": 20},
    "autoattack": {"attacks": [{"apgd": {"steps": 3}}, {"fab_t": {"steps": 2, "targets": 2}}]},
}


class Times(nn.Module):
    """A network whose logits are `factor` times as large, computed so that rounding is no matter."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.double()) * self.factor


@pytest.fixture
def confident(network: Any, images: Any) -> Callable[[float], tuple[nn.Module, Tensor, Tensor]]:
    """A network of large logits, and images that it gets right."""

    def build(factor: float) -> tuple[nn.Module, Tensor, Tensor]:
        # Logits of a fresh network are small: ten times as large they are those of a trained one.
        model = Times(network("small_cnn").double(), 10.0 * factor)
        x, _ = images(N)
        with torch.no_grad():
            return model, x, model(x).argmax(1)

    return build


def in_batches(size: int, attack: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([attack(rows) for rows in torch.arange(N).split(size)])


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("name", sorted(ATTACKS.classes()))
def test_every_attack(name: str, norm: str, factor: float, confident: Any) -> None:
    model, x, y = confident(factor)
    cls = ATTACKS.classes()[name]
    attack = cls.create(**QUICK.get(name, {"steps": 4} if "steps" in cls.model_fields else {}))

    def perturb(rows: Tensor) -> Tensor:
        return attack.perturb(model, x[rows], y[rows], threat=THREATS[norm], seed=1, ids=rows)

    whole = perturb(torch.arange(N))
    assert not torch.equal(whole, x)
    for size in (1, 2, 7):
        torch.testing.assert_close(in_batches(size, perturb), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("start", sorted(STARTS.classes()))
def test_every_start_of_training(start: str, norm: Any, factor: float, confident: Any) -> None:
    model, x, y = confident(factor)
    policy = AttackPolicy(norm=norm, eps=THREATS[norm].eps, start=start, steps=2)

    def attack(rows: Tensor) -> Tensor:
        batch = Batch(x[rows], y[rows], ids=rows, epochs=torch.zeros_like(rows))
        return policy.attack(model, batch, batch.y, "cross_entropy", seed=0, state=policy.initial_state(N))

    whole = attack(torch.arange(N))
    for size in (1, 2, 7):
        torch.testing.assert_close(in_batches(size, attack), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", FACTORS)
def test_steps_in_l2_are_as_long_as_they_say(factor: float, confident: Any) -> None:
    """However short the gradient; before, steps of confident networks came to nothing."""
    model, x, y = confident(factor)
    start = torch.full_like(x, 0.5)
    moved = start.clone()
    climb(model, start, y, moved, norm="l2", eps=1.0, steps=1, size=0.1, loss=nn.CrossEntropyLoss(reduction="none"))
    torch.testing.assert_close((moved - start).flatten(1).norm(dim=1), torch.full((N,), 0.1))


def test_a_million_times_the_margin_is_the_same_attack(confident: Any) -> None:
    """The margin has no scale, so neither has an attack on it."""
    results = []
    for factor in (1, 2.0**20, 2.0**-60):
        model, x, y = confident(factor)
        for threat in THREATS.values():
            attacks = (partial(pgd, steps=5, loss="margin"), partial(fab_targeted, steps=3, targets=3))
            results.append([attack(model, x, y, threat=threat) for attack in attacks])
    for place, other in enumerate(results):
        assert all(map(torch.equal, results[place % 2], other))
