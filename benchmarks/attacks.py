"""PGD-10 side by side with torchattacks: alternating runs, medians, one thread.

Prints one line per network: seconds of each, and their ratio. Not a test: nothing is asserted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torchattacks

from advprune_core.attacks import pgd
from advprune_core.datasets.base import load_dataset
from advprune_core.models.base import build_model
from advprune_core.models.cnns import SmallCNN
from advprune_core.models.resnets import PreActResNet18

EPS, STEPS, ROUNDS = 8 / 255, 10, 5


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    dataset = load_dataset("digits")
    small = dataset.train.pixels(slice(0, 64))
    images = {"small_cnn": small, "preact_resnet18 width 16": small}
    settings = {"small_cnn": SmallCNN(), "preact_resnet18 width 16": PreActResNet18(width=16)}
    labels = dataset.train.labels[:64]
    for name, x in images.items():
        model = build_model(settings[name], dataset).eval()
        theirs = torchattacks.PGD(model, eps=EPS, alpha=EPS / 4, steps=STEPS, random_start=False)
        contenders: dict[str, Callable[[], object]] = {
            "advprune": lambda m=model, x=x: pgd(m, x, labels, eps=EPS, steps=STEPS, step_size=EPS / 4, start="clean"),
            "torchattacks": lambda a=theirs, x=x: a(x, labels),
        }
        times: dict[str, list[float]] = {key: [] for key in contenders}
        for _ in range(ROUNDS + 1):
            for key, work in contenders.items():
                times[key].append(seconds(work))
        medians = {key: statistics.median(values[1:]) for key, values in times.items()}
        ratio = medians["advprune"] / medians["torchattacks"]
        print(
            f"PGD-{STEPS}, {name}, batch {len(x)}: advprune {medians['advprune']:.4f} s, "
            f"torchattacks {medians['torchattacks']:.4f} s, ratio {ratio:.3f} (median of {ROUNDS})"
        )


if __name__ == "__main__":
    main()
