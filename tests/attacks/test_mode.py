"""`no_trace`: the mode inside, and nothing changed outside."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import nn

from advprune_core.models.mode import Mode, no_trace, untouched

Network = Callable[[str], nn.Module]
Watch = Callable[..., AbstractContextManager[None]]


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["small_cnn", "preact_resnet18", "dropout"])
@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace(name: str, mode: Mode, fails: bool, network: Network, nothing_left: Watch) -> None:
    model, x = network(name), torch.rand(3, 1, 8, 8)
    expected = pytest.raises(RuntimeError, match="broken") if fails else nullcontext()
    with nothing_left(model, x), expected, no_trace(model, mode):
        assert {module.training for module in model.modules()} == {mode == "train"}
        model(x)
        if fails:
            raise RuntimeError("broken")


@pytest.mark.parametrize("fails", [False, True])
def test_whatever_somebody_else_does_to_a_model_is_undone(fails: bool, network: Network, nothing_left: Watch) -> None:
    model, x = network("preact_resnet18"), torch.rand(3, 1, 8, 8)
    expected = pytest.raises(RuntimeError, match="broken") if fails else nullcontext()
    with nothing_left(model, x), expected, untouched(model):
        assert not any(module.training for module in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())
        statistics = [buffer.clone() for buffer in model.buffers()]
        model.requires_grad_(True).train()(x).sum().backward()
        assert not all(map(torch.equal, statistics, model.buffers()))
        model.requires_grad_(False)
        if fails:
            raise RuntimeError("broken")


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("before", ["eval", "train"])
def test_uniform_modes_come_back(before: Mode, mode: Mode, network: Network) -> None:
    model = network("preact_resnet18").train(before == "train")
    with no_trace(model, mode):
        assert model.training == (mode == "train")
    assert {module.training for module in model.modules()} == {before == "train"}


def test_train_mode_uses_the_statistics_of_the_batch(network: Network) -> None:
    model, x = network("dropout")[:2], torch.rand(16, 1, 8, 8)
    with no_trace(model, "train"), torch.no_grad():
        features = model(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(features.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(1, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)


def test_dropout_draws_inside_as_it_would_outside(network: Network) -> None:
    model, x = network("dropout"), torch.rand(4, 1, 8, 8)
    torch.manual_seed(1)
    with no_trace(model, "train"), torch.no_grad():
        inside = [model(x), model(x)]
    with torch.no_grad():
        outside = model.train()(x)
    assert not torch.equal(inside[0], inside[1])
    torch.testing.assert_close(inside[0], outside)


def test_nested_blocks(network: Network, nothing_left: Watch) -> None:
    model = network("preact_resnet18")
    with nothing_left(model), no_trace(model, "train"):
        with no_trace(model, "eval"):
            assert not any(module.training for module in model.modules())
        assert all(module.training for module in model.modules())


def test_yields_nothing() -> None:
    with no_trace(nn.Linear(2, 2)) as given:
        assert given is None
