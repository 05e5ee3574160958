"""Notebooks executed with papermill, plans, single evaluations: what commands do beyond running a grid."""

from __future__ import annotations

import ast
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from advprune_core.attacks.base import ATTACKS
from advprune_core.attacks.compiled import compile_cache
from advprune_core.attacks.geometry import ThreatModel
from advprune_core.base.environment import results_root
from advprune_core.base.files import check_writable, digest_of, write_text
from advprune_core.base.settings import ConfigError, check_names
from advprune_core.datasets.base import Dataset, load_dataset
from advprune_core.study.compiling import settle_speed
from advprune_core.study.grid import Entry, check_entries
from advprune_core.study.records import OWN_WEIGHTS, EvaluationRecord
from advprune_core.study.runner import expected_total
from advprune_core.study.runs import Run, load_run
from advprune_core.study.store import RunStore
from advprune_core.study.study import Execution, StudyConfig, study_config
from advprune_core.study.tasks import (
    PGD_40,
    EvaluateTask,
    EvaluationConfig,
    TrainTask,
    evaluation_record,
    finish,
    finish_evaluation,
    run_record,
    warm_up,
)
from advprune_core.trainers.config import RunConfig, content_key
from advprune_core.trainers.controls import resolve

#: Notebooks of a study where none are named.
DEFAULT_NOTEBOOKS = ("accuracy_vs_fraction.ipynb", "runtime.ipynb")


def find_notebooks(named: Sequence[Path], profiles: Sequence[Path]) -> list[Path]:
    """The named notebooks, or the default ones beside the profile's folder or in ./notebooks."""
    for path in named:
        if path.suffix != ".ipynb" or not path.exists():
            raise ConfigError(f"{path} is neither a notebook (.ipynb) nor a profile (.yaml) that exists")
    if named:
        return list(named)
    places = [path.resolve().parent.parent for path in profiles] + [Path("notebooks")]
    for place in places:
        notebooks = [place / name for name in DEFAULT_NOTEBOOKS]
        if all(path.exists() for path in notebooks):
            return notebooks
    raise ConfigError("name the notebooks to execute: the default ones are not in ./notebooks")


def study_of(notebook: Path, parameters: dict[str, Any]) -> StudyConfig:
    """The study of a notebook: its own defaults, with `parameters` over them.

    Raises
    ------
    ConfigError
        A parameter that the notebook does not have; values out of range.
    """
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    check_names(set(parameters) - {"results"}, known, what=f"parameter of {notebook.name}")
    defaults = {name: ast.literal_eval(entry["default"]) for name, entry in known.items()}
    values = defaults | parameters
    return study_config({name: value for name, value in values.items() if name in StudyConfig.model_fields})


def execute(notebooks: Sequence[Path], parameters: dict[str, Any], config: StudyConfig) -> list[Path]:
    """Execute notebooks into ``results/<study>/``; their runs are there already, or are run."""
    import papermill

    outputs = []
    # By the environment, not as a parameter: executed copies should not name folders of a machine.
    given = {name: value for name, value in parameters.items() if name != "results"}
    before = os.environ.get("ADVPRUNE_RESULTS")
    os.environ["ADVPRUNE_RESULTS"] = str(config.execution.root.resolve())
    try:
        for notebook in notebooks:
            output = config.folder / notebook.name
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=given,
                progress_bar=False,
                cwd=os.getcwd(),  # relative paths and modules mean the same there as here
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
            _forget_paths(output)
            outputs.append(output)
    finally:
        os.environ.pop("ADVPRUNE_RESULTS")
        if before is not None:
            os.environ["ADVPRUNE_RESULTS"] = before
    return outputs


def _forget_paths(notebook: Path) -> None:
    """Leave only names in what papermill notes of its paths."""
    content = json.loads(notebook.read_text())
    for name in ("input_path", "output_path"):
        content["metadata"]["papermill"][name] = notebook.name
    write_text(notebook, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def plan(entries: Sequence[Entry], execution: Execution) -> str:
    """The grid with what is there, and the cost of the rest: what ``--dry-run`` prints.

    The time is estimated from a few training batches of the first run on this machine.
    """
    datasets, store = check_entries(entries, data=execution.data), RunStore(execution.root)
    entries = settle_speed(entries, datasets, store)
    rows, missing = [], {}
    for entry in entries:
        dataset = datasets[entry.config.dataset]
        matched = store.finished(entry.config.train_key(dataset))
        state = "to do" if matched is None else "there"
        if entry.control is not None and entry.derived:
            state = "after the run it matches"
            if matched is not None and matched.trained:
                config = resolve(entry.control, entry.config, matched)
                state = "to do" if store.finished(config.train_key(dataset)) is None else "there"
        if state != "there":
            missing[entry.identity()] = entry
        passes = expected_total([entry], datasets)
        rows.append(
            {
                "arm": entry.arm,
                "fraction": None if entry.control else entry.fraction,  # a control's shows when it is resolved
                "matched_fraction": entry.fraction,
                "seed": entry.seed,
                "state": state,
                "passes": f"{passes:,.0f}",
            }
        )
    total = expected_total(list(missing.values()), datasets)
    workers = execution.worker_count
    with compile_cache(execution.root):
        seconds = total / passes_per_second(entries[0].config, datasets[entries[0].config.dataset]) if missing else 0.0
    return (
        f"{pd.DataFrame(rows).to_string(index=False, na_rep='')}\n"
        f"{len(entries)} entries, at most {len(missing)} to train: {total:,.0f} forward-equivalents, about "
        f"{seconds / 60:.1f} minutes of one worker, {seconds / 60 / workers:.1f} with {workers}, evaluation not counted"
    )


def passes_per_second(config: RunConfig, dataset: Dataset) -> float:
    """Forward-equivalents of training per second on this machine, from a few batches."""
    warm_up(config, dataset)
    start = time.perf_counter()
    warm_up(config, dataset)
    seconds = time.perf_counter() - start
    return 5 * config.optimisation.batch_size * config.passes_per_image / seconds


def evaluate_checkpoint(
    *,
    run_key: str | None,
    weights: str | None,
    own: dict[str, Any],
    threat: dict[str, Any],
    attacks: Sequence[Any],
    checkpoint: str,
    images: int | None,
    results: str | None,
    data: str | None,
    retrain: bool = False,
) -> tuple[EvaluationRecord, Path]:
    """Evaluate a run or a state dict of one's own, unless it was done before.

    With `retrain`, a run whose weights are not here is trained again first.

    Returns
    -------
    record : EvaluationRecord
    path : Path
        Where it is kept: beside the run; that of one's own weights under a key of their content.

    Raises
    ------
    ConfigError
        No such run, file or weights; more images than there are; settings that do not fit.
    """
    parsed = tuple(ATTACKS.parse(spec) for spec in attacks) or PGD_40
    if run_key is not None:
        run = load_run(run_key, results)
        config, key = run.config.replace(device="auto"), run.record.key
        EvaluationConfig.create(checkpoint=checkpoint)
        path = None
    else:
        assert weights is not None
        config, path, run = RunConfig.flat(**own, **threat), Path(weights), None
        if not path.is_file():
            raise ConfigError(f"there is no file {path}")
        content = digest_of(path)
        key = f"{OWN_WEIGHTS}{content_key({'model': config.model.canonical(), 'weights': content})}"
    if threat.get("norm", config.threat.norm) != config.threat.norm and "eps" not in threat:
        raise ConfigError(f"another norm than the run's ({config.threat.norm}) needs its own eps")
    facts = {**config.threat.model_dump(), **threat}
    evaluation = EvaluationConfig.create(
        attacks=parsed, threat=ThreatModel.create(**facts), checkpoint=checkpoint, images=images
    )
    dataset, store = load_dataset(config.dataset, folder=data), RunStore(results_root(results))
    evaluation.check(dataset)
    number = evaluation.key(dataset.test_hash)
    if store.evaluation(key, number) is None:
        check_writable(store.results)
        if path is None:
            assert run is not None
            if retrain:
                train_again(run, dataset, data=data)
            path = run.weights(checkpoint)
        task = EvaluateTask(config, key, evaluation, number, data, str(store.results), str(path), progress=True)
        if (found := task()) is not None:  # else another process did it meanwhile
            made = evaluation_record(key, config, evaluation, dataset, *found, weights=digest_of(path))
            finish_evaluation(store, made)
    record = store.evaluation(key, number)
    assert record is not None
    return record, store.evaluation_file(key, number)


def train_again(run: Run, dataset: Dataset, *, data: str | None) -> None:
    """Train a run for the files that its record names, if one of them is missing or damaged."""
    store, config, key = run.store, run.config, run.record.key
    store.damaged(run.record)
    result = TrainTask(config, key, data, str(store.results), again=True)()
    if result is not None:
        finish(store, run_record(key, config, dataset, result), result, again=True)
    run.record = store.run(key) or run.record
