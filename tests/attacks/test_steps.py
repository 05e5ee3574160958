"""Steps: their length by default. What `pgd` refuses and warns of stands in its own tests."""

from __future__ import annotations

import pytest

from advprune_core.attacks.steps import default_step_size


@pytest.mark.parametrize(("steps", "size"), [(1, 1.0), (2, 1.0), (3, 2.5 / 3), (10, 0.25), (40, 0.0625)])
def test_default_step_size(steps: int, size: float) -> None:
    assert default_step_size(0.1, steps) == pytest.approx(0.1 * size)
