"""Networks to measure: trained, if only for a little, on real images, and kept under the results folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advprune_core.base.environment import results_root
from advprune_core.base.files import write_atomically
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset, Split
from advprune_core.models.mode import no_trace
from advprune_core.pruners.branches import Branch, SplitOutputs
from advprune_core.pruners.outputs import branch
from advprune_core.study.runs import load_model
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train


def work_folder() -> Path:
    """Where benchmarks keep what they do not make twice."""
    return results_root() / "benchmarks"


def trained(config: RunConfig, folder: Path | None = None) -> nn.Module:
    """The network of a run, in eval mode; trained if it is not there."""
    dataset = load_dataset(config.dataset)
    path = (folder or work_folder() / "networks") / f"{config.train_key(dataset)}.pt"
    if not path.exists():
        result = train(config, dataset)
        assert result.last is not None
        write_atomically(path, partial(torch.save, result.last))
    return load_model(config, dataset, path)


def outputs(model: nn.Module, split: Split) -> SplitOutputs:
    """What a network says of images; it stands for what it says of attacked ones."""
    with no_trace(model):
        parts = [branch(model, x) for _, x, _ in split.batches(256, "cpu")]
    found = Branch(torch.cat([part.logits for part in parts]), torch.cat([part.features for part in parts]))
    return SplitOutputs(split.labels, adversarial=found)


@dataclass(frozen=True)
class Network:
    """A network of the table: how it is trained for its measurement, and on how many images it is measured."""

    title: str
    data: str
    run: dict[str, Any]
    batch: int

    def config(self, **options: Any) -> RunConfig:
        """Its run, or another one like it."""
        return RunConfig.flat(**{"device": "cpu", "speed": "exact", **self.run, **options})

    def model(self) -> nn.Module:
        """It, trained."""
        return trained(self.config())

    def dataset(self) -> Dataset:
        """What it is trained on."""
        return load_dataset(self.config().dataset)

    def images(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Its first test images, as many as a batch has, and their labels."""
        rows = slice(0, count or self.batch)
        test = self.dataset().test
        return test.pixels(rows), test.labels[rows]

    def setting(self, batch: int | None = None) -> str:
        """Network, batch and data in a few words."""
        return f"{self.title}, batch {batch or self.batch}, {self.data}"


def _cifar(model: Any, images: int, **options: Any) -> dict[str, Any]:
    """One-step training for one pass over some images: enough to have gradients of a trained network."""
    data = {"cifar10": {"limit": images, "test_limit": 1000, "val_select": 0, "val_stop": 0}}
    return {"dataset": data, "model": model, "trainer": "n_fgsm", "epochs": 1, "batch_size": 64, **options}


NETWORKS = {
    "small_cnn": Network(
        "small CNN",
        "Fashion-MNIST",
        {
            "dataset": {"fashion_mnist": {"limit": 10_240, "test_limit": 2000, "val_select": 0, "val_stop": 0}},
            "model": {"small_cnn": {"width": 16}},
            "trainer": "n_fgsm",
            "eps": 0.1,
            "epochs": 4,
            "batch_size": 128,
            "lr": 0.02,
        },
        batch=64,
    ),
    "cpu_network": Network(
        "PreActResNet for CPUs", "CIFAR-10", _cifar("preact_resnet", 10_240, epochs=2, batch_size=128, lr=0.2), batch=64
    ),
    "width_8": Network("PreActResNet-18 width 8", "CIFAR-10", _cifar({"preact_resnet18": {"width": 8}}, 5120), 64),
    "width_16": Network("PreActResNet-18 width 16", "CIFAR-10", _cifar({"preact_resnet18": {"width": 16}}, 2560), 32),
    "width_64": Network(
        "PreActResNet-18 width 64",
        "CIFAR-10",
        _cifar({"preact_resnet18": {"width": 64}}, 512, batch_size=16, lr=0.02),
        8,
    ),
}
