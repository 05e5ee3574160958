"""TRADES and MART, which have a clean and an adversarial term, against the papers' equations in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.mart import MART
from advprune_core.objectives.trades import TRADES
from advprune_core.trainers.config import RunConfig

#: (losses from probabilities of clean and adversarial images, labels, one-hot labels) -> (B,)
Losses = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
IMAGES, PIXELS, CLASSES = 12, 5, 4


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q), row by row."""
    return (p * (np.log(p) - np.log(q))).sum(1)


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights, clean images, adversarial images and labels."""
    rng = np.random.default_rng(seed)
    x = rng.random((IMAGES, PIXELS))
    x_adv = np.clip(x + rng.uniform(-0.2, 0.2, x.shape), 0, 1)
    return rng.normal(0, 2, (PIXELS, CLASSES)), x, x_adv, rng.integers(0, CLASSES, IMAGES)


def compare(seed: int, per_sample: Callable[[Tensor, Tensor, Tensor], Tensor], losses: Losses) -> None:
    """Loss and gradient with respect to the weights, against the formula and its differences."""
    w, x, x_adv, y = problem(seed)

    def mean(flat: np.ndarray) -> float:
        weights = flat.reshape(w.shape)
        return float(losses(softmax(x @ weights), softmax(x_adv @ weights), y).mean())

    weights = torch.tensor(w, requires_grad=True)
    ours = per_sample(torch.tensor(x) @ weights, torch.tensor(x_adv) @ weights, torch.tensor(y))
    np.testing.assert_allclose(ours.detach().numpy(), losses(softmax(x @ w), softmax(x_adv @ w), y), rtol=1e-9)
    ours.mean().backward()
    assert weights.grad is not None
    gradient = weights.grad.numpy().ravel()
    assert check_grad(mean, lambda flat: gradient, w.ravel()) < 1e-6 * max(1.0, float(np.linalg.norm(gradient)))


def trades(clean: np.ndarray, adversarial: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    return -np.log(clean[np.arange(len(y)), y]) + beta * divergence(clean, adversarial)


def mart(clean: np.ndarray, adversarial: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    """With the margin of the public code."""
    rows = np.arange(len(y))
    rivals = adversarial.copy()
    rivals[rows, y] = 0
    boosted = -np.log(adversarial[rows, y]) - np.log(1.0001 - rivals.max(1))
    return boosted + beta * divergence(clean, adversarial) * (1 - clean[rows, y])


EVERY = pytest.mark.parametrize(("objective", "oracle"), [(TRADES, trades), (MART, mart)])


@EVERY
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0, 6.0])
def test_loss_and_gradient(objective: type[TRADES | MART], oracle: Any, seed: int, beta: float) -> None:
    compare(seed, objective(beta=beta).per_sample, lambda *given: oracle(*given, beta))


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_finite_where_probabilities_underflow(objective: type[TRADES | MART], oracle: Any, dtype: torch.dtype) -> None:
    """Loss and gradients where probabilities underflow to 0 and saturate at 1, in bfloat16 as soon as at 0.998."""
    clean = torch.tensor([[200.0, 0.0, -200.0], [0.0, 0.0, 300.0]], dtype=dtype, requires_grad=True)
    adversarial = torch.tensor([[-200.0, 0.0, 200.0], [0.0, 0.0, 300.0]], dtype=dtype, requires_grad=True)
    losses = objective().per_sample(clean, adversarial, torch.tensor([0, 2]))
    assert losses.isfinite().all()
    gradients = torch.autograd.grad(losses.sum(), (clean, adversarial))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_target_of_an_attack_on_kl_is_in_eval_mode_and_so_is_the_attack() -> None:
    with pytest.raises(ConfigError, match="taken in eval mode: attack_mode = 'train' does not fit"):
        RunConfig.flat(trainer="trades", attack_mode="train")
    RunConfig.flat(trainer="mart", attack_mode="train")


@EVERY
def test_settings(objective: type[TRADES | MART], oracle: Any) -> None:
    config = RunConfig.flat(trainer=objective.name)
    assert (config.objective, config.attack.start.name, config.attack.steps.expected()) == (objective(), "near", 10)
    with pytest.raises(ConfigError, match="beta"):
        objective.create(beta=-1)
