"""Scores by hand, steps to break by a straight line, and the pruners that keep by them."""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from contexts import blobs, context
from torch import Tensor, nn

from advprune_core.ledger import Ledger
from advprune_core.pruners import PRUNERS
from advprune_core.pruners.aign import input_gradient_norm
from advprune_core.pruners.gradients import last_layer_gradients
from advprune_core.pruners.outputs import Branch, split_outputs
from advprune_core.pruners.scores import KINDS, Score, split_scores
from advprune_core.pruners.steps_to_break import steps_to_break
from advprune_core.settings import ConfigError

#: Logits with probabilities (1/2, 1/4, 1/4), label 0, and (1/8, 3/4, 1/8), label 2; features (2, 2) and (0, 0).
BRANCH = Branch(torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]).log() + 3, torch.tensor([[2.0, 2], [0, 0]]))
LABELS = torch.tensor([0, 2])
BY_HAND = {
    "loss": [log(2), log(8)],
    "margin": [0.25, -0.625],
    "entropy": [1.5 * log(2), 0.25 * log(8) + 0.75 * log(4 / 3)],
    "el2n": [sqrt(0.25 + 2 / 16), sqrt((1 + 36 + 49) / 64)],
    "grand": [3 * sqrt(0.25 + 2 / 16), sqrt((1 + 36 + 49) / 64)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_by_hand(kind: str) -> None:
    assert KINDS[kind].function(BRANCH, LABELS).tolist() == pytest.approx(BY_HAND[kind], rel=1e-5)


def test_grand_is_the_length_of_the_last_layer_gradient() -> None:
    made = context(objective="pgd_at")
    outputs = split_outputs(made, made.dataset.train, adversarial=True)
    lengths = last_layer_gradients(made.objective, outputs).squared_norms().sqrt()
    np.testing.assert_allclose(split_scores(made, "grand"), lengths.numpy(), rtol=1e-4, atol=1e-6)


class Line(nn.Module):
    """Class 1 where the mean pixel is above 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-light, light], 1)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_steps_to_break_by_distance(steps: int) -> None:
    """On a line: ceil of distance / step, wrong images at 0, those out of reach at steps + 1."""
    light, size, eps = [0.45, 0.505, 0.519, 0.535, 0.9], 0.01, 0.1
    x = torch.tensor(light)[:, None, None, None].expand(5, 1, 2, 2)
    found = steps_to_break(Line(), x, torch.ones(5).long(), eps=eps, steps=steps, step_size=size)
    assert found.tolist() == [min(s, steps + 1) for s in (0, 1, 2, 4, 99)]


def test_steps_to_break_stay_in_the_ball() -> None:
    x = torch.full((1, 1, 2, 2), 0.53)
    assert steps_to_break(Line(), x, torch.tensor([1]), eps=0.025, steps=9, step_size=0.01).tolist() == [10]


def test_margins_are_on_the_probabilities_of_the_branch_asked_for() -> None:
    made = context()
    clean, adversarial = (split_scores(made, "margin", steps=steps) for steps in (0, None))
    assert adversarial.mean() < clean.mean()
    assert np.abs(clean).max() <= 1


def test_the_modes_keep_what_their_names_say() -> None:
    """Up to those that a class without any image took the place of."""
    made = context(0.3)
    loss, steps = split_scores(made, "loss", steps=0), split_scores(made, "steps_to_break")
    ranks = {"easy": loss, "hard": -loss, "middle": np.abs(loss - loss.mean()), "fragile": steps}
    for mode, rank in ranks.items():
        selection = PRUNERS.parse(f"keep_{mode}").select(made)
        beyond = rank[selection.indices] > np.sort(rank)[made.k - 1]
        assert beyond.sum() <= selection.n_filled <= 3


COSTS: list[tuple[Any, float]] = [
    ("keep_easy", 1),
    ({"score": {"steps": 0}}, 1),
    ("score", 6),
    ({"score": {"steps": 5}}, 12),
]


@pytest.mark.parametrize(("spec", "cost"), COSTS, ids=str)
def test_what_selections_cost(spec: Any, cost: float) -> None:
    made, ledger = context(), Ledger()
    with ledger.watch(made.network), ledger.phase("select"):
        PRUNERS.parse(spec).select(made)
    assert ledger.passes == {"select": cost * made.n}


def test_steps_to_break_need_steps() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Score.create(score="steps_to_break", steps=0)


def test_no_class_is_left_without_an_image() -> None:
    """A class that scores would drop keeps one image, and the selection says so."""
    made = context(0.2, dataset=blobs((60, 60, 3), val_select=0))
    constant = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with torch.no_grad():
        constant[1].weight.zero_()
        constant[1].bias.copy_(torch.tensor([1.0, 0.5, 0.0]))
    made = context(0.2, dataset=made.dataset, model=constant)
    selection = PRUNERS.parse({"score": {"steps": 0, "keep": "lowest"}}).select(made)
    assert len(selection) == made.k
    assert np.bincount(made.labels[selection.indices], minlength=3).tolist() == [made.k - 2, 1, 1]
    assert selection.n_filled == 2


def test_input_gradient_norms_are_those_of_each_image_alone() -> None:
    made = context()
    model, split = made.network.eval(), made.dataset.train
    x, y = split.pixels(slice(0, 9)), split.labels[:9]
    expected = []
    for i in range(9):
        one = x[i : i + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(one), y[i : i + 1]), one)
        expected.append(float(gradient.norm()))
    assert input_gradient_norm(model, x, y).tolist() == pytest.approx(expected, rel=1e-4)
