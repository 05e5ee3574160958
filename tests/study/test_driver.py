"""Studies carried out: engines, resumption, failures, timings, damaged files."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from advprune_core.attacks.evaluate import unpack_bits
from advprune_core.base.machine import MachineError
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.pruners.base import Context, ScheduledPruner
from advprune_core.pruners.grad_match import GradMatch
from advprune_core.pruners.selection import Selection
from advprune_core.study import alone
from advprune_core.study.driver import Driver
from advprune_core.study.grid import study_grid
from advprune_core.study.position import Position
from advprune_core.study.runner import run_study
from advprune_core.study.store import RunStore
from advprune_core.study.study import StudyConfig
from advprune_core.study.table import collect_timings
from advprune_core.study.tasks import TrainTask
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from advprune_core.trainers.result import TrainResult
from tests.tiny import tiny_run, tiny_study


def contents(results: Path | str) -> dict[str, Any]:
    """Every record, weight and selection under a results folder, circumstances aside."""
    store = RunStore(results)
    found: dict[str, Any] = {}
    for key in store.run_keys():
        record = store.run(key)
        assert record is not None
        weights = torch.load(store.folder(key) / "last.pt", weights_only=True) if record.status == "ok" else {}
        found[key] = {
            "record": record.comparable(),
            "evaluations": [evaluation.comparable() for evaluation in store.evaluations(key)],
            "weights": {name: value.numpy().tobytes() for name, value in weights.items()},
            "selections": {epoch: s.indices.tolist() for epoch, s in store.selections(key).items()},
        }
    return found


def test_a_study_is_complete_and_a_second_time_does_nothing(tmp_path: Path) -> None:
    config = tiny_study(tmp_path)
    first = run_study(config, progress=False)
    assert (first.trained, first.evaluated, first.failed) == (6, 6, {})
    assert len(first.table) == 8
    assert set(first.table["status"]) == {"ok"}
    before = contents(tmp_path)
    second = run_study(config, progress=False)
    assert (second.trained, second.evaluated) == (0, 0)
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob("runs/*/work"))
    more = run_study(tiny_study(tmp_path, evaluation=[{"pgd": {"steps": 3}}]), progress=False)
    assert (more.trained, more.evaluated) == (0, 6), "a new attack never retrains"


def test_parts_with_data_and_tests_of_their_own_come_in_their_order(tmp_path: Path) -> None:
    order: list[str] = []
    other = {"digits": {"limit": 200, "test_limit": 60}}
    config = tiny_study(
        tmp_path,
        variants={"small": {}, "other": {"dataset": other}},
        seeds=[0],
        parts=[
            {"variants": ["other"], "fractions": [0.5], "images": 40},
            {"variants": ["small"], "fractions": [1.0], "controls": [], "evaluation": [{"pgd": {"steps": 3}}]},
            # The run on full data once more, under another name, and tested in another way.
            {"variants": ["small"], "pruners": ["redraw"], "fractions": [1.0], "controls": [], "images": 30},
        ],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("advprune_core.study.tasks.train", spy_on(order))
        result = run_study(config, progress=False)
    assert result.failed == {}
    assert order[0] == order[1] == json.dumps(other)
    assert (result.trained, result.evaluated) == (3, 4)
    table = result.table.set_index("arm")
    assert table["test_images"].to_dict() == {
        "other: random": 40, "other: same_cost(random)": 40, "small: random": 100, "small: redraw": 30
    }  # fmt: skip
    assert table.loc["small: random", "key"] == table.loc["small: redraw", "key"]
    assert np.isfinite(table.loc["small: random", "robust_pgd3"])
    again = run_study(config, progress=False)
    assert (again.trained, again.evaluated) == (0, 0)
    assert again.table.equals(result.table)
    for _, row in table.iterrows():
        source = {"digits": {"limit": 200, "test_limit": 60}} if row["variant"] == "other" else config.dataset
        test = load_dataset(source).test
        labels = test.labels[test.spread(row["test_images"])].numpy()
        right = unpack_bits(row["outcomes"], row["test_images"])
        worst = min(right[labels == label].mean() for label in np.unique(labels))
        assert row["worst_class_robust"] == pytest.approx(worst)


def spy_on(order: list[str]) -> Callable[..., TrainResult]:
    """`train` that notes the data of each run."""

    def spied(config: RunConfig, *args: Any, **kwargs: Any) -> TrainResult:
        order.append(json.dumps(config.dataset.spec()))
        return train(config, *args, **kwargs)

    return spied


def test_controls_match_what_they_control(tmp_path: Path) -> None:
    controls = ["same_cost", "same_steps", "cheaper_attack"]
    table = run_study(
        tiny_study(tmp_path, controls=controls, steps=3, fractions=[1.0, 0.5], epochs=4, seeds=[0]), progress=False
    ).table.set_index(["arm", "matched_fraction"])
    pruned, full = table.loc[("random", 0.5)], table.loc[("random", 1.0)]
    own = {control: table.loc[(f"{control}(random)", 0.5)]["fraction"] for control in controls}
    assert own == {"same_cost": 1.0, "same_steps": 0.5, "cheaper_attack": 1.0}, "what each itself keeps"
    batch = 16 * 9
    assert abs(table.loc[("same_cost(random)", 0.5)]["cost"] - pruned["cost"]) <= batch
    assert abs(table.loc[("cheaper_attack(random)", 0.5)]["cost"] - pruned["cost"]) <= batch
    assert abs(table.loc[("same_steps(random)", 0.5)]["optimiser_steps"] - full["optimiser_steps"]) <= 1
    assert table.loc[("same_steps(random)", 0.5)]["unique_images"] == pruned["kept"]
    assert table.loc[("same_cost(random)", 0.5)]["kept"] == full["n"]
    assert table.loc[("cheaper_attack(random)", 0.5)]["passes_train"] % (2 * 2 + 3) == 0


class Silent(GradMatch):
    """Gradient matching that does not say how long its steps are."""

    name = "silent"

    def select(self, context: Context) -> Selection:
        return replace(super().select(context), step_ratio=None)


def test_a_control_takes_steps_as_long_or_says_that_nobody_knows_how_long(tmp_path: Path) -> None:
    warm = {"warmup_epochs": 1, "per_class": False}
    config = tiny_study(
        tmp_path,
        pruners=[{"grad_match": warm}, Silent(**warm)],
        controls=["same_step_size"],
        fractions=[0.4],
        seeds=[0],
    )
    result = run_study(config, progress=False)
    (name,) = result.failed
    assert name.startswith("same_step_size(silent")
    assert "its record has none" in result.failed[name]
    table = result.table.set_index(result.table["arm"].str.partition("(")[0].str.split().str[0])
    pruned, control = table.loc["grad_match"], table.loc["same_step_size"]
    assert control["step_ratio"] == pytest.approx(pruned["step_ratio"], rel=1e-5)
    for alike in ("lr", "optimiser_steps", "cost"):
        assert control[alike] == pruned[alike]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_every_engine_gives_the_same_records(engine: str, tmp_path: Path) -> None:
    for name in ("serial", engine):
        result = run_study(tiny_study(tmp_path / name, engine=name, workers=2), progress=False)
        assert result.failed == {}
    assert contents(tmp_path / "serial") == contents(tmp_path / engine)


class Grumpy(ScheduledPruner):
    """Fails in its second selection, unless told otherwise by the environment."""

    name = "grumpy"
    uses_model = True  # so that it is not asked before training
    every: int = 1

    def select(self, context: Context) -> Selection:
        if context.epoch == 1 and "ADVPRUNE_TEST_CALM" not in os.environ:
            raise RuntimeError("not today")
        return Selection(np.arange(context.k))


@pytest.mark.parametrize("timed", [0, 1])
def test_a_failed_run_is_a_record_and_the_rest_goes_on(
    timed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruners = ["random", Grumpy()]
    config = tiny_study(tmp_path, pruners=pruners, seeds=[0], fractions=[0.4], timed_repeats=timed)
    result = run_study(config, progress=False)
    assert len(result.failed) == 2, "the run, and the control that matches it"
    assert "not today" in result.failed["grumpy 40 % seed 0"]
    statuses = result.table.set_index("arm")["status"]
    assert statuses["random"] == statuses["same_cost(random)"] == "ok"
    assert statuses["grumpy"] == "failed"
    monkeypatch.setenv("ADVPRUNE_TEST_CALM", "1")
    again = run_study(config, progress=False)
    assert again.failed == {}
    assert set(again.table["status"]) == {"ok"}


@pytest.mark.parametrize("stops", [False, True])
def test_a_warm_up_that_fails_stops_nothing_unless_the_machine_does(
    stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def failing(config: RunConfig, dataset: Any) -> None:
        tried.append(config.fraction)
        if len(tried) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if stops else RuntimeError("CUDA out of memory")

    monkeypatch.setattr(alone, "warm_up", failing)
    config = tiny_study(tmp_path, epochs=1, seeds=[0], controls=[], timed_repeats=1)
    with pytest.raises(MachineError) if stops else nullcontext():
        result = run_study(config, progress=False)
        assert (result.trained, result.failed) == (2, {})
    assert len(tried) == (1 if stops else 2), "another run warms up"


def test_a_run_that_is_made_good_keeps_its_time_alone(tmp_path: Path) -> None:
    config = tiny_study(tmp_path, epochs=1, seeds=[0], fractions=[1.0], controls=[], timed_repeats=1)
    run_study(config, progress=False)
    before = collect_timings(tmp_path, study="tiny")
    (weights,) = tmp_path.glob("runs/*/last.pt")
    for _ in range(2):
        weights.write_bytes(b"damaged")
        with pytest.warns(UserWarning, match=r"last\.pt is damaged"):
            assert run_study(config, progress=False).trained == 1
        pd.testing.assert_frame_equal(collect_timings(tmp_path, study="tiny"), before)
        again = run_study(config, progress=False)
        assert (again.trained, again.timed) == (0, 0)


def test_a_diverged_run_is_a_result(tmp_path: Path) -> None:
    config = tiny_study(
        tmp_path, lr=100, settings={"optimisation.weight_decay": 1.0}, seeds=[0], fractions=[1.0], controls=[]
    )
    assert "diverged" in next(iter(run_study(config, progress=False).failed.values()))
    again = run_study(config, progress=False)
    assert again.trained == 0, "only failed and interrupted runs are run again"
    assert list(again.failed.values()) == ["diverged: the loss is not finite"], "a second run says so, too"
    assert set(again.table["status"]) == {"diverged"}


@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty"])
def test_a_damaged_record_is_set_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    config = tiny_study(tmp_path, seeds=[0], fractions=[1.0], controls=[])
    run_study(config, progress=False)
    before = contents(tmp_path)
    (path,) = tmp_path.glob("runs/*/record.json")
    text = path.read_text()
    path.write_text({"truncate": text[: len(text) // 2], "garbage": "{]", "empty": ""}[damage])
    with pytest.warns(UserWarning, match=r"record\.json is damaged"):
        result = run_study(config, progress=False)
    assert result.trained == 1
    assert path.with_name("record.json.damaged").exists()
    assert contents(tmp_path) == before


def test_the_reference_is_never_a_cache(tmp_path: Path) -> None:
    config = tiny_study(tmp_path, seeds=[0], fractions=[1.0], controls=[])
    run_study(config, progress=False)
    (tmp_path / "reference" / "tiny").mkdir(parents=True)
    (tmp_path / "runs").rename(tmp_path / "reference" / "tiny" / "runs")
    assert run_study(config, progress=False).trained == 1


def test_timings_are_separate_and_nothing_is_recomputed(tmp_path: Path) -> None:
    run_study(tiny_study(tmp_path, timed_repeats=1), progress=False)
    once = collect_timings(tmp_path, study="tiny")
    assert len(once) == 2, "the first seed's runs, controls aside"
    store = RunStore(tmp_path)
    alone = [key for key in store.run_keys() if (record := store.run(key)) and record.timed_alone]
    assert sorted(once["key"]) == sorted(alone)
    before = contents(tmp_path)
    result = run_study(tiny_study(tmp_path, timed_repeats=3), progress=False)
    assert result.trained == 0
    assert contents(tmp_path) == before
    thrice = collect_timings(tmp_path, study="tiny")
    assert list(thrice.groupby("key").size()) == [3, 3]
    assert len(list(tmp_path.glob("runs/*/timings/*.json"))) == 4
    assert (thrice["cpu_seconds"] > 0).all()


def test_shards_part_the_study(tmp_path: Path) -> None:
    config = tiny_study(tmp_path)
    trained = [run_study(config, shard=(part, 3), progress=False).trained for part in (1, 2, 3)]
    assert sum(trained) == 6
    result = run_study(config, progress=False)
    assert (result.trained, len(result.table)) == (0, 8)
    with pytest.raises(ConfigError, match=r"1\.\.3"):
        run_study(config, shard=(4, 3), progress=False)


def test_nothing_starts_if_one_run_of_the_grid_cannot(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="random 5 % seed 0"):
        run_study(tiny_study(tmp_path, fractions=[1.0, 0.05]), progress=False)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        run_study(tiny_study(blocked), progress=False)
    assert not (tmp_path / "runs").exists()


#: Every kind of part that may be one's own, as a script or a notebook defines them.
OWN_PARTS = """
from typing import ClassVar
import numpy as np
from torch import nn
from advprune_core import PGD
from advprune_core.pruners.base import Context, Pruner
from advprune_core.pruners.selection import Selection
from advprune_core.study.runner import run_study
from advprune_core.objectives.pgd_at import PGDAT
from advprune_core.objectives.starts import RandomStart
from advprune_core.objectives.steps import FixedSteps
from tests.tiny import tiny_study

class First(Pruner):
    "The first k images of each class."
    name: ClassVar[str] = "first"
    def select(self, context: Context) -> Selection:
        quotas = context.quotas()
        return Selection(np.concatenate([np.flatnonzero(context.labels == c)[:q] for c, q in enumerate(quotas)]))

class Half(PGDAT):
    name: ClassVar[str] = "half"
    def per_sample(self, clean, adversarial, y):
        return super().per_sample(clean, adversarial, y) / 2

class Attack(PGD):
    name: ClassVar[str] = "mine"

class Begin(RandomStart):
    name: ClassVar[str] = "begin"

class Two(FixedSteps):
    name: ClassVar[str] = "two"
    count: int = 2

def network(width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

result = run_study(tiny_study(
    RESULTS, pruners=[First()], engine="processes", seeds=[0], controls=[], evaluation=[Attack(steps=2)],
    model={"__main__:network": {"width": 5}}, steps=Two(), settings={"objective": Half(), "attack.start": Begin()},
), progress=False)
print(result.trained, result.failed)
"""


def script(path: Path, code: str) -> str:
    """What a script prints."""
    path.write_text(code)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def notebook(path: Path, code: str) -> str:
    """What the last cell of a notebook prints that papermill executes; each paragraph is a cell."""
    import nbformat
    import papermill

    cells = [nbformat.v4.new_code_cell(part) for part in code.split("\n\n")]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    executed = papermill.execute_notebook(str(path), str(path.with_suffix(".out.ipynb")), progress_bar=False)
    return "".join(
        output.get("text", "") for output in executed.cells[-1].outputs if output.get("name") == "stdout"
    ).strip()


@pytest.mark.slow
@pytest.mark.parametrize("executed", [script, notebook])
def test_own_parts_reach_the_workers(
    executed: Callable[[Path, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes and functions that no worker can import, with their sources in the keys."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    path, code = tmp_path / "own.ipynb", f"RESULTS = {str(tmp_path / 'r')!r}\n{OWN_PARTS}"
    assert executed(path, code) == "2 {}"
    assert executed(path, code) == "0 {}"
    assert executed(path, code.replace("[:q]", "[-q:]")) == "1 {}", "an edited pruner must not return the old result"


def test_own_pruner_of_a_notebook_cell(tmp_path: Path) -> None:
    """A notebook's classes have no file; their source is that of their cell."""
    from IPython.core.interactiveshell import InteractiveShell

    cell = """
from typing import ClassVar
from advprune_core import Pruner, Selection
class Cell(Pruner):
    "The last images."
    name: ClassVar[str] = "cell"
    def select(self, context):
        return Selection(range(context.n - context.k, context.n))
"""
    shell = InteractiveShell()
    keys = []
    for text in (cell, cell, cell.replace("context.n - context.k, context.n", "context.k")):
        assert shell.run_cell(text).success
        pruner = shell.user_ns["Cell"]()
        keys.append(tiny_run(pruner=pruner, fraction=0.5).canonical()["pruner"]["source"])
    assert keys[0] == keys[1] != keys[2]


STUDY = """
import sys
from dataclasses import replace
from pathlib import Path
from advprune_core.study.runner import run_entries, write_manifest
from advprune_core.study.grid import study_grid
from tests.tiny import tiny_study
config = tiny_study(Path(sys.argv[1]), epochs=40, engine="processes", workers=2)
execution = config.execution.replace(checkpoint_seconds=0)
if __name__ == "__main__":
    driver = run_entries(study_grid(config), execution=execution, progress=False)
    print(driver.trained)
"""


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.mark.slow
def test_kill_9_then_the_same_command(tmp_path: Path) -> None:
    """What was finished stays, what was under way goes on from its checkpoint, bit for bit."""
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"

    def start(results: Path) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(results)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)

    process = start(killed)
    wait_for(lambda: list(killed.glob("runs/*/record.json")) and list(killed.glob("runs/*/work/checkpoint.pt")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("runs/*/record.json")}
    assert 0 < len(finished) < 6
    assert list(killed.glob("runs/*/work/checkpoint.pt"))
    output, _ = start(killed).communicate(timeout=300)
    assert int(output) == 6 - len(finished), "finished runs are not trained again"
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    start(undisturbed).communicate(timeout=300)
    assert contents(killed) == contents(undisturbed)
    assert not list(killed.glob("runs/*/work"))


@pytest.mark.slow
def test_two_drivers_share_the_runs(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(STUDY.replace("epochs=40", "epochs=10"))
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(script), str(tmp_path / "r")]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert all(process.wait(timeout=300) == 0 for process in both)
    alone = StudyConfig.create(**tiny_study(tmp_path / "alone", epochs=10).model_dump())
    run_study(alone, progress=False)
    assert contents(tmp_path / "r") == contents(tmp_path / "alone")


def test_the_bar_says_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is what it counts; tests come after that, and take a time that the first of them tell."""
    told: list[str] = []

    def note(self: Position, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "left" and value is not None:
            told.append(self.look()[1])

    monkeypatch.setattr(Position, "__setattr__", note)
    run_study(tiny_study(tmp_path, seeds=[0]), progress=False)
    told = [text for text in told if text]
    assert told[0] == "3 to train", "said before it begins; the control too, which waits for its run"
    assert any(re.fullmatch(r"about \d\d:\d\d left, 2 to train, 1 to test", text) for text in told), "tested at once"
    assert re.fullmatch(r"about \d\d:\d\d left, 1 to test", told[-1])


def test_what_another_process_is_at_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drivers of one study share the work; none waits for a run while there are others."""
    config = tiny_study(tmp_path, seeds=[0], fractions=[1.0, 0.5, 0.4], controls=[])
    keys = [entry.config.train_key(load_dataset(entry.config.dataset)) for entry in study_grid(config)]
    held, trained, write = RunStore(tmp_path).lock(keys[0]), list[str](), Driver._trained

    def noted(driver: Driver, number: int, task: TrainTask, *result: Any, **more: Any) -> None:
        write(driver, number, task, *result, **more)
        trained.append(task.key)
        if len(trained) == len(keys) - 1:
            held.release()

    monkeypatch.setattr(Driver, "_trained", noted)
    with held:
        fallback = Timer(60, held.release, [True])  # so that what fails does not hang
        fallback.start()
        result = run_study(config, progress=False)
        fallback.cancel()
    assert trained == [*keys[1:], keys[0]]
    assert (result.trained, result.evaluated, result.failed) == (3, 3, {})
