"""What reaches the weights: every update against a plain loop, every setting, and the seed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm
from advprune_core.datasets.base import load_dataset
from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.starts import RandomStart
from advprune_core.pruners.base import Context, Pruner
from advprune_core.pruners.selection import Selection
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from advprune_core.trainers.optimisation import Optimisation
from advprune_core.trainers.result import TrainResult
from tests.alternatives import RUN_OPTIONS
from tests.tiny import tiny_run


def normalised() -> nn.Module:
    """A small network with BatchNorm: it has buffers, and outputs that depend on the mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))


def trained(config: RunConfig, model: nn.Module | None = None) -> TrainResult:
    return train(config, load_dataset(config.dataset), model=normalised() if model is None else model)


class Watching(Pruner):
    """Keeps all images, with weights that are not 1 on average, and tells of each batch."""

    name: ClassVar[str] = "watching"
    exact: ClassVar[bool] = False
    told: ClassVar[Callable[[Batch], None]]

    def select(self, context: Context) -> Selection:
        return Selection(np.arange(context.n), 0.5 + np.arange(context.n, dtype=np.float32) % 5)

    def observe(self, batch: Batch, outputs: Outputs, state: dict[str, Tensor]) -> None:
        type(self).told(batch)


def cropped(image: Tensor, top: int, left: int, flip: bool, *, padding: int) -> Tensor:
    """A window of a zero-padded image (1, 8, 8)."""
    frame = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    window = frame[:, top : top + 8, left : left + 8]
    return torch.from_numpy(np.ascontiguousarray(window[:, :, ::-1] if flip else window))


def one_cycle(progress: float) -> float:
    """From 0.04 to 1 at three tenths, and to 0."""
    if progress < 0.3:
        return 0.52 - 0.48 * math.cos(math.pi * progress / 0.3)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - 0.3) / 0.7)


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        (
            {"piecewise": {"at": (0.25, 0.75), "factors": (2.0, 0.1), "linear": True}},
            lambda progress: np.interp(progress, [0, 0.25, 0.75], [1, 2, 0.1]),
        ),
        ("one_cycle", one_cycle),
    ],
    ids=["piecewise", "one_cycle"],
)
def test_a_run_is_a_plain_loop_of_sgd(schedule: Any, factor: Callable[[float], float]) -> None:
    """The weighted loss divided by the number of images, and rates by the images trained on, over both epochs."""
    batches: list[Batch] = []
    Watching.told = batches.append
    rates: dict[str, Any] = {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.1, "schedule": schedule}
    config = tiny_run(objective="standard", pruner=Watching(), epochs=2, crop_padding=2, flip=True, **rates)
    data, model = load_dataset(config.dataset), normalised().train()
    result = trained(config, copy.deepcopy(model))
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5, weight_decay=0.1)
    images, n = data.train.pixels(slice(None)), len(data.train)
    for step, batch in enumerate(batches):
        optimiser.param_groups[0]["lr"] = 0.02 * factor(16 * step / (2 * n))
        crops = batch.crops
        assert crops is not None
        windows = zip(crops.top.tolist(), crops.left.tolist(), crops.flip.tolist(), strict=True)
        x = torch.stack(
            [cropped(images[i], *window, padding=2) for i, window in zip(batch.ids.tolist(), windows, strict=True)]
        )
        weights = 0.5 + batch.ids % 5
        losses = nn.functional.cross_entropy(model(x), data.train.labels[batch.ids], reduction="none")
        optimiser.zero_grad()
        ((weights * losses).sum() / 16).backward()
        optimiser.step()
    assert len(batches) == result.steps == 2 * n // 16
    assert (
        len(
            {(int(t), int(left)) for b in batches if b.crops for t, left in zip(b.crops.top, b.crops.left, strict=True)}
        )
        == 25
    )
    assert {bool(flip) for b in batches if b.crops for flip in b.crops.flip} == {False, True}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(result.last[name], value, rtol=1e-5, atol=1e-6)


def test_average_is_the_exponential_average_of_the_steps() -> None:
    """Of all that a network has, the statistics of BatchNorm too; a step counts 0.8 times as much as the next."""
    model, history = normalised(), list[dict[str, Tensor]]()
    Watching.told = lambda batch: history.append(copy.deepcopy(model.state_dict()))
    last = trained(tiny_run(ema=0.8, epochs=1, schedule="constant", pruner=Watching()), model).last
    shares = 0.8 ** np.arange(len(history))[::-1].astype(np.float64)
    for name, value in last.items():
        if value.is_floating_point():
            steps = torch.stack([weights[name] for weights in history]).double()
            average = torch.tensordot(torch.from_numpy(shares / shares.sum()), steps, dims=1)
            torch.testing.assert_close(value.double(), average, rtol=1e-5, atol=1e-6)
            assert (average - steps[-1]).abs().max() > 1e-4


#: Everything of a run that its weights depend on, beside components, which `test_components` changes.
REACHING = [*Optimisation.model_fields, "seed", "precision", *sorted(set(AttackPolicy.model_fields) - {"norm"})]
#: Where the other value of `RUN_OPTIONS` shows nothing in so short a run.
OTHERS = {"cost_budget": 1500, "plain_epochs": 1, "ema": 0.9}
#: Selects after an epoch, so that the span of the schedule counts.
BASE: dict[str, Any] = {"pruner": {"random": {"warmup_epochs": 1}}, "fraction": 0.5, "epochs": 2, "lr": 0.02}


@pytest.fixture(scope="module")
def base() -> dict[str, Tensor]:
    return trained(tiny_run(**BASE)).last


@pytest.mark.parametrize("name", REACHING)
def test_every_setting_reaches_the_weights(name: str, base: dict[str, Tensor]) -> None:
    """By far more than rounding: a setting that is passed on at a trifle is idle as well."""
    changed = trained(tiny_run(**BASE | {name: OTHERS.get(name, RUN_OPTIONS[name])})).last
    assert max(float((changed[part] - value).abs().max()) for part, value in base.items() if "num_" not in part) > 1e-4


Visit = tuple[int, int]  # (image, epoch that it was drawn in)


class Told(RandomStart):
    """The random start, which tells of each image in the order of training: crop and flip, start and end of the attack.

    The parts are tensors; of an image without a crop the first is empty.
    """

    name: ClassVar[str] = "told"
    heard: ClassVar[dict[Visit, dict[str, Tensor]]]
    begun: ClassVar[list[Tensor]] = []

    def begin(self, batch: Batch, **given: Any) -> Tensor:
        self.begun.append(super().begin(batch, **given))
        return self.begun[-1].clone()

    def end(self, batch: Batch, x_adv: Tensor, *, norm: Norm, eps: float, **_: Any) -> None:
        start, crops = self.begun.pop(), batch.crops
        drawn = torch.empty(len(start), 0) if crops is None else torch.stack([crops.top, crops.left, crops.flip], 1)
        for visit, *parts in zip(
            zip(batch.ids.tolist(), batch.epochs.tolist(), strict=True), drawn, start, x_adv, strict=True
        ):
            self.heard[visit] = dict(zip(("crop", "start", "end"), parts, strict=True))


def heard(**options: Any) -> tuple[dict[Visit, dict[str, Tensor]], TrainResult]:
    """What `Told` tells of a run of two epochs."""
    Told.heard = {}
    result = trained(tiny_run(start=Told(), epochs=2, lr=0.02, **options))
    return Told.heard, result


def agree(one: dict[Visit, dict[str, Tensor]], other: dict[Visit, dict[str, Tensor]], part: str) -> list[bool]:
    """Of each visit that both have, whether they agree in a part."""
    return [torch.equal(one[visit][part], other[visit][part]) for visit in one.keys() & other.keys()]


def test_the_seed_reaches_selection_order_crops_and_noise() -> None:
    """Of two runs of the same network."""
    (one, first), (other, second) = (heard(seed=seed, pruner="random", fraction=0.5) for seed in (0, 1))
    assert set(first.selections[0].indices) != set(second.selections[0].indices)
    assert one.keys() & other.keys()
    for part in ("start", "end"):
        assert not any(agree(one, other, part))
    (one, _), (other, _) = (heard(seed=seed, crop_padding=2, flip=True) for seed in (0, 1))
    assert [*one] != [*other]
    assert np.mean(agree(one, other, "crop")) < 0.1, "of 50 that are as likely"


def test_runs_of_one_seed_pair() -> None:
    """In order, crops and attack noise, and before they differ in weights in the attack, for images they share."""
    (full, _), (pruned, result) = (
        heard(seed=3, crop_padding=2, flip=True, **kept) for kept in ({}, {"pruner": "random", "fraction": 0.3})
    )
    images = set(result.selections[0].indices.tolist())
    assert {image for image, _ in pruned} == images
    order = [visit for visit in full if visit in pruned and visit[1] == 0]
    assert order == [visit for visit in pruned if visit in full and visit[1] == 0]
    assert len(agree(full, pruned, "crop")) > len(images)
    for part in ("crop", "start"):
        assert all(agree(full, pruned, part))
    begun = set([*full][:16]) & set([*pruned][:16])
    assert begun
    assert all(torch.equal(full[visit]["end"], pruned[visit]["end"]) for visit in begun)
    assert not all(agree(full, pruned, "end")), "the networks are others by then"
