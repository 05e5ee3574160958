"""TRADES against the paper's equation in float64."""

from __future__ import annotations

import numpy as np
import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.trades import TRADES
from advprune_core.trainers.config import RunConfig
from tests.objectives.regularised import assert_finite, compare, divergence


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_loss_and_gradient(seed: int, beta: float) -> None:
    def losses(clean: np.ndarray, adversarial: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -np.log(clean[np.arange(len(y)), y]) + beta * divergence(clean, adversarial)

    compare(seed, TRADES(beta=beta).per_sample, losses)


def test_finite_where_probabilities_underflow() -> None:
    assert_finite(TRADES().per_sample)


def test_settings() -> None:
    config = RunConfig.flat(trainer="trades")
    assert (config.objective, config.attack.start.name, config.attack.steps.expected()) == (TRADES(), "near", 10)
    with pytest.raises(ConfigError, match="beta"):
        TRADES.create(beta=-1)
