"""Every preset is told by its own name, with other steps too; what is no preset by objective and start."""

from __future__ import annotations

from typing import Any

import pytest

from advprune_core.objectives.base import TRAINERS
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.presets import steps_told, trainer_name


@pytest.mark.parametrize("name", TRAINERS.classes())
def test_presets(name: str) -> None:
    assert trainer_name(RunConfig.flat(trainer=name)) == name


OTHERS: list[tuple[dict[str, Any], str, str]] = [
    ({"trainer": "pgd_at", "steps": 2}, "pgd_at", "2 attack steps"),
    ({"trainer": "trades", "steps": 20}, "trades", "20 attack steps"),
    ({"trainer": "trades", "steps": 1}, "trades from a near start", "1 attack step"),
    ({"trainer": "trades", "steps": "bullet"}, "trades with bullet steps", "4.8 attack steps"),
    ({"trainer": "pgd_at", "steps": "bullet"}, "pgd_at with bullet steps", "4.8 attack steps"),
    ({"trainer": "pgd_at", "start": "noise"}, "pgd_at from a noise start", "7 attack steps"),
    ({"objective": "pgd_at", "start": "noise", "steps": 1}, "n_fgsm", "1 attack step"),
    ({"objective": {"pgd_at": {"label_smoothing": 0.1}}, "start": "clean", "steps": 1}, "fgsm", "1 attack step"),
]


@pytest.mark.parametrize(("options", "name", "steps"), OTHERS)
def test_other_settings(options: dict[str, Any], name: str, steps: str) -> None:
    config = RunConfig.flat(**options)
    assert (trainer_name(config), steps_told(config)) == (name, steps)
