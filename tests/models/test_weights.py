"""Weights from files: what fits is loaded, what does not is refused before any work, and a key has their content."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.models.base import build_model
from advprune_core.models.weights import InitialWeights, finite_entries, load_weights, tensors
from advprune_core.study.grid import check_entries, grid
from advprune_core.trainers.checks import check_run
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from tests.tiny import TINY


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_what_fits_is_loaded_whole(tmp_path: Path) -> None:
    ours, theirs = network(), network()
    theirs[1].running_mean.fill_(3.0)
    load_weights(ours, saved(tmp_path / "w.pt", theirs.state_dict()))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": {"width": 16}, "state_dict": state},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "optimizer": {}},
    ],
)
def test_checkpoints_and_wrapped_networks_are_what_is_in_them(wrapped: Any, tmp_path: Path) -> None:
    ours, theirs = network(), network()
    load_weights(ours, saved(tmp_path / "w.pt", wrapped(theirs.state_dict())))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    outer = nn.Sequential()
    outer.module = network()  # a network that has the name itself
    load_weights(outer, saved(tmp_path / "w.pt", {f"module.{name}": x for name, x in theirs.state_dict().items()}))
    assert torch.equal(outer.module[0].weight, theirs[0].weight)


OTHERS: dict[str, tuple[Any, str]] = {
    "missing": ({"0.weight": torch.zeros(2, 3)}, r"it lacks 0\.bias, 1\.weight, .* and 1 more$"),
    "more": ({**network().state_dict(), "head": torch.ones(1)}, "it has, and the model has not, head$"),
    "shape": (
        {**network().state_dict(), "0.weight": torch.zeros(5, 3)},
        r"of other shapes: 0\.weight is \(5, 3\), the model's \(2, 3\); modules .* are named in init\.fresh$",
    ),
    "checkpoint": ({"epoch": 3, "net": network().state_dict()}, r"under epoch, net .* save model\.state_dict\(\)"),
    "numbers": ({0: torch.zeros(2)}, "it lacks 0"),
    "another's prefix": ({f"encoder.{name}": x for name, x in network().state_dict().items()}, "it lacks 0"),
    "not finite": ({**network().state_dict(), "0.bias": torch.tensor([1.0, torch.nan])}, "not finite"),
    "infinite": (
        {**network().state_dict(), "0.bias": torch.tensor([1.0, torch.inf])},
        r"not finite .infinity.: 0\.bias",
    ),
    "tensor": (torch.zeros(3), "holds a Tensor"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_does_not_fit_is_named_and_changes_nothing(case: str, tmp_path: Path) -> None:
    content, message = OTHERS[case]
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=message) as caught:
        load_weights(model, saved(tmp_path / "w.pt", content))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Masked(nn.Linear):
    """A buffer of minus infinity, as of attention, and a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"version": 3}


def test_masks_and_what_is_no_tensor(tmp_path: Path) -> None:
    ours, theirs = Masked(), Masked()
    assert finite_entries(ours) == {"weight", "bias"}
    for content in (theirs.state_dict(), tensors(theirs)):
        load_weights(ours, saved(tmp_path / "w.pt", content))
        assert torch.equal(ours.weight, theirs.weight)
        ours.reset_parameters()


@pytest.mark.parametrize("fresh", [["1"], ["1.weight", "1.bias"], ["1", "1.weight"]])
def test_a_head_for_other_classes_stays_random(fresh: list[str], tmp_path: Path) -> None:
    ours = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    theirs = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 10))
    load_weights(ours, saved(tmp_path / "w.pt", theirs.state_dict()), fresh=fresh)
    for name, value in ours.state_dict().items():
        expected = before if name.startswith("1.") else theirs.state_dict()
        assert torch.equal(value, expected[name])


def test_a_head_may_be_missing_in_the_file(tmp_path: Path) -> None:
    ours, body = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(3, 4))
    load_weights(ours, saved(tmp_path / "w.pt", body.state_dict()), fresh=["1"])
    assert torch.equal(ours[0].weight, body[0].weight)


@pytest.mark.parametrize("name", ["2", "1.weigh", "", "head"])
def test_a_fresh_module_that_the_model_has_not(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", network().state_dict())
    with pytest.raises(ConfigError, match=rf"init\.fresh: the model has no '{name}'; its outermost modules: 0, 1$"):
        load_weights(network(), path, fresh=[name])


def test_what_stays_random_is_in_the_key(tmp_path: Path) -> None:
    path = str(start(tmp_path / "w.pt"))
    config = RunConfig.flat(**TINY, init=path)
    head = list(build_model(config.model, load_dataset(config.dataset)).state_dict())[-1]
    other = RunConfig.flat(**TINY, init={"path": path, "fresh": [head]})
    dataset = load_dataset(config.dataset)
    assert config.train_key(dataset) != other.train_key(dataset)
    assert RunConfig.flat(**TINY, init={"path": path, "fresh": head}) == other
    assert RunConfig.create(**other.model_dump(mode="json")).train_key(dataset) == other.train_key(dataset)
    check_entries(grid(other, pruners=["full"], fractions=[1.0], seeds=[0]))
    with pytest.raises(ConfigError, match="the model has no 'heed'"):
        check_entries(
            grid(config.replace(init={"path": path, "fresh": ["heed"]}), pruners=["full"], fractions=[1.0], seeds=[0])
        )


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (Path.touch, (trap,))

    for write in (torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))):
        write({"0.weight": Trap()}, tmp_path / "w.pt")
        with pytest.raises(ConfigError, match="not a state dict"):
            load_weights(network(), tmp_path / "w.pt")
    (tmp_path / "w.pt").write_text("hello")
    with pytest.raises(ConfigError, match="not a state dict"):
        load_weights(network(), tmp_path / "w.pt")
    assert not trap.exists()
    torch.save(network(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"a whole model perhaps.*save model\.state_dict\(\) alone$"):
        load_weights(network(), tmp_path / "w.pt")


def start(path: Path, *, seed: int = 5) -> Path:
    """Weights of the tiny run's network, of a seed that it does not have itself."""
    config = RunConfig.flat(**TINY)
    return saved(path, build_model(config.model, load_dataset(config.dataset), seed=seed).state_dict())


def test_training_starts_from_them(tmp_path: Path) -> None:
    """With a rate of nearly nothing they stay what they were, for any seed."""
    path = start(tmp_path / "w.pt")
    config = RunConfig.flat(**{**TINY, "lr": 1e-12, "weight_decay": 0.0, "init": str(path)})
    result = train(config, load_dataset(config.dataset))
    given = torch.load(path, weights_only=True)
    assert set(result.last) == set(given)
    for name, value in result.last.items():
        torch.testing.assert_close(value, given[name], rtol=0, atol=1e-6)


def test_the_key_has_their_content_not_their_path(tmp_path: Path) -> None:
    first, other = start(tmp_path / "a.pt"), start(tmp_path / "b.pt", seed=6)
    copy = Path(shutil.copy(first, tmp_path / "c.pt"))
    dataset = load_dataset(RunConfig.flat(**TINY).dataset)
    keys = [RunConfig.flat(**TINY, init=init).train_key(dataset) for init in (None, str(first), str(copy), str(other))]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3
    assert RunConfig.flat(**TINY).train_key(dataset) == keys[0]
    # A record is read where the file is not; it is not trained there.
    config = RunConfig.flat(**TINY, init=str(first))
    again = RunConfig.create(**config.model_dump(mode="json"))
    first.unlink()
    assert again.train_key(dataset) == keys[1]
    with pytest.raises(ConfigError, match="there is no file"):
        check_run(again, dataset)
    shutil.copy(other, first)
    with pytest.raises(ConfigError, match="another file than was named"):
        train(again, dataset)


@pytest.mark.parametrize("path", ["", "nowhere.pt", ".", "a\0b", "~/nowhere.pt"])
def test_a_file_that_is_not_there(path: str) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        RunConfig.flat(**TINY, init=path)


def test_a_grid_with_weights_that_do_not_fit_is_refused_before_any_work(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", network().state_dict())
    config = RunConfig.flat(**TINY, init=str(path))
    with pytest.raises(ConfigError, match="does not fit the model: it lacks"):
        check_entries(grid(config, pruners=["full"], fractions=[1.0], seeds=[0]))
    assert InitialWeights.parse("w.pt") == {"path": "w.pt"}
