"""PGD and FGSM against torchattacks bit for bit, and what they promise beyond it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm, project
from advprune_core.attacks.pgd import fgsm, pgd, start_point
from advprune_core.base.settings import AdvpruneError

Network = Callable[[str], nn.Module]
Images = Callable[[int], tuple[Tensor, Tensor]]
Watch = Callable[..., AbstractContextManager[None]]

THREATS = [("linf", 2 / 16, 0.03), ("l2", 0.5, 0.2)]
TINY = torch.finfo(torch.float32).tiny
#: Powers of two: theirs is the gradient of the mean, whose division rounds in other batches.
BATCHES = [1, 8, 64]
NORMS = pytest.mark.parametrize(("norm", "eps", "step_size"), THREATS)


class Counter:
    """The images that a model is given, and which."""

    def __init__(self, model: nn.Module) -> None:
        self.batches: list[Tensor] = []
        model.register_forward_pre_hook(lambda module, inputs: self.batches.append(inputs[0].detach().clone()))

    def images(self) -> int:
        return sum(map(len, self.batches))


def wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1) != y


def distance(a: Tensor, b: Tensor, norm: Norm) -> float:
    return float((a - b).flatten(1).norm(p=float("inf") if norm == "linf" else 2, dim=1).max())


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("name", ["small_cnn", "preact_resnet18"])
@NORMS
def test_pgd_has_the_bits_of_torchattacks(
    norm: Norm, eps: float, step_size: float, name: str, n: int, random_start: bool, network: Network, images: Images
) -> None:
    model, (x, y) = network(name), images(n)
    oracle: Any = {"linf": torchattacks.PGD, "l2": partial(torchattacks.PGDL2, eps_for_division=TINY)}[norm]
    seen = Counter(model)
    expected = oracle(model, eps=eps, alpha=step_size, steps=5, random_start=random_start)(x, y)
    start: Any = seen.batches[0] if random_start else "clean"  # the first images it showed to the model
    ours = pgd(model, x, y, norm=norm, eps=eps, steps=5, step_size=step_size, start=start)
    assert torch.equal(ours, expected)
    assert not torch.equal(ours, x)


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("name", ["small_cnn", "preact_resnet18"])
def test_fgsm_has_the_bits_of_torchattacks(name: str, n: int, network: Network, images: Images) -> None:
    model, (x, y) = network(name), images(n)
    assert torch.equal(fgsm(model, x, y, eps=0.1), torchattacks.FGSM(model, eps=0.1)(x, y))


@pytest.mark.parametrize("n", BATCHES)
@pytest.mark.parametrize("name", ["double_small_cnn", "double_preact_resnet18"])
def test_kl_is_tpgd(name: str, n: int, network: Network, images: Images) -> None:
    # In float64, because the two formulas of the same divergence round differently.
    model, (x, y) = network(name), images(n)
    seen = Counter(model)
    expected = torchattacks.TPGD(model, eps=0.1, alpha=0.03, steps=5)(x, y)
    with torch.no_grad():
        reference = model(x)
    ours = pgd(model, x, reference, eps=0.1, step_size=0.03, steps=5, start=seen.batches[1], loss="kl")
    assert torch.equal(ours, expected)


@NORMS
def test_every_iterate_in_ball_and_box(
    norm: Norm, eps: float, step_size: float, network: Network, images: Images
) -> None:
    model, (x, y) = network("small_cnn"), images(16)
    seen = Counter(model)
    for attack in (pgd, fgsm):
        for start in ("clean", "random"):
            seen.batches.append(attack(model, x, y, norm=norm, eps=eps, start=start))
    for iterate in seen.batches:
        assert iterate.min() >= 0
        assert iterate.max() <= 1
        assert distance(iterate, x, norm) <= eps + 1e-6


class Linear(nn.Module):
    """Two classes; the gradient has the same sign everywhere: up for the first half of the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        up, down = x.flatten(1).chunk(2, dim=1)
        return torch.stack([down.sum(1), up.sum(1)], dim=1)


@pytest.mark.parametrize("start", ["clean", "random"])
@pytest.mark.parametrize("step_size", [0.1, 0.03, None])
def test_pixels_at_0_and_1_move(start: str, step_size: float | None) -> None:
    x = torch.tensor([[0.0, 0, 1, 1, 0, 0, 1, 1], [0.05, 0.5, 0.95, 0, 0.05, 0.5, 0.95, 1]]).view(2, 1, 2, 4)
    y = torch.zeros(2, dtype=torch.int64)
    expected = torch.tensor([[0.1, 0.1, 1, 1, 0, 0, 0.9, 0.9], [0.15, 0.6, 1, 0.1, 0, 0.4, 0.85, 0.9]])
    ours = pgd(Linear(), x, y, eps=0.1, steps=10, step_size=step_size, start=start)
    torch.testing.assert_close(ours.flatten(1), expected)
    torch.testing.assert_close(fgsm(Linear(), x, y, eps=0.1).flatten(1), expected)


@pytest.mark.parametrize("start", ["clean", "random"])
@pytest.mark.parametrize("name", ["small_cnn", "preact_resnet18"])
@NORMS
def test_equal_steps_per_image_have_the_bits_of_a_number(
    norm: Norm, eps: float, step_size: float, name: str, start: str, network: Network, images: Images
) -> None:
    model, (x, y) = network(name), images(7)
    for size in (step_size, None):
        plain, per_image, sizes = (
            pgd(model, x, y, norm=norm, eps=eps, steps=steps, step_size=length, start=start)
            for steps, length in ((4, size), (torch.full((7,), 4), size), (4, size and torch.full((7,), size)))
        )
        assert torch.equal(plain, per_image)
        assert torch.equal(plain, sizes)


@NORMS
def test_steps_per_image(norm: Norm, eps: float, step_size: float, network: Network, images: Images) -> None:
    model, (x, y) = network("double_small_cnn"), images(6)
    steps = torch.tensor([0, 3, 1, 0, 5, 2])
    sizes = step_size * torch.tensor([1, 0.5, 1, 2, 0.25, 1.5])
    start = start_point(x, norm=norm, eps=eps, key=1, ids=torch.arange(6), epochs=torch.zeros(6, dtype=torch.int64))
    seen = Counter(model)
    ours = pgd(model, x, y, norm=norm, eps=eps, steps=steps, step_size=sizes, start=start)
    assert [len(batch) for batch in seen.batches] == [4, 3, 2, 1, 1]  # images with steps left
    assert seen.images() == int(steps.sum())
    assert torch.equal(ours[steps == 0], start[steps == 0])
    for row, count in enumerate(steps.tolist()):
        if count:
            one = slice(row, row + 1)
            own: Any = {"steps": count, "step_size": float(sizes[row]), "start": start[one]}
            alone = pgd(model, x[one], y[one], norm=norm, eps=eps, **own)
            torch.testing.assert_close(ours[one], alone, atol=1e-5, rtol=0)


def test_no_steps_at_all(network: Network, images: Images) -> None:
    model, (x, y) = network("small_cnn"), images(3)
    seen, start = Counter(model), project(x + 0.05, x, norm="linf", eps=0.1)
    assert torch.equal(pgd(model, x, y, eps=0.1, steps=torch.zeros(3, dtype=torch.int64), start=start), start)
    assert seen.images() == 0


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "kl"])
@NORMS
def test_stop_early(norm: Norm, eps: float, step_size: float, loss: Any, network: Network, images: Images) -> None:
    model, (x, _) = network("double_small_cnn"), images(64)
    with torch.no_grad():
        reference = model(x)
    y = reference.argmax(1)
    target, k = (reference if loss == "kl" else y), 6
    start = start_point(x, norm=norm, eps=eps, key=1, ids=torch.arange(64), epochs=torch.zeros(64, dtype=torch.int64))
    options: Any = {"norm": norm, "eps": eps, "step_size": step_size, "start": start, "loss": loss}
    # The iterates of the plain run, each by a run of its own.
    iterates = [start] + [pgd(model, x, target, steps=steps, **options) for steps in range(1, k + 1)]
    broken = torch.stack([wrong(model, iterate, y) for iterate in iterates])
    first = torch.where(broken.any(0), broken.int().argmax(0), k)
    assert len(first.unique()) > 2  # some fall at once, some later
    seen = Counter(model)
    ours = pgd(model, x, target, steps=k, labels=y, stop_early=True, **options)
    assert seen.images() == int((first + 1).clamp(max=k).sum())
    torch.testing.assert_close(ours, torch.stack(iterates)[first, torch.arange(64)], atol=1e-5, rtol=0)
    assert torch.equal(wrong(model, ours, y), broken.any(0))
    assert distance(ours, x, norm) <= eps + 1e-6


@pytest.mark.parametrize("stop_early", [False, True])
@NORMS
def test_restarts_are_never_weaker(
    norm: Norm, eps: float, step_size: float, stop_early: bool, network: Network, images: Images
) -> None:
    model, (x, _) = network("double_small_cnn"), images(64)
    with torch.no_grad():
        reference = model(x)
    y = reference.argmax(1)
    for target, loss in ((y, "cross_entropy"), (reference, "kl")):
        options: Any = {"norm": norm, "eps": eps / 2, "steps": 2, "step_size": step_size / 3, "loss": loss}
        options |= {"labels": y, "stop_early": stop_early}
        results = [pgd(model, x, target, restarts=restarts, **options) for restarts in (1, 2, 5)]
        fooled = [wrong(model, result, y) for result in results]
        for fewer, more, before, after in zip(results, results[1:], fooled, fooled[1:], strict=False):
            assert torch.equal(fewer[before], more[before])  # the first success is kept
            assert not (before & ~after).any()
            assert (fewer[~before] != more[~before]).flatten(1).any(1).all()  # the rest began anew
            assert distance(more, x, norm) <= eps / 2 + 1e-6


def test_seeds(network: Network, images: Images) -> None:
    model, (x, y) = network("small_cnn"), images(7)
    results = [pgd(model, x, y, eps=0.1, steps=1, seed=seed) for seed in (0, 1, 0)]
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


REFUSED = {
    "images above 1": ({"x": torch.full((2, 1, 2, 4), 1.01)}, r"must lie in \[0, 1\], these are in \[1.01, 1.01\]"),
    "images below 0": ({"x": torch.full((2, 1, 2, 4), -1.0)}, r"must lie in \[0, 1\]"),
    "pixels that are no numbers": ({"x": torch.full((2, 1, 2, 4), float("nan"))}, r"must lie in \[0, 1\].*nan"),
    "empty batch": ({"x": torch.zeros(0, 1, 2, 4), "target": torch.zeros(0).long()}, "the batch is empty"),
    "eps 0": ({"eps": 0.0}, "eps must be a number above 0.*not 0"),
    "eps below 0": ({"eps": -0.1}, "eps must be a number above 0.*not -0.1"),
    "eps no number": ({"eps": float("nan")}, "eps must be a number above 0.*not nan"),
    "steps 0": ({"steps": 0}, "steps must be a whole number of at least 1"),
    "steps below 0": ({"steps": -1}, "steps must be a whole number of at least 1"),
    "steps below 0 for one": ({"steps": torch.tensor([1, -1])}, "steps of an image must be at least 0, not -1"),
    "restarts 0": ({"restarts": 0}, "restarts must be a whole number of at least 1, not 0"),
    "step size 0": ({"step_size": 0.0}, "step_size must be a number above 0.*not 0"),
    "step size below 0": ({"step_size": -0.1}, "step_size must be a number above 0.*not -0.1"),
    "step size 0 for one": ({"step_size": torch.tensor([0.1, 0.0])}, "step_size must be above 0 and finite"),
    "step size no number": ({"step_size": float("nan")}, "step_size must be a number above 0.*not nan"),
    "start of another shape": (
        {"start": torch.zeros(2, 1, 4, 2)},
        r"start has shape \(2, 1, 4, 2\), the images \(2, 1, 2, 4\)",
    ),
    "start of one image": ({"start": torch.zeros(1, 1, 2, 4)}, "start has shape"),
    "restarts without labels": ({"target": torch.zeros(2, 2), "loss": "kl", "restarts": 2}, "need `labels`"),
    "stop_early without labels": ({"target": torch.zeros(2, 2), "loss": "kl", "stop_early": True}, "need `labels`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    changed, message = REFUSED[case]
    model = Linear()
    seen = Counter(model)
    arguments: dict[str, Any] = {"x": torch.full((2, 1, 2, 4), 0.5), "target": torch.tensor([0, 1]), "eps": 0.1}
    with pytest.raises(AdvpruneError, match=message):
        pgd(model, **(arguments | changed))
    assert seen.images() == 0


@pytest.mark.parametrize("step_size", [0.21, torch.tensor([0.1, 0.21])])
def test_a_step_over_the_diameter_warns(step_size: float | Tensor) -> None:
    x, y = torch.full((2, 1, 2, 4), 0.5), torch.tensor([0, 1])
    with pytest.warns(UserWarning, match=r"a step of 0\.21 is more than the ball's diameter, 2 eps = 0\.2"):
        pgd(Linear(), x, y, eps=0.1, step_size=step_size)


@pytest.mark.parametrize("step_size", [0.2, torch.tensor([0.1, 0.2])])
def test_a_step_of_the_diameter_does_not_warn(step_size: float | Tensor) -> None:

    x, y = torch.full((2, 1, 2, 4), 0.5), torch.tensor([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pgd(Linear(), x, y, eps=0.1, step_size=step_size)
        fgsm(Linear(), x, y, eps=0.1)
