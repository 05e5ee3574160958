"""What parts of a run take beside the whole: a fraction of the data, selecting it, steps for few images alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from advprune_core.datasets.base import load_dataset
from advprune_core.pruners.base import PRUNERS, Context
from advprune_core.study.tasks import few_steps, warm_up
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from benchmarks.cases import Case, Goal, OtherResults
from benchmarks.networks import NETWORKS, outputs, trained
from benchmarks.timing import Round, alternating

#: Short runs of PGD-7 on images that make whole batches at every fraction below, so that no remnant is in the ratio.
FRACTIONS = (0.2, 0.6)
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": (
        "small CNN, 1,280 digits, batch 64, 8 epochs",
        {"dataset": {"digits": {"limit": 1280, "val_select": 0, "val_stop": 0}}, "epochs": 8, "batch_size": 64},
    ),
    "fashion": (
        "small CNN, 10,240 images of Fashion-MNIST, batch 128, 1 epoch",
        {**NETWORKS["small_cnn"].run, "epochs": 1},
    ),
    "cifar10": (
        "PreActResNet for CPUs, compiled, 5,120 images of CIFAR-10, batch 128, 1 epoch",
        {
            "dataset": {"cifar10": {"limit": 5120, "test_limit": 1000, "val_select": 0, "val_stop": 0}},
            "model": "preact_resnet",
            "batch_size": 128,
            "epochs": 1,
            "speed": "compiled",
            "crop_padding": 4,
            "flip": True,
        },
    ),
}
#: Selected again after so many epochs, each on this share of the images.
EVERY, SHARE = 20, 0.3
#: How many times a selection is done, so that its time is more than the clock's grain.
REPEATS = {"random": 100}


def run_of(options: Mapping[str, Any], **more: Any) -> RunConfig:
    """A run of PGD-7 on one thread."""
    return RunConfig.flat(**{"device": "cpu", "speed": "exact", **options, "trainer": "pgd_at", **more})


def cost(config: RunConfig) -> float:
    """Processor seconds of a run's training and selections; compiling, once in a process, is not among them."""
    result = train(config, load_dataset(config.dataset), fall_back=False)
    return sum(result.ledger["cpu_seconds"].get(phase, 0.0) for phase in ("train", "select"))


@contextmanager
def fractions(options: Mapping[str, Any]) -> Iterator[Round]:
    """The run on all data, and on random parts of them; the peer of each part is that share of the full run."""
    full = run_of(options)
    warm_up(full, load_dataset(full.dataset))

    def measured(number: int) -> dict[str, float]:
        configs = {1.0: full, **{part: run_of(options, pruner="random", fraction=part) for part in FRACTIONS}}
        order = list(configs)[:: -1 if number % 2 else 1]
        taken = {part: cost(configs[part]) for part in order}
        parts = {f"{part:.0%} of the data": taken[part] for part in FRACTIONS}
        return parts | {f"{part:.0%} of the full run": part * taken[1.0] for part in FRACTIONS}

    yield measured


@contextmanager
def selections(options: Mapping[str, Any], pruners: Mapping[str, Any], network: str | None) -> Iterator[Round]:
    """Selections from saved outputs, so without the passes that make them, and the epochs on what one selects.

    The outputs are those of a network that is trained already, or of the run itself.
    """
    config = run_of(options)
    dataset = load_dataset(config.dataset)
    saved = outputs(trained(config) if network is None else NETWORKS[network].model(), dataset.train)
    size, n = config.optimisation.batch_size, len(dataset.train)
    context = Context(dataset, SHARE, seed=0, epoch=1, objective=config.objective, outputs=saved)
    warm_up(config, dataset)
    short, steps = few_steps(config, dataset, steps=8, size=size), EVERY * SHARE * n / size

    def select(pruner: Any, repeats: int) -> None:
        for _ in range(repeats):
            if len(pruner.select(context)) != context.k:
                raise OtherResults(f"{pruner.name} keeps another number of images")

    chosen = {name: PRUNERS.parse(spec) for name, spec in pruners.items()}
    work = {name: partial(select, pruner, REPEATS.get(name, 1)) for name, pruner in chosen.items()}

    def measured(number: int) -> dict[str, float]:
        amounts = {name: taken / REPEATS.get(name, 1) for name, taken in alternating(work)(number).items()}
        return amounts | {RUN: train(short, dataset).ledger["cpu_seconds"]["train"] / 8 * steps}

    yield measured


RUN = f"{EVERY} epochs on {SHARE:.0%}"


@contextmanager
def bullet(network: str, *, speed: str) -> Iterator[Round]:
    """Steps of PGD-AT with BulletTrain's numbers of steps, and with ten for every image.

    The peer of the former is what the plain steps would take for as many passes.
    """
    own, steps = NETWORKS[network], 12
    model, dataset = own.model(), own.dataset()

    def run(spec: Any) -> tuple[float, int]:
        config = own.config(trainer="pgd_at", steps=spec, speed=speed, lr=1e-3)  # the network stays what it is
        short = few_steps(config, dataset, steps=steps, size=config.optimisation.batch_size)
        ledger = train(short, dataset, model=copy.deepcopy(model), fall_back=False).ledger
        return ledger["cpu_seconds"]["train"], ledger["passes"]["train"]

    def measured(number: int) -> dict[str, float]:
        (plain, all_passes), (few, fewer) = run(10), run("bullet")
        return {"BulletTrain": few, "plain steps, as many passes": plain * fewer / all_passes}

    yield measured


def _fractions(name: str) -> Case:
    setting, options = RUNS[name]
    goals = tuple(Goal(f"{f:.0%} of the data", f"{f:.0%} of the full run", 1 / 1.03) for f in FRACTIONS)
    return Case(f"fraction-{name}", "run at a fraction", setting, goals, partial(fractions, options), warm_up=False)


def _selections(
    name: str, options: Mapping[str, Any], setting: str, pruners: Mapping[str, Any], network: str | None = None
) -> Case:
    goals = tuple(Goal(pruner, RUN, 200.0 if pruner == "random" else 20.0) for pruner in pruners)
    begin = partial(selections, options, pruners, network)
    return Case(f"select-{name}", "selection beyond its attack pass", setting, goals, begin)


def _bullet(network: str, speed: str) -> Case:
    own = NETWORKS[network]
    setting = f"{own.setting(own.config().optimisation.batch_size)}, 10 steps at the boundary; {speed}"
    goals = (Goal("BulletTrain", "plain steps, as many passes", 0.9),)
    return Case(f"bullet-{network}-{speed}", "BulletTrain", setting, goals, partial(bullet, network, speed=speed))


_CIFAR = {**RUNS["cifar10"][1], "dataset": {"cifar10": {"limit": 10_240, "val_select": 0, "val_stop": 0}}}
_ALL = {**_CIFAR, "dataset": {"cifar10": {"limit": 48_000, "val_select": 0, "val_stop": 0}}}
_COMPILED = "PreActResNet for CPUs, compiled"
_SIMPLE = {"grad_match": "grad_match", "craig": "craig", "random": "random"}
CASES = [
    *(_fractions(name) for name in RUNS),
    _selections("digits", RUNS["digits"][1], "small CNN, 1,280 digits", _SIMPLE),
    _selections(
        "cifar10", _CIFAR, "PreActResNet for CPUs, compiled, 10,240 images of CIFAR-10", _SIMPLE, "cpu_network"
    ),
    _selections(
        "cifar10-all",
        _ALL,
        f"{_COMPILED}, 48,000 images of CIFAR-10",
        {"grad_match, blocks of 512": {"grad_match": {"block": 512}}, "random": "random"},
        "cpu_network",
    ),
    _bullet("small_cnn", "exact"),
    _bullet("cpu_network", "exact"),
    _bullet("cpu_network", "compiled"),
]
