"""GradAlign against angles by NumPy and a finite difference of the whole loss."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.base.randomness import stream, uniform
from advprune_core.datasets.base import load_dataset
from advprune_core.objectives.base import Outputs, Passes
from advprune_core.objectives.grad_align import misalignment
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from tests.objectives.test_carried import EPS, batch
from tests.tiny import tiny_run


def test_misalignment() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 2, 3, 3)), rng.normal(size=(6, 2, 3, 3))
    cosines = [(p * q).sum() / np.linalg.norm(p.ravel()) / np.linalg.norm(q.ravel()) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(misalignment(torch.tensor(a), torch.tensor(b)), 1 - np.array(cosines), rtol=1e-9)
    assert float(misalignment(torch.tensor(a), torch.tensor(3 * a)).max()) < 1e-12


def test_confident_images_are_aligned_as_well() -> None:
    """Their gradients are of length 1e-12 and still have an angle; those of length 0 have none, and teach nothing."""
    rng = np.random.default_rng(1)
    a, b = (torch.tensor(rng.normal(size=(6, 1, 3, 3)), dtype=torch.float32) for _ in range(2))
    for size in (1e-6, 1e-12, 1e-16):
        torch.testing.assert_close(misalignment(a * size, b * size), misalignment(a, b), atol=1e-5, rtol=0)
    weight = torch.ones(1, requires_grad=True)
    nothing = misalignment(a, 0 * b * weight)
    assert nothing.tolist() == [1.0] * 6
    (gradient,) = torch.autograd.grad(nothing.sum(), weight)
    assert gradient.isfinite()


def test_both_gradients_are_of_the_weights_that_awp_has_moved() -> None:
    """Close by the image there is nothing to align, at whatever weights: no loss beyond cross-entropy's."""
    dataset = load_dataset(tiny_run().dataset)
    settings = {"trainer": "grad_align", "eps": 1e-6, "epochs": 0.2, "awp": 0.05, "lr": 1e-9}
    losses = [
        train(tiny_run(**settings, objective={"grad_align": {"lam": lam}}), dataset).metrics[0]["train_loss"]
        for lam in (0.0, 100.0)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)  # apart, 100 * .09 more


def test_weight_gradients_are_those_of_the_whole_loss(network: nn.Module) -> None:
    """By central differences in float64, with FGSM and the first gradient held fixed, as in the paper's code."""
    config = RunConfig.flat(objective={"grad_align": {"lam": 5.0}}, start="clean", steps=1, eps=EPS)
    model, given = copy.deepcopy(network).double(), batch([0, 3, 8, 11])
    given.x.data = given.x.data.double()
    parameters, seen = list(model.parameters()), list[Tensor]()

    def update(passes: Passes) -> Outputs:
        losses, logits = passes()
        seen.extend([losses.detach(), *torch.autograd.grad(losses.mean(), parameters)])
        return Outputs(losses, logits)

    config.objective.step(model, given, config.attack.bind(model, seed=1, state={}), update)

    def input_gradient(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), given.y), x)
        return gradient

    here = input_gradient(given.x)
    x_adv = (given.x + EPS * here.sign()).clamp(0, 1)
    key = stream(1, "grad_align")
    beside = (given.x + (2 * uniform(key, given.ids, given.epochs, (2, 6, 5)) - 1) * EPS).clamp(0, 1)

    def loss() -> float:
        there = input_gradient(beside)
        with torch.no_grad():
            values = nn.functional.cross_entropy(model(x_adv), given.y, reduction="none")
            return float((values + 5.0 * misalignment(here, there)).mean())

    assert abs(loss() - float(seen[0].mean())) < 1e-7
    rng = np.random.default_rng(0)
    for parameter, gradient in zip(parameters, seen[1:], strict=True):
        for place in rng.choice(parameter.numel(), 4, replace=False):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.view(-1)[place] += step
                values.append(loss())
                with torch.no_grad():
                    parameter.view(-1)[place] -= step
            assert abs((values[0] - values[1]) / 2e-5 - float(gradient.view(-1)[place])) < 1e-6
