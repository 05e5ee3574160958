"""RCS against batches that the last layer is really moved along, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError
from advprune_core.pruners.gradients import last_layer_gradients, objective_outputs
from advprune_core.pruners.rcs import RCS, Divergence, after_batch, rcs
from tests.contexts import blobs, context
from tests.pruners.test_gradients import in_float64


def scene(objective: str) -> tuple[Any, Any, Any, nn.Linear]:
    """Objective, outputs of candidates, of held-out images with both branches, and the layer that made them."""
    made = context(objective=objective)
    _, outputs = objective_outputs(made, made.dataset.train)
    _, held_out = objective_outputs(replace(made, objective=Divergence()), made.dataset.val_select)
    return made.objective, in_float64(outputs), in_float64(held_out), made.network[-1].double()


def divergence(head: nn.Linear, held_out: Any) -> Tensor:
    """Mean of ``sum_c p_c log(p_c / q_c)`` for p at the natural image and q at the adversarial one."""
    p, q = (torch.softmax(head(branch.features), 1) for branch in (held_out.clean, held_out.adversarial))
    return (p * (p / q).log()).sum(1).mean()


def batch_gradient(head: nn.Linear, objective: Any, outputs: Any, rows: Any) -> list[Tensor]:
    """Gradient of the batch's mean loss for weight and bias."""
    own = outputs[torch.as_tensor(rows)]
    losses = objective.per_sample(*(b and head(b.features) for b in (own.clean, own.adversarial)), own.labels)
    return list(torch.autograd.grad(losses.mean(), [head.weight, head.bias]))


def moved(head: nn.Linear, gradient: list[Tensor], step: float) -> nn.Linear:
    other = nn.Linear(head.in_features, head.out_features).double()
    with torch.no_grad():
        other.weight.copy_(head.weight - step * gradient[0])
        other.bias.copy_(head.bias - step * gradient[1])
    return other


@pytest.mark.parametrize("objective", ["pgd_at", "trades", "standard"])
@pytest.mark.parametrize(("chunk", "eta"), [(100, 0.5), (3, 0.5), (4, 0.001)])
def test_picks_follow_the_steps_taken(objective: str, chunk: int, eta: float) -> None:
    """Chunk by chunk and batch by batch against a layer that really moves."""
    loss, outputs, held_out, head = scene(objective)
    n, size, k = len(outputs), 10, 64
    order = np.random.default_rng(3).permutation(n)
    parts = np.array_split(order, max(1, round(n / (chunk * size))))
    expected: list[int] = []
    for part, quota in zip(parts, shares(k, parts), strict=True):
        batches = np.array_split(part, max(1, round(len(part) / size)))
        gradients = [batch_gradient(head, loss, outputs, rows) for rows in batches]
        here, left, found = head, list(range(len(batches))), list[int]()
        while len(found) < quota:
            target = torch.autograd.grad(divergence(here, held_out), [here.weight, here.bias])
            gains = [float(sum((a * b).sum() for a, b in zip(target, gradients[i], strict=True))) for i in left]
            best = left.pop(int(np.argmax(gains)))
            found += batches[best].tolist()
            here = moved(here, gradients[best], eta)
        expected += found[:quota]
    picks = rcs(
        last_layer_gradients(loss, outputs),
        held_out,
        k,
        batch_size=size,
        chunk=chunk,
        eta=eta,
        rng=np.random.default_rng(3),
    )
    assert picks.tolist() == expected
    assert len(set(expected)) == k


def shares(k: int, parts: list[Any]) -> list[int]:
    """k by largest remainder."""
    exact = np.array([k * len(part) / sum(map(len, parts)) for part in parts])
    found = np.floor(exact).astype(int)
    found[np.argsort(found - exact, kind="stable")[: k - found.sum()]] += 1
    return found.tolist()


def test_the_first_batch_takes_most_off_the_divergence() -> None:
    """To first order in a small step, of all batches."""
    loss, outputs, held_out, head = scene("pgd_at")
    batches = np.array_split(np.random.default_rng(0).permutation(len(outputs)), round(len(outputs) / 12))
    before = divergence(head, held_out).item()
    after = [
        divergence(moved(head, batch_gradient(head, loss, outputs, rows), 1e-4), held_out).item() for rows in batches
    ]
    picks = rcs(last_layer_gradients(loss, outputs), held_out, 12, batch_size=12, rng=np.random.default_rng(0))
    assert min(after) < before < max(after)
    assert picks.tolist() == batches[int(np.argmin(after))][:12].tolist()


def test_held_out_outputs_follow_a_step_exactly() -> None:
    loss, outputs, held_out, head = scene("trades")
    gradient = batch_gradient(head, loss, outputs, np.arange(9))
    found = after_batch(held_out, torch.cat([gradient[0], gradient[1][:, None]], 1), 0.7)
    other = moved(head, gradient, 0.7)
    for before, branch in ((held_out.clean, found.clean), (held_out.adversarial, found.adversarial)):
        torch.testing.assert_close(branch.logits, other(before.features), rtol=1e-5, atol=1e-6)


def test_labels_of_held_out_images_do_not_matter() -> None:
    made = context(objective="pgd_at")
    held_out = made.dataset.val_select
    other = replace(made.dataset, val_select=replace(held_out, labels=held_out.labels.flip(0)))
    assert (held_out.labels != held_out.labels.flip(0)).any()
    kept = [RCS().select(replace(made, dataset=dataset)).indices.tolist() for dataset in (made.dataset, other)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(("objective", "train"), [("standard", 1), ("pgd_at", 5), ("trades", 6)])
def test_what_a_selection_costs(objective: str, train: int) -> None:
    """Two steps: 5 a training image (with KL one more), 6 a held-out one, whatever the picks."""
    made, ledger = context(objective=objective, steps=2), Ledger()
    with ledger.watch(made.network), ledger.phase("select"):
        RCS().select(made)
    assert ledger.passes == {"select": train * made.n + 6 * len(made.dataset.val_select)}


def test_held_out_images_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"rcs needs held-out images: those of dataset\.val_select"):
        RCS().check(context(dataset=blobs(val_select=0)))
