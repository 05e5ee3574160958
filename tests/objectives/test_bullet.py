"""BulletTrain: its split by hand, its averages, its cost by a counting network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError
from advprune_core.objectives import bullet
from advprune_core.objectives.base import OBJECTIVES, Outputs, Passes
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.bullet import BulletSteps, signed_prediction_variance, split
from advprune_core.objectives.policy import AttackPolicy
from tests.objectives.test_carried import EPS, batch


def test_signed_prediction_variance() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.3, 0.4, 0.3]])
    spread = p.std(1, ddof=1)
    ours = signed_prediction_variance(torch.tensor(p).log(), torch.tensor([0, 2, 1]))
    np.testing.assert_allclose(ours, spread * [1, -1, 1], rtol=1e-6)


VARIANCES = [-0.3, -0.1, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
# (share of robust images, threshold by linear interpolation between 11 points, robust images)
SPLITS = [
    (0.0, 0.8, 0),  # the largest is the threshold: nothing is above it
    (0.2, 0.6, 2),
    (0.5, 0.3, 5),
    (0.79, 0.055, 8),
    (0.95, 0.0, 9),  # the quantile is negative: every image that is right is robust
    (1.0, 0.0, 9),
]


@pytest.mark.parametrize(("share", "threshold", "count"), SPLITS)
def test_split(share: float, threshold: float, count: int) -> None:
    variance = torch.tensor(VARIANCES)[torch.randperm(11, generator=torch.Generator().manual_seed(0))]
    robust, outlier = split(variance, share)
    assert int(robust.sum()) == count
    assert int(outlier.sum()) == 2
    assert not (robust & outlier).any()
    assert (variance[robust] > threshold - 1e-6).all()
    assert (variance[~robust] <= threshold + 1e-6).all()


def test_running_averages_and_steps_by_hand() -> None:
    steps, state = BulletSteps(boundary=10, robust=2), BulletSteps().state()
    # Margins of one logit: right and sure, right and less sure, wrong.
    sure = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.4, 0.3, 2.0, 1.0])
    label = torch.tensor([0] * 8 + [1] * 2)
    clean = torch.stack([sure, torch.zeros(10), torch.zeros(10)], 1)
    given = Batch(torch.rand(10, 1, 2, 2), label)
    robust_average, error_average = 0.0, 0.9
    for accuracy in (0.5, 0.7, 0.3):
        planned, size = steps.plan(given, eps=0.08, logits=lambda: clean, state=state)
        assert isinstance(planned, Tensor)
        assert isinstance(size, Tensor)
        error_average = 0.9 * error_average + 0.1 * 0.2
        # The quantile's place among 10 sorted values; images strictly above it are robust.
        place = (1 - robust_average) * 9
        robust = sum(rank > place + 1e-6 for rank in range(10))
        assert sorted(planned.tolist()) == [0, 0] + [2] * robust + [10] * (8 - robust)
        assert planned[8:].tolist() == [0, 0]
        assert planned[:robust].tolist() == [2] * robust
        torch.testing.assert_close(size[planned == 10], torch.full((8 - robust,), 0.02))  # 2/255 of 8/255
        torch.testing.assert_close(size[planned == 2], torch.full((robust,), 0.06))  # 6/255 of 8/255
        right = torch.arange(10) < 10 * accuracy
        steps.observe(given, torch.nn.functional.one_hot(torch.where(right, label, 2), 3).float(), state)
        robust_average = 0.9 * robust_average + 0.1 * 0.8 * accuracy
        assert float(state["bullet.robust_share"]) == pytest.approx(robust_average, rel=1e-6)
        assert float(state["bullet.clean_error"]) == pytest.approx(error_average, rel=1e-6)


OBJECTIVE_NAMES = ["pgd_at", "trades", "mart"]


@pytest.mark.parametrize("start", ["random", "near", "carried"])
@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_every_image_at_the_boundary_is_the_plain_objective(
    name: str, start: str, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = torch.zeros(5, dtype=torch.bool)
    monkeypatch.setattr(bullet, "split", lambda variance, share: (nothing, nothing))
    results = []
    for steps in (10, "bullet"):
        policy = AttackPolicy(eps=EPS, start=start, steps=steps)
        state, losses, gradients = policy.initial_state(12), [], []
        for epoch in range(2):
            given = batch([0, 3, 4, 7, 9], epoch)

            def update(passes: Passes, losses: list[Tensor] = losses, gradients: list[Tensor] = gradients) -> Outputs:
                values, logits = passes()
                losses.append(values.detach())
                gradients += torch.autograd.grad(values.mean(), list(network.parameters()))
                return Outputs(values, logits)

            attack = policy.bind(network, seed=0, state=state)
            OBJECTIVES.parse(name).step(network, given, attack, update)
        results.append([*losses, *gradients])
    assert all(torch.equal(plain, ours) for plain, ours in zip(*results, strict=True))


class Counted(nn.Module):
    """Counts the images of each call, and those whose gradient is asked for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, list[tuple[int, bool]]()

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((len(x), x.requires_grad))
        logits: Tensor = self.network(x)
        return logits


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_the_attack_costs_the_steps_that_are_taken(name: str, network: nn.Module) -> None:
    """No mask over the full batch: passes are the sum of steps over images and one clean forward."""
    objective, policy = OBJECTIVES.parse(name), AttackPolicy(eps=EPS, start="near", steps="bullet")
    model, state = Counted(network), policy.initial_state(12)
    state["bullet.robust_share"] = torch.tensor(0.4)
    given = batch(list(range(12)))
    right = network(given.x).argmax(1)
    given = replace(given, y=torch.where(given.ids < 9, right, (right + 1) % 4))
    planned, _ = policy.steps.plan(given, eps=EPS, logits=lambda: network(given.x), state=dict(state))
    assert isinstance(planned, Tensor)
    assert set(planned.tolist()) == {0, 2, 10}
    ledger = Ledger()

    def update(passes: Passes) -> Outputs:
        losses, logits = passes()
        losses.mean().backward()
        ledger.full_backward()
        return Outputs(losses, logits)

    with ledger.watch(model):
        objective.step(model, given, policy.bind(model, seed=0, state=state), update)
    attacked = [images for images, to_input in model.calls if to_input]
    assert attacked == [int((planned > step).sum()) for step in range(10)]
    others = sum(images for images, to_input in model.calls if not to_input)
    trained_on = 12 * (1 + objective.uses_clean)
    assert others == 12 + trained_on  # one clean forward, shared with an attack on KL
    assert sum(ledger.passes.values()) == 12 + 2 * int(planned.sum()) + 3 * trained_on


BAD: list[tuple[dict[str, Any], str]] = [
    ({"boundary": 0}, "boundary = 0"),
    ({"robust": -1}, "robust = -1"),
    ({"gamma": 1.5}, "gamma = 1.5"),
    ({"robust_step_size": 0}, "robust_step_size = 0"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BulletSteps.create(**settings)
