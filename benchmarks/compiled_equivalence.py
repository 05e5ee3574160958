"""Compiled runs against exact ones: do they run, is nothing compiled twice, are they as robust?

    python benchmarks/compiled_equivalence.py [--digits N] [--cifar10 N] [--minutes M] [--out FOLDER]

Draws configurations by number (objective, attack, pruner, batch order, average, weight perturbation,
augmentation, tests), trains and tests each compiled and exact with one seed, and appends a row to
``runs.csv``; rows that are there are not done again. Every run must end without an error, and after the
first one of a network nothing may be compiled. Equivalence is judged over the runs of networks with
BatchNorm whose robust accuracy, the mean of the two, is away from chance: the 95 % interval of the mean
paired difference (t over configurations) lies within one point. CIFAR-10 comes from $ADVPRUNE_DATA.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch._dynamo.utils import counters

from advprune_core.analysis.summaries import markdown
from advprune_core.base.environment import environment
from advprune_core.base.files import write_text
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.study.evaluations import EvaluationConfig, evaluate_model
from advprune_core.trainers.arithmetic import arithmetic
from advprune_core.trainers.checks import check_run
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train

#: What is drawn from; nothing here changes the shape of what is compiled.
TRAINERS = [*["pgd_at"] * 3, "trades", "mart", "fast", "fgsm", "n_fgsm", "atta", "fgsm_pgi", "free", "grad_align"]
STARTS = ["random", "clean", "near", "corner", {"carried": {"reset_every": 3}}, "carried"]
STEPS = [1, 2, 3, {"bullet": {"boundary": 4, "robust": 1}}]
PRUNERS = [
    *["full"] * 2,
    *({"random": {"every": every, "balanced": balanced}} for every in (0, 1) for balanced in (False, True)),
    *({name: {"warmup_epochs": 2, "every": 3}} for name in ("craig", "grad_match", "glister", "el2n", "loss_top")),
    *("infobatch", "forgetting", "aum", "margin", "steps_to_break", "k_center", "herding", "ccs", "aign", "d2"),
]
SCHEDULES = ["one_cycle", "cosine", {"cosine": {"warmup": 0.2}}, "piecewise"]
TESTS: list[Any] = [
    *({"pgd": {"steps": 5, "loss": loss, "restarts": n}} for loss in ("cross_entropy", "margin") for n in (1, 2)),
    *({"apgd": {"steps": 5, "precision": precision}} for precision in ("float32", "bfloat16")),
    *("fgsm", {"square": {"queries": 20}}, {"fab_t": {"steps": 3, "targets": 2}}, {"apgd_t": {"steps": 3}}),
    {"autoattack": {"version": ["fgsm", {"apgd": {"steps": 3}}]}},
]
#: Robust accuracy is that under PGD-10.
JUDGE = [{"pgd": {"steps": 10}}]
#: (data, networks, share of rows by network, epochs, batch): small, so that a run takes seconds.
DIGITS = {"dataset": "digits", "batch_size": 32, "epochs": 4}
CIFAR = {"dataset": {"cifar10": {"limit": 5000, "test_limit": 1000}}, "batch_size": 128, "epochs": 15}
NETWORKS: dict[str, list[Any]] = {
    "digits": [{"preact_resnet": {"width": 8}}] * 4 + [{"small_cnn": {"width": 8}}],
    "cifar10": [{"preact_resnet": {"width": 8}}],
}
CHANCE, AWAY = 0.1, 0.2
MARGIN = 0.01


def draw(rng: random.Random, data: str) -> dict[str, Any]:
    """Flat options of a run, which may not fit together."""
    pick, epochs = rng.choice, (DIGITS if data == "digits" else CIFAR)["epochs"]
    options: dict[str, Any] = {
        **(DIGITS if data == "digits" else CIFAR),
        "device": "cpu",
        "trainer": pick(TRAINERS),
        "pruner": pick(PRUNERS),
        "norm": pick(["linf", "linf", "l2"]),
        "lr": pick([0.05, 0.1, 0.2]),
        "momentum": pick([0.0, 0.9]),
        "schedule": pick(SCHEDULES),
        "ema": pick([None, None, 0.9, 0.99]),
        "awp": pick([0.0, 0.0, 0.0, 0.005]),
        "crop_padding": pick([0, 0, 1]),
        "flip": data == "cifar10" and pick([False, True]),
        "attack_mode": pick(["eval", "eval", "eval", "train"]),
        "best_every": pick([0, 0, 0, epochs // 2]),
        "min_per_class": pick([0, 5]),
        "seed": rng.randrange(1000),
    }
    options["fraction"] = 1.0 if options["pruner"] == "full" else pick([0.5, 0.7, 0.9])
    if options["trainer"] in ("pgd_at", "trades", "mart"):
        options |= {"steps": pick(STEPS), "start": pick(STARTS)}
    if isinstance(options.get("steps"), dict):
        options["attack_mode"] = "eval"  # BatchNorm has no statistics of the one image that may be left to step
    return options


def drawn(number: int, data: str, dataset: Dataset) -> tuple[RunConfig, list[Any]]:
    """The configuration of a number, and its tests: the first draw that fits together."""
    rng = random.Random(f"{data} {number}")
    model = NETWORKS[data][number % len(NETWORKS[data])]
    while True:
        options, tests = draw(rng, data), rng.sample(TESTS, 2)
        try:
            config = RunConfig.flat(**options, model=model, speed="compiled")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check_run(config, dataset)
        except ConfigError:
            continue
        return config, tests


def carried_out(config: RunConfig, dataset: Dataset, tests: list[Any]) -> dict[str, Any]:
    """Train and test at one speed; the drawn tests on a few images, PGD-10 on all."""
    result = train(config, dataset, fall_back=False)
    row = {"status": result.status, "compile": result.ledger["cpu_seconds"].get("compile", 0.0)}
    row["seconds"] = result.ledger["cpu_seconds"]["train"]
    if result.status == "diverged":
        return row
    model = build_model(config.model, dataset, seed=config.seed)
    model.load_state_dict(result.last)
    common: dict[str, Any] = {"threat": config.threat, "speed": config.speed}
    common["batch_size"] = config.optimisation.batch_size  # one shape for updates and tests
    with arithmetic(config):
        for attacks, images in ((tests, 60), (JUDGE, None)):
            evaluation = EvaluationConfig.create(attacks=attacks, images=images, **common)
            outcome, _ = evaluate_model(model.eval(), dataset, evaluation)
    return row | {"clean": float(outcome.clean.mean()), "robust": float(outcome.robust.mean())}


def graphs() -> int:
    """How many graphs were compiled so far."""
    return int(counters["stats"]["unique_graphs"])


def pair(number: int, data: str, dataset: Dataset) -> dict[str, Any]:
    """A row: a configuration, compiled and exact, and how many graphs were compiled for it."""
    config, tests = drawn(number, data, dataset)
    before = graphs()
    own = carried_out(config, dataset, tests)
    row = {"data": data, "number": number, "network": config.model.name, "graphs": graphs() - before}
    exact = carried_out(config.replace(speed="exact"), dataset, tests)
    row |= {f"{name}_compiled": value for name, value in own.items()}
    row |= {f"{name}_exact": value for name, value in exact.items() if name != "compile"}
    settings = {"objective": config.objective.spec(), "attack": config.attack.model_dump(mode="json")}
    settings |= {"pruner": config.pruner.spec(), "fraction": config.fraction, "seed": config.seed}
    optimisation = config.optimisation.model_dump(mode="json", exclude_defaults=True)
    return row | {"settings": json.dumps(settings | {"optimisation": optimisation, "tests": tests}, sort_keys=True)}


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """By data: how many ran, what was compiled after the first run of a network, the paired difference."""
    table = []
    for data, group in rows.groupby("data", sort=False):
        batchnorm = group[group["network"] != "small_cnn"]
        both = batchnorm[["robust_compiled", "robust_exact"]]
        away = batchnorm[both.mean(axis=1) >= AWAY]
        difference = away["robust_compiled"] - away["robust_exact"]
        mean, error = difference.mean(), difference.sem()
        reach = stats.t.ppf(0.975, max(len(away) - 1, 1)) * error
        later = group[group.groupby(["session", "network"]).cumcount() > 0]
        table.append(
            {
                "data": data,
                "configurations": len(group),
                "diverged": int((group[["status_compiled", "status_exact"]] == "diverged").any(axis=1).sum()),
                "graphs": int(group["graphs"].sum()),
                "later graphs": int(later["graphs"].sum()),
                "compared": len(away),
                "robust exact, %": round(100 * away["robust_exact"].mean(), 1),
                "difference, points": round(100 * mean, 2),
                "95 % interval": (
                    f"{100 * (mean - reach):+.2f} to {100 * (mean + reach):+.2f}" if len(away) > 1 else "too few"
                ),
                "sd, points": round(100 * difference.std(), 2),
                "within a point": bool(max(abs(mean - reach), abs(mean + reach)) <= MARGIN),
                "compiled / exact seconds": round(
                    float((group["seconds_compiled"] / group["seconds_exact"]).median()), 2
                ),
            }
        )
    return pd.DataFrame(table)


README = """# Compiled runs against exact ones

`python benchmarks/compiled_equivalence.py` draws configurations by number, and trains and tests each compiled and
exact, with one seed; `runs.csv` has a row for each. Robust accuracy is under PGD-10 on all test images. Compared are
networks with BatchNorm with {away:.0%} or more, the mean of the two. The two are equivalent if the 95 % interval of the
mean difference, compiled minus exact (t over configurations), lies within one point. Later graphs are those that were
compiled after the first run of a network in a process; there should be none. Aimed at are 200 configurations, and 50
that are compared.

{table}

{steps}{gpu}On CPUs made with one thread on {devices} (`device` in `runs.csv`), the last rows with torch {torch}, Python
{python}.
"""


GPU = """On a GPU, of all processes at once (`python -m benchmarks.gpu_speed`): PGD-7 in bfloat16 on batches of 128
images of 32x32, noise, with crops and flips; compiling found a warm cache. Where searches were recorded (as a CUDA
graph of their own, which later versions do) it was timed beside other work, and compiled without a cache."""


def write_readme(folder: Path) -> None:
    """The tables, from the rows that are there."""
    steps, gpu = folder / "steps.csv", folder / "gpu.csv"
    rows, made = pd.read_csv(folder / "runs.csv"), environment("cpu")
    text = README.format(
        away=AWAY,
        table=markdown(summary(rows)),
        devices=" and ".join(rows["device"].unique()),
        torch=made["torch"],
        python=made["python"],
        steps=f"{markdown(pd.read_csv(steps))}\n\n" if steps.exists() else "",
        gpu=f"{GPU}\n\n{markdown(pd.read_csv(gpu))}\n\n" if gpu.exists() else "",
    )
    write_text(folder / "README.md", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=200)
    parser.add_argument("--cifar10", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no other row after so long")
    parser.add_argument("--out", type=Path, default=Path("results/reference/compiled"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start, path, device = time.monotonic(), options.out / "runs.csv", environment("cpu")["device"]
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    there, session = (
        {(row["data"], row["number"]) for row in rows},
        1 + max((row["session"] for row in rows), default=0),
    )
    for data, count in (("digits", options.digits), ("cifar10", options.cifar10)):
        dataset = load_dataset((DIGITS if data == "digits" else CIFAR)["dataset"])
        for number in range(count):
            if (data, number) in there or time.monotonic() - start > 60 * options.minutes:
                continue
            rows.append({"session": session, "device": device, **pair(number, data, dataset)})
            write_text(path, pd.DataFrame(rows).round(4).to_csv(index=False))
            print({name: value for name, value in rows[-1].items() if name != "settings"}, flush=True)
    write_readme(options.out)
    print(summary(pd.DataFrame(rows)).to_string(index=False))


if __name__ == "__main__":
    main()
