"""Outputs of a split, and factored gradients against autograd through the last layer's parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks.pgd import pgd
from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import quiet_logits
from advprune_core.objectives.base import OBJECTIVES
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.starts import STARTS
from advprune_core.pruners import Context
from advprune_core.pruners.branches import Branch, SplitOutputs
from advprune_core.pruners.gradients import DenseAtoms, group_means, last_layer_gradients
from advprune_core.pruners.outputs import branch, split_outputs
from tests.contexts import EPS, blobs, context, network

OBJECTIVE_SPECS = [*OBJECTIVES.classes(), {"trades": {"beta": 2.0, "label_smoothing": 0.1}}]


def outputs_of(made: Context) -> SplitOutputs:
    objective = made.objective
    assert objective is not None
    return split_outputs(made, made.dataset.train, clean=objective.uses_clean, adversarial=objective.uses_adversarial)


def in_float64(outputs: SplitOutputs) -> SplitOutputs:
    """The same, so that what is left of a difference is not rounding."""
    parts = (b and Branch(b.logits.double(), b.features.double()) for b in (outputs.clean, outputs.adversarial))
    return SplitOutputs(outputs.labels, *parts)


def full_gradients(made: Context, outputs: SplitOutputs) -> Tensor:
    """(n, classes, d + 1), image by image through the parameters of the last layer."""
    head = made.network[-1]
    rows = []
    for i in range(len(outputs)):
        logits = [None if b is None else head(b.features[i : i + 1]) for b in (outputs.clean, outputs.adversarial)]
        loss = made.objective.per_sample(*logits, outputs.labels[i : i + 1]).sum()
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        rows.append(torch.cat([weight, bias[:, None]], 1))
    return torch.stack(rows)


@pytest.mark.parametrize("spec", OBJECTIVE_SPECS, ids=str)
@pytest.mark.parametrize("chunk", [2**17, 7])
def test_factored_gradients_are_the_gradients(spec: Any, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advprune_core.pruners.gradients.CHUNK", chunk)
    made = context(objective=spec)
    outputs = in_float64(outputs_of(made))
    made.network.double()
    factored, full = last_layer_gradients(made.objective, outputs), full_gradients(made, outputs)
    n, flat = len(full), full.flatten(1)
    close = {"rtol": 1e-5, "atol": 1e-5}
    one_by_one = [factored.combination(torch.tensor([i]), torch.ones(1).double()) for i in range(n)]
    torch.testing.assert_close(torch.stack(one_by_one), full, **close)
    torch.testing.assert_close(factored.inner(factored), flat @ flat.T, **close)
    torch.testing.assert_close(factored.squared_norms(), flat.square().sum(1), **close)
    torch.testing.assert_close(factored.total(), full.sum(0), **close)
    direction = torch.randn(full.shape[1:], generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(factored.correlations(direction), flat @ direction.flatten(), **close)
    rows, weights = torch.tensor([5, 2, 9]), torch.tensor([0.5, 2.0, 1.0]).double()
    torch.testing.assert_close(factored.combination(rows, weights).flatten(), weights @ flat[rows], **close)
    torch.testing.assert_close(factored.gram(3, rows), flat[rows] @ flat[3], **close)
    some = torch.arange(n).flip(0)[:20]
    torch.testing.assert_close(factored.total(some), full[some].sum(0), **close)
    torch.testing.assert_close(factored.correlations(direction, some), flat[some] @ direction.flatten(), **close)
    torch.testing.assert_close(factored.products(), flat @ flat.T, **close)
    groups = [np.array([0, 4, 7]), np.array([1])]
    torch.testing.assert_close(
        group_means(factored, groups).matrix, torch.stack([flat[g].mean(0) for g in groups]), **close
    )
    assert len(factored.errors) == (2 if made.objective.uses_clean and made.objective.uses_adversarial else 1)


def test_dense_atoms_do_the_same() -> None:
    made = context()
    factored = last_layer_gradients(made.objective, outputs_of(made))
    rows = torch.arange(len(factored))
    dense = DenseAtoms(torch.stack([factored.combination(row, torch.ones(1)).flatten() for row in rows.split(1)]))
    some, weights = torch.tensor([8, 1]), torch.tensor([1.0, 3.0])
    direction = factored.total()
    torch.testing.assert_close(dense.total(), direction.flatten())
    torch.testing.assert_close(
        dense.correlations(direction.flatten()), factored.correlations(direction), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(dense.combination(some, weights), factored.combination(some, weights).flatten())
    torch.testing.assert_close(dense.gram(2, some), factored.gram(2, some))


def test_outputs_are_those_of_the_model_and_its_attack() -> None:
    """The adversarial branch against `pgd` itself: from the images, without a random start."""
    made = context(objective="pgd_at")
    made = Context(**{**vars(made), "attack": made.attack.replace(start="clean")})
    split, model = made.dataset.train, made.network
    outputs = split_outputs(made, split, clean=True, adversarial=True)
    x, y = split.pixels(slice(None)), split.labels
    x_adv = pgd(model, x, y, eps=made.attack.eps, steps=2, start="clean")
    model.eval()
    for found, images in ((outputs.clean, x), (outputs.adversarial, x_adv)):
        with torch.no_grad():
            torch.testing.assert_close(found.logits, model(images))
            torch.testing.assert_close(found.features, model[:-1](images))
            torch.testing.assert_close(model[-1](found.features), found.logits)


def test_features_may_be_kept_in_float16() -> None:
    """Of several batches, the last one shorter."""
    made = context(dataset=blobs((300, 250)))
    exact, half = (split_outputs(made, made.dataset.train, adversarial=True, half=half) for half in (False, True))
    assert half.adversarial.features.dtype == torch.float16
    assert torch.equal(half.adversarial.features, exact.adversarial.features.half())
    assert torch.equal(half.adversarial.logits, exact.adversarial.logits)


def test_what_float16_cannot_hold_ends_at_its_largest_number() -> None:
    halved = Branch(torch.zeros(1, 2), torch.tensor([[1e6, -1e6, 0.1]])).halved()
    assert halved.known_features().tolist() == [[65504, -65504, pytest.approx(0.1, rel=1e-3)]]


def test_nothing_is_left_in_the_model_and_global_generators_stay() -> None:
    made = context()
    model = made.network
    model.train()
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    first = outputs_of(made)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    torch.rand(3)
    again = outputs_of(made)
    assert torch.equal(first.adversarial.logits, again.adversarial.logits)


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 3}])
def test_noise_is_of_seed_and_epoch(change: dict[str, int]) -> None:
    made = context()
    other = Context(**{**vars(made), **change})
    assert not torch.equal(outputs_of(made).adversarial.logits, outputs_of(other).adversarial.logits)


def test_noise_is_of_the_image_not_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = context()
    whole = outputs_of(made)
    monkeypatch.setattr("advprune_core.pruners.outputs.BATCH", 7)
    # A last bit may turn the sign of a gradient that is nearly 0, so not every pixel needs to agree.
    assert (outputs_of(made).adversarial.logits - whole.adversarial.logits).abs().median() < 1e-5


COSTS = [("standard", 2, 1), ("pgd_at", 2, 5), ("pgd_at", 5, 11), ("trades", 2, 6), ("mart", 2, 6)]


@pytest.mark.parametrize(("objective", "steps", "cost"), COSTS)
def test_the_ledger_counts_what_scoring_costs(objective: str, steps: int, cost: int) -> None:
    made = context(objective=objective, steps=steps)
    ledger = Ledger()
    with ledger.watch(made.network), ledger.phase("select"):
        outputs_of(made)
    assert ledger.passes == {"select": cost * made.n}


def test_a_scoring_attack_of_its_own_length() -> None:
    made = context(objective="pgd_at", steps=7)
    ledger = Ledger()
    with ledger.watch(made.network), ledger.phase("select"):
        split_outputs(made, made.dataset.train, adversarial=True, steps=1)
    assert ledger.passes == {"select": 3 * made.n}


@pytest.mark.parametrize("padding", [0, 2])
def test_scoring_goes_on_from_carried_perturbations_and_changes_none(padding: int) -> None:
    """A step of no length leaves each image at its own perturbation, the middle of its frame."""
    made = context(objective="pgd_at")
    attack = made.attack.replace(start="carried", steps={"fixed": {"count": 1, "step_size": 1e-7}})
    n, side = made.n, 6 + 2 * padding
    delta = torch.randint(-127, 128, (n, 1, side, side), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    policy = {"carried.row": torch.arange(n).flip(0), "carried.cycle": torch.zeros(n).long(), "carried.delta": delta}
    before = {name: value.clone() for name, value in policy.items()}
    made = replace(made, attack=attack, policy=policy, crop_padding=padding)
    found = split_outputs(made, made.dataset.train, adversarial=True).adversarial
    own = delta.flip(0)[:, :, padding : padding + 6, padding : padding + 6].float() * EPS / 127
    x_adv = (made.dataset.train.pixels(slice(None)) + own).clamp(0, 1)
    torch.testing.assert_close(found.logits, quiet_logits(made.network, x_adv), rtol=1e-4, atol=1e-4)
    assert policy.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in policy.items())
    # Held-out images have no perturbations to go on from.
    split_outputs(made, made.dataset.val_select, adversarial=True)


@pytest.mark.parametrize("start", [name for name in STARTS.classes() if name != "clean"])
@pytest.mark.parametrize("steps", [1, "bullet"])
def test_scoring_works_with_every_training_attack(start: str, steps: Any) -> None:
    for settings in ({}, {"momentum": 0.3}) if start == "carried" else ({},):
        attack = AttackPolicy(eps=EPS, start={start: settings}, steps=steps)
        made = replace(context(), attack=attack)
        assert len(outputs_of(made).adversarial.logits) == made.n


class TwoHeads(nn.Module):
    """Logits that are a sum: of no layer the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(36, 4), nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x.flatten(1)) + self.second(x.flatten(1))


class Unordered(nn.Module):
    """The layer that makes the logits is not called last."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.other = nn.Linear(36, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(x.flatten(1))
        self.other(logits)
        return logits


class Scaled(nn.Module):
    """What it returns is no output of its layer, but stands in the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)).mul_(5)


def test_the_head_is_found_named_or_refused() -> None:
    x = torch.rand(3, 1, 6, 6)
    assert branch(network(4), x).features.shape == (3, 7)
    assert branch(Unordered(), x, head="head").features.shape == (3, 36)
    for model, head, message in (
        (TwoHeads(), None, "name the layer that makes them by `head`"),
        (Unordered(), None, "not the output of its last"),
        (Scaled(), None, "not the output of its last"),
        (Unordered(), "other", "head = 'other'"),
        (Unordered(), "body", "these are: head, other"),
        (nn.Flatten(), None, "no nn.Linear"),
    ):
        with pytest.raises(ConfigError, match=message):
            branch(model, x, head=head)


def test_missing_outputs_are_named() -> None:
    made = context()
    with pytest.raises(ConfigError, match=r"there is none before training: .* uses_model = True"):
        split_outputs(Context(dataset=blobs(), fraction=0.5, seed=0), made.dataset.train)
    with pytest.raises(ValueError, match="missing"):
        last_layer_gradients(OBJECTIVES.parse("mart"), split_outputs(made, made.dataset.train, clean=True))
