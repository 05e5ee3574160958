"""Single-step training: against torchattacks and formulas, and where the ball is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from advprune_core.attacks.losses import AttackLoss
from advprune_core.base.randomness import stream, uniform
from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import Outputs, Passes
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.single_step import FGSMPGI, fgsm_pgi
from advprune_core.trainers.config import RunConfig
from tests.objectives.test_carried import EPS, batch


def trained_on(trainer: str, network: nn.Module, given: Batch) -> Tensor:
    """The images that a trainer's attack gives for a batch."""
    policy = RunConfig.flat(trainer=trainer, eps=EPS).attack
    return policy.attack(network, given, given.y, "cross_entropy", seed=1, state=policy.initial_state(12))


def noise(given: Batch, reach: float) -> Tensor:
    """The noise of seed 1, by its definition: uniform by counter, keyed by epoch and image."""
    drawn = uniform(stream(1, "attack"), given.ids, given.epochs, tuple(given.x.shape[1:]))
    return (2 * drawn - 1) * reach


def test_fgsm_is_that_of_torchattacks(network: nn.Module) -> None:
    given = batch(list(range(12)))
    assert torch.equal(trained_on("fgsm", network, given), torchattacks.FGSM(network, eps=EPS)(given.x, given.y))


def test_fast_is_that_of_torchattacks_from_the_same_noise(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    given = batch(list(range(12)), epoch=3)
    drawn = noise(given, EPS)
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda tensor, low, high: drawn)
    theirs = torchattacks.FFGSM(network, eps=EPS, alpha=1.25 * EPS)(given.x, given.y)
    monkeypatch.undo()
    assert torch.equal(trained_on("fast", network, given), theirs)


def test_n_fgsm_is_fgsm_on_a_noisy_image_and_leaves_the_ball(network: nn.Module) -> None:
    given = batch(list(range(12)), epoch=2)
    noisy = (given.x + noise(given, 2 * EPS)).clamp(0, 1)
    x = noisy.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(network(x), given.y), x)
    ours = trained_on("n_fgsm", network, given)
    torch.testing.assert_close(ours, (noisy + EPS * gradient.sign()).clamp(0, 1), rtol=0, atol=1e-7)
    reach = float((ours - given.x).abs().max())
    assert 2 * EPS < reach <= 3 * EPS + 1e-6
    assert ours.min() >= 0
    assert ours.max() <= 1


def test_fgsm_pgi_loss() -> None:
    rng = np.random.default_rng(0)
    start, adversarial, ce = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), rng.random(5)
    ours = fgsm_pgi(torch.tensor(start), torch.tensor(adversarial), torch.tensor(ce), lam=3.0)
    np.testing.assert_allclose(ours, ce + 3 * ((adversarial - start) ** 2).sum(1) / 4, rtol=1e-12)


def test_fgsm_pgi_step_against_a_plain_loop(network: nn.Module) -> None:
    """Losses, weight gradients through both passes, and where the next visit starts."""
    objective = FGSMPGI(lam=2.0, label_smoothing=0.4)
    policy = RunConfig.flat(trainer="fgsm_pgi", eps=EPS).attack
    state, parameters = policy.initial_state(12), list(network.parameters())
    momentum = torch.zeros(4, 2, 6, 5)
    delta: Tensor | None = None
    for epoch in range(3):
        given = batch([0, 3, 8, 11], epoch)
        attack = policy.bind(network, seed=1, state=state)
        begun = attack.start(given)
        if delta is not None:
            assert float((begun - (given.x + delta)).abs().max()) <= EPS / 254 + 1e-6
        else:  # the first start is a corner of the ball
            inside = (given.x > EPS) & (given.x < 1 - EPS)
            torch.testing.assert_close((begun - given.x).abs()[inside], torch.full((int(inside.sum()),), EPS))
        seen: list[Any] = []

        def update(passes: Passes, seen: list[Any] = seen) -> Outputs:
            losses, logits = passes()
            seen += [losses.detach(), *torch.autograd.grad(losses.mean(), parameters)]
            return Outputs(losses, logits)

        objective.step(network, given, attack, update)

        x = begun.clone().requires_grad_()
        before = network(x)
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(before, given.y), x, retain_graph=True)
        low, high = (given.x - EPS).clamp(min=0), (given.x + EPS).clamp(max=1)
        x_adv = torch.minimum(torch.maximum(begun + EPS * gradient.sign(), low), high)
        after = network(x_adv)
        losses = nn.functional.cross_entropy(after, given.y, reduction="none", label_smoothing=0.4)
        losses = losses + 2.0 * (after - before).square().mean(1)
        expected = [losses.detach(), *torch.autograd.grad(losses.mean(), parameters)]
        for ours, theirs in zip(seen, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        momentum = gradient / gradient.flatten(1).norm(p=1, dim=1).view(-1, 1, 1, 1) + 0.3 * momentum
        delta = torch.minimum(torch.maximum(begun + EPS * momentum.sign(), low), high) - given.x


def single(trainer: str, **settings: Any) -> Callable[[], RunConfig]:
    return lambda: RunConfig.flat(trainer=trainer, **settings)


UNFIT: list[tuple[Callable[[], Any], str]] = [
    *[(single(name, steps="bullet"), "takes one step") for name in ("fgsm", "fast", "n_fgsm", "fgsm_pgi", "free")],
    (single("fgsm", steps=2), "the trainer 'fgsm' takes one step: steps = 2"),
    (single("grad_align", steps={"fixed": {"count": 3}}), "takes one step"),
    (lambda: RunConfig.flat(objective="fgsm_pgi", steps="bullet"), "single step of the attack; steps = 'bullet'"),
    (lambda: RunConfig.flat(objective="grad_align"), "single step of the attack; steps = 7"),
    (lambda: RunConfig.flat(objective="free", steps=1), "carries one perturbation .* leave it at 'clean'"),
    (single("trades", start="clean"), "no gradient at the clean image: use start = 'near'"),
    (single("trades", start={"carried": {"first": "clean"}}), "no gradient at the clean image"),
    (single("pgd_at", start={"carried": {"momentum": 0.3}}), "only the objective 'fgsm_pgi' hands over"),
    (single("fgsm_pgi", attack_mode="train"), "attack_mode has no effect"),
    (single("fast", steps={"fixed": {"step_size": 0.1, "step_factor": 1, "count": 1}}), "give one of them"),
    (lambda: RunConfig().with_settings({"trainer": "fast", "attack.steps": 5}), "takes one step"),
]


@pytest.mark.parametrize(("make", "message"), UNFIT)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_a_trainer_of_one_step_takes_a_step_of_its_own_length(loss: AttackLoss, network: nn.Module) -> None:
    policy = AttackPolicy(eps=EPS, start="clean", steps={"fixed": {"count": 1, "step_factor": 0.5}})
    given = batch([0, 1, 2])
    moved = policy.attack(network, given, given.y, loss, seed=0, state={}) - given.x
    assert float(moved.abs().max()) == pytest.approx(EPS / 2)
