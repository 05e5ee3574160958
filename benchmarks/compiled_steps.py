"""What a step of the compact network costs on CIFAR-10: compiled against exact, and what surrounds its passes.

    python -m benchmarks.compiled_steps [--rounds N] [--out FOLDER]

Batches of 128, PGD-7, one thread. Steps are timed in training, processor seconds of a run of a few
batches each, alternating; `channels last` is the exact step in the layout that compiled passes have, by
which a dry run tells how long a compiled one will take; bfloat16 gains where the processor computes in
it. Augmentation, noise and carried perturbations are timed alone, alternating, and given as a share of
the compiled step, and of one with a single attack step. Medians. CIFAR-10 comes from $ADVPRUNE_DATA.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from advprune_core.base.environment import environment
from advprune_core.base.files import write_text
from advprune_core.datasets import augmentation
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.carried import CarriedStart
from advprune_core.objectives.starts import RandomStart
from advprune_core.study.tasks import few_steps
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from benchmarks.timing import Work, alternating, medians

SIZE, STEPS, KEY = 128, 4, 1
THREAT = {"norm": "linf", "eps": 8 / 255}


def step(config: RunConfig, dataset: Dataset, *, channels_last: bool = False) -> float:
    """Processor seconds of a step of training."""
    model = build_model(config.model, dataset)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return (
        train(few_steps(config, dataset, steps=STEPS, size=SIZE), dataset, model=model).ledger["cpu_seconds"]["train"]
        / STEPS
    )


def surroundings(dataset: Dataset) -> dict[str, Work]:
    """Augmentation of a batch; noise of a random start; what carried perturbations take instead of it."""
    ids = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0))[:SIZE]
    epochs = torch.ones_like(ids)
    x = dataset.train.pixels(ids)

    def augmented() -> tuple[torch.Tensor, augmentation.Crops]:
        crops = augmentation.sample(KEY, ids, epochs, padding=4, flip=True)
        return augmentation.apply(augmentation.pad(x, 4), crops), crops

    images, crops = augmented()
    batch = Batch(images, dataset.train.labels[ids], ids=ids, epochs=epochs, crops=crops)
    carried, start = CarriedStart(), RandomStart()
    state = carried.state(len(dataset.train))
    x_adv = start.begin(batch, key=KEY, state={}, **THREAT)
    carried.end(batch, x_adv, state=state, **THREAT)

    def carry() -> None:
        carried.begin(batch, key=KEY, state=state, **THREAT)
        carried.end(batch, x_adv, state=state, **THREAT)

    return {
        "augmentation": augmented,
        "noise of a random start": lambda: start.begin(batch, key=KEY, state={}, **THREAT),
        "carried perturbations, instead": carry,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("results/reference/compiled"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset("cifar10")
    config = RunConfig.flat(dataset="cifar10", model="preact_resnet", steps=7, batch_size=SIZE, device="cpu")
    exact, compiled = config.replace(speed="exact"), config.replace(speed="compiled")
    steps: dict[str, Callable[[], float]] = {
        "step, exact": lambda: step(exact, dataset),
        "step, channels last": lambda: step(exact, dataset, channels_last=True),
        "step, compiled": lambda: step(compiled, dataset),
        "step, bfloat16": lambda: step(exact.replace(precision="bfloat16"), dataset),
        "step, compiled, bfloat16": lambda: step(compiled.replace(precision="bfloat16"), dataset),
        "step, compiled, PGD-1": lambda: step(compiled.with_settings({"attack.steps": 1}), dataset),
    }
    # The first round of each warms up.
    passes = [{name: call() for name, call in steps.items()} for _ in range(options.rounds + 1)]
    around = [*map(alternating(surroundings(dataset)), range(4 * options.rounds + 1))]
    found = medians(passes[1:]) | medians(around[1:])
    table = pd.DataFrame(
        {
            "what": list(found),
            "ms": [round(1000 * seconds, 2) for seconds in found.values()],
            **{
                f"% of {name}": [round(100 * seconds / found[whole], 1) for seconds in found.values()]
                for name, whole in (("PGD-7", "step, compiled"), ("PGD-1", "step, compiled, PGD-1"))
            },
        }
    )
    table["network"], table["device"], table["torch"] = (
        "preact_resnet, batch 128, PGD-7",
        *(environment("cpu")[name] for name in ("device", "torch")),
    )
    write_text(options.out / "steps.csv", table.to_csv(index=False))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
