"""PGD-10 beside torchattacks, Foolbox and ART: the same images, the same steps, from the clean image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from advprune_core.attacks import pgd
from advprune_core.attacks.compiled import compiled_passes
from advprune_core.attacks.evaluate import predictions
from benchmarks.cases import Case, Goal, OtherResults, installed
from benchmarks.networks import NETWORKS, Network
from benchmarks.timing import Round, alternating

STEPS, STEP_SHARE = 10, 0.25
TITLE = f"PGD-{STEPS}"
#: Of robust images among those of a batch, ours compiled and theirs, at most.
APART = 0.05
Attack = Callable[[Tensor, Tensor], Tensor]


def torchattacks_pgd(model: nn.Module, eps: float) -> Attack:
    import torchattacks

    attack: Attack = torchattacks.PGD(model, eps=eps, alpha=STEP_SHARE * eps, steps=STEPS, random_start=False)
    return attack


def foolbox_pgd(model: nn.Module, eps: float) -> Attack:
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SHARE * eps, steps=STEPS, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    return lambda x, y: attack(wrapped, x, y, epsilons=eps)[1]


def art_pgd(model: nn.Module, eps: float) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    from benchmarks.art_classifier import art_classifier

    def attack(x: Tensor, y: Tensor) -> Tensor:
        wrapped = art_classifier(model, tuple(x.shape[1:]))
        options = {"eps": eps, "eps_step": STEP_SHARE * eps, "max_iter": STEPS, "num_random_init": 0}
        own = ProjectedGradientDescentPyTorch(wrapped, batch_size=len(x), verbose=False, **options)
        return torch.from_numpy(own.generate(x.numpy(), y.numpy()))

    return attack


PEERS = {"torchattacks": torchattacks_pgd, "Foolbox": foolbox_pgd, "ART": art_pgd}


@contextmanager
def contenders(network: Network, *, compiled: bool) -> Iterator[Round]:
    """Ours and every peer that is installed, after a look at whether they find the same images."""
    model, (x, y), eps = network.model(), network.images(), network.config().threat.eps
    attacks: dict[str, Attack] = {name: make(model, eps) for name, make in PEERS.items() if installed(name)}
    exact = partial(pgd, model, eps=eps, steps=STEPS, step_size=STEP_SHARE * eps, start="clean")
    found = exact(x, y)
    for name, attack in attacks.items():
        if not torch.equal(attack(x, y), found):
            raise OtherResults(f"PGD of {name} finds other images than ours")
    attacks["exact"] = exact
    if compiled:
        passes = compiled_passes(model, x, training=False)

        def search(x: Tensor, y: Tensor) -> Tensor:
            with passes.instead_of(model):
                return exact(x, y)

        robust, plain = (float((predictions(model, images) == y).float().mean()) for images in (search(x, y), found))
        if abs(robust - plain) > APART:
            raise OtherResults(f"compiled PGD leaves {robust:.1%} of the images right, plain PGD {plain:.1%}")
        attacks["compiled"] = search
    yield alternating({name: partial(attack, x, y) for name, attack in attacks.items()})


def _case(name: str, least: float | None) -> Case:
    """A network; `least` is what the compiled attack should gain over torchattacks, None where it is not asked for."""
    goals = [Goal("exact", peer, 0.95 if peer == "torchattacks" else 1.4) for peer in PEERS]
    if least is not None:
        goals += [Goal("compiled", peer, least if peer == "torchattacks" else 2.5) for peer in PEERS]
    network = NETWORKS[name]
    begin = partial(contenders, network, compiled=least is not None)
    return Case(f"pgd-{name}", TITLE, network.setting(), tuple(goals), begin)


CASES = [
    _case("width_8", 2.0),
    _case("width_16", 1.6),
    _case("width_64", None),
    _case("cpu_network", 2.0),
    _case("small_cnn", None),
]
