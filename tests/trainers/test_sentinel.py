"""The sentinel on single checks; `test_loop` has whole courses."""

from __future__ import annotations

import pytest

from advprune_core.trainers.sentinel import collapsed

# robust, training, best robust, training at best, drop, collapsed
CHECKS = [
    (0.00, 0.99, 0.45, 0.60, 0.2, True),  # FGSM
    (0.45, 0.81, 0.54, 0.62, 0.2, False),  # PGD-AT on CIFAR-10, 200 epochs: robust overfitting
    (0.22, 0.70, 0.28, 0.40, 0.2, False),  # the same on CIFAR-100
    (0.35, 0.74, 0.54, 0.70, 0.1, False),  # PGD-AT at a large radius: a dip at the peak rate
    (0.24, 0.70, 0.51, 0.60, 0.2, True),
    (0.24, 0.70, 0.51, 0.60, 0.3, False),
    (0.26, 0.70, 0.51, 0.60, 0.2, False),
    (0.24, 0.50, 0.51, 0.60, 0.2, False),  # training fell too
    (0.10, 0.10, 0.10, 0.10, 0.2, False),
    (0.12, 0.49, 0.12, 0.49, 0.2, False),
    (0.12, 0.51, 0.12, 0.51, 0.2, True),
]


@pytest.mark.parametrize(("robust", "training", "best", "at_best", "drop", "expected"), CHECKS)
def test_checks(robust: float, training: float, best: float, at_best: float, drop: float, expected: bool) -> None:
    assert (
        collapsed(robust=robust, training=training, best_robust=best, training_at_best=at_best, drop=drop) == expected
    )
