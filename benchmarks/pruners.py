"""What one selection costs: every pruner on 10,000 Fashion-MNIST images, in epochs of training.

    python benchmarks/pruners.py [--images N] [--fraction F] [--out FILE.csv]

Trains a small network for one epoch of PGD-7, then lets every pruner select once. Passes are
counted, seconds are those of the processor, one thread. Fashion-MNIST comes from $ADVPRUNE_DATA or
is downloaded.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from advprune_core.base.files import write_text
from advprune_core.base.ledger import Ledger
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners import PRUNERS, Context
from advprune_core.pruners.history import HistoryPruner
from advprune_core.pruners.infobatch import InfoBatch
from advprune_core.study.study import pruner_label
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train

#: Every pruner, and other settings of some that change what a selection costs.
MORE: list[Any] = [{"grad_match": {"per_class": False}}, {"glister": {"greedy": "naive"}}, {"grad_match": {"steps": 1}}]


def observed(pruner: Any, dataset: Dataset, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a pruner of a history would have kept of twelve epochs that hover around the network's outputs."""
    n, state = len(dataset.train), dict[str, torch.Tensor]()
    ids, y = torch.arange(n), dataset.train.labels
    with torch.no_grad():
        logits = torch.cat([model(dataset.train.pixels(part)) for part in ids.split(500)])
    for epoch in range(12):
        noisy = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(epoch))
        losses = torch.nn.functional.cross_entropy(noisy, y, reduction="none")
        pruner.observe(
            Batch(torch.zeros(n, 1, 1, 1), y, ids, torch.full_like(ids, epoch)), Outputs(losses, noisy), state
        )
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--fraction", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("results/reference/pruners/selection.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = {"fashion_mnist": {"limit": options.images + 1000, "val_select": 500, "val_stop": 500, "test_limit": 100}}
    config = RunConfig.flat(dataset=source, model="mnist_cnn", eps=0.1, epochs=1, batch_size=128, lr=0.02, device="cpu")
    dataset = load_dataset(config.dataset)
    model = build_model(config.model, dataset)
    done = train(config, dataset, model=model)
    epoch = {
        name: done.ledger[name]["train"] / done.images_visited * len(dataset.train)
        for name in ("passes", "cpu_seconds")
    }
    print(
        f"one epoch of {len(dataset.train)} images: {epoch['passes']:.0f} passes, {epoch['cpu_seconds']:.1f} s",
        flush=True,
    )
    rows = []
    for spec in [*PRUNERS.classes(), *MORE]:
        pruner = PRUNERS.parse(spec)
        state = observed(pruner, dataset, model) if isinstance(pruner, HistoryPruner | InfoBatch) else {}
        context = Context(
            dataset=dataset,
            fraction=options.fraction,
            seed=0,
            epoch=12 if state else 1,
            model=model,
            objective=config.objective,
            attack=config.attack,
            state=state,
            epochs=30.0,
        )
        ledger, start = Ledger(), time.process_time()
        with ledger.watch(model), ledger.phase("select"):
            selection = pruner.select(context)
        seconds = time.process_time() - start
        rows.append(
            {
                "pruner": pruner_label(pruner),
                "kept": len(selection),
                "n_filled": selection.n_filled,
                "passes": ledger.passes["select"] / epoch["passes"],
                "seconds": seconds / epoch["cpu_seconds"],
            }
        )
        print(
            f"{rows[-1]['pruner']:32} {rows[-1]['passes']:.2f} epochs in passes, {rows[-1]['seconds']:.2f} in seconds",
            flush=True,
        )
    table = pd.DataFrame(rows).round(4)
    write_text(options.out, table.to_csv(index=False))
    dear = table[np.maximum(table["passes"], table["seconds"]) > 1]
    print(f"\nmore than one epoch: {', '.join(dear['pruner']) or 'none'}; table in {options.out}")


if __name__ == "__main__":
    main()
