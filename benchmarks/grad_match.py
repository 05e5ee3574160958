"""Joint GRAD-MATCH over all 50,000 CIFAR-100 images: 100 classes, 512 features; seconds and memory.

    python benchmarks/grad_match.py CIFAR100.npz [--k 5000] [--objective pgd_at]

CIFAR100.npz has x_train (uint8) and y_train. The features are those of a small network with random
weights and 512 hidden units. Nothing of size n x classes x features is ever made: that would be 10 GB.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.models.base import build_model
from advprune_core.models.cnns import SmallCNN
from advprune_core.models.mode import no_trace
from advprune_core.objectives.base import OBJECTIVES
from advprune_core.pruners.branches import Branch, SplitOutputs
from advprune_core.pruners.grad_match import grad_match
from advprune_core.pruners.gradients import last_layer_gradients
from advprune_core.pruners.outputs import branch


def gigabytes() -> float:
    """Largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--objective", default="pgd_at")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.data, allow_pickle=False) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    dataset = dataset_from_arrays(x, y, x[:1000], y[:1000], val_select=0, val_stop=0)
    model = build_model(SmallCNN(width=128), dataset)
    start, parts = time.perf_counter(), list[Branch]()
    with no_trace(model):
        for ids in torch.arange(len(dataset.train)).split(250):
            parts.append(branch(model, dataset.train.pixels(ids)))
    outputs = Branch(torch.cat([p.logits for p in parts]), torch.cat([p.features for p in parts]))
    shapes = f"outputs {tuple(outputs.logits.shape)}, features {tuple(outputs.features.shape)}"
    print(f"{shapes}: {time.perf_counter() - start:.0f} s", flush=True)
    gradients = last_layer_gradients(
        OBJECTIVES.parse(options.objective), SplitOutputs(dataset.train.labels, outputs, outputs)
    )
    before, start = gigabytes(), time.perf_counter()
    found = grad_match(gradients, options.k, rng=np.random.default_rng(0))
    seconds = time.perf_counter() - start
    print(f"{options.k} of {len(gradients)} picked in {seconds:.0f} s, {found.n_filled} of them filled")
    print(f"largest memory {gigabytes():.2f} GB ({before:.2f} before)")


if __name__ == "__main__":
    main()
