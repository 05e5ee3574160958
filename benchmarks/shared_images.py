"""Memory of one and of two workers on 200,000 images of 32x32: `python benchmarks/shared_images.py`.

Each worker looks at all images, then trains for some batches. What counts is their proportional set size: pages that
several processes map are divided among them. Beside it is what is each worker's own (USS). On 2,000 images it is
PyTorch's alone, which every worker has.
"""

from __future__ import annotations

import time

import numpy as np
import psutil
import torch

from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset
from advprune_core.study.engines import engine
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train


def trained(dataset: Dataset, seed: int) -> int:
    """Train a little on all of the images, after touching each of them; the process id."""
    config = RunConfig.flat(
        model={"small_cnn": {"width": 4}}, steps=1, epochs=400 / len(dataset.train), seed=seed, speed="exact"
    )
    torch.set_num_threads(1)
    for _, images, _ in dataset.train.batches(512, "cpu"):
        images.mean()
    train(config, dataset)
    return psutil.Process().pid


def measured(workers: int, dataset: Dataset) -> tuple[float, float]:
    """Largest sums of the PSS, and of the USS, of all workers while they work, in bytes."""
    peak = [0.0, 0.0]
    with engine("processes", workers) as executor:
        under_way = [executor.submit(trained, dataset, seed) for seed in range(workers)]
        while not all(future.done() for future in under_way):
            found = []
            for child in psutil.Process().children():
                try:
                    if "popen_loky" in " ".join(child.cmdline()):
                        found.append(child.memory_full_info())
                except psutil.Error:
                    continue
            peak = [max(peak[0], sum(m.pss for m in found)), max(peak[1], sum(m.uss for m in found))]
            time.sleep(0.1)
        assert len({future.result() for future in under_way}) <= workers
        executor.shutdown(cancel_futures=True)
    return peak[0], peak[1]


def made_up(count: int) -> Dataset:
    """Noise of that many images."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, count)
    return dataset_from_arrays(x, y, x[:1000], y[:1000], layout="NCHW")


if __name__ == "__main__":
    for count in (2_000, 200_000):
        dataset = made_up(count)
        one, two = (measured(workers, dataset) for workers in (1, 2))
        for name, first, second in zip(("PSS", "USS"), one, two, strict=True):
            told = f"{name}: one worker {first / 1e6:.0f} MB, two {second / 1e6:.0f} MB, {second / first - 1:+.1%}"
            print(f"{count} images, {told}", flush=True)
