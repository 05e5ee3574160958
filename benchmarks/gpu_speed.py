"""How fast PGD-7 is on a GPU, compiled against exact: `python -m benchmarks.gpu_speed MODEL SPEED [--at-once N]`.

Two epochs over images of the size of CIFAR-10 (noise: the time of a step does not depend on what they show), batches
of 128 in bfloat16, with crops and flips; the second epoch is timed by the clock. With `--at-once`, so many processes
do so side by side: small kernels keep a GPU less busy than Python keeps a core.
Prints rows of results/reference/compiled/gpu.csv; what a process does before it trains is in neither column.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd
import torch

from advprune_core.base.environment import environment
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train

IMAGES = 15_100


def measured(model: str, speed: str) -> tuple[float, float]:
    """Images a second in the second epoch, and the seconds that compiling took."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    y = generator.integers(0, 10, IMAGES)
    dataset = dataset_from_arrays(x, y, x[:1000], y[:1000])
    config = RunConfig.flat(
        dataset="cifar10", model=model, steps=7, eps="8/255", epochs=2, batch_size=128, lr=0.01, best_every=0,
        precision="bfloat16", speed=speed, crop_padding=4, flip=True, device="cuda",
    )  # fmt: skip
    ends: list[float] = []
    result = train(config, dataset, fall_back=False, on_epoch=lambda row: ends.append(time.perf_counter()))
    return result.metrics[-1]["images"] / (ends[1] - ends[0]), result.ledger["seconds"].get("compile", 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("speed", choices=["exact", "compiled"])
    parser.add_argument("--at-once", type=int, default=1)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.at_once, mp_context=get_context("spawn")) as processes:
        tasks = [processes.submit(measured, options.model, options.speed) for _ in range(options.at_once)]
        each, compiling = zip(*(task.result() for task in tasks), strict=True)
    row = {
        "network": options.model,
        "speed": options.speed,
        "at once": options.at_once,
        "images/s": round(sum(each)),
        "compile s": round(max(compiling), 1),
        "device": environment("cuda")["device"],
        "torch": torch.__version__,
    }
    print(pd.DataFrame([row]).to_csv(index=False), end="")


if __name__ == "__main__":
    main()
