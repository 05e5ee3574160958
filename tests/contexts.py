"""Contexts in which any pruner can select: a little data set, a network, and what training has left."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset
from advprune_core.objectives.base import OBJECTIVES, Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.pruners import Context
from advprune_core.pruners.branches import Branch, SplitOutputs

EPS = 0.15


def blobs(counts: tuple[int, ...] = (90, 50, 20, 12), *, seed: int = 0, val_select: int = 12) -> Dataset:
    """Noisy images of a few classes, as many of each as asked for before val_select is taken out."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = rng.random((len(counts), 6, 6))
    images = np.clip(centres[labels] + 0.3 * rng.standard_normal((len(labels), 6, 6)), 0, 1).astype(np.float32)
    return dataset_from_arrays(images, labels, images, labels, val_select=val_select, val_stop=0)


def beside_a_boundary() -> Dataset:
    """Ten images of two classes, each some way on the right side of the mean pixel 0.5; two on the wrong one."""
    distances = np.array([0.04, 0.4, 0.13, 0.23, -0.1, 0.28, 0.08, 0.33, 0.18, -0.02])
    labels = np.arange(10) % 2
    light = 0.5 + np.where(labels == 1, distances, -distances)
    images = np.broadcast_to(light[:, None, None], (10, 2, 2)).astype(np.float32)
    return dataset_from_arrays(images, labels, images, labels, val_select=0, val_stop=0)


def network(classes: int, *, seed: int = 0) -> nn.Module:
    """A convolution with BatchNorm and two layers: it has buffers and modes to leave alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Linear(144, 7),
            nn.Tanh(),
            nn.Linear(7, classes),
        )


@lru_cache
def fitted() -> dict[str, Tensor]:
    """Weights of `network` after some epochs on `blobs`, so that some images break and some stand."""
    dataset, model = blobs(), network(4)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(dataset.train.images), dataset.train.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.state_dict()


def context(
    fraction: float = 0.4,
    *,
    dataset: Dataset | None = None,
    objective: Any = "trades",
    steps: int = 2,
    model: nn.Module | None = None,
    **given: Any,
) -> Context:
    """A context after some epochs of training."""
    if model is None:
        model = network(4 if dataset is None else dataset.classes)
        if dataset is None:
            model.load_state_dict(fitted())
    dataset = blobs() if dataset is None else dataset
    made: dict[str, Any] = {
        "dataset": dataset,
        "fraction": fraction,
        "seed": 0,
        "epoch": 12,
        "model": model,
        "objective": OBJECTIVES.parse(objective),
        "attack": AttackPolicy(eps=EPS, steps=steps),
        "epochs": 30.0,
    }
    return Context(**(made | given))


def told(
    fraction: float,
    labels: np.ndarray,
    *,
    logits: Tensor | None = None,
    features: Tensor | None = None,
    adversarial: bool = False,
    **given: Any,
) -> Context:
    """A context of black images of which no more is known than these outputs, clean or adversarial."""
    n, x = len(labels), np.zeros((len(labels), 4, 4), np.float32)
    dataset = dataset_from_arrays(x, labels, x, labels, val_select=0, val_stop=0)
    branch = Branch(
        torch.zeros(n, dataset.classes) if logits is None else logits,
        torch.zeros(n, 0) if features is None else features,
    )
    outputs = SplitOutputs(dataset.train.labels, **{"adversarial" if adversarial else "clean": branch})
    return context(fraction, dataset=dataset, outputs=outputs, **given)


def watched(pruner: Any, n: int, classes: int, *, epochs: int = 12, seed: int = 0) -> dict[str, Tensor]:
    """What a pruner keeps of `epochs` epochs of outputs that settle on the labels, in batches of 20."""
    state: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    labels, ease = torch.arange(n) % classes, torch.rand(n, generator=generator)
    for epoch in range(epochs):
        order = torch.randperm(n, generator=generator)
        noise = torch.randn(n, classes, generator=generator)
        logits = noise + (0.3 * epoch * ease)[:, None] * nn.functional.one_hot(labels, classes)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        for ids in order.split(20):
            batch = Batch(torch.zeros(len(ids), 1, 1, 1), labels[ids], ids, torch.full_like(ids, epoch), ids * 0 + 1.0)
            pruner.observe(batch, Outputs(losses[ids], logits[ids]), state)
    return state
