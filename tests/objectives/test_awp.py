"""Adversarial weight perturbation against its formula, and what it leaves behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from advprune_core.trainers.awp import perturbed_weights
from tests.objectives.test_carried import batch


def test_weights_move_along_their_gradient_relative_to_each_layer(network: nn.Module) -> None:
    model, given = copy.deepcopy(network).train(), batch([0, 3, 8])
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(given.x), given.y)

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    plain = float(loss().detach())
    with perturbed_weights(model, loss, gamma=0.02):
        for parameter, value, gradient in zip(model.parameters(), before, gradients, strict=True):
            if parameter.dim() == 1:
                assert torch.equal(parameter, value)
                continue
            expected = value + 0.02 * value.norm() * gradient / gradient.norm()
            torch.testing.assert_close(parameter.detach(), expected)
        assert float(loss().detach()) > plain
    assert all(torch.equal(parameter, value) for parameter, value in zip(model.parameters(), before, strict=True))


def test_small_gradients_move_weights_as_far(network: nn.Module) -> None:
    """The square of 1e-23 is 0 in float32, the direction is not."""
    given, moved = batch([0, 3, 8]), []
    for factor in (1.0, 2.0**-80):
        model = copy.deepcopy(network).train()

        def loss(model: nn.Module = model, factor: float = factor) -> Tensor:
            return factor * nn.functional.cross_entropy(model(given.x), given.y)

        with perturbed_weights(model, loss, gamma=0.02):
            moved.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(map(torch.equal, *moved))


def test_what_autocast_remembers_of_the_weights_is_forgotten(network: nn.Module) -> None:
    """Its bfloat16 copies, made by the attack before, would be of the weights that do not count any more."""
    model, given = copy.deepcopy(network).train(), batch([0, 3, 8])

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(given.x).float(), given.y)

    with torch.autocast("cpu", torch.bfloat16):
        before = float(loss().detach())
        with perturbed_weights(model, loss, gamma=0.2):
            inside = float(loss().detach())
        after = float(loss().detach())
    assert inside > before + 0.01
    assert after == before


def test_nothing_is_left_of_it() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(36, 4)).train()
    given = batch([0, 3, 8, 9])
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def fail() -> None:
        with perturbed_weights(model, lambda: model(given.x).square().sum(), gamma=0.1):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
