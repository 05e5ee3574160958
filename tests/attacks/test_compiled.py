"""Compiled passes: those of the model, compiled once, under keys of their own, and plain where that fails."""

from __future__ import annotations

import copy
import math
import runpy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

from advprune_core.attacks import compiled as module
from advprune_core.attacks.compiled import NotCompiled, compiled_passes
from advprune_core.attacks.pgd import pgd
from advprune_core.base.ledger import Ledger
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import MODELS, build_model
from advprune_core.objectives.base import TRAINERS
from advprune_core.study.evaluations import EvaluationConfig, evaluate_model
from advprune_core.study.runner import run_study
from advprune_core.study.runs import load_run
from advprune_core.study.tasks import TrainTask
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.speeds import LEAST_UPDATES
from tests.tiny import DATASET, tiny_run, tiny_study

RESIDUAL = {"preact_resnet": {"width": 2}}
SIZE = 16


@pytest.fixture(autouse=True)
def _forgotten(forgotten: None) -> None:
    """No test finds compiled what another one has."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(DATASET)


def graphs() -> int:
    """How many graphs were compiled so far."""
    return int(counters["stats"]["unique_graphs"])


def network(data: Dataset, seed: int = 0, model: Any = RESIDUAL) -> nn.Module:
    return build_model(MODELS.parse(model), data, seed=seed).eval()


def residual_run(**options: Any) -> RunConfig:
    return tiny_run(**{"model": RESIDUAL, "batch_size": SIZE, "epochs": 2, "speed": "compiled"} | options)


class Plain:
    """Passes that are none but the network's own."""

    @contextmanager
    def instead_of(self, model: nn.Module) -> Iterator[None]:
        yield


def same_weights(first: TrainResult, second: TrainResult) -> bool:
    return all(torch.equal(value, second.last[name]) for name, value in first.last.items())


@pytest.mark.usefixtures("traced")
def test_searches_are_compiled_and_verdicts_are_not(data: Dataset) -> None:
    model, plain = network(data), network(data)
    passes = compiled_passes(model, data.train.pixels(slice(0, SIZE)))
    used: list[int] = []
    search = passes.search
    object.__setattr__(passes, "search", lambda state, x: used.append(len(x)) or search(state, x))
    x, y = data.train.pixels(slice(0, 40)), data.train.labels[:40]
    with passes.instead_of(model):
        with torch.no_grad():
            assert torch.equal(model(x), plain(x))
        assert used == []
        for n in (40, SIZE, 6, 5):  # in parts, as it is, filled up, too few
            x_adv = pgd(model, x[:n], y[:n], eps=0.1, steps=2)
            torch.testing.assert_close(x_adv, pgd(plain, x[:n], y[:n], eps=0.1, steps=2))
        assert used == [SIZE] * 2 * (3 + 1 + 1)
    assert "forward" not in vars(model)
    assert torch.equal(model(x), plain(x))


@pytest.mark.usefixtures("traced")
def test_an_update_has_the_gradients_and_the_statistics_of_a_plain_one(data: Dataset) -> None:
    model, plain = network(data).train(), network(data).train()
    x, y = data.train.pixels(slice(0, SIZE)), data.train.labels[:SIZE]
    before = copy.deepcopy(model.state_dict())
    passes = compiled_passes(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with passes.instead_of(model), Ledger().watch(model) as ledger, ledger.phase("train"):
        F.cross_entropy(model(x), y).backward()
    assert ledger.passes == {"train": SIZE}  # hooks are called as ever
    F.cross_entropy(plain(x), y).backward()
    for (name, ours), (_, theirs) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    for (name, ours), (_, theirs) in zip(model.named_buffers(), plain.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


WAYS: list[dict[str, Any]] = [
    *({"trainer": name, **({"steps": 1} if cls.single_step else {})} for name, cls in TRAINERS.classes().items()),
    {"attack_mode": "train"},
    {"awp": 0.01, "ema": 0.9, "best_every": 1},
    {"crop_padding": 1, "flip": True},
    {"steps": {"bullet": {}}},
    {"pruner": "loss_top", "fraction": 0.5},
]


@pytest.mark.slow(seconds=30)
@pytest.mark.usefixtures("traced")
def test_every_way_of_training_is_compiled_once_and_counted_as_ever(data: Dataset) -> None:
    before, counted = graphs(), set()
    for way in WAYS:
        compiled, exact = (train(residual_run(**way, epochs=1, speed=speed), data) for speed in ("compiled", "exact"))
        counted.add(graphs() - before)
        passes = dict(compiled.ledger["passes"])
        assert passes.pop("compile") == 0
        if "bullet" not in str(way):  # whose steps depend on the logits
            assert passes == exact.ledger["passes"], way
        assert compiled.metrics[0]["train_loss"] == pytest.approx(exact.metrics[0]["train_loss"], rel=0.02), way
        assert all(value.is_contiguous() for value in compiled.last.values())
    assert counted == {2}  # a search and an update, for all of them


@pytest.mark.slow(seconds=60)
@pytest.mark.usefixtures("traced")
def test_drawn_configurations_run_and_compile_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of what benchmarks/compiled_equivalence.py does, on fewer images, without the C++ compiler."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "compiled_equivalence.py"))
    draws = script["drawn"].__globals__
    monkeypatch.setitem(draws, "DIGITS", {"dataset": DATASET, "batch_size": 32, "epochs": 4})
    data, seen = load_dataset(DATASET), set[str]()
    for number in range(20):
        config, tests = script["drawn"](number, "digits", data)
        before = graphs()
        row = script["carried_out"](config, data, tests)
        assert row["status"] != "diverged", config
        assert graphs() - before == (0 if config.model.name in seen else 2), config
        seen.add(config.model.name)
    assert len(seen) == 2


@pytest.mark.usefixtures("traced")
def test_bfloat16_is_compiled_for_its_own_and_validation_is_plain(data: Dataset) -> None:
    before = graphs()
    for precision, number in (("float32", 2), ("bfloat16", 4)):
        config = tiny_run(speed="compiled", precision=precision, best_every=1, epochs=1)
        assert math.isfinite(train(config, data).metrics[0]["train_loss"])
        assert graphs() - before == number


@pytest.mark.usefixtures("traced")
def test_a_second_run_and_a_resumed_one_have_the_same_bits(data: Dataset, tmp_path: Path) -> None:
    config = residual_run(ema=0.9, epochs=3)
    whole = train(config, data)
    number = graphs()
    assert same_weights(whole, train(config, data))

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data, work=tmp_path, checkpoint_seconds=0, on_epoch=stop)
    assert (tmp_path / "checkpoint.pt").exists()
    again = train(config, data, work=tmp_path, checkpoint_seconds=0)
    assert same_weights(whole, again)
    assert graphs() == number


@pytest.mark.usefixtures("traced")
def test_compiling_is_a_phase_of_its_own(data: Dataset) -> None:
    ledger = train(residual_run(), data).ledger
    assert ledger["seconds"]["compile"] > 0
    assert "compile" not in train(residual_run(speed="exact"), data).ledger["seconds"]


@pytest.mark.usefixtures("traced")
def test_the_last_gradients_go_with_the_passes_that_made_them(data: Dataset) -> None:
    """On a GPU they lie in memory of a CUDA graph: whoever looks at them later gets an error of PyTorch's."""
    model = network(data)
    train(residual_run(best_every=1), data, model=model)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_a_run_is_an_exact_one(data: Dataset) -> None:
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler.*exact"):
        fallen = train(residual_run(), data)
    exact = train(residual_run(speed="exact"), data)
    assert same_weights(fallen, exact)
    assert "compile" not in fallen.ledger["seconds"]
    config = residual_run()
    with pytest.raises(NotCompiled):  # a worker must not write it under the key of a compiled one
        TrainTask(config, config.train_key(data), None)(data)


@pytest.mark.parametrize("own", [True, False])
def test_a_killed_run_that_cannot_be_compiled_any_more(
    own: bool, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins anew, from the weights that the network came with, and then goes on where it was as any other."""

    def trained(work: Path | None, *, killed: bool = False) -> tuple[TrainResult | None, list[int]]:
        seen: list[int] = []

        def note(row: dict[str, Any]) -> None:
            seen.append(row["epoch"])
            if killed:
                raise KeyboardInterrupt

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = network(data) if own else None
            try:
                found = train(residual_run(epochs=2), data, model=model, work=work, checkpoint_seconds=0, on_epoch=note)
            except KeyboardInterrupt:
                return None, seen
        return found, seen

    monkeypatch.setattr("advprune_core.trainers.run.run_passes", lambda *_: Plain())
    trained(tmp_path, killed=True)  # while it could be

    def fail(*_: Any) -> None:
        raise NotCompiled("no C++ compiler")

    monkeypatch.setattr("advprune_core.trainers.run.run_passes", fail)
    whole, _ = trained(None)
    assert trained(tmp_path, killed=True)[1] == [0]
    found, seen = trained(tmp_path)
    assert seen == [1]
    assert found is not None
    assert whole is not None
    assert same_weights(found, whole)


@pytest.mark.usefixtures("traced")
def test_an_evaluation_searches_with_compiled_passes(data: Dataset) -> None:
    attacks = [{"pgd": {"steps": 2}}, {"apgd": {"steps": 3}}]
    exact = EvaluationConfig.create(attacks=attacks, threat={"norm": "linf", "eps": 0.1}, images=60)
    compiled = exact.replace(speed="compiled")
    assert "speed" not in exact.identity("test")
    assert compiled.key("test") != exact.key("test")
    model, before = network(data), graphs()
    ours, plain = (evaluate_model(model, data, each) for each in (compiled, exact))
    assert graphs() == before + 1
    assert (ours[0].clean == plain[0].clean).all()  # a plain pass
    assert abs(ours[0].robust.mean() - plain[0].robust.mean()) <= 1 / 60
    assert ours[1]["passes"]["evaluate"] == pytest.approx(plain[1]["passes"]["evaluate"], rel=0.1)
    assert set(ours[1]["seconds"]) == {"compile", "evaluate"}


class Counting(nn.Module):
    """Its outputs depend on more than weights and images."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(64, 10), 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * self.scale()

    def scale(self) -> float:
        return float(torch.get_rng_state().sum() % 7)


class Random(nn.Module):
    """Dropout: another pass is another network."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x.flatten(1)), 0.5)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("make", [Counting, Random])
def test_what_cannot_be_compiled_is_refused(make: Callable[[], nn.Module], data: Dataset) -> None:
    with pytest.raises(NotCompiled):
        compiled_passes(make(), data.train.pixels(slice(0, SIZE)))


@pytest.mark.usefixtures("traced")
def test_what_cannot_be_compiled_is_refused_in_bfloat16_too(data: Dataset) -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(NotCompiled, match="other"):
        compiled_passes(Random(), data.train.pixels(slice(0, SIZE)))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("bfloat16", "distance", "rounding", "taken"),
    [
        (False, 0.009, 0.0, True),
        (False, 0.011, 0.1, False),
        (True, 0.009, 0.0, True),
        (True, 0.3, 0.1, True),
        (True, 0.5, 0.1, False),
        (True, math.nan, 0.1, False),
    ],
)
def test_compiled_passes_may_differ_as_much_as_rounding_does(
    bfloat16: bool, distance: float, rounding: float, taken: bool, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values(passes: Any, *_: Any, **__: Any) -> dict[str, list[Tensor]]:
        rounded = torch.is_autocast_enabled("cpu")
        value = 1.0 + (distance if passes is not None else 0.0)
        return {"logits": [torch.tensor([value if rounded or not bfloat16 else 1.0 + rounding])]}

    monkeypatch.setattr(module, "_values", values)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        if taken:
            compiled_passes(network(data), data.train.pixels(slice(0, SIZE)))
            return
        with pytest.raises(NotCompiled, match="other logits"):
            compiled_passes(network(data), data.train.pixels(slice(0, SIZE)))


CIFAR = {"device": "cpu", "dataset": "cifar10", "model": "preact_resnet", "epochs": 15, "batch_size": 128}
AUTO: list[tuple[dict[str, Any], str]] = [
    (CIFAR, "compiled"),
    (CIFAR | {"model": "resnet18"}, "compiled"),
    (CIFAR | {"pruner": "random", "fraction": 0.05}, "compiled"),  # as the full run
    (CIFAR | {"speed": "exact"}, "exact"),
    (CIFAR | {"device": "cuda"}, "exact"),
    (CIFAR | {"device": "cuda", "speed": "compiled"}, "compiled"),
    (CIFAR | {"model": "small_cnn"}, "exact"),
    (CIFAR | {"dataset": "fashion_mnist"}, "exact"),
    (CIFAR | {"dataset": "digits"}, "exact"),
    (CIFAR | {"trainer": "free"}, "exact"),
    (CIFAR | {"epochs": LEAST_UPDATES * 128 / 50_000}, "compiled"),
    (CIFAR | {"epochs": LEAST_UPDATES * 128 / 50_000 - 0.01}, "exact"),
    (CIFAR | {"dataset": {"cifar10": {"limit": 5000}}}, "exact"),
    ({"speed": "compiled"}, "compiled"),
]


@pytest.mark.parametrize(("options", "speed"), AUTO)
def test_auto_is_a_written_rule(options: dict[str, Any], speed: str) -> None:
    assert RunConfig.flat(**options).speed == speed


def test_auto_follows_what_is_changed_and_a_choice_stays() -> None:
    auto = RunConfig.flat(**CIFAR)
    assert auto.with_settings({"model": "small_cnn"}).speed == "exact"
    assert auto.with_settings({"speed": "exact"}).with_settings({"optimisation.ema": 0.9}).speed == "exact"
    assert RunConfig.flat(speed="compiled").with_settings({"model": "resnet18"}).speed == "compiled"


def test_exact_runs_keep_their_keys_and_old_records_are_exact(tmp_path: Path) -> None:
    assert "speed" not in RunConfig.flat(**CIFAR, speed="exact").identity("hash")
    assert RunConfig.flat(**CIFAR).identity("hash")["speed"] == "compiled"
    result = run_study(tiny_study(tmp_path, seeds=[0], fractions=[1.0], controls=[]), progress=False)
    run = load_run(result.table["key"].iloc[0], tmp_path)
    config = {name: value for name, value in run.record.config.items() if name != "speed"}
    run.record = run.record.model_copy(update={"config": {**config, "dataset": "cifar10", "model": "resnet18"}})
    assert run.config.speed == "exact"


@pytest.mark.slow(seconds=90)
def test_with_the_compiler_itself(data: Dataset, tmp_path: Path) -> None:
    """Cold, warm in another process's place, and exact: the same run up to rounding."""
    config = tiny_run(speed="compiled")
    cold = train(config, data)
    assert any((tmp_path / "results" / "cache" / "inductor").iterdir())
    module._passes.clear()
    torch._dynamo.reset()
    warm, exact = train(config, data), train(config.replace(speed="exact"), data)
    assert same_weights(cold, warm)
    assert cold.metrics[0]["train_loss"] == pytest.approx(exact.metrics[0]["train_loss"], rel=1e-3)
