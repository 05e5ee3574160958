"""SORA against a plain loop, and its coefficient by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.base.randomness import stream, uniform
from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import Outputs, Passes
from advprune_core.objectives.sora import linearity
from advprune_core.trainers.config import RunConfig
from tests.objectives.test_carried import EPS, batch


def test_linearity_by_hand() -> None:
    first = torch.tensor([[1.0, -2.0], [1.0, -2.0], [1.0, -2.0], [1.0, -2.0], [0.0, 0.0]])[:, None, None]
    second = torch.tensor([[1.0, -2.0], [0.5, -1.0], [-0.3, 0.6], [5.0, -9.0], [3.0, 1.0]])[:, None, None]
    np.testing.assert_allclose(linearity(first, second), [1, 0.5, -0.3, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("weights", [[1.0] * 4, [0.5, 2.0, 1.0, 0.5], [0.0, 2.0, 1.0, 1.0]])
@pytest.mark.parametrize(("first_average", "smoothing"), [(0.99, 0.0), (0.6, 0.0), (0.6, 0.3)])
def test_sora_against_a_plain_loop(
    network: nn.Module, weights: list[float], first_average: float, smoothing: float
) -> None:
    config = RunConfig.flat(trainer="sora", eps=EPS).with_settings({"objective.label_smoothing": smoothing})
    ours, theirs = copy.deepcopy(network), copy.deepcopy(network)
    optimisers = [torch.optim.SGD(model.parameters(), lr=0.5) for model in (ours, theirs)]
    state, importance = config.objective.state(4, (2, 6, 5)), torch.tensor(weights)
    assert state["sora.linearity"] == torch.tensor(0.99), "from there, full steps; from less, shorter ones"
    state["sora.linearity"], average = torch.tensor(first_average), first_average

    def update(passes: Passes) -> Outputs:
        losses, logits = passes()
        optimisers[0].zero_grad()
        (losses * importance).mean().backward()
        optimisers[0].step()
        return Outputs(losses, logits)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        """Of each image's own loss, one at a time."""
        rows = []
        for image, label in zip(x, y, strict=True):
            image = image[None].detach().requires_grad_()
            loss = nn.functional.cross_entropy(theirs(image), label[None], label_smoothing=smoothing)
            rows.append(torch.autograd.grad(loss, image)[0])
        return torch.cat(rows)

    for visit, ids in enumerate([[0, 1, 2, 3], [7, 8, 4, 5], [3, 1, 0, 9]]):
        given = replace(batch(ids, visit), weights=importance)
        bound = config.attack.bind(ours, seed=0, state=state)
        start = bound.start(given)
        config.objective.step(ours, given, bound, update)
        first = gradient(start, given.y)
        part = uniform(stream(0, "sora"), given.ids, given.epochs, (2, 6, 5))
        x_adv = (start + 2 * EPS * min(1, 0.02 / (1 - average)) * part * first.sign()).clamp(0, 1)
        second = gradient(x_adv, given.y)
        optimisers[1].zero_grad()
        losses = nn.functional.cross_entropy(theirs(x_adv), given.y, reduction="none", label_smoothing=smoothing)
        (losses * importance).mean().backward()
        optimisers[1].step()
        values = [
            1.0 if weight == 0 else float(np.clip((b * a.sign()).sum() / a.abs().sum(), -1, 1))
            for a, b, weight in zip(first, second, weights, strict=True)
        ]
        average = 0.95 * average + 0.05 * float(np.mean(values))
        assert float(state["sora.linearity"]) == pytest.approx(average, rel=1e-4)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [[1.0] * 4, [0.2, 2.2, 1.0, 0.6]])
def test_where_images_of_a_batch_act_on_each_other_both_gradients_are_of_what_is_trained(weights: list[float]) -> None:
    """With normalisation over the batch an image's gradient has parts of the others' losses, as they are weighted."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(72, 4)).train()
    config, importance = RunConfig.flat(trainer="sora", eps=EPS), torch.tensor(weights)
    state, given = config.objective.state(4, (2, 6, 5)), replace(batch([0, 1, 2, 3]), weights=importance)

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        losses = nn.functional.cross_entropy(copy.deepcopy(model)(x), given.y, reduction="none")
        return torch.autograd.grad((losses * importance).sum(), x)[0]

    bound = config.attack.bind(model, seed=0, state=state)
    start = bound.start(given)
    part = uniform(stream(0, "sora"), given.ids, given.epochs, (2, 6, 5))
    first = gradient(start)
    second = gradient((start + 2 * EPS * part * first.sign()).clamp(0, 1))
    values = (second * first.sign()).flatten(1).sum(1) / first.abs().flatten(1).sum(1)

    def update(passes: Passes) -> Outputs:
        losses, logits = passes()
        (losses * importance).mean().backward()
        return Outputs(losses, logits)

    config.objective.step(model, given, bound, update)
    expected = 0.95 * 0.99 + 0.05 * float(values.clamp(-1, 1).mean())
    assert float(state["sora.linearity"]) == pytest.approx(expected, rel=1e-5)


def test_weights_that_move_between_its_gradients_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"compares gradients at the same weights.*leave awp at 0"):
        RunConfig.flat(trainer="sora", eps=EPS, awp=0.005)


def test_with_label_smoothing_it_is_of_a_second_version() -> None:
    plain = RunConfig.flat(trainer="sora", eps=EPS)
    smoothed = plain.with_settings({"objective.label_smoothing": 0.1})
    assert "version" not in plain.objective.canonical()
    assert smoothed.objective.canonical()["version"] == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"attack.start": "carried"}, "carries nothing from epoch to epoch"),
        ({"attack.start": {"carried": {"momentum": 0.3}}}, "carries nothing"),
        ({"attack.steps": {"fixed": {"count": 1, "step_factor": 1.25}}}, "sets the length of its step itself"),
        ({"attack.steps": {"fixed": {"count": 1, "step_size": 0.01}}}, "sets the length of its step itself"),
    ],
    ids=str,
)
def test_what_it_does_not_look_at_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.flat(trainer="sora", eps=EPS).with_settings(setting)


def test_only_its_own_norm() -> None:
    with pytest.raises(ConfigError, match="steps of the L-inf norm: norm = 'l2' does not fit"):
        RunConfig.flat(trainer="sora", norm="l2", eps=0.5)
