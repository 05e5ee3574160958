"""Recorded passes: gradients are right whatever came between; functions on a CPU stand for the graphs of a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advprune_core.attacks.graphs import Replayed

WEIGHTS = torch.linspace(-1, 1, 12).reshape(3, 4)


def function(x: Tensor) -> Tensor:
    return torch.tanh(x @ WEIGHTS.T) * x.pow(2).sum(1, keepdim=True)


def replayed() -> Replayed:
    """As memory of a GPU behaves: each pass overwrites the last, a backward pass uses up what it needs."""
    images, logits, towards, gradient = torch.zeros(2, 4), torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4)
    left = torch.full((2, 4), torch.nan)

    def forward() -> None:
        left.copy_(images)
        logits.copy_(function(images))

    def backward() -> None:
        with torch.enable_grad():
            x = left.clone().requires_grad_()
            gradient.copy_(torch.autograd.grad(function(x), x, towards)[0])
        left.fill_(torch.nan)

    return Replayed(images, logits, towards, gradient, forward, backward)


def images(seed: int) -> Tensor:
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def wanted(x: Tensor, towards: Tensor) -> Tensor:
    return torch.autograd.grad(function(x), x, towards)[0]


def test_logits_and_gradient() -> None:
    x, passes = images(0), replayed()
    logits = passes(x)
    assert torch.equal(logits, function(x))
    assert torch.equal(torch.autograd.grad(logits.square().sum(), x)[0], wanted(x, 2 * function(x).detach()))


def test_passes_that_cross_each_other() -> None:
    """Two passes forward before either goes back: each keeps its logits, and its gradient is its own."""
    passes, first, second = replayed(), images(1), images(2)
    a, b = passes(first), passes(second)
    towards = torch.ones(2, 3)
    assert torch.equal(a, function(first))
    assert torch.equal(torch.autograd.grad(a, first, towards)[0], wanted(first, towards))
    assert torch.equal(torch.autograd.grad(b, second, towards)[0], wanted(second, towards))


def test_one_pass_that_goes_back_twice() -> None:
    passes, x = replayed(), images(3)
    logits = passes(x)
    for towards in torch.eye(3):
        towards = towards.expand(2, 3)
        found = torch.autograd.grad(logits, x, towards, retain_graph=True)[0]
        assert torch.equal(found, wanted(x, towards))


def test_gradients_are_tensors_of_their_own() -> None:
    passes, first, second = replayed(), images(4), images(5)
    towards = torch.ones(2, 3)
    kept = torch.autograd.grad(passes(first), first, towards)[0]
    torch.autograd.grad(passes(second), second, towards)
    assert torch.equal(kept, wanted(first, towards))


def test_no_second_derivative_is_claimed() -> None:
    passes, x = replayed(), images(6)
    (gradient,) = torch.autograd.grad(passes(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="require grad"):
        torch.autograd.grad(gradient.sum(), x)
