"""A study of which another device has trained some runs; a record that says so stands for the GPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.study.elsewhere import _twins
from advprune_core.study.evaluations import evaluate_model
from advprune_core.study.finished import evaluation_record, finish, finish_evaluation, run_record
from advprune_core.study.grid import study_grid
from advprune_core.study.plans import plan
from advprune_core.study.runner import run_study
from advprune_core.study.runs import load_model
from advprune_core.study.store import RunStore
from advprune_core.study.study import StudyConfig
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from tests.tiny import DATASET, tiny_study


def study(results: Path, **options: Any) -> StudyConfig:
    grid: dict[str, Any] = {"pruners": ["random"], "fractions": [0.5], "seeds": [0, 1], "device": "cpu"}
    return tiny_study(results, **grid | {"any_device": True} | options)


def trained_there(results: Path, **options: Any) -> RunConfig:
    """The first run of the study as a GPU would have left it; trained here in float32, whatever it says."""
    data = load_dataset(DATASET)
    here = study_grid(study(results, **options))[0].config
    there = here.replace(device="cuda")
    result = train(here.replace(precision="float32"), data)
    finish(RunStore(results), run_record(there.train_key(data), there, data, result), result)
    return there


def test_what_another_device_has_trained_is_tested_here_and_matched(tmp_path: Path) -> None:
    there = trained_there(tmp_path)
    before = plan(study_grid(study(tmp_path)), study(tmp_path).execution)
    assert "4 entries, at most 3 to train" in before
    result = run_study(study(tmp_path), progress=False)
    assert not result.failed
    assert (result.trained, result.evaluated) == (3, 4)
    table = result.table.set_index(["arm", "seed"])
    assert table["device"].to_dict() == {
        ("random", 0): "cuda", ("random", 1): "cpu", ("same_cost(random)", 0): "cpu", ("same_cost(random)", 1): "cpu",
    }  # fmt: skip
    assert table["robust"].notna().all()
    assert table.loc[("random", 0), "key"] == there.train_key(load_dataset(DATASET))
    again = run_study(study(tmp_path), progress=False)
    assert (again.trained, again.evaluated) == (0, 0)


def test_only_where_that_is_asked_for_and_only_what_is_not_here(tmp_path: Path) -> None:
    trained_there(tmp_path)
    result = run_study(study(tmp_path, any_device=False), progress=False)
    assert result.trained == 4
    both = run_study(study(tmp_path), progress=False)
    assert both.trained == 0
    assert set(both.table["device"]) == {"cpu"}


def test_without_its_weights_it_is_trained_here_if_that_is_asked_for(tmp_path: Path) -> None:
    there = trained_there(tmp_path)
    (RunStore(tmp_path).folder(there.train_key(load_dataset(DATASET))) / "last.pt").unlink()
    kept = run_study(study(tmp_path, controls=[]), progress=False)
    assert kept.trained == 1
    assert kept.without_weights == ["random 50 % seed 0"]
    anew = run_study(study(tmp_path, controls=[]), progress=False, retrain=True)
    assert (anew.trained, anew.without_weights) == (1, [])
    assert set(anew.table["device"]) == {"cpu"}


def test_a_gpu_that_is_not_here_is_needed_for_the_rest_alone(tmp_path: Path) -> None:
    trained_there(tmp_path)
    with pytest.raises(ConfigError, match="there is no GPU"):
        run_study(study(tmp_path, device="cuda"), progress=False)
    run_study(study(tmp_path), progress=False)
    assert run_study(study(tmp_path, device="cuda"), progress=False).trained == 0


def test_its_runs_are_not_timed_here(tmp_path: Path) -> None:
    trained_there(tmp_path)
    result = run_study(study(tmp_path, timed_repeats=1, controls=[], seeds=[0]), progress=False)
    assert (result.trained, result.failed) == (0, {})


@pytest.mark.parametrize("speed", ["auto", "exact", "compiled"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_twin_has_the_speed_that_the_same_settings_have_there(device: str, speed: str) -> None:
    options: dict[str, Any] = {"dataset": "cifar10", "model": "preact_resnet", "batch_size": 128, "speed": speed}
    here, there = (RunConfig.flat(**options, device=name) for name in ("cpu", "cuda"))
    config, other = (here, there) if device == "cpu" else (there, here)
    assert (here.speed != there.speed) == (speed == "auto")
    assert other in list(_twins(config))


def test_a_test_of_the_other_speed_counts_where_the_weights_are_not(tmp_path: Path) -> None:
    """As that of a GPU, whose passes were not compiled, for a study in which those of a processor are."""
    there, data = trained_there(tmp_path), load_dataset(DATASET)
    store, entry = RunStore(tmp_path), study_grid(study(tmp_path))[0]
    key = there.train_key(data)
    done = entry.evaluation.replace(speed="compiled")
    outcome, ledger = evaluate_model(
        load_model(entry.config, data, store.folder(key) / "last.pt"), data, entry.evaluation
    )
    finish_evaluation(store, evaluation_record(key, there, done, data, outcome, ledger))
    (store.folder(key) / "last.pt").unlink()
    result = run_study(study(tmp_path, controls=[], seeds=[0]), progress=False)
    assert (result.trained, result.evaluated, result.without_weights) == (0, 0, [])
    assert result.table["robust"].notna().all()


def test_damaged_weights_are_no_run_of_another_device_and_stay_as_they_are(tmp_path: Path) -> None:
    there = trained_there(tmp_path)
    path = RunStore(tmp_path).folder(there.train_key(load_dataset(DATASET))) / "last.pt"
    path.write_bytes(path.read_bytes()[:-10])
    before = plan(study_grid(study(tmp_path)), study(tmp_path).execution)
    assert "4 entries, at most 4 to train" in before
    assert path.exists()
    result = run_study(study(tmp_path), progress=False)
    assert result.trained == 4
    assert set(result.table["device"]) == {"cpu"}
    assert result.table["robust"].notna().all()


def test_what_a_processor_cannot_train_is_tested_there(tmp_path: Path) -> None:
    """In bfloat16 with maps of one pixel: refused while there is something to train."""
    options = {
        "model": {"preact_resnet": {"width": 2}},
        "settings": {"precision": "bfloat16"},
        "seeds": [0],
        "controls": [],
    }
    with pytest.raises(ConfigError, match="maps of one pixel"):
        run_study(study(tmp_path, **options), progress=False)
    trained_there(tmp_path, **options)
    tested = run_study(study(tmp_path, **options), progress=False)
    assert (tested.trained, tested.evaluated, tested.failed) == (0, 1, {})


def test_that_bfloat16_is_emulated_is_told_of_what_is_still_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    options: dict[str, Any] = {"settings": {"precision": "bfloat16"}, "seeds": [0], "controls": []}

    def told() -> bool:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run_study(study(tmp_path, **options), progress=False)
        return any("PyTorch emulates it" in str(warning.message) for warning in caught)

    trained_there(tmp_path, **options)
    assert told(), "it is still to be tested"
    assert not told()
