"""MART against the paper's equations in float64, with the margin of the public code."""

from __future__ import annotations

import numpy as np
import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.mart import MART
from advprune_core.trainers.config import RunConfig
from tests.objectives.regularised import assert_finite, compare, divergence


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
def test_loss_and_gradient(seed: int, beta: float) -> None:
    def losses(clean: np.ndarray, adversarial: np.ndarray, y: np.ndarray) -> np.ndarray:
        rows = np.arange(len(y))
        rivals = adversarial.copy()
        rivals[rows, y] = 0
        boosted = -np.log(adversarial[rows, y]) - np.log(1.0001 - rivals.max(1))
        return boosted + beta * divergence(clean, adversarial) * (1 - clean[rows, y])

    compare(seed, MART(beta=beta).per_sample, losses)


def test_finite_where_probabilities_underflow() -> None:
    assert_finite(MART().per_sample)


def test_settings() -> None:
    config = RunConfig.flat(trainer="mart")
    assert (config.objective, config.attack.start.name, config.attack.steps.expected()) == (MART(), "near", 10)
    with pytest.raises(ConfigError, match="beta"):
        MART.create(beta=-1)
