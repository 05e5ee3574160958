"""On a GPU: everything trains, selects and attacks there, and means what it means on a CPU.

Keys of runs name the device, because bits differ; costs, counts and what is learnt do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from advprune_core.attacks import ATTACKS
from advprune_core.attacks.compiled import compiled_passes
from advprune_core.attacks.evaluate import evaluate
from advprune_core.datasets.base import dataset_from_arrays, load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.models.mode import true_float32
from advprune_core.objectives.base import TRAINERS
from advprune_core.pruners import PRUNERS
from advprune_core.study.evaluations import EvaluationConfig, evaluate_model
from advprune_core.study.runner import run_study
from advprune_core.trainers.loop import train
from advprune_core.trainers.result import TrainResult
from tests.tiny import DATASET, tiny_run, tiny_study

if not torch.cuda.is_available():
    pytest.skip("there is no GPU here", allow_module_level=True)

#: `oracle` has to know wrong labels, `full` keeps all.
SELECTING = sorted(name for name in PRUNERS.classes() if name not in ("oracle", "full"))
NOISY = {"digits": {"limit": 300, "test_limit": 100, "label_noise": 0.2}}
#: Ways of training of one batch shape, so that one compilation serves them all.
WAYS: list[dict[str, Any]] = [
    *({"trainer": name, **({"steps": 1} if cls.single_step else {})} for name, cls in TRAINERS.classes().items()),
    {"attack_mode": "train"},
    {"awp": 0.01, "ema": 0.9, "best_every": 1},
    {"crop_padding": 1, "flip": True},
    {"plain_epochs": 1, "epochs": 2},
    {"steps": {"bullet": {}}},
    {"pruner": "loss_top", "fraction": 0.5},
    {"precision": "bfloat16"},
]
COMPILED = {"model": {"preact_resnet": {"width": 8, "stem": "3x3"}}, "batch_size": 32}


@pytest.fixture(scope="module")
def small() -> Dataset:
    return load_dataset(DATASET)


def both(images: Dataset, /, **options: Any) -> Any:
    """The same run on a GPU and on a CPU."""
    return (train(tiny_run(**options, device=device), images) for device in ("cuda", "cpu"))


def worked(result: TrainResult) -> list[int]:
    """Passes of training and selection; how soon an attack of a check is done depends on the last digits."""
    return [result.ledger["passes"].get(phase, 0) for phase in ("train", "select")]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_of_training(way: dict[str, Any], small: Dataset) -> None:
    there, here = both(small, **{"epochs": 1} | way)
    assert there.status == here.status == "ok"
    assert there.steps == here.steps
    if "bullet" not in str(way):  # whose steps depend on the logits
        assert worked(there) == worked(here)
    assert there.metrics[0]["train_loss"] == pytest.approx(here.metrics[0]["train_loss"], rel=0.05)
    assert there.ledger["peak_memory"] > 0
    assert all(value.device.type == "cpu" for value in there.last.values())


@pytest.mark.parametrize("pruner", SELECTING)
def test_every_pruner(pruner: str, small: Dataset) -> None:
    there, here = both(small, pruner=pruner, fraction=0.5, epochs=13)
    assert worked(there) == worked(here)
    for epoch, selection in there.selections.items():
        assert len(selection.indices) == len(here.selections[epoch].indices)
    first = min(there.selections)
    shared = np.intersect1d(there.selections[first].indices, here.selections[first].indices)
    # Other roundings, other neighbours near a threshold; by chance it would be a half.
    assert len(shared) >= 0.7 * len(here.selections[first].indices)


def test_an_oracle_of_wrong_labels() -> None:
    there, here = both(load_dataset(NOISY), dataset=NOISY, pruner="oracle", fraction=0.5, epochs=2)
    assert np.array_equal(there.selections[0].indices, here.selections[0].indices)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", sorted(ATTACKS.classes()))
def test_every_attack(name: str, norm: str, small: Dataset) -> None:
    config = tiny_run(epochs=4, norm=norm, device="cpu")
    result = train(config, small)
    outcomes = []
    for device in ("cuda", "cpu"):
        model = build_model(config.model, small)
        model.load_state_dict(result.last)
        outcomes.append(evaluate(model.to(device), small.test, [ATTACKS.parse(name)], threat=config.threat, seed=0))
    there, here = outcomes
    assert np.array_equal(there.clean, here.clean)
    assert (there.robust != here.robust).sum() <= 3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_runs(precision: str, small: Dataset) -> None:
    """Every way of training, with the two graphs that the first of them needed; then a compiled test."""
    graphs = set()
    for way in WAYS:
        options = {"epochs": 1, "speed": "compiled", "precision": precision} | COMPILED | way
        config = tiny_run(**options, device="cuda")
        compiled = train(config, small, fall_back=False)
        exact = train(config.replace(speed="exact"), small)
        if "precision" not in way:
            graphs.add(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        if "bullet" not in str(way):
            assert worked(compiled) == worked(exact), way
        rel = 0.02 if precision == "float32" else 0.1
        assert compiled.metrics[0]["train_loss"] == pytest.approx(exact.metrics[0]["train_loss"], rel=rel), way
    assert len(graphs) == 1
    model = build_model(config.model, small)
    model.load_state_dict(compiled.last)
    robust = []
    for speed in ("compiled", "exact"):
        evaluation = EvaluationConfig.create(attacks=["pgd", {"autoattack": {"version": "apgd"}}], speed=speed)
        robust.append(evaluate_model(model.cuda(), small, evaluation, device="cuda")[0].robust)
    assert (robust[0] != robust[1]).sum() <= 3


def test_recorded_searches_are_those_of_the_weights_as_they_are(small: Dataset) -> None:
    """Passes that cross each other, after the weights have changed, and of a second network."""
    options = {"speed": "compiled"} | COMPILED
    config = tiny_run(**options, device="cuda")
    networks = [build_model(config.model, small, seed=seed).cuda().eval() for seed in (0, 1)]
    x, other = (small.train.pixels(slice(start, start + 32)).cuda() for start in (0, 32))

    def gradients() -> list[Tensor]:
        found = []
        for network in networks:
            inputs = [x.clone().requires_grad_(), other.clone().requires_grad_()]
            logits = [network(images) for images in inputs]
            losses = (F.cross_entropy(each, torch.arange(32).cuda() % 10) for each in logits)
            found += [torch.autograd.grad(loss, images)[0] for loss, images in zip(losses, inputs, strict=True)]
        return found

    with true_float32(x.device):
        passes = compiled_passes(networks[0], x)
        for _ in range(2):
            plain = gradients()
            with passes.instead_of(networks[0]), passes.instead_of(networks[1]):
                replayed = gradients()
                assert len(passes.graphs) == 2
            assert not passes.graphs, "their memory is free again"
            for ours, theirs in zip(replayed, plain, strict=True):
                assert (ours - theirs).norm() <= 1e-2 * theirs.norm()
            with torch.no_grad():
                for network in networks:
                    for weight in network.parameters():
                        weight.mul_(1.1)


def test_a_killed_run_goes_on_to_the_same_bits(small: Dataset, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise Killed

    config = tiny_run(epochs=3, trainer="atta", steps=1, ema=0.9, device="cuda")
    whole = train(config, small)
    with pytest.raises(Killed):
        train(config, small, work=tmp_path, checkpoint_seconds=0, on_epoch=kill)
    resumed = train(config, small, work=tmp_path)
    assert all(torch.equal(value, resumed.last[name]) for name, value in whole.last.items())
    assert whole.ledger["passes"] == resumed.ledger["passes"]


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_study(engine: str, tmp_path: Path) -> None:
    config = tiny_study(tmp_path, device="cuda", engine=engine, evaluation=["autoattack"], workers=2)
    result = run_study(config, progress=False)
    assert not result.failed
    assert result.table["robust"].notna().all()
    assert set(result.table["device"]) == {"cuda"}
    assert run_study(config, progress=False).trained == 0


def test_images_of_the_size_of_cifar() -> None:
    """The field's network, compiled in bfloat16, on batches that fill the device: loss falls."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, 700)
    x = generator.random((700, 3, 32, 32), dtype=np.float32) * 0.5 + y[:, None, None, None] / 8
    dataset = dataset_from_arrays(x[:600], y[:600], x[600:], y[600:])
    config = tiny_run(
        model="preact_resnet18", dataset="digits", batch_size=64, epochs=4, steps=3, lr=0.05,
        precision="bfloat16", speed="compiled", crop_padding=4, flip=True, device="cuda",
    )  # fmt: skip
    result = train(config, dataset, fall_back=False)
    losses = [row["train_loss"] for row in result.metrics]
    assert losses[-1] < losses[0]
