"""The peers that are written here: against this project's own objectives and a derivation by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from advprune_core.attacks import pgd
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.models.cnns import SmallCNN
from advprune_core.objectives.base import OBJECTIVES
from benchmarks import textbook
from benchmarks.cases import OtherResults
from benchmarks.pursuit import textbook_omp
from benchmarks.training_steps import Trainee, check

EPS = {"eps": 2 / 16, "steps": 3, "step_size": 1 / 16}


@pytest.fixture(scope="module")
def batch(digits: Dataset) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    return build_model(SmallCNN(width=4), digits), digits.test.pixels(slice(0, 16)), digits.test.labels[:16]


@pytest.mark.parametrize("name", ["pgd_at", "trades", "mart"])
def test_losses_are_those_of_the_objectives(
    name: str, batch: tuple[torch.nn.Module, torch.Tensor, torch.Tensor]
) -> None:
    model, x, y = batch
    noise = 0.01 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    start = (x + noise).clamp(0, 1)
    objective = OBJECTIVES.parse(name)
    target = model(x).detach() if name == "trades" else y
    x_adv = pgd(model, x, target, start=start, loss=objective.attack_loss, **EPS)
    ours = objective.per_sample(model(x), model(x_adv), y).mean()
    theirs = getattr(textbook, name)(**EPS)(copy.deepcopy(model), x, y, start)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_one_step_from_noise_leaves_the_ball_around_the_noise_alone(
    batch: tuple[torch.nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    model, x, y = batch
    start = textbook.random_start(x, eps=0.1, reach=2.0)
    assert 0.1 < float((start - x).abs().max()) <= 0.2 + 1e-6
    moved = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(moved), y), moved)
    expected = F.cross_entropy(model((start + 0.1 * gradient.sign()).clamp(0, 1)), y)
    torch.testing.assert_close(textbook.n_fgsm(eps=0.1)(copy.deepcopy(model), x, y, start), expected)


def test_matching_pursuit_finds_what_a_target_is_made_of() -> None:
    rng = np.random.default_rng(0)
    matrix = np.linalg.qr(rng.normal(size=(40, 40)))[0].astype(np.float32)  # rows at right angles
    wanted = {3: 5.0, 17: 2.0, 29: 0.5}
    target = sum(weight * matrix[row] for row, weight in wanted.items())
    support, weights = textbook_omp(matrix, np.asarray(target), 3)
    assert dict(zip(support, weights.round(4).tolist(), strict=True)) == wanted


def test_a_step_that_moves_the_weights_otherwise_is_refused(
    batch: tuple[torch.nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    model, x, y = batch
    first, second, longer = Trainee(model), Trainee(model), Trainee(model)
    longer.optimiser.param_groups[0]["lr"] *= 1.5
    for trainee in (first, second, longer):
        textbook.step(trainee.model, trainee.optimiser, textbook.pgd_at(**EPS), x, y, x)
    check(first, second, model, 0.01, "the same")
    with pytest.raises(OtherResults, match=r"the step of a longer one .*: relative distance 0\.5"):
        check(longer, second, model, 0.2, "a longer one")
