"""Attacks as settings, and law 2 for every attack: it leaves no trace."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks import ATTACKS, FGSM, PGD, Attack, AutoAttack, ThreatModel, fgsm, pgd
from advprune_core.attacks.apgd import Untargeted
from advprune_core.attacks.base import parse_attacks
from advprune_core.attacks.geometry import Norm
from advprune_core.attacks.losses import AttackLoss
from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import AdvpruneError, ConfigError

Network = Callable[[str], nn.Module]
Images = Callable[[int], tuple[Tensor, Tensor]]
Watch = Callable[..., AbstractContextManager[None]]
Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]

THREATS = {"linf": ThreatModel(norm="linf", eps=0.125), "l2": ThreatModel(norm="l2", eps=0.5)}

#: Attacks that three steps do not make quick.
QUICK: dict[str, dict[str, Any]] = {
    "square": {"queries": 20},
    "autoattack": {
        "attacks": [
            {"apgd": {"steps": 3}},
            {"apgd_t": {"steps": 3}},
            {"fab_t": {"steps": 3}},
            {"square": {"queries": 9}},
        ]
    },
}


def _every_attack() -> dict[str, Perturb]:
    """Functions in both modes, and whatever is registered, in both norms."""
    attacks: dict[str, Perturb] = {}
    for norm, threat in THREATS.items():
        options: dict[str, Any] = {"norm": norm, "eps": threat.eps}
        for mode in ("eval", "train"):
            more: dict[str, Any] = {**options, "mode": mode}
            attacks[f"fgsm {norm} {mode}"] = lambda m, x, y, o=more: fgsm(m, x, y, **o)
            attacks[f"pgd {norm} {mode}"] = lambda m, x, y, o=more: pgd(m, x, y, steps=3, **o)
            attacks[f"pgd {norm} {mode} restarts"] = lambda m, x, y, o=more: pgd(
                m, x, y, steps=torch.arange(1, len(x) + 1), restarts=3, stop_early=True, **o
            )
            attacks[f"pgd {norm} {mode} kl"] = lambda m, x, y, o=more: pgd(
                m, x, nn.functional.one_hot(y, 10).float(), loss="kl", steps=3, **o
            )
        for name, cls in ATTACKS.classes().items():
            attack = cls.create(**QUICK.get(name, {"steps": 3} if "steps" in cls.model_fields else {}))
            attacks[f"{name} {norm} registered"] = lambda m, x, y, a=attack, t=threat: a.perturb(
                m, x, y, threat=t, seed=1
            )
    return attacks


ATTACKS_TABLE = _every_attack()
EVERY = pytest.mark.parametrize("attack", sorted(ATTACKS_TABLE))


@EVERY
@pytest.mark.parametrize("name", ["small_cnn", "preact_resnet18", "dropout"])
def test_leaves_no_trace(attack: str, name: str, network: Network, images: Images, nothing_left: Watch) -> None:
    model, (x, y) = network(name), images(5)
    with nothing_left(model, x, y):
        x_adv = ATTACKS_TABLE[attack](model, x, y)
    assert not x_adv.requires_grad
    assert x_adv.data_ptr() != x.data_ptr()


class Breaks(nn.Module):
    """Raises at the second pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.passes = network, 0

    def forward(self, x: Tensor) -> Tensor:
        out = self.network(x)
        self.passes += 1
        if self.passes == 2:
            raise RuntimeError("broken")
        return out


@pytest.mark.parametrize("attack", sorted(name for name in ATTACKS_TABLE if "pgd" in name))
def test_leaves_no_trace_when_the_model_raises(
    attack: str, network: Network, images: Images, nothing_left: Watch
) -> None:
    model, (x, _) = Breaks(network("dropout")), images(5)
    with torch.no_grad():
        y = model.network(x).argmax(1)  # nothing is broken at once
    with nothing_left(model, x, y), pytest.raises(AdvpruneError, match=r"cannot take images of shape .*: broken"):
        ATTACKS_TABLE[attack](model, x, y)


@EVERY
def test_images_that_require_gradients(attack: str, network: Network, images: Images) -> None:

    model, (x, y) = network("small_cnn"), images(5)
    expected = ATTACKS_TABLE[attack](model, x, y)
    ours = ATTACKS_TABLE[attack](model, x.clone().requires_grad_(), y)
    assert not ours.requires_grad
    assert torch.equal(ours.detach(), expected)


@EVERY
def test_works_where_gradients_are_off(attack: str, network: Network, images: Images) -> None:
    model, (x, y) = network("small_cnn"), images(5)
    expected = ATTACKS_TABLE[attack](model, x, y)
    with torch.no_grad():
        ours = ATTACKS_TABLE[attack](model, x, y)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(ours, expected)
    assert torch.equal(ATTACKS_TABLE[attack](model, x, y), expected)


#: The losses that each attack may be told to maximise; of the others each has its own.
LOSSES_OF: dict[str, list[str]] = {
    "fgsm": ["cross_entropy", "margin"],
    "pgd": ["cross_entropy", "kl", "margin"],
    "apgd": ["cross_entropy", "dlr"],
    "apgd_t": [],
    "fab_t": [],
    "square": [],
    "autoattack": [],
}
LOSSES = {*get_args(AttackLoss), *get_args(Untargeted)}


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize(("name", "loss"), [(name, loss) for name, losses in LOSSES_OF.items() for loss in losses])
def test_every_loss_that_is_allowed_works(name: str, loss: str, norm: str, network: Network, images: Images) -> None:
    model, (x, y) = network("small_cnn"), images(7)
    x_adv = ATTACKS.classes()[name].create(loss=loss).perturb(model, x, y, threat=THREATS[norm], seed=0)
    assert x_adv.shape == x.shape
    assert not torch.equal(x_adv, x)


def test_every_other_loss_is_refused_and_the_message_names_what_is_allowed() -> None:
    assert set(LOSSES_OF) == set(ATTACKS.classes())
    for name, allowed in LOSSES_OF.items():
        message = "unknown setting 'loss'; allowed: "
        if allowed:
            listed = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
            message = rf"loss = '\w+': Input should be {listed}$"
        for loss in sorted(LOSSES - set(allowed)):
            with pytest.raises(ConfigError, match=message):
                ATTACKS.classes()[name].create(loss=loss)


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ("fgsm", "fgsm"),
        ("pgd", "pgd40"),
        ({"pgd": {"steps": 10}}, "pgd10"),
        ({"pgd": {"loss": "margin", "restarts": 5}}, "pgd40_margin_x5"),
        ({"pgd": {"loss": "kl", "step_size": "1/100"}}, "pgd40_kl_step0.01"),
        ({"pgd": {"random_start": False}}, "pgd40_clean"),
        ({"fgsm": {"loss": "margin"}}, "fgsm_loss=margin"),
        ("autoattack", "autoattack"),
        ({"autoattack": {"version": "apgd", "precision": "bfloat16"}}, "autoattack_apgd_bfloat16"),
        ({"autoattack": {"give_up": False}}, "autoattack_to_the_end"),
        ({"autoattack": {"version": ["fgsm", "square"]}}, "autoattack_fgsm+square"),
        ({"autoattack": {"version": ["fgsm"]}}, "autoattack_fgsm_alone"),
    ],
)
def test_labels(spec: Any, label: str) -> None:
    assert ATTACKS.parse(spec).label() == label


def test_labels_are_unique() -> None:
    grid = itertools.product((1, 10), (None, 0.1, 0.01), (1, 2), (True, False), get_args(AttackLoss))
    attacks = [
        PGD(steps=k, step_size=s, restarts=r, random_start=b, loss=loss)
        for k, s, r, b, loss in grid
        if b or loss != "kl"
    ]
    attacks += [FGSM(loss="cross_entropy"), FGSM(loss="margin")]
    assert len({attack.label() for attack in attacks}) == len(attacks)


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "kl"])
def test_components_call_the_functions(norm: str, loss: Any, network: Network, images: Images) -> None:
    model, (x, y) = network("small_cnn"), images(7)
    threat = THREATS[norm]
    with torch.no_grad():
        target = model(x) if loss == "kl" else y
    ours = PGD(steps=4, step_size=0.05, restarts=2, loss=loss).perturb(model, x, y, threat=threat, seed=3)
    options: dict[str, Any] = {"norm": norm, "eps": threat.eps, "loss": loss, "seed": 3}
    expected = pgd(model, x, target, steps=4, step_size=0.05, restarts=2, stop_early=True, labels=y, **options)
    assert torch.equal(ours, expected)
    if loss != "kl":
        assert torch.equal(
            FGSM(loss=loss).perturb(model, x, y, threat=threat, seed=3), fgsm(model, x, y, start="clean", **options)
        )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pdg", "unknown attack 'pdg' .did you mean 'pgd'.*allowed"),
        ({"pgd": {"step": 3}}, "unknown setting 'step' .did you mean 'steps'"),
        ({"pgd": {"steps": 0}}, "steps = 0.*greater than or equal to 1"),
        ({"pgd": {"restarts": 0}}, "restarts = 0"),
        ({"pgd": {"step_size": 0}}, "step_size = 0.*greater than 0"),
        ({"pgd": {"step_size": "1/0"}}, "not a number or a ratio"),
        ({"pgd": {"loss": "hinge"}}, "'cross_entropy', 'kl' or 'margin'"),
        ({"fgsm": {"steps": 1}}, "unknown setting 'steps'"),
        ({"autoattack": {"version": "plus"}}, "'standard' or 'apgd'"),
        ({"autoattack": {"version": ["pdg"]}}, "unknown attack 'pdg' .did you mean 'pgd'"),
        ({"autoattack": {"version": []}}, "or a list of attacks"),
    ],
)
def test_what_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ATTACKS.parse(spec)


class Without(Attack):
    name = "without"


class OfOldTimes(Attack):
    name = "of_old_times"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:  # type: ignore[override]
        return x


class OfAnyArguments(Attack):
    name = "of_any_arguments"

    def perturb(self, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = args[1]
        return found


@pytest.mark.parametrize("inside", [False, True])
def test_an_attack_that_cannot_be_called_is_refused_before_any_work(inside: bool) -> None:
    for attack, message in (
        (Without(), r"the attack without has no perturb\(self, model, x, y, \*, threat, seed, ids=None\)"),
        (
            OfOldTimes(),
            r"of_old_times cannot be called as perturb\(self.*: got an unexpected keyword argument 'threat'",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            AutoAttack.create(version=[attack]) if inside else parse_attacks(["pgd", attack])
    assert parse_attacks(OfAnyArguments()) == (OfAnyArguments(),)


#: Attacks, and the cost of an image that withstands them as their docstrings say, in forward-equivalents.
COSTS: list[tuple[Any, int]] = [
    ("fgsm", 2),
    ({"pgd": {"steps": 7}}, 2 * 7),
    ({"pgd": {"steps": 7, "restarts": 3}}, 2 * 7 + 2 * (2 * 7 + 1)),
    ({"apgd": {"steps": 9}}, 2 * 9 + 1),
    ({"apgd": {"steps": 9, "restarts": 2}}, 2 * (2 * 9 + 1)),
    ({"apgd_t": {"steps": 9, "targets": 4}}, 4 * (2 * 9 + 1) + 1),
    ({"fab_t": {"steps": 5, "targets": 4}}, 4 * 3 * 5 + 1),
    ({"square": {"queries": 30}}, 30),
]


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize(("spec", "most"), COSTS, ids=str)
def test_costs_are_those_of_the_docstrings(spec: Any, most: int, norm: Norm, network: Network, images: Images) -> None:
    model, (x, _) = network("small_cnn"), images(8)
    with torch.no_grad():
        y = model(x).argmax(1)
    ledger = Ledger()
    with ledger.watch(model):
        ATTACKS.parse(spec).perturb(model, x, y, threat=ThreatModel(norm=norm, eps=1e-4), seed=0)
    cost = sum(ledger.passes.values()) / len(x)
    # Square may run out of questions; nothing else stops while an image stands.
    assert cost == most or ("square" in spec and 0 < cost <= most)
