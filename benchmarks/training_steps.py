"""One step of adversarial training beside ART's trainers and the textbook's step, and beside its floor."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from advprune_core.attacks.compiled import CompiledPasses, compiled_passes
from advprune_core.objectives.base import Outputs, Passes
from advprune_core.objectives.batch import Batch
from advprune_core.trainers.config import RunConfig
from benchmarks import textbook
from benchmarks.art_classifier import art_classifier
from benchmarks.cases import Case, Goal, OtherResults, installed
from benchmarks.networks import NETWORKS, Network
from benchmarks.timing import Round, Work, alternating

#: Steps of the attack by objective; their length is a quarter of eps, TRADES starts beside the image, the others at it.
STEPS = {"pgd_at": 7, "trades": 10, "mart": 10}
SHARE, LR = 0.25, 0.01
#: Distance of two updates of the weights, relative to their length, at most: rounding, and signs that it turns.
APART = {"exact": 0.02, "compiled": 0.2}
FLOOR = "step against 2k + 3 passes"
TITLES = {"pgd_at": "step of PGD-AT", "trades": "step of TRADES", "mart": "step of MART"}


class Trainee:
    """A copy of a network with its optimiser, and what updates of its weights begin from."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).train()
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)

    def update(self, passes: Passes) -> Outputs:
        """One update by this project's passes."""
        self.optimiser.zero_grad(set_to_none=True)
        losses, logits = passes()
        losses.mean().backward()
        self.optimiser.step()
        return Outputs(losses.detach(), logits.detach())

    def moved(self, before: nn.Module) -> Tensor:
        """By how much its weights are others than before, in one row."""
        pairs = zip(self.model.parameters(), before.parameters(), strict=True)
        return torch.cat([(own - other).detach().flatten() for own, other in pairs])


def options(name: str, eps: float) -> dict[str, Any]:
    """Settings of an objective's attack that both sides share."""
    return {"eps": eps, "steps": STEPS[name], "step_size": SHARE * eps}


def run_of(network: Network, name: str) -> RunConfig:
    """This project's way to train a network by an objective."""
    start = "near" if name == "trades" else "clean"
    steps = {"fixed": {"count": STEPS[name], "step_factor": SHARE}}
    return network.config(trainer=name, start=start, steps=steps)


def ours(network: Network, name: str, trainee: Trainee, batch: Batch) -> Work:
    """A step of this project."""
    run = run_of(network, name)
    attack = run.attack.bind(trainee.model, seed=0, state={})
    return lambda: run.objective.step(trainee.model, batch, attack, trainee.update)


def art_step(name: str, trainee: Trainee, batch: Batch, eps: float) -> Work:
    """A step of ART's trainer, of a network whose attack starts at the image."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainer, AdversarialTrainerTRADESPyTorch

    wrapped = art_classifier(trainee.model, tuple(batch.x.shape[1:]), trainee.optimiser)
    common = {"eps": eps, "eps_step": SHARE * eps, "max_iter": STEPS[name], "num_random_init": 0, "verbose": False}
    attack = ProjectedGradientDescent(wrapped, batch_size=len(batch.x), **common)
    if name == "trades":
        trainer = AdversarialTrainerTRADESPyTorch(wrapped, attack, beta=6.0)
    else:
        trainer = AdversarialTrainer(wrapped, attack, ratio=1.0)
    x, y = batch.x.numpy(), batch.y.numpy()

    def step() -> None:
        with redirect_stderr(io.StringIO()):  # a progress bar for every step
            trainer.fit(x, y, batch_size=len(x), nb_epochs=1)

    return step


def check(first: Trainee, second: Trainee, before: nn.Module, allowed: float, what: str) -> None:
    """Refuse a step that does not move the weights as another one does.

    Raises
    ------
    OtherResults
    """
    a, b = first.moved(before), second.moved(before)
    distance = float((a - b).norm() / b.norm())
    if not distance <= allowed:
        raise OtherResults(f"the step of {what} moves the weights by something else: relative distance {distance:.2g}")


@contextmanager
def compiled_steps(trainee: Trainee, x: Tensor) -> Iterator[CompiledPasses]:
    """Let a trainee make its passes compiled during a block, as a compiled run does."""
    trainee.model.to(memory_format=torch.channels_last)
    passes = compiled_passes(trainee.model, x)
    with passes.instead_of(trainee.model):
        yield passes


def a_batch(network: Network) -> Batch:
    """The network's first test images."""
    x, y = network.images()
    ids = torch.arange(len(x))
    return Batch(x, y, ids=ids, epochs=torch.zeros_like(ids))


@contextmanager
def contenders(network: Network, name: str, *, compiled: bool) -> Iterator[Round]:
    """Ours, the textbook's step and ART's, after a look at whether each moves the weights alike."""
    before, batch, eps = network.model(), a_batch(network), network.config().threat.eps
    start = run_of(network, name).attack.bind(before, seed=0, state={}).start(batch)
    trainees = {label: Trainee(before) for label in ("exact", "textbook")}
    make: Callable[..., textbook.BatchLoss] = getattr(textbook, name)
    own, other = trainees["exact"], trainees["textbook"]

    def written(loss: textbook.BatchLoss, trainee: Trainee, begin: Tensor) -> Work:
        return lambda: textbook.step(trainee.model, trainee.optimiser, loss, batch.x, batch.y, begin)

    steps = {
        "exact": ours(network, name, own, batch),
        "textbook": written(make(**options(name, eps)), other, start),
    }
    with ExitStack() as stack:
        if compiled:
            trainees["compiled"] = Trainee(before)
            stack.enter_context(compiled_steps(trainees["compiled"], batch.x))
            steps["compiled"] = ours(network, name, trainees["compiled"], batch)
        for step in steps.values():
            step()
        for label in set(trainees) & set(APART):
            check(trainees[label], other, before, APART[label], label)
        if name != "mart" and installed("ART"):
            art, same = Trainee(before), Trainee(before)
            steps["ART"] = art_step(name, art, batch, eps)
            more = {"attack_labels": True} if name == "trades" else {}
            written(make(**options(name, eps), **more), same, batch.x)()
            steps["ART"]()
            check(art, same, before, APART["exact"], "ART")
        yield alternating(steps)


@contextmanager
def against_floor(network: Network, *, compiled: bool) -> Iterator[Round]:
    """A step of PGD-AT, and 2k + 3 forward passes of the same network and batch, of the kind that its attack makes."""
    trainee, batch = Trainee(network.model()), a_batch(network)
    x = batch.x.clone().requires_grad_()
    with ExitStack() as stack:
        if compiled:
            stack.enter_context(compiled_steps(trainee, batch.x))
        step, twin = ours(network, "pgd_at", trainee, batch), trainee.model

        def passes() -> None:
            twin.eval()
            for _ in range(2 * STEPS["pgd_at"] + 3):
                twin(x)
            twin.train()

        yield alternating({"step": step, "its forward passes": passes})


#: (exact, compiled) targets by objective; those of the widest network below.
TARGETS = {"pgd_at": (1.25, 2.2), "trades": (2.0, 3.5), "mart": (1.25, 2.2)}
WIDE = {"pgd_at": 1.8, "trades": 2.8, "mart": 1.8}


def _case(network: str, name: str) -> Case:
    exact, compiled = TARGETS[name]
    peers = ["textbook"] if name == "mart" else ["textbook", "ART"]
    goals = [Goal("exact", peer, exact) for peer in peers]
    if network != "small_cnn":
        goals += [Goal("compiled", peer, WIDE[name] if network == "width_16" else compiled) for peer in peers]
    begin = partial(contenders, NETWORKS[network], name, compiled=network != "small_cnn")
    setting = f"{NETWORKS[network].setting()}, {STEPS[name]} steps"
    return Case(f"step-{name}-{network}", TITLES[name], setting, tuple(goals), begin)


def _floor(network: str) -> Case:
    compiled = network != "small_cnn"
    goal = Goal("step", "its forward passes", 1 / 1.1 if compiled else 1 / 1.5)
    begin = partial(against_floor, NETWORKS[network], compiled=compiled)
    way = "compiled" if compiled else "exact"
    return Case(f"floor-{network}", FLOOR, f"{NETWORKS[network].setting()}; {way}", (goal,), begin)


CASES = [
    *(_case(network, name) for network in ("width_8", "cpu_network", "width_16", "small_cnn") for name in STEPS),
    *(_floor(network) for network in ("width_8", "width_16", "cpu_network", "small_cnn")),
]
