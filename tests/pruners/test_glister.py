"""GLISTER against steps that are really taken on the last layer, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.pruners.glister import Glister, after_step, gains, glister
from advprune_core.pruners.gradients import last_layer_gradients, objective_outputs
from tests.contexts import blobs, context
from tests.pruners.test_gradients import in_float64

OBJECTIVES = ["standard", "pgd_at", "trades", "mart"]


def scene(objective: str) -> tuple[Any, Any, Any, nn.Linear]:
    """Objective, outputs of candidates and of held-out images, and the layer that made them."""
    made = context(objective=objective)
    outputs = [in_float64(objective_outputs(made, s)[1]) for s in (made.dataset.train, made.dataset.val_select)]
    return made.objective, *outputs, made.network[-1].double()


def stepped(head: nn.Linear, objective: Any, outputs: Any, held_out: Any, i: int, step: float) -> tuple[Any, float]:
    """Logits and loss of the held-out images after a step on image i, through the layer's parameters."""
    head.zero_grad()
    one = outputs[torch.tensor([i])]
    objective.per_sample(*(b and head(b.features) for b in (one.clean, one.adversarial)), one.labels).sum().backward()
    with torch.no_grad():
        weight, bias = head.weight - step * head.weight.grad, head.bias - step * head.bias.grad
        logits = [b and nn.functional.linear(b.features, weight, bias) for b in (held_out.clean, held_out.adversarial)]
        return logits, float(objective.per_sample(*logits, held_out.labels).mean())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_update_of_held_out_logits_is_exact(name: str) -> None:
    objective, outputs, held_out, head = scene(name)
    gradients = last_layer_gradients(objective, outputs)
    for i in (0, 7):
        logits, _ = stepped(head, objective, outputs, held_out, i, 0.3)
        moved = after_step(held_out, gradients[torch.tensor([i])], 0.3)
        for expected, found in zip(logits, (moved.clean, moved.adversarial), strict=True):
            if found is not None:
                torch.testing.assert_close(found.logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gain_is_what_a_small_step_takes_off_the_loss(name: str) -> None:
    """With an error of the second order: half the step, a quarter of the error."""
    objective, outputs, held_out, head = scene(name)
    found = gains(last_layer_gradients(objective, outputs), objective, held_out)
    before = stepped(head, objective, outputs, held_out, 0, 0.0)[1]
    for i in (1, 5, 9):
        errors = []
        for step in (2e-3, 1e-3):
            drop = before - stepped(head, objective, outputs, held_out, i, step)[1]
            assert drop == pytest.approx(step * float(found[i]), abs=step**2 * 100)
            errors.append(abs(drop - step * float(found[i])))
        assert errors[1] == pytest.approx(errors[0] / 4, rel=0.1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_first_pick_is_the_best_of_all(name: str) -> None:
    objective, outputs, held_out, head = scene(name)
    losses = [stepped(head, objective, outputs, held_out, i, 1e-5)[1] for i in range(len(outputs))]
    gradients = last_layer_gradients(objective, outputs)
    picks = glister(gradients, objective, held_out, 1, greedy="naive", rng=np.random.default_rng(0))
    assert picks.tolist() == [int(np.argmin(losses))]


def test_naive_picks_follow_the_steps_taken() -> None:
    """Pick by pick against a layer that really moves."""
    objective, outputs, held_out, head = scene("trades")
    gradients, eta, k = last_layer_gradients(objective, outputs), 4.0, 8
    expected: list[int] = []
    for _ in range(k):
        logits = [head(b.features) for b in (held_out.clean, held_out.adversarial)]
        loss = objective.per_sample(*logits, held_out.labels).mean()
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        found = gradients.correlations(torch.cat([weight, bias[:, None]], 1))
        found[expected] = -torch.inf
        pick = int(found.argmax())
        expected.append(pick)
        dense = gradients.combination(torch.tensor([pick]), torch.ones(1).double())
        with torch.no_grad():
            # The layer that candidates were scored with stays; only held-out logits follow.
            head.weight -= eta / k * dense[:, :-1]
            head.bias -= eta / k * dense[:, -1]
    picks = glister(gradients, objective, held_out, k, eta=eta, greedy="naive", rng=np.random.default_rng(0))
    assert picks.tolist() == expected


def test_random_candidates_do_nearly_as_well() -> None:
    objective, outputs, held_out, _ = scene("trades")
    gradients = last_layer_gradients(objective, outputs)
    first = gains(gradients, objective, held_out)
    values = {}
    for greedy in ("naive", "stochastic"):
        picks = glister(gradients, objective, held_out, 20, eta=0.01, greedy=greedy, rng=np.random.default_rng(0))
        assert len(set(picks.tolist())) == 20
        values[greedy] = float(first[picks].sum())
    assert 0.6 * values["naive"] < values["stochastic"] < values["naive"]


@pytest.mark.parametrize("name", ["pgd_at", "trades"])
def test_each_class_is_picked_from_and_judged_by_its_own(name: str) -> None:
    """As if there were no others; the last class, of which no image is held out, is judged by all."""
    made = context(objective=name)
    judges = made.dataset.val_select
    kept = judges.take((judges.labels != 3).nonzero().squeeze(1))
    made = replace(made, dataset=replace(made.dataset, val_select=kept))
    pruner = Glister(greedy="naive", eta=2.0)
    objective, held_out = pruner.outputs(made, kept)
    gradients = pruner.gradients(made)
    assert len(held_out) < len(judges)
    expected: list[int] = []
    for label in range(4):
        members = np.flatnonzero(made.labels == label)
        own = held_out if label == 3 else held_out[(held_out.labels == label).nonzero().squeeze(1)]
        quota, alone = int(made.quotas()[label]), gradients[torch.from_numpy(members)]
        picks = glister(alone, objective, own, quota, eta=2.0, greedy="naive", rng=np.random.default_rng(7))
        expected += members[picks].tolist()
    assert pruner.select(made).indices.tolist() == sorted(expected)


def test_jointly_a_short_step_keeps_to_the_classes_that_fare_worst() -> None:
    """Which is why it is not the default: what is picked is nearly all of the largest held-out losses."""
    images = np.random.default_rng(0).random((400, 6, 6), dtype=np.float32)
    labels = np.arange(400) % 4
    made = context(0.25, dataset=dataset_from_arrays(images, labels, images, labels, val_select=40, val_stop=0))
    with torch.no_grad():  # a network that says 0 and 1 of everything, so that 2 and 3 fare badly
        made.network[-1].bias += torch.tensor([4.0, 4.0, 0.0, 0.0])
    pruners = Glister(per_class=False), Glister(per_class=False, eta=30.0), Glister()
    short, long, by_class = (
        np.bincount(made.labels[pruner.select(made).indices], minlength=4) / made.k for pruner in pruners
    )
    assert short[2:].sum() > 0.9
    assert long[:2].sum() > 0.2
    assert by_class == pytest.approx(0.25, abs=0.01)


def test_held_out_images_are_needed() -> None:
    made = context(dataset=blobs(val_select=0))
    with pytest.raises(ConfigError, match=r"glister needs held-out images: those of dataset\.val_select, of select"):
        Glister().check(made)
