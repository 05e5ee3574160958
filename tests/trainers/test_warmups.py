"""Warm-ups: what they depend on, and that a run goes on from one as if it were its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train, train_warmup
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.run import Run
from advprune_core.trainers.warmups import warmup_key, warmup_passes
from tests.tiny import tiny_run


def pruned(pruner: str = "random", *, settings: dict[str, Any] | None = None, **options: Any) -> RunConfig:
    """A tiny run of four epochs that selects after two of them."""
    return tiny_run(
        **{"epochs": 4, "fraction": 0.4} | options, pruner={pruner: {"warmup_epochs": 2} | (settings or {})}
    )


def key(config: RunConfig) -> str | None:
    return warmup_key(config, load_dataset(config.dataset))


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (pruned(fraction=0.7), True),
        (pruned("keep_hard"), True),
        (pruned("keep_hard", settings={"every": 1}), True),
        (pruned(min_per_class=3), True),
        (pruned(schedule_span="full_run"), True),
        (pruned(settings={"warmup_epochs": 1}), False),
        (pruned(seed=1), False),
        (pruned(epochs=5), False),  # another learning rate
        (pruned(lr=0.05), False),
        (pruned(steps=2), False),
        (pruned(trainer="trades"), False),
        (pruned(plain_epochs=1), False),
        (pruned(best_every=1), False),
        (pruned(dataset={"digits": {"limit": 300, "test_limit": 100, "label_noise": 0.2}}), False),
        (pruned("aum"), False),  # looks on
    ],
)
def test_what_the_warmup_of_a_run_depends_on(other: RunConfig, alike: bool) -> None:
    assert key(other) is not None
    assert (key(other) == key(pruned())) == alike


@pytest.mark.parametrize("asked", [{"warm_start": 0.5}, {"equal_cost": True}], ids=str)
def test_a_warmup_is_as_long_as_its_run_whatever_that_followed_from(asked: dict[str, Any]) -> None:
    waits = {} if "warm_start" in asked else {"warmup_epochs": 2}
    config = tiny_run(pruner={"random": waits}, fraction=0.4, epochs=10, **asked)
    given = tiny_run(pruner=config.pruner, fraction=0.4, epochs=config.optimisation.epochs)
    assert key(config) == key(given) is not None


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (pruned("aum"), pruned("aum", fraction=0.7), True),
        (pruned("aum"), pruned("forgetting"), False),
        (pruned("aum"), pruned("aum", settings={"keep": "highest"}), False),
        (pruned("keep_hard", trainer="standard"), pruned("keep_easy", trainer="standard"), True),
        *(
            (pruned("keep_hard", trainer="standard"), pruned("keep_hard", trainer="standard", **attack), False)
            for attack in ({"steps": "bullet"}, {"start": "carried"})
        ),
    ],
)
def test_what_a_run_keeps_of_its_batches_counts(one: RunConfig, other: RunConfig, alike: bool) -> None:
    assert (key(one) == key(other)) == alike


@pytest.mark.parametrize(
    "config",
    [
        tiny_run(),
        tiny_run(pruner="random", fraction=0.4),
        tiny_run(pruner={"keep_hard": {"score_epochs": 1}}, fraction=0.4),
        tiny_run(pruner="infobatch", fraction=0.4),
        tiny_run(pruner="loss_top", fraction=0.4),
    ],
    ids=lambda config: config.pruner.name,
)
def test_runs_without_a_warmup_share_none(config: RunConfig, tmp_path: Path) -> None:
    assert key(config) is None
    with pytest.raises(ConfigError, match="no warm-up to share"):
        train_warmup(config, load_dataset(config.dataset), work=tmp_path)


def same(left: TrainResult, right: TrainResult) -> bool:
    """Whether two runs are one to the bit, time and memory aside."""
    return (
        str(left.metrics) == str(right.metrics)  # which may hold NaN
        and left.ledger["passes"] == right.ledger["passes"]
        and (left.status, left.steps, left.images_visited, left.unique_images, left.best_epoch)
        == (right.status, right.steps, right.images_visited, right.unique_images, right.best_epoch)
        and {e: s.indices.tolist() for e, s in left.selections.items()}
        == {e: s.indices.tolist() for e, s in right.selections.items()}
        and all(torch.equal(value.nan_to_num(7), right.last[name].nan_to_num(7)) for name, value in left.last.items())
    )


@pytest.mark.parametrize(
    ("pruners", "options"),
    [
        (("random", "keep_hard"), {}),
        (("keep_easy", "glister"), {"trainer": "trades", "steps": 2}),
        (("random", "keep_middle"), {"steps": "bullet"}),
        (("random", "grad_match"), {"trainer": "free"}),
        (("random", "keep_easy"), {"trainer": "atta"}),
        (("random", "score"), {"ema": 0.9, "awp": 0.01, "best_every": 1}),
        (("random", "keep_hard"), {"crop_padding": 1, "flip": True, "plain_epochs": 1, "batch_size": 24}),
        (("random", "keep_hard"), {"cost_budget": 3000}),  # spent in the epoch after it
        (("random", "keep_hard"), {"lr": 100, "awp": 0.9}),  # diverges within it
        (("aum", "aum"), {}),
    ],
    ids=str,
)
def test_a_run_goes_on_from_a_shared_warmup_to_the_same_bits(
    pruners: tuple[str, str], options: dict[str, Any], tmp_path: Path
) -> None:
    """That of the first pruner serves the second, which keeps another fraction."""
    first, other = (pruned(name, **options | more) for name, more in zip(pruners, ({}, {"fraction": 0.7}), strict=True))
    data, shared, begun = load_dataset(first.dataset), tmp_path / "warmup", list[int]()
    assert warmup_key(first, data) == warmup_key(other, data)
    train_warmup(first, data, work=shared)
    start = shared / "checkpoint.pt"
    result = train(other, data, work=tmp_path, start=start, on_epoch=lambda row: begun.append(row["epoch"]))
    alone = train(other, data)
    assert same(result, alone)
    trained = {row["epoch"] for row in alone.metrics}
    assert alone.status == "diverged" or set(begun) == trained - {0, 1}, "the warm-up is not trained again"


def test_a_warmup_that_cannot_be_believed_is_trained_again(tmp_path: Path) -> None:
    config, path = pruned(), tmp_path / "warmup" / "checkpoint.pt"
    data = load_dataset(config.dataset)
    train_warmup(config, data, work=path.parent)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="set aside"):
        result = train(config, data, work=tmp_path / "run", start=path)
    assert same(result, train(config, data))
    assert not path.exists()


@pytest.mark.parametrize(
    ("config", "message"), [(pruned(seed=1), "not of this run's warm-up"), (tiny_run(), "no warm-up to share")]
)
def test_the_warmup_of_others_is_refused_and_left_to_them(config: RunConfig, message: str, tmp_path: Path) -> None:
    path = tmp_path / "warmup" / "checkpoint.pt"
    data = load_dataset(config.dataset)
    train_warmup(pruned(), data, work=path.parent)
    with pytest.raises(ConfigError, match=message):
        train(config, data, work=tmp_path / "run", start=path)
    assert path.exists()


def test_an_interrupted_warmup_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pruned(settings={"warmup_epochs": 3})
    data, epochs = load_dataset(config.dataset), []
    one = Run._epoch

    def interrupted(run: Any, epoch: int, **more: Any) -> Any:
        epochs.append(epoch)
        if epochs == [0, 1]:
            raise KeyboardInterrupt
        return one(run, epoch, **more)

    monkeypatch.setattr(Run, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_warmup(config, data, work=tmp_path / "warmup", checkpoint_seconds=0)
    train_warmup(config, data, work=tmp_path / "warmup")
    assert epochs == [0, 1, 1, 2]
    result = train(config, data, work=tmp_path / "run", start=tmp_path / "warmup" / "checkpoint.pt")
    assert epochs == [0, 1, 1, 2, 3]
    assert same(result, train(config, data))


def test_passes_of_a_warmup() -> None:
    config = pruned(steps=2, plain_epochs=1)
    images = 254
    assert warmup_passes(config, images) == images * (config.plain_passes_per_image + config.passes_per_image)
    work = warmup_passes(config, images) + 2 * round(0.4 * images) * config.passes_per_image
    assert config.passes(images) == work
