"""Records and tables made up by hand, and the command in this process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from advprune_core.attacks.evaluate import pack_bits
from advprune_core.study.manifest import Manifest
from advprune_core.study.records import Accuracy, EvaluationRecord, RunRecord
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import RunConfig
from tests.tiny import TINY, TINY_STUDY


def run_record(key: str, *, config: dict[str, Any] | None = None, **facts: Any) -> RunRecord:
    """A record of a run with plausible numbers."""
    given: dict[str, Any] = {
        "status": "ok",
        "dataset": {"name": "digits"},
        "passes": {"train": 900, "select": 100, "validate": 7},
        "seconds": {"train": 3.0, "select": 0.5, "validate": 20.0, "save": 40.0},
        "cpu_seconds": {"train": 2.0, "select": 0.25, "validate": 10.0, "save": 30.0},
        "n": 21,
        "kept": 11,
        "steps": 17,
        "environment": {"device": "some processor"},
    }
    return RunRecord(key=key, config=config or RunConfig.flat(**TINY).model_dump(mode="json"), **{**given, **facts})


def evaluation_record(key: str, train_key: str, clean: Any, attacks: dict[str, Any]) -> EvaluationRecord:
    """A record of an evaluation with the outcomes given."""
    right = {name: np.asarray(values, bool) for name, values in {"clean": clean, **attacks}.items()}
    return EvaluationRecord(
        key=key,
        train_key=train_key,
        config={"checkpoint": "last"},
        n=len(right["clean"]),
        clean=Accuracy.of(right["clean"]),
        robust=Accuracy.of(np.logical_and.reduce(list(right.values()))),
        attacks={name: Accuracy.of(right[name]) for name in attacks},
        passes={"evaluate": 1},
        seconds={"evaluate": 0.1},
    )


def write_finished(store: RunStore, record: RunRecord, *evaluations: EvaluationRecord) -> None:
    """Write a run with (empty) weights, and its evaluations."""
    store.write_run(record, last={})
    for evaluation in evaluations:
        store.write_evaluation(evaluation)


def write_manifest(results: Path, study: str, entries: Sequence[tuple[Any, ...]]) -> None:
    """Write a manifest from (arm, fraction, seed, control, key, evaluation) rows."""
    names = ("arm", "fraction", "seed", "control", "key", "evaluation")
    rows = [dict(zip(names, entry, strict=True)) for entry in entries]
    manifest = Manifest(study=study, config={}, entries=rows)
    RunStore(results).write_manifest(manifest, results / study)


Points = dict[tuple[str, float], Sequence[tuple[float, float]]]


def study_table(points: Points, *, costs: dict[tuple[str, float], dict[str, int]] | None = None) -> pd.DataFrame:
    """A study's table from ``{(arm, matched fraction): [(clean, robust) of seed 0, of seed 1, ...]}``.

    Controls train on all data. Training costs ``1000 * fraction`` forward-equivalents unless `costs` has
    passes by phase.
    """
    rows = []
    for (arm, fraction), values in points.items():
        passes = {"train": round(1000 * fraction), **(costs or {}).get((arm, fraction), {})}
        control = arm.partition("(")[0] if "(" in arm else None
        for seed, (clean, robust) in enumerate(values):
            rows.append(
                {
                    "key": f"{arm if fraction < 1 else 'full'}-{fraction}-{seed}",
                    "arm": arm,
                    "fraction": fraction if control is None else 1.0,
                    "matched_fraction": fraction,
                    "seed": seed,
                    "control": control,
                    "status": "ok",
                    "dataset": "digits",
                    "model": "small_cnn",
                    "objective": "pgd_at",
                    "norm": "linf",
                    "eps": 0.125,
                    "clean": clean,
                    "robust": robust,
                    "robust_low": robust - 0.05,
                    "robust_high": robust + 0.05,
                    "robust_pgd40": robust,
                    "val_pgd_best": robust + 0.02,
                    "cost": passes["train"] + passes.get("select", 0),
                    **{f"passes_{phase}": value for phase, value in passes.items()},
                }
            )
    return pd.DataFrame(rows)


def timing_table(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Timings from (arm, fraction, cpu_seconds) rows, or with (..., device, threads) as well."""
    names = ("arm", "fraction", "cpu_seconds", "device", "threads")
    filled = [(*row, *("processor", 1)[len(row) - 3 :]) for row in rows]
    table = pd.DataFrame(filled, columns=list(names))
    keys = [f"{arm if fraction < 1 else 'full'}-{fraction}-0" for arm, fraction, *_ in filled]
    return table.assign(seconds=2 * table["cpu_seconds"], seed=0, key=keys)


def pruners_table(points: Points, selection: dict[str, tuple[int, float]]) -> pd.DataFrame:
    """A study of pruners: as `study_table`, with {arm: (passes, processor seconds) of selection}; 2 an image."""
    costs = {(arm, fraction): {"select": selection.get(arm, (0, 0))[0]} for arm, fraction in points}
    table = study_table(points, costs=costs)
    train = {"passes_train": 1000.0 * table["fraction"], "cpu_seconds_train": 10.0 * table["fraction"]}
    seconds = [selection.get(arm, (0, 0.0))[1] for arm in table["arm"]]
    train["cost_seconds"] = train["cpu_seconds_train"] + seconds
    facts = {"n": 100, "n_filled": 0, "images_visited": 500 * table["fraction"], "step_ratio": None}
    facts |= {"kept": 100 * table["fraction"], "epochs": 5}
    return table.assign(**train, cpu_seconds_select=seconds, **facts)


#: For `trainers_table`.
WAYS = {
    ("standard", "standard", 1.0): (3.0, [0.10, 0.14, 0.12]),
    ("PGD-AT", "pgd_at", 1.0): (17.0, [0.70, 0.74, 0.72]),
    ("PGD-AT", "pgd_at", 0.4): (6.8, [0.60, 0.61, 0.59]),
    ("carried", "pgd_at", 1.0): (5.0, [0.71, 0.74, 0.74]),
    ("carried", "pgd_at", 0.4): (2.0, [0.50, 0.54, 0.52]),
    ("FGSM", "pgd_at", 1.0): (5.0, [0.30, 0.31, 0.20]),
}
TRAINERS = {
    ("standard", "standard", 1.0): (3.0, [0.10, 0.14]),
    ("PGD-AT", "pgd_at", 1.0): (17.0, [0.70, 0.74]),
    ("PGD-AT", "pgd_at", 0.4): (6.8, [0.60, 0.60]),
    ("carried", '{"pgd_at": {"label_smoothing": 0.1}}', 1.0): (5.0, [0.71, 0.73]),
    ("carried", '{"pgd_at": {"label_smoothing": 0.1}}', 0.4): (2.0, [0.50, 0.54]),
    ("TRADES", "trades", 1.0): (27.0, [0.75, 0.77]),
}


def trainers_table(points: dict[tuple[str, str, float], tuple[float, list[float]]]) -> pd.DataFrame:
    """A study of ways of training: {(variant, objective, fraction): (cost per image, robust by seed)}."""
    ways = {f"{way}: random": (way, objective) for way, objective, _ in points}
    table = study_table(
        {(f"{way}: random", f): [(0.9, value) for value in robust] for (way, _, f), (_, robust) in points.items()},
        costs={(f"{way}: random", f): {"train": round(100 * cost)} for (way, _, f), (cost, _) in points.items()},
    )
    named = {
        column: [ways[arm][place] for arm in table["arm"]] for place, column in enumerate(("variant", "objective"))
    }
    return table.assign(**named, n=100, control=None)


def outcomes_of(
    of_images: float, of_seeds: float = 0.0, *, arms: int, seeds: int, images: int, seed: int
) -> np.ndarray:
    """Outcomes (arms, seeds, images) of arms that are equal over all images and seeds there could be.

    Single images and single seeds are easier or harder for an arm by normal logits of these standard deviations.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(1.0, 1.5, images) + rng.normal(0, of_images, (arms, 1, images))
    logits = logits + rng.normal(0, of_seeds, (arms, seeds, 1))
    return rng.random(logits.shape) < 1 / (1 + np.exp(-logits))


def outcome_table(outcomes: dict[str, Any], *, fraction: float = 0.5) -> pd.DataFrame:
    """A study's table at one fraction from {arm: outcomes of bool, shape (seeds, images)}."""
    table = study_table({(arm, fraction): [(1.0, float(row.mean())) for row in rows] for arm, rows in outcomes.items()})
    rows = [row for arm in outcomes for row in np.asarray(outcomes[arm], bool)]
    return table.assign(outcomes=list(map(pack_bits, rows)), test_images=[len(row) for row in rows])


Command = Callable[..., tuple[int, str, str]]
#: A tiny run on the command line, and its test.
RUN = ["run", *(text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", str(value)))]
QUICK = ["--evaluation", "{pgd: {steps: 2}}"]


def study_options(results: Path, **change: Any) -> list[str]:
    """A tiny study on the command line."""
    pairs = {**TINY_STUDY, **change}.items()
    return [text for name, value in pairs for text in ("-p", f"{name}={value}")] + ["--out", str(results)]


def entry_point(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: arguments to exit code, standard output, standard error."""
    from advprune_core.cli import main

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["advprune", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def refused(code: int, out: str, err: str, message: str) -> None:
    """One message that says what is wrong, and exit code 2."""
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert re.search(message, err, re.DOTALL), err
    assert len(re.findall(r"^(?:advprune:|Error:)", err, re.MULTILINE)) == 1


#: Deviations of five seeds with mean 0.
DEVIATIONS = np.array([-0.012, -0.004, 0.0, 0.005, 0.011])


def seeded_runs(arm: str, robust: float, *, cost: float = 100, fraction: float = 1.0, **facts: Any) -> pd.DataFrame:
    """Five runs of an arm; their seeds are as good or bad in every arm, but for a little."""
    own = np.random.default_rng([*arm.encode(), round(100 * fraction)]).normal(scale=0.001, size=5)
    table = pd.DataFrame(
        {
            "arm": arm,
            "fraction": fraction,
            "matched_fraction": fraction,
            "seed": range(5),
            "key": [f"{arm}-{fraction}-{facts.get('dataset', 'digits')}-{seed}" for seed in range(5)],
            "variant": arm.partition(": ")[0],
            "control": None,
            "dataset": "digits",
            "norm": "linf",
            "eps": 0.125,
            "pruner": "random" if "random" in arm else "full",
            "n": 1000,
            "kept": round(1000 * fraction),
            "cost": cost,
            "cost_seconds": cost / 50,
            "clean": 0.9 + DEVIATIONS,
            "robust": robust + DEVIATIONS + own - own.mean(),
            "status": "ok",
        }
    )
    return table.assign(**facts)


def stacked(*parts: pd.DataFrame) -> pd.DataFrame:
    """Tables below each other."""
    return pd.concat(parts, ignore_index=True)
