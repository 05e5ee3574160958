"""Objectives against their formulas in float64, and their cost against what a step really does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import OBJECTIVES, Objective, Outputs, Passes
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.pgd_at import PGDAT, Standard
from advprune_core.objectives.policy import AttackPolicy

SMOOTHINGS = [0.0, 0.1, 0.5, 0.99]


def smoothed_cross_entropy(logits: np.ndarray, y: np.ndarray, smoothing: float) -> np.ndarray:
    """- sum_c q_c log p_c with q = (1 - s) onehot + s / C."""
    z = logits.astype(np.float64)
    top = z.max(1, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(1, keepdims=True))
    classes = z.shape[1]
    q = np.full_like(z, smoothing / classes)
    q[np.arange(len(y)), y] += 1 - smoothing
    return -(q * log_p).sum(1)


def logits(seed: int, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean, adversarial = (scale * torch.randn(16, 10, generator=generator) for _ in range(2))
    return clean, adversarial, torch.randint(0, 10, (16,), generator=generator)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
@pytest.mark.parametrize(("cls", "which"), [(Standard, 0), (PGDAT, 1)])
def test_losses_are_smoothed_cross_entropies(cls: Any, which: int, scale: float, smoothing: float) -> None:
    clean, adversarial, y = logits(0, scale)
    used = (clean, adversarial)[which]
    given = (clean, None) if which == 0 else (None, adversarial)
    losses = cls(label_smoothing=smoothing).per_sample(*given, y)
    assert losses.shape == (16,)
    expected = smoothed_cross_entropy(used.numpy(), y.numpy(), smoothing)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5, atol=1e-5)
    # Each loss is a function of its own image.
    alone = [
        float(cls(label_smoothing=smoothing).per_sample(*(g if g is None else g[[i]] for g in given), y[[i]]))
        for i in range(16)
    ]
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_gradients_are_probabilities_minus_targets(smoothing: float) -> None:
    _, adversarial, y = logits(1)
    adversarial.requires_grad_()
    PGDAT(label_smoothing=smoothing).per_sample(None, adversarial, y).sum().backward()
    targets = (1 - smoothing) * np.eye(10)[y.numpy()] + smoothing / 10
    z = np.exp(adversarial.detach().numpy().astype(np.float64))
    assert adversarial.grad is not None
    np.testing.assert_allclose(adversarial.grad.numpy(), z / z.sum(1, keepdims=True) - targets, atol=1e-6)


class Both(Objective):
    """A TRADES-like objective: clean and adversarial logits, and an attack on KL."""

    name = "both"
    uses_clean = True
    attack_loss = "kl"

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Tensor:
        assert clean is not None
        assert adversarial is not None
        return self.cross_entropy(clean, y) + (clean - adversarial).square().sum(1)


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 10, 3.5])
def test_costs_are_those_of_the_design(steps: float) -> None:
    assert Standard().cost(steps) == 3
    assert PGDAT().cost(steps) == 2 * steps + 3
    assert Both().cost(steps) == 2 * steps + 7


class Spy(nn.Module):
    """A linear network that notes the mode and whether gradients were kept."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.calls: list[tuple[str, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(("train" if self.training else "eval", torch.is_grad_enabled()))
        return self.layer(x.flatten(1))


@pytest.mark.parametrize(
    ("objective", "calls"),
    [
        (Standard(), [("train", True)]),
        (PGDAT(), [("train", True)]),
        (Both(), [("eval", False), ("train", True), ("train", True)]),
    ],
    ids=repr,
)
def test_a_step_passes_the_model_as_often_as_it_says(objective: Objective, calls: list[tuple[str, bool]]) -> None:
    torch.manual_seed(0)
    model, x = Spy(), torch.rand(5, 1, 2, 2)
    y, ids = torch.tensor([0, 1, 2, 0, 1]), torch.arange(5)
    batch = Batch(x, y, ids, torch.zeros_like(ids), torch.ones(5))
    attacked, updated = [], []

    def attack(given: Batch, target: Tensor, loss: str) -> Tensor:
        attacked.append((given, target, loss))
        return given.x.flip(3)

    attack.policy = AttackPolicy()  # type: ignore[attr-defined]

    def update(passes: Passes) -> Outputs:
        losses, logits = passes()
        updated.append(losses)
        return Outputs(losses.detach(), logits.detach())

    outputs = objective.step(model, batch, attack, update)
    assert model.calls == calls
    assert model.training
    # Beside the attack's own 2 k: a forward each, and two more for those that are differentiated.
    assert objective.cost(0) == sum(3 if graded else 1 for _, graded in model.calls)
    assert len(attacked) == objective.uses_adversarial
    with torch.no_grad():
        clean, adversarial = model(x), model(x.flip(3))
        expected = objective.per_sample(clean, adversarial, y)
    assert len(updated) == 1
    assert updated[0].requires_grad
    torch.testing.assert_close(outputs.losses, expected)
    torch.testing.assert_close(outputs.logits, adversarial if objective.uses_adversarial else clean)
    assert not outputs.losses.requires_grad
    assert not outputs.logits.requires_grad
    for given, target, loss in attacked:
        assert given is batch
        assert loss == objective.attack_loss
        torch.testing.assert_close(target, clean if loss == "kl" else y)


@pytest.mark.parametrize("name", OBJECTIVES.classes())
@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan"), "much"])
def test_label_smoothing_is_a_share(name: str, smoothing: Any) -> None:
    with pytest.raises(ConfigError, match="label_smoothing"):
        OBJECTIVES.classes()[name].create(label_smoothing=smoothing)
