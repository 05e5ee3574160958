"""Processor seconds to a stated robust accuracy: this project's runs, and the textbook's loop at its best.

Each side has ways to train, each for some numbers of epochs. They are tried in the order of their cost, with a seed
that no round has, until one reaches the stated accuracy: that is the side's best, and is then timed on other seeds.
Robust is what PGD-20 with cross-entropy, then with the margin, leaves right of the test images.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from advprune_core.attacks.base import PGD
from advprune_core.attacks.evaluate import evaluate
from advprune_core.datasets import augmentation
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from benchmarks import textbook
from benchmarks.cases import Case, Goal, OtherResults
from benchmarks.timing import Round, seconds

TUNING = 100


@dataclass(frozen=True)
class Race:
    """What is to be reached, on which data, by which of our runs.

    Attributes
    ----------
    stated : float
        Robust accuracy, in [0, 1].
    common : dict
        Settings of every run: data, network, batch, learning rate, augmentation.
    ours : dict of str to dict
        What else our ways to train set.
    lengths : tuple of int
        Epochs to try.
    """

    setting: str
    stated: float
    common: dict[str, Any]
    ours: dict[str, dict[str, Any]]
    lengths: tuple[int, ...]


#: Passes of an image in one step, by which the textbook's ways are put in order.
TEXTBOOK = {"PGD-AT": 17, "N-FGSM": 5}
RACES = {
    "fashion": Race(
        "60 % of Fashion-MNIST, eps 0.1; small CNN, 10,240 images, batch 128",
        0.60,
        {
            "dataset": {"fashion_mnist": {"limit": 10_240, "test_limit": 1000, "val_select": 0, "val_stop": 0}},
            "model": {"small_cnn": {"width": 16}},
            "eps": 0.1,
            "batch_size": 128,
            "lr": 0.02,
        },
        {"carried": {"trainer": "atta"}, "N-FGSM": {"trainer": "n_fgsm"}},
        (1, 2, 3, 4, 6, 8, 12),
    ),
    "cifar10": Race(
        "22 % of CIFAR-10, eps 8/255; PreActResNet for CPUs, 10,240 images, batch 128",
        0.22,
        {
            "dataset": {"cifar10": {"limit": 10_240, "test_limit": 1000, "val_select": 0, "val_stop": 0}},
            "model": "preact_resnet",
            "eps": "8/255",
            "batch_size": 128,
            "lr": 0.2,
            "crop_padding": 4,
            "flip": True,
        },
        {
            "carried, compiled": {"trainer": "atta", "speed": "compiled"},
            "N-FGSM, compiled": {"trainer": "n_fgsm", "speed": "compiled"},
        },
        (2, 3, 4, 6, 8, 12),
    ),
}


@dataclass(frozen=True)
class Trained:
    """What a training took, and what it came to."""

    seconds: float
    robust: float


def robust_accuracy(model: nn.Module, dataset: Dataset, config: RunConfig) -> float:
    """Share of the test images that withstand PGD-20 on both losses."""
    found = evaluate(model, dataset.test, [PGD(steps=20), PGD(steps=20, loss="margin")], threat=config.threat)
    return float(found.robust.mean())


def our_run(race: Race, way: str, epochs: int, seed: int) -> Trained:
    """One of our ways to train; without the seconds of compiling, which are once in a process."""
    options = {"device": "cpu", "speed": "exact", **race.common, **race.ours[way]}
    config = RunConfig.flat(**options, epochs=epochs, seed=seed)
    dataset = load_dataset(config.dataset)
    result = train(config, dataset, fall_back=False)
    model = build_model(config.model, dataset, seed=seed)
    assert result.last is not None
    model.load_state_dict(result.last)
    return Trained(result.ledger["cpu_seconds"]["train"], robust_accuracy(model.eval(), dataset, config))


def batches(dataset: Dataset, config: RunConfig, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches for so many epochs, cropped and mirrored as the run says."""
    size, padding = config.optimisation.batch_size, config.optimisation.crop_padding
    for epoch in range(epochs):
        for ids in torch.randperm(len(dataset.train)).split(size):
            x = dataset.train.pixels(ids)
            if padding:
                drawn = augmentation.sample(config.seed, ids, torch.full_like(ids, epoch), padding=padding, flip=True)
                x = augmentation.apply(augmentation.pad(x, padding), drawn)
            yield x, dataset.train.labels[ids]


def textbook_run(race: Race, way: str, epochs: int, seed: int) -> Trained:
    """The textbook's loop with one of its ways."""
    config = RunConfig.flat(device="cpu", speed="exact", **race.common, epochs=epochs, seed=seed)
    dataset, eps = load_dataset(config.dataset), config.threat.eps
    model = build_model(config.model, dataset, seed=seed)
    ways: Mapping[str, tuple[textbook.BatchLoss, Callable[[Tensor], Tensor]]] = {
        "PGD-AT": (textbook.pgd_at(eps=eps, steps=7, step_size=eps / 4), partial(textbook.random_start, eps=eps)),
        "N-FGSM": (textbook.n_fgsm(eps=eps), partial(textbook.random_start, eps=eps, reach=2.0)),
    }
    loss, start = ways[way]
    count = epochs * -(-len(dataset.train) // config.optimisation.batch_size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        work = partial(
            textbook.train, model, batches(dataset, config, epochs), count, loss, start, lr=config.optimisation.lr
        )
        taken = seconds(work)
    return Trained(taken, robust_accuracy(model, dataset, config))


Attempt = Callable[[int], Trained]


def cheapest(attempts: Mapping[str, tuple[float, Attempt]], stated: float) -> tuple[str, Attempt]:
    """The first attempt, in the order of their costs, that reaches a robust accuracy with the tuning seed.

    Raises
    ------
    OtherResults
        If none does.
    """
    for name, (_, attempt) in sorted(attempts.items(), key=lambda item: item[1][0]):
        found = attempt(TUNING)
        print(f"  {name}: {found.robust:.1%} robust in {found.seconds:.1f} s", flush=True)
        if found.robust >= stated:
            return name, attempt
    raise OtherResults(f"nothing reaches {stated:.0%} robust")


@contextmanager
def sides(race: Race) -> Iterator[Round]:
    """The best of ours and of the textbook's; a round is a seed."""
    own = {
        f"{way}, {epochs} epochs": (float(epochs), partial(our_run, race, way, epochs))
        for epochs in race.lengths
        for way in race.ours
    }
    others = {
        f"{way}, {epochs} epochs": (float(passes * epochs), partial(textbook_run, race, way, epochs))
        for epochs in race.lengths
        for way, passes in TEXTBOOK.items()
    }
    chosen = {"ours": cheapest(own, race.stated)[1], "textbook": cheapest(others, race.stated)[1]}
    robust: dict[str, list[float]] = {name: [] for name in chosen}

    def measured(number: int) -> dict[str, float]:
        found = {name: attempt(number) for name, attempt in chosen.items()}
        for name, side in found.items():
            robust[name].append(side.robust)
        if statistics.median(robust["ours"]) < statistics.median(robust["textbook"]) - 0.02:
            raise OtherResults(f"robust accuracies by seed: {robust}")
        return {name: side.seconds for name, side in found.items()}

    yield measured


def _case(name: str) -> Case:
    race = RACES[name]
    goals = (Goal("ours", "textbook", 3.0),)
    begin = partial(sides, race)
    return Case(f"accuracy-{name}", "seconds to robust accuracy", race.setting, goals, begin, warm_up=False, long=True)


CASES = [_case(name) for name in RACES]
