"""What the attack tests share: networks with every kind of state, images, a detector of traces."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import MODELS, build_model
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train

Pair = tuple[Tensor, Tensor]


class Double(nn.Module):
    """Computes in float64, so that the sign of a gradient does not hang on rounding."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.double())


def _dropout() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(256, 10)
    )


@pytest.fixture
def network(digits: Dataset) -> Callable[[str], nn.Module]:
    """A network for the digits by name, in eval mode, with BatchNorm statistics that matter."""

    def build(name: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            if name == "dropout":
                model = _dropout()
            else:
                spec = name.removeprefix("double_")
                model = build_model(MODELS.parse({spec: {"width": 8 if spec == "small_cnn" else 4}}), digits, seed=5)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 2)
            return (Double(model) if name.startswith("double_") else model).eval()

    return build


@pytest.fixture
def images(digits: Dataset) -> Callable[[int], Pair]:
    """n digits with their labels: many pixels are exactly 0 or 1."""

    def first(n: int) -> Pair:
        x, y = digits.train.pixels(slice(1, n + 1)), digits.train.labels[1 : n + 1]
        assert (x == 0).any()
        assert (x == 1).any()
        return x.clone(), y.clone()

    return first


@pytest.fixture(scope="session")
def trained(digits: Dataset) -> nn.Module:
    """A little network trained against PGD: of its right images, attacks break some."""
    options: dict[str, Any] = {"model": {"small_cnn": {"width": 8}}, "epochs": 6, "steps": 2, "batch_size": 32}
    config = RunConfig.flat(dataset="digits", **options)
    model = build_model(config.model, digits)
    result = train(config, digits)
    assert result.last is not None
    model.load_state_dict(result.last)
    return model.eval()


@pytest.fixture(scope="session")
def right(trained: nn.Module, digits: Dataset) -> Pair:
    """Test images that it gets right."""
    x, y = digits.test.pixels(slice(0, 120)), digits.test.labels[:120]
    kept = trained(x).argmax(1) == y
    return x[kept], y[kept]


def _state(model: nn.Module, tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    return {
        "modes": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()] + [t.requires_grad for t in tensors],
        "gradient objects": [id(p.grad) for p in model.parameters()] + [id(t.grad) for t in tensors],
        "gradients": [p.grad.clone() for p in model.parameters() if p.grad is not None],
        "parameters": [p.detach().clone() for p in model.parameters()],
        "buffers": [b.clone() for b in model.buffers()],
        "inputs": [t.detach().clone() for t in tensors],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002  (the global generator is what is watched)
        "python": random.getstate(),
        "gradients enabled": torch.is_grad_enabled(),
    }


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


@pytest.fixture
def nothing_left() -> Callable[..., AbstractContextManager[None]]:
    """Give a model all the state there is, run a block, and compare all of it."""

    @contextmanager
    def watch(model: nn.Module, *tensors: Tensor) -> Iterator[None]:
        modules = list(model.modules())
        for number, module in enumerate(modules):
            module.training = number % 3 != 1
        for number, parameter in enumerate(model.parameters()):
            parameter.requires_grad_(number % 4 != 3)
            parameter.grad = None if number % 2 else torch.full_like(parameter, 0.5)
        before = _state(model, tensors)
        yield
        after = _state(model, tensors)
        assert [name for name in before if not _same(before[name], after[name])] == []

    return watch
