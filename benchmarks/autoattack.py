"""AutoAttack (standard) side by side with pyautoattack: robust accuracy image by image, and seconds.

    python -m benchmarks.autoattack [--images N] [--models NAME ...] [--seeds N] [--train-only] [--out FOLDER]

Trains the models of `MODELS` (kept in results/benchmarks/autoattack/, as is every finished
evaluation: a killed comparison goes on where it was), then attacks the first test images of each,
ours and theirs alternating, one thread. Fashion-MNIST and CIFAR-10 come from $ADVPRUNE_DATA or are
downloaded. Writes into FOLDER (default results/reference/autoattack):

* comparison.csv: one row for each model and each of `ARMS`; accuracies in [0, 1] at seed 0 of those
  images that the model gets wrong in float32 once more; seconds are medians over seeds.
* disagreements.csv: the images of which one side broke what the other did not, at seed 0.
* seeds.csv: every evaluation, so that the reference's spread over seeds is there.
* environment.json: versions and hardware that the seconds belong to; README.md: the comparison as people read it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from advprune_core.analysis.summaries import markdown
from advprune_core.attacks import autoattack
from advprune_core.attacks.compiled import compiled_passes
from advprune_core.attacks.evaluate import pack_bits, predictions, unpack_bits
from advprune_core.base.environment import environment, git_state
from advprune_core.base.files import write_text
from advprune_core.datasets.base import load_dataset
from advprune_core.study.evaluations import SEARCH_SIZE
from advprune_core.trainers.config import RunConfig
from benchmarks.cases import Case, Goal, OtherResults, installed
from benchmarks.networks import NETWORKS, trained
from benchmarks.timing import Round, alternating

FASHION = {
    "dataset": {"fashion_mnist": {"limit": 11000, "test_limit": 2000}},
    "model": {"small_cnn": {"width": 16}},
    "eps": 0.1,
    "epochs": 10,
    "batch_size": 128,
    "lr": 0.02,
}
#: Name to settings of the training run and number of test images.
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "digits_pgd_at": ({"dataset": "digits", "trainer": "pgd_at", "steps": 7, "epochs": 30}, 497),
    "digits_pgd_at_l2": ({"dataset": "digits", "trainer": "pgd_at", "steps": 7, "epochs": 30, "norm": "l2"}, 497),
    "fashion_mnist_pgd_at": ({**FASHION, "trainer": "pgd_at"}, 500),
    "fashion_mnist_trades": ({**FASHION, "trainer": "trades"}, 500),
    "cifar10_preact_resnet18_w8": (
        {
            "dataset": {"cifar10": {"limit": 11000, "test_limit": 2000}},
            "model": {"preact_resnet18": {"width": 8}},
            "trainer": "pgd_at",
            "steps": 3,
            "epochs": 8,
            "batch_size": 128,
            "lr": 0.1,
        },
        500,  # about a quarter of an hour of the reference on one core
    ),
}
#: Ours: the default, bfloat16 in the search, and float32 with every budget spent to the end.
ARMS: dict[str, dict[str, Any]] = {
    "": {},
    " (bfloat16)": {"precision": "bfloat16"},
    " (float32, to the end)": {"give_up": False},
}
REFERENCE = "reference"


def ours(model: nn.Module, x: Tensor, y: Tensor, *, norm: Any, eps: float, seed: int, **options: Any) -> Tensor:
    return autoattack(model, x, y, norm=norm, eps=eps, seed=seed, **options).x_adv


def reference(model: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
    from pyautoattack import AutoAttack

    attack = AutoAttack(
        model, device="cpu", eps=eps, norm={"linf": "Linf", "l2": "L2"}[norm], seed=seed, version="standard"
    )
    x_adv: Tensor = attack.run_standard_evaluation(x, y, batch_size=250)[0]
    return x_adv


def evaluated(path: Path, model: nn.Module, x: Tensor, y: Tensor, attack: Any) -> dict[str, Any]:
    """Seconds of an attack, and who withstood it; from disk if it was done before."""
    if not path.exists():
        start = time.perf_counter()
        x_adv = attack(model, x, y)
        seconds = time.perf_counter() - start
        robust = (predictions(model, x) == y) & (predictions(model, x_adv) == y)
        write_text(path, json.dumps({"seconds": seconds, "robust": pack_bits(robust.numpy()), "n": len(y)}))
    found: dict[str, Any] = json.loads(path.read_text())
    return {"seconds": found["seconds"], "robust": unpack_bits(found["robust"], found["n"])}


def compare(name: str, images: int | None, seeds: int, work: Path, *, variants: bool) -> list[dict[str, Any]]:
    """All evaluations of a model: rows of arm, seed, seconds, robust."""
    options, most = MODELS[name]
    config = RunConfig.flat(**options)
    dataset, model = load_dataset(config.dataset), trained(config, work)
    rows = slice(0, min(images or most, most))
    x, y, threat = dataset.test.pixels(rows), dataset.test.labels[rows], config.threat
    results = []
    for seed in range(seeds):
        # Variants of ours at seed 0 only; ours and the reference alternate.
        arms = {arm: partial(ours, **more) for arm, more in ARMS.items() if arm == "" or (variants and seed == 0)}
        for arm, attack in {**arms, REFERENCE: reference}.items():
            label = arm.strip(" ()").replace(", ", "_").replace(" ", "_") or "ours"
            path = work / f"{name}-{len(y)}" / f"{label}-{seed}.json"
            call = partial(attack, norm=threat.norm, eps=threat.eps, seed=seed)
            found = evaluated(path, model, x, y, call)
            print(f"{name} {label}, seed {seed}: {found['robust'].mean():.4f}, {found['seconds']:.1f} s", flush=True)
            results.append({"model": name, "arm": arm, "seed": seed, **found})
    return results


@contextmanager
def contenders(config: RunConfig, images: int, *, compiled: bool) -> Iterator[Round]:
    """Ours and the reference on the same images, a seed a round; ours may leave no more of them right, but one."""
    model, test = trained(config), load_dataset(config.dataset).test
    x, y = test.pixels(slice(0, images)), test.labels[:images]
    common: dict[str, Any] = {"norm": config.threat.norm, "eps": config.threat.eps}
    attacks: dict[str, Callable[..., Tensor]] = {"exact": ours}
    if compiled:
        passes = compiled_passes(model, x[:SEARCH_SIZE], training=False)

        def search(*arguments: Any, **options: Any) -> Tensor:
            with passes.instead_of(model):
                return ours(*arguments, **options)

        attacks["compiled"] = search
    if installed("pyautoattack"):
        attacks["pyautoattack"] = reference
    standing: dict[str, int] = {}

    def attacked(name: str, seed: int) -> None:
        x_adv = attacks[name](model, x, y, seed=seed, **common)
        standing[name] = int((predictions(model, x_adv) == y).sum())

    def measured(number: int) -> Any:
        amounts = alternating({name: partial(attacked, name, number) for name in attacks})(number)
        theirs = standing.get("pyautoattack", images)
        if max(count for name, count in standing.items() if name != "pyautoattack") > theirs + 1:
            raise OtherResults(f"images left right by each, of {images}: {standing}")
        return amounts

    yield measured


def tables(results: list[dict[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The comparison, the disagreements, and all evaluations."""
    comparison, disagreements = [], []
    for name in dict.fromkeys(row["model"] for row in results):
        mine = [row for row in results if row["model"] == name]
        theirs = [row for row in mine if row["arm"] == REFERENCE]
        for arm in ARMS:
            own = [row for row in mine if row["arm"] == arm]
            if not own:
                continue
            differ = own[0]["robust"] != theirs[0]["robust"]
            comparison.append(
                {
                    "model": name + arm,
                    "images": len(differ),
                    "robust_ours": own[0]["robust"].mean(),
                    "robust_reference": theirs[0]["robust"].mean(),
                    "disagreements": int(differ.sum()),
                    "seconds_ours": statistics.median(row["seconds"] for row in own),
                    "seconds_reference": statistics.median(row["seconds"] for row in theirs),
                }
            )
            disagreements += [
                {
                    "model": name + arm,
                    "image": int(i),
                    "robust_ours": bool(own[0]["robust"][i]),
                    "robust_reference": bool(theirs[0]["robust"][i]),
                }
                for i in np.flatnonzero(differ)
            ]
    every = [{**row, "arm": row["arm"] or "ours", "robust": row["robust"].mean()} for row in results]
    columns = ["model", "image", "robust_ours", "robust_reference"]
    return pd.DataFrame(comparison), pd.DataFrame(disagreements, columns=columns), pd.DataFrame(every)


def printable(comparison: pd.DataFrame, every: pd.DataFrame) -> pd.DataFrame:
    """The comparison as people read it."""
    rows = []
    for _, row in comparison.iterrows():
        model, _, arm = row["model"].partition(" ")
        theirs = every[(every["model"] == model) & (every["arm"] == REFERENCE)]["robust"]
        low, high = (f"{100 * value:.1f}" for value in (theirs.min(), theirs.max()))
        rows.append(
            {
                "model": f"{model} {arm}".strip(),
                "images": row["images"],
                "robust, %": f"{100 * row['robust_ours']:.1f}",
                "reference": f"{100 * row['robust_reference']:.1f}",
                "its seeds": low if low == high else f"{low}-{high}",
                "images that differ": row["disagreements"],
                "seconds": f"{row['seconds_ours']:.0f}",
                "of the reference's": f"{row['seconds_ours'] / row['seconds_reference']:.2f}",
            }
        )
    return pd.DataFrame(rows)


def page(comparison: pd.DataFrame, every: pd.DataFrame) -> str:
    """Markdown of the comparison."""
    return f"""# AutoAttack side by side with pyautoattack

Written by `benchmarks/autoattack.py`; an edit here is lost. Robust accuracy of APGD on cross-entropy, targeted APGD
and targeted FAB at nine classes, and 5,000 queries of Square; the reference is the public package pyautoattack, at
seed 0, on one thread of a processor.

{markdown(printable(comparison, every))}

Seconds are medians of alternating runs (variants in parentheses: one). The default spends no more on images and
targets whose progress, extrapolated, does not reach a success; *to the end* spends every budget; *bfloat16* searches in
bfloat16 and is judged in float32 all the same. `disagreements.csv` has the images of which one side broke what the
other did not.
"""


def _case(name: str, config: RunConfig, images: int, setting: str, *, residual: bool) -> Case:
    goals = [Goal("exact", "pyautoattack", 2.5)] + residual * [Goal("compiled", "pyautoattack", 4.0)]
    begin = partial(contenders, config, images, compiled=residual)
    setting = f"{setting}, {images} images"
    return Case(f"autoattack-{name}", "AutoAttack", setting, tuple(goals), begin, warm_up=False, long=residual)


def _network_case(name: str, images: int, *, residual: bool) -> Case:
    network = NETWORKS[name]
    return _case(name, network.config(), images, f"{network.title}, {network.data}", residual=residual)


CASES = [
    _case("digits", RunConfig.flat(**MODELS["digits_pgd_at"][0]), 100, "small CNN, digits", residual=False),
    _network_case("small_cnn", 40, residual=False),
    _network_case("width_8", 128, residual=True),
    _network_case("cpu_network", 128, residual=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="AutoAttack against pyautoattack.")
    parser.add_argument("--images", type=int, help="at most so many images of each model")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--variants", nargs="*", choices=list(MODELS), default=list(MODELS), help="models for all `ARMS`"
    )
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("results/benchmarks/autoattack"))
    parser.add_argument("--out", type=Path, help="[results/reference/autoattack; with --images, the work folder]")
    options = parser.parse_args()
    out = options.out or (options.work if options.images else Path("results/reference/autoattack"))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the reference warns of its own arithmetic
    results = []
    for name in options.models:
        if options.train_only:
            trained(RunConfig.flat(**MODELS[name][0]), options.work)
            continue
        results += compare(name, options.images, options.seeds, options.work, variants=name in options.variants)
        comparison, disagreements, every = tables(results)
        out.mkdir(parents=True, exist_ok=True)
        for file, table in (("comparison", comparison), ("disagreements", disagreements), ("seeds", every)):
            write_text(out / f"{file}.csv", table.to_csv(index=False, float_format="%.6g"))
        facts = {**environment("cpu"), "threads": 1, "pyautoattack": metadata.version("pyautoattack"), **git_state()}
        write_text(out / "environment.json", json.dumps(facts, indent=1) + "\n")
        write_text(out / "README.md", page(comparison, every))
    if results:
        print(printable(comparison, every).to_string(index=False))


if __name__ == "__main__":
    main()
