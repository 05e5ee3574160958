"""One evaluation outside a study: of a finished run, or of weights of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advprune_core.attacks.base import parse_attacks
from advprune_core.attacks.compiled import Speed, compile_cache
from advprune_core.attacks.geometry import ThreatModel
from advprune_core.base.environment import results_root
from advprune_core.base.files import check_writable, digest_of, own_path
from advprune_core.base.keys import content_key
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.study.compiling import against_testing, against_training
from advprune_core.study.evaluations import PGD_40, EvaluationConfig
from advprune_core.study.finished import evaluation_record, finish, finish_evaluation, is_done, run_record
from advprune_core.study.records import OWN_WEIGHTS, EvaluationRecord
from advprune_core.study.runs import StoredRun, load_run
from advprune_core.study.store import RunStore
from advprune_core.study.tasks import EvaluateTask, TrainTask
from advprune_core.trainers.config import RunConfig


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
    speed: Speed | None = None,
) -> tuple[EvaluationRecord, Path]:
    """Evaluate a run or a state dict of one's own, unless it was done before.

    With `retrain`, a run whose weights are needed and not here is trained again first. The searches are compiled
    where `speed` says so, by default where the run was.

    Returns
    -------
    record : EvaluationRecord
    path : Path
        Where it is kept: beside the run; that of one's own weights under a key of their content.

    Raises
    ------
    ConfigError
        No such run, file or weights; more images than there are; settings that do not fit.

    Warns
    -----
    UserWarning
        What cannot be compiled here, so that an exact run, or an exact evaluation, is taken instead.
    """
    parsed = parse_attacks(attacks) if attacks else PGD_40
    if run_key is not None:
        run = load_run(run_key, results)
        config, key = run.config.replace(device="auto"), run.record.key
        EvaluationConfig.create(checkpoint=checkpoint)
        path = None
    else:
        assert weights is not None
        config, path, run = RunConfig.flat(**own, **threat), own_path(weights), None
        if not path.is_file():
            raise ConfigError(f"there is no file {path}")
        content = digest_of(path)
        key = f"{OWN_WEIGHTS}{content_key({'model': config.model.canonical(), 'weights': content})}"
    if threat.get("norm", config.threat.norm) != config.threat.norm and "eps" not in threat:
        raise ConfigError(f"another norm than the run's ({config.threat.norm}) needs its own eps")
    facts = {**config.threat.model_dump(), **threat}
    evaluation = EvaluationConfig.create(
        attacks=parsed,
        threat=ThreatModel.create(**facts),
        checkpoint=checkpoint,
        images=images,
        speed=speed or ("exact" if run is None else config.speed),
    )
    dataset, store = load_dataset(config.dataset, folder=data), RunStore(results_root(results))
    evaluation.check(dataset)
    test_hash = dataset.test_hash
    if store.evaluation(key, evaluation.key(test_hash)) is None:
        check_writable(store.results)
        if run is not None:
            if retrain:
                train_again(run, dataset)
                config = run.config.replace(device="auto")
                evaluation = evaluation.replace(speed=speed or config.speed)
            key, path = run.record.key, run.weights(checkpoint)
        assert path is not None
        with compile_cache(store.results):
            evaluation = _settled(evaluation, config, dataset)
        number = evaluation.key(test_hash)
        steps = None if run is None else run.record.steps
        task = EvaluateTask(config, key, evaluation, number, str(store.results), str(path), progress=True, steps=steps)
        if (found := task(dataset)) is not None:  # else another process did it meanwhile, or somebody before
            made = evaluation_record(key, config, evaluation, dataset, *found, weights=digest_of(path))
            finish_evaluation(store, made)
    number = evaluation.key(test_hash)
    record = store.evaluation(key, number)
    assert record is not None
    return record, store.evaluation_file(key, number)


def _settled(evaluation: EvaluationConfig, config: RunConfig, dataset: Dataset) -> EvaluationConfig:
    """An evaluation as this machine can do it."""
    reason = None if evaluation.speed == "exact" else against_testing(config, dataset, evaluation)
    if reason is None:
        return evaluation
    warnings.warn(f"{reason}: the evaluation is an exact one", stacklevel=3)
    return evaluation.replace(speed="exact")


def train_again(run: StoredRun, dataset: Dataset) -> None:
    """Train a run for the files that its record names, if one of them is missing or damaged.

    A compiled run that cannot be compiled here becomes the exact one, which has a key of its own.
    """
    store, config, key = run.store, run.config, run.record.key
    store.damaged(run.record)
    if config.speed == "compiled" and not is_done(store, key, again=True):
        with compile_cache(store.results):
            reason = against_training(config, dataset)
        if reason is not None:
            config = config.replace(speed="exact")
            key = config.train_key(dataset)
            warnings.warn(f"{reason}: instead of run {run.record.key} the exact one is taken, {key}", stacklevel=3)
    result = TrainTask(config, key, str(store.results), again=True)(dataset)
    if result is not None:
        finish(store, run_record(key, config, dataset, result), result, again=True)
    run.record = store.run(key) or run.record
