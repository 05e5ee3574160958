"""Free AT against a plain loop: weights, perturbation and updates."""

from __future__ import annotations

import copy

import torch
from torch import nn

from advprune_core.objectives.base import Outputs, Passes
from advprune_core.trainers.config import RunConfig
from tests.objectives.test_carried import EPS, batch


def test_free_against_a_plain_loop(network: nn.Module) -> None:
    config = RunConfig.flat(trainer="free", eps=EPS)
    # In float64, or rounding turns the sign of a tiny gradient now and then.
    ours, theirs = copy.deepcopy(network).double(), copy.deepcopy(network).double()
    optimisers = [torch.optim.SGD(model.parameters(), lr=0.5) for model in (ours, theirs)]
    state = {name: value.double() for name, value in config.objective.state(4, (2, 6, 5)).items()}
    delta, updates = torch.zeros(4, 2, 6, 5, dtype=torch.float64), 0

    def update(passes: Passes) -> Outputs:
        nonlocal updates
        losses, logits = passes()
        optimisers[0].zero_grad()
        losses.mean().backward()
        optimisers[0].step()
        updates += 1
        return Outputs(losses, logits)

    for visit, ids in enumerate([[0, 1, 2, 3], [7, 8, 4, 5], [3, 1, 0, 9]]):
        given = batch(ids, visit)
        given.x.data = given.x.data.double()
        config.objective.step(ours, given, config.attack.bind(ours, seed=0, state=state), update)
        for _ in range(4):
            x = (given.x + delta).clamp(0, 1).requires_grad_()
            optimisers[1].zero_grad()
            nn.functional.cross_entropy(theirs(x), given.y).backward()
            optimisers[1].step()
            assert x.grad is not None
            delta = (delta + EPS * x.grad.sign()).clamp(-EPS, EPS)
    assert updates == 12
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state["free.delta"], delta, rtol=0, atol=1e-6)
