"""Every pruner in a run: what it keeps is what is trained on, and an interrupted run ends with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.pruners import PRUNERS
from advprune_core.pruners.selection import budget
from advprune_core.trainers.checks import check_run
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train, train_warmup
from advprune_core.trainers.result import TrainResult
from advprune_core.trainers.warmups import shared_key
from tests.pruners.test_every_pruner import SELECTING
from tests.tiny import tiny_run


def config(name: str, **options: Any) -> Any:
    """A run of four epochs with selections before the second and the fourth."""
    fields = PRUNERS.classes()[name].model_fields
    settings = {"warmup_epochs": 1, "every": 2} if "every" in fields else {}
    if "window" in fields:
        settings = {"warmup_epochs": 3, "every": 1, "window": 3}
    return tiny_run(pruner={name: settings}, epochs=4, fraction=0.4, **options)


def facts(result: TrainResult) -> Any:
    kept = {
        epoch: (s.indices.tolist(), s.weights.tolist(), s.n_filled, s.step_ratio)
        for epoch, s in result.selections.items()
    }
    rows = [(row["train_loss"], row.get("step_ratio")) for row in result.metrics]
    return kept, rows, result.ledger["passes"]


class Stop(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("name", SELECTING)
def test_every_pruner_trains_and_resumes(name: str, tmp_path: Path) -> None:
    made = config(name)
    dataset = load_dataset(made.dataset)
    result = train(made, dataset)
    assert result.status == "ok"
    assert result.selections
    if made.pruner.exact:
        assert {len(s) for s in result.selections.values()} == {budget(0.4, len(dataset.train))}
    assert result.metrics[-1]["kept"] == len(result.selections[max(result.selections)])

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise Stop

    with pytest.raises(Stop):
        train(made, dataset, work=tmp_path / "work", checkpoint_seconds=0, on_epoch=stop)
    assert facts(train(made, dataset, work=tmp_path / "work")) == facts(result)


def test_loss_top_trains_on_the_hardest_of_each_batch_and_scores_all() -> None:
    made = tiny_run(pruner="loss_top", epochs=3, fraction=0.4)
    dataset = load_dataset(made.dataset)
    n, result = len(dataset.train), train(made, dataset)
    updates = 3 * n // 40  # 16 of 40 candidates each
    assert result.steps == updates
    assert result.images_visited == 16 * updates
    assert result.ledger["passes"]["select"] == 40 * updates
    assert result.ledger["passes"]["train"] == 16 * updates * made.objective.cost(1)


def test_infobatch_trains_on_all_data_at_the_end() -> None:
    made = tiny_run(pruner="infobatch", epochs=8, fraction=0.8)
    dataset = load_dataset(made.dataset)
    kept = [row["kept"] for row in train(made, dataset).metrics]
    assert kept[0] == kept[7] == len(dataset.train)
    assert set(kept[1:7]) == {budget(0.8, len(dataset.train))}


def test_selection_goes_on_from_the_perturbations_that_training_carries_in_frames() -> None:
    made = tiny_run(pruner="score", start="carried", steps=1, epochs=2, fraction=0.4, crop_padding=1, flip=True)
    dataset = load_dataset(made.dataset)
    assert train(made, dataset).ledger["passes"]["select"] == 3 * len(dataset.train)


@pytest.mark.parametrize("batch_size", [16, 32])
def test_a_selection_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    """Before any training, all that differs is the size of batches."""
    made = tiny_run(pruner={"score": {"warmup_epochs": 0}}, epochs=1, fraction=0.4, batch_size=batch_size)
    dataset = load_dataset(made.dataset)
    first = train(made, dataset).selections[0].indices.tolist()
    assert first == train(made.with_settings({"optimisation.batch_size": 8}), dataset).selections[0].indices.tolist()


def test_what_cannot_be_selected_is_refused_before_any_work() -> None:
    dataset = {"digits": {"limit": 300, "test_limit": 100, "val_select": 0}}
    made = tiny_run(pruner="glister", fraction=0.4, dataset=dataset)
    with pytest.raises(ConfigError, match="val_select"):
        check_run(made, load_dataset(made.dataset))


@pytest.mark.parametrize("name", ["dynamic_uncertainty", "grad_match", "random", "infobatch"])
def test_a_run_that_would_never_select_is_refused(name: str) -> None:
    pruner: Any = {"random": {"warmup_epochs": 2}} if name == "random" else name
    made = tiny_run(pruner=pruner, fraction=0.4, epochs=1)
    with pytest.raises(ConfigError, match=r"would not select in 1 epochs"):
        check_run(made, load_dataset(made.dataset))


def test_scores_under_attack_make_the_attack_part_of_the_key() -> None:
    """Standard training does not look at the attack, but its pruner may."""
    keys = {}
    for pruner in ("score", "random"):
        runs = [tiny_run(pruner=pruner, objective="standard", fraction=0.4, eps=eps) for eps in (0.1, 0.2)]
        keys[pruner] = len({run.train_key(load_dataset(run.dataset)) for run in runs})
    assert keys == {"score": 2, "random": 1}


#: Chance decides which batches there are; windows of three epochs are too short for TDDS.
CHANCE = {"random_steps", "grad_match_pb", "rcs", "tdds", "infobatch"}


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunConfig, Dataset], Path]:
    """The checkpoint after a run's warm-up, trained once for all pruners that don't look on."""
    made: dict[str, Path] = {}

    def start(config: RunConfig, dataset: Dataset) -> Path:
        key = shared_key(config, dataset)
        if key not in made:
            work = tmp_path_factory.mktemp("warmup")
            train_warmup(config, dataset, work=work)
            made[key] = work / "checkpoint.pt"
        return made[key]

    return start


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SELECTING if name not in CHANCE])
def test_no_pruner_is_random_in_disguise(name: str, warmed: Callable[[RunConfig, Dataset], Path]) -> None:
    """The selections of two networks have more in common than two random ones have on average."""
    fields, settings = PRUNERS.classes()[name].model_fields, {"warmup_epochs": 5}
    made = RunConfig.flat(
        pruner={name: settings | ({"window": 3} if "window" in fields else {})}, fraction=0.3, epochs=6, steps=3
    )
    dataset = load_dataset(made.dataset)
    kept = []
    for seed in range(2):
        run = made.with_settings({"seed": seed})
        (selection,) = train(run, dataset, start=warmed(run, dataset)).selections.values()
        kept.append(set(selection.indices.tolist()))
    common = len(kept[0] & kept[1]) / len(kept[0] | kept[1])
    # One standard deviation of the overlap of two random selections of 330 of 1,100 is 0.016.
    assert common > 0.3 / (2 - 0.3) + 3 * 0.016


@pytest.mark.parametrize("name", ["score", "aum"])
def test_scores_of_a_network_trained_for_them(name: str, tmp_path: Path) -> None:
    """`score_epochs`: as if that training had been a run of its own; its passes are selection's."""
    made = tiny_run(pruner={name: {"score_epochs": 4}}, fraction=0.4, epochs=2)
    dataset = load_dataset(made.dataset)
    result = train(made, dataset)
    # The same training as a run: an observer that selects when it is over gives what this one selected.
    alone = tiny_run(pruner={name: {"warmup_epochs": 4}}, fraction=0.4, epochs=5)
    whole = alone.replace(optimisation=alone.optimisation.replace(schedule="constant"))
    scored = made.replace(optimisation=made.optimisation.replace(schedule="constant"))
    expected, found = train(whole, dataset).selections[4], train(scored, dataset).selections
    assert list(found) == [0]
    if name == "aum":  # what is observed does not depend on the epoch of the selection; attacks are keyed by it
        assert found[0].indices.tolist() == expected.indices.tolist()
    assert [row["kept"] for row in result.metrics] == [len(found[0])] * 2
    n, visits = len(dataset.train), 4 * len(dataset.train) // 16 * 16
    scoring = {"score": 3 * n, "aum": 0}[name]
    assert result.ledger["passes"]["select"] == 5 * visits + scoring

    def stop(row: dict[str, Any]) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(made, dataset, work=tmp_path / "work", checkpoint_seconds=0, on_epoch=stop)
    again = train(made, dataset, work=tmp_path / "work")
    assert again.ledger["passes"] == result.ledger["passes"]
    assert all(torch.equal(again.last[key], result.last[key]) for key in result.last)


def test_a_scout_that_diverges_says_so() -> None:
    made = tiny_run(pruner={"score": {"score_epochs": 1}}, fraction=0.4, epochs=1, lr=100, weight_decay=1)
    with pytest.raises(ConfigError, match=r"to be scored by diverged.*smaller lr"):
        train(made, load_dataset(made.dataset))


def test_own_networks_are_scouted_for_too() -> None:
    made = tiny_run(pruner={"score": {"score_epochs": 1}}, fraction=0.4, epochs=1)
    dataset = load_dataset(made.dataset)
    own = build_model(made.model, dataset, seed=made.seed)
    first, second = train(made, dataset, model=own), train(made, dataset)
    assert first.selections[0].indices.tolist() == second.selections[0].indices.tolist()
