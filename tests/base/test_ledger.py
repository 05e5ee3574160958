"""The ledger against a network that counts its own passes, and against a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks import FGSM, PGD, ThreatModel, fgsm, pgd
from advprune_core.attacks.evaluate import evaluate
from advprune_core.base import ledger as module
from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import AdvpruneError
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train


class Tally:
    """Images in forward passes, in backward passes to the input and in those to the weights."""

    def __init__(self) -> None:
        self.forward = self.to_input = self.to_weights = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Tally:
        return self  # a copied network (a weight average) counts into the same books

    def passes(self) -> int:
        """A full backward pass is one to the activations and one to the weights."""
        return self.forward + self.to_input + 2 * self.to_weights


class Probe(torch.autograd.Function):
    """The identity; notes when a gradient really flows back through it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, note: Callable[[], None]) -> Tensor:
        ctx.note = note
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.note()
        return gradient, None


class Counting(nn.Module):
    """A linear classifier that counts without hooks on modules, hence not as the ledger does."""

    def __init__(self, pixels: int = 64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, pixels, generator=torch.Generator().manual_seed(0)) / 3)
        self.tally = Tally()

    def forward(self, x: Tensor) -> Tensor:
        tally, images = self.tally, len(x)
        tally.forward += images

        def input_reached() -> None:
            tally.to_input += images

        def weights_reached() -> None:
            tally.to_weights += images

        weight = Probe.apply(self.weight, weights_reached)
        return Probe.apply(x, input_reached).flatten(1) @ weight.T


@pytest.fixture(scope="module")
def small_digits() -> Dataset:
    return load_dataset({"digits": {"limit": 240, "test_limit": 60}})


RUNS: list[tuple[dict[str, Any], int]] = [
    ({"objective": "standard"}, 3),
    ({"objective": "standard", "epochs": 2.5}, 3),
    ({"objective": "pgd_at", "steps": 1}, 5),
    ({"objective": "pgd_at", "steps": 2}, 7),
    ({"objective": "pgd_at", "steps": 7}, 17),
    ({"objective": "pgd_at", "steps": 2, "attack_mode": "train"}, 7),
    ({"objective": "pgd_at", "steps": 2, "start": "clean", "norm": "l2", "eps": 0.5}, 7),
    ({"objective": "trades", "steps": 2}, 11),
    ({"trainer": "trades"}, 27),
    ({"objective": "mart", "steps": 2}, 10),
    ({"trainer": "mart"}, 26),
    ({"trainer": "pgd_at", "epochs": 3, "fraction": 0.5, "pruner": "random"}, 17),
    ({"objective": "pgd_at", "steps": 2, "epochs": 3, "crop_padding": 1, "ema": 0.9}, 7),
    ({"trainer": "fgsm"}, 5),
    ({"trainer": "fast"}, 5),
    ({"trainer": "n_fgsm"}, 5),
    ({"trainer": "atta", "epochs": 2, "crop_padding": 1}, 5),
    ({"trainer": "trades", "start": "carried", "steps": 1}, 9),
    ({"trainer": "fgsm_pgi", "epochs": 2}, 7),
    ({"trainer": "free"}, 12),
    ({"trainer": "grad_align"}, 13),
    ({"objective": "pgd_at", "steps": 2, "awp": 0.01}, 10),
    ({"trainer": "trades", "awp": 0.01}, 33),
    ({"trainer": "fgsm_pgi", "awp": 0.01}, 13),
    ({"trainer": "free", "awp": 0.01}, 24),
    ({"trainer": "grad_align", "awp": 0.01}, 24),
]


#: Updates on each batch, and passes whose weights are trained, where the objective does not say.
UPDATES = {"free": 4}
IN_THE_LOSS = {"fgsm_pgi": 2, "free": 4, "grad_align": 2}
#: Here a pass with both gradients reaches the input as well (the tally counts that again), and the
#: backward pass of a backward pass, 2, is not seen by it.
NOT_IN_THE_TALLY = {"fgsm_pgi": -1, "free": -4, "grad_align": 1}


@pytest.mark.parametrize("best_every", [0, 1])
@pytest.mark.parametrize(("options", "each"), RUNS)
def test_training(options: dict[str, Any], each: int, best_every: int, small_digits: Dataset) -> None:
    config = RunConfig.flat(**({"epochs": 1, "batch_size": 32, "device": "cpu", "best_every": best_every} | options))
    model = Counting()
    result = train(config, small_digits, model=model)
    name = config.objective.name
    passes = result.ledger["passes"]
    assert result.images_visited * UPDATES.get(name, 1) == 32 * result.steps > 0
    assert passes["train"] == each * result.images_visited
    assert each == config.passes_per_image
    # The network has also seen the two images that its shape was checked with, in either mode.
    unseen = NOT_IN_THE_TALLY.get(name, 0) + (2 if name == "grad_align" and config.optimisation.awp else 0)
    assert sum(passes.values()) == model.tally.passes() - 4 + unseen * result.images_visited
    in_the_loss = int(config.objective.uses_clean) + int(config.objective.uses_adversarial)
    in_the_loss = IN_THE_LOSS.get(name, in_the_loss) * (2 if config.optimisation.awp else 1)
    assert model.tally.to_weights == in_the_loss * result.images_visited
    assert (passes.get("validate", 0) > 0) == (best_every == 1)
    assert set(passes) <= {"train", "validate", "select", "save"}


ATTACKS: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "fgsm": lambda m, x, y: fgsm(m, x, y, eps=0.1),
    "pgd": lambda m, x, y: pgd(m, x, y, eps=0.1, steps=3),
    "train mode": lambda m, x, y: pgd(m, x, y, eps=0.1, steps=3, mode="train"),
    "l2": lambda m, x, y: pgd(m, x, y, norm="l2", eps=0.5, steps=3),
    "steps per image": lambda m, x, y: pgd(m, x, y, eps=0.1, steps=torch.arange(len(x)) % 4),
    "restarts": lambda m, x, y: pgd(m, x, y, eps=0.05, steps=2, restarts=3),
    "stop early": lambda m, x, y: pgd(m, x, y, eps=0.05, steps=4, restarts=2, stop_early=True),
    "registered fgsm": lambda m, x, y: FGSM().perturb(m, x, y, threat=ThreatModel(eps=0.1), seed=0),
    "registered pgd": lambda m, x, y: PGD(restarts=2).perturb(m, x, y, threat=ThreatModel(eps=0.05), seed=0),
    "registered kl": lambda m, x, y: PGD(loss="kl", steps=3).perturb(m, x, y, threat=ThreatModel(eps=0.1), seed=0),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(name: str, digits: Dataset) -> None:
    model, x = Counting(), digits.train.pixels(slice(0, 20))
    y = model(x).argmax(1)
    model.tally = Tally()
    ledger = Ledger()
    with ledger.watch(model), ledger.phase("attack"):
        ATTACKS[name](model, x, y)
    assert ledger.passes == {"attack": model.tally.passes()}
    assert model.tally.to_weights == 0
    known = {"fgsm": 2, "pgd": 6, "train mode": 6, "l2": 6, "steps per image": 3, "registered fgsm": 2}
    if name in known:
        assert ledger.passes["attack"] == 20 * known[name]


def test_evaluation(small_digits: Dataset) -> None:
    model, ledger = Counting(), Ledger()
    attacks = [PGD(steps=3), PGD(steps=3, loss="margin", restarts=2), FGSM()]
    with ledger.watch(model), ledger.phase("evaluate"):
        evaluate(model, small_digits.test, attacks, threat=ThreatModel(eps=0.02), batch_size=25)
    assert ledger.passes == {"evaluate": model.tally.passes()}
    assert ledger.passes["evaluate"] > len(small_digits.test)


def test_attack_between_the_passes_of_a_step(digits: Dataset) -> None:
    # Two forward passes in the graph and an attack between them: only the two are backpropagated through.
    model, x, y = Counting(), digits.train.pixels(slice(0, 8)), digits.train.labels[:8]
    ledger = Ledger()
    with ledger.watch(model):
        clean = model(x)
        x_adv = pgd(model, x, y, eps=0.1, steps=2)
        (clean + model(x_adv)).sum().backward()
        ledger.full_backward()
        with torch.no_grad():
            model(x)
        model(x[:3]).sum().backward()
        ledger.full_backward()
    assert ledger.passes == {"other": 8 * (1 + 4 + 1 + 4 + 1) + 3 * 3}
    assert ledger.passes["other"] == model.tally.passes()


def test_what_is_not_watched_is_not_counted(digits: Dataset) -> None:
    model, x, ledger = Counting(), digits.train.pixels(slice(0, 4)), Ledger()
    with ledger.watch(model):
        Counting()(x)
    model(x)
    fgsm(model, x, digits.train.labels[:4], eps=0.1)
    with pytest.raises(KeyError), ledger.watch(model):
        raise KeyError
    model(x)
    assert ledger.passes == {}


def test_a_failed_attack_leaves_the_ledger_in_order(digits: Dataset) -> None:
    model, x, ledger = Counting(pixels=63), digits.train.pixels(slice(0, 4)), Ledger()
    with ledger.watch(model), pytest.raises(AdvpruneError, match="cannot take images"):
        fgsm(model, x, digits.train.labels[:4], eps=0.1)
    assert not ledger.attacking


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clocks of the ledger on; the processor's runs at half the speed."""
    now = [100.0]
    fake = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0] / 2)
    monkeypatch.setattr(module, "time", fake)

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_nested_phases(clock: Callable[[float], None]) -> None:
    ledger, model = Ledger(), Counting(pixels=4)

    def work(seconds: float, images: int) -> None:
        clock(seconds)
        model(torch.zeros(images, 4))

    with ledger.watch(model):
        work(1000, 1)  # before any phase: counted, but nobody's time
        with ledger.phase("train"):
            work(1, 2)
            with ledger.phase("select"):
                work(10, 3)
                with ledger.phase("train"):
                    work(2, 4)
                work(20, 5)
            work(4, 6)
        work(1000, 7)
        with suppress(KeyError), ledger.phase("select"):
            work(40, 8)
            raise KeyError
        with ledger.phase("train"):
            work(8, 9)
        with ledger.phase("idle"):
            pass
    assert ledger.seconds == {"train": 15, "select": 70, "idle": 0}
    assert ledger.cpu_seconds == {"train": 7.5, "select": 35, "idle": 0}
    assert ledger.passes == {"other": 8, "train": 21, "select": 16, "idle": 0}


def test_state_goes_on(clock: Callable[[float], None]) -> None:
    first, second = Ledger(), Ledger()
    for ledger in (first, second):
        with ledger.phase("train"):
            clock(3)
            ledger.add(5)
        ledger.sample_memory()
        second.load(first.state())
    assert second.state()["passes"] == {"train": 5}  # loaded over its own
    with second.phase("train"):
        clock(4)
        second.add(6)
    assert (second.passes, second.seconds, second.cpu_seconds) == ({"train": 11}, {"train": 7}, {"train": 3.5})
    assert (first.passes, first.seconds) == ({"train": 5}, {"train": 3})  # a state shares nothing
    state = second.state()
    first.load(state)
    first.add(1)
    with first.phase("train"):
        clock(1)
    assert (state["passes"], state["seconds"], state["cpu_seconds"]) == ({"train": 11}, {"train": 7}, {"train": 3.5})
    assert second.peak_memory >= first.peak_memory > 10 * 2**20


def test_memory_on_a_gpu_keeps_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inner `watch` (validation of a weight average) must not forget what training needed."""
    peak = [0]
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0])

    def allocate(size: int) -> None:
        peak[0] = max(peak[0], size)

    ledger = Ledger("cuda")
    with ledger.watch(Counting()):
        allocate(1000)
        with ledger.watch(Counting()):
            allocate(10)
        ledger.sample_memory()
    assert ledger.peak_memory == 1000


def test_another_ledger_is_booked_under_one_phase() -> None:
    ledger, other = Ledger(), Ledger()
    for book, phase, passes in ((ledger, "select", 5), (other, "train", 7), (other, "validate", 2)):
        with book.phase(phase):
            book.add(passes)
    before, told = ledger.state(), other.state()
    ledger.absorb(told, phase="select")
    assert ledger.passes == {"select": 14}
    for name in ("seconds", "cpu_seconds"):
        assert ledger.state()[name]["select"] == before[name]["select"] + sum(told[name].values())
    assert other.state() == told
