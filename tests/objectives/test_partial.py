"""Attacks on part of a batch: which part, what becomes of the rest, what it costs."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import nn

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import OBJECTIVES
from advprune_core.objectives.partial import PartialSteps, least_sure
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.trainers.config import RunConfig
from tests.objectives.test_carried import EPS, batch

IDS = [0, 3, 4, 7, 9, 11, 2, 5]


def test_the_least_sure_are_those_of_the_highest_entropy() -> None:
    logits = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    entropy = torch.tensor(stats.entropy(torch.softmax(logits.double(), 1).numpy(), axis=1))
    for count in (0, 1, 11, 30):
        chosen = least_sure(logits, count)
        assert int(chosen.sum()) == count
        if 0 < count < 30:
            assert entropy[chosen].min() >= entropy[~chosen].max()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_others_stay_clean_and_the_attacked_are_those_of_pgd(share: float, network: nn.Module) -> None:
    given = batch(IDS)
    policies = [AttackPolicy(eps=EPS, steps=steps) for steps in (PartialSteps(share=share, count=3), 3)]
    partial, whole = (
        policy.bind(network, seed=0, state=policy.initial_state(12))(
            given, given.y, OBJECTIVES.parse("pgd_at").attack_loss
        )
        for policy in policies
    )
    chosen = least_sure(network.eval()(given.x), round(share * len(IDS)))
    assert torch.equal(partial[~chosen], given.x[~chosen])
    assert torch.equal(partial[chosen], whole[chosen])
    assert (partial[chosen] != given.x[chosen]).flatten(1).any(1).all()


def test_a_small_share_of_a_small_batch_is_one_image(network: nn.Module) -> None:
    """None would be ordinary training, under the name of another."""
    given = batch(IDS)
    policy = AttackPolicy(eps=EPS, steps=PartialSteps(share=0.01, count=3))
    found = policy.bind(network, seed=0, state=policy.initial_state(12))(given, given.y, "cross_entropy")
    assert (found != given.x).flatten(1).any(1).sum() == 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2 * 7 * 0.5 + 3 + 1), (1.0, 2 * 7 + 3 + 1)])
def test_it_costs_its_share_of_the_steps_and_a_clean_pass(share: float, expected: float) -> None:
    config = RunConfig.flat(trainer="sat", steps={"partial": {"share": share}})
    assert config.passes_per_image == expected


def test_a_length_that_partial_steps_do_not_know_is_refused() -> None:
    """The run was PGD-AT on all images, under the name of SAT."""
    steps = {"fixed": {"count": 7, "step_factor": 0.25}}
    with pytest.raises(ConfigError, match=r"'sat' attacks a part of each batch.*no step_factor"):
        RunConfig.flat(trainer="sat", steps=steps)
    with pytest.raises(ConfigError, match="no step_factor"):
        RunConfig.flat().with_settings({"trainer": "sat", "attack.steps": steps})
    fixed = RunConfig.flat(trainer="sat", steps={"fixed": {"count": 7, "step_size": 0.01}})
    assert fixed.attack.steps == PartialSteps(count=7, step_size=0.01)
    assert RunConfig.flat(steps=steps).with_settings({"trainer": "sat"}).attack.steps == PartialSteps()


@pytest.mark.parametrize("steps", ["partial", "bullet"])
def test_parts_of_a_batch_are_attacked_in_eval_mode_alone(steps: str) -> None:
    """Their statistics are not those of the batch, and of a single image BatchNorm has none: the run failed."""
    with pytest.raises(ConfigError, match=rf"steps = '{steps}' attack parts of a batch.*attack_mode = 'train'"):
        RunConfig.flat(steps=steps, attack_mode="train")
    with pytest.raises(ConfigError, match="parts of a batch"):
        RunConfig.flat(attack_mode="train").with_settings({"attack.steps": steps})
    RunConfig.flat(steps={"partial": {"share": 1.0}}, attack_mode="train")
    RunConfig.flat(objective="standard", steps=steps, attack_mode="train")
