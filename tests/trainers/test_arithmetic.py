"""A run's threads and floating-point modes are its own, and are put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_info, threadpool_limits

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import MODELS, build_model
from advprune_core.study.grid import check_entries, grid
from advprune_core.trainers.arithmetic import arithmetic, check_precision
from advprune_core.trainers.loop import train
from tests.tiny import tiny_run


def modes() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return torch.get_num_threads(), cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


def blas_threads() -> set[int]:
    """Of NumPy's linear algebra; empty where that is none whose threads can be set."""
    return {int(library["num_threads"]) for library in threadpool_info() if library["user_api"] == "blas"}


def test_a_run_has_its_threads_for_numpy_too() -> None:
    """A pursuit of a run with one thread took all cores, and was the slower for it."""
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        with arithmetic(tiny_run(threads=1, device="cpu")):
            assert blas_threads() <= {1}
        assert blas_threads() == before
        with arithmetic(tiny_run(threads=1, device="cuda")):
            assert blas_threads() == before


def test_modes_are_set_and_restored() -> None:
    torch.set_num_threads(2)
    before = modes()
    with arithmetic(tiny_run(threads=1)):
        assert modes() == (1, False, True, False)
    assert modes() == before
    with pytest.raises(KeyError), arithmetic(tiny_run(threads=1)):
        raise KeyError
    assert modes() == before


SHRUNK = "'bfloat16' on a CPU.*stride on maps of one pixel"
#: Networks on digits of 8x8, and whether a convolution with a stride meets a map of one pixel.
NETWORKS: list[tuple[Any, bool]] = [
    ("small_cnn", False),
    ({"preact_resnet": {"width": 2}}, True),
    ({"preact_resnet": {"width": 2, "stem": "3x3"}}, False),
    ({"preact_resnet18": {"width": 2}}, False),
    ({"resnet18": {"width": 2}}, False),
]


@pytest.mark.parametrize(("model", "refused"), NETWORKS)
@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16"}, {"precision": "bfloat16", "device": "cuda"}])
def test_what_pytorch_computes_wrongly_is_refused(
    model: Any, refused: bool, options: dict[str, Any], digits: Dataset
) -> None:
    network, images = build_model(MODELS.parse(model), digits), digits.train.pixels(slice(0, 2))
    if not refused or options != {"precision": "bfloat16"}:
        check_precision(tiny_run(**options), network, images)
        return
    with pytest.raises(ConfigError, match=SHRUNK):
        check_precision(tiny_run(**options), network, images)


def test_it_is_refused_before_any_work(digits: Dataset) -> None:
    config = tiny_run(model={"preact_resnet": {"width": 2}}, precision="bfloat16")
    with pytest.raises(ConfigError, match=SHRUNK):
        check_entries(grid(config, pruners=["full"], fractions=[1.0], seeds=[0]))
    with pytest.raises(ConfigError, match=SHRUNK):
        train(config, digits)


@pytest.mark.parametrize("size", [2, 3, 4, 8])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_larger_maps_have_the_gradients_of_float64(kernel: int, size: int) -> None:
    """What is not refused does not read memory that nobody has written: it is full of NaN here."""
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(16, 8, size, size, generator=generator).bfloat16()
        w = torch.randn(16, 8, kernel, kernel, generator=generator).bfloat16().requires_grad_()
        y = F.conv2d(x, w, None, 2, kernel // 2)
        ahead = torch.randn(y.shape, generator=generator).bfloat16()
        dirty = [torch.full((n,), torch.nan) for n in (100, 1000, 5000, 20_000, 100_000)]
        del dirty
        (found,) = torch.autograd.grad(y, w, ahead)
        exact = w.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad(F.conv2d(x.double(), exact, None, 2, kernel // 2), exact, ahead.double())
        torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_gradient_that_is_no_number_is_never_silent(precision: str, ema: float | None, digits: Dataset) -> None:
    """Not even one of a single weight, in the last update, after which no loss is computed."""
    config = tiny_run(epochs=1, precision=precision, ema=ema, dataset="digits", batch_size=128)
    model, updates = build_model(config.model, digits), [0]

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        updates[0] += 1
        gradient = gradient.clone()
        gradient.view(-1)[0] = torch.nan if updates[0] == len(digits.train) // 128 else 0.0
        return gradient

    next(model.parameters()).register_hook(spoil)
    assert train(config, digits, model=model).status == "diverged"
    assert updates[0] == len(digits.train) // 128
