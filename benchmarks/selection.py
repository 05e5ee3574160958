"""Gradient matching against the number of candidates: seconds, memory, and how near the gradient comes.

    python -m benchmarks.selection [--most N] [--work FOLDER] [--out FOLDER]

Candidates are Fashion-MNIST's 60,000 training images, beyond that shifted and mirrored views of them,
as a small network with 512 features sees them after an epoch of PGD-7 on 10,000 images. Every row, a
way of selecting a tenth of n candidates, is a process of its own with one thread. Writes into FOLDER
(default results/reference/selection): selection.csv, selection.png, environment.json and README.md,
anew after every row; rows that are there, and outputs under --work, are not made again. Fashion-MNIST
comes from $ADVPRUNE_DATA or is downloaded; --work takes 2.1 GB for a million candidates.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from advprune_core.analysis.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    Look,
    canvas,
    caption,
    key,
    legend,
    styled,
    write,
)
from advprune_core.base.environment import environment, git_state
from advprune_core.base.files import write_text
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset, largest_remainder
from advprune_core.models.base import Normalise
from advprune_core.models.mode import no_trace
from advprune_core.objectives.base import OBJECTIVES
from advprune_core.pruners.branches import Branch, SplitOutputs
from advprune_core.pruners.grad_match import grad_match, grad_match_by_class
from advprune_core.pruners.gradients import last_layer_gradients
from advprune_core.pruners.omp import Pursuit
from advprune_core.pruners.outputs import branch
from advprune_core.pruners.selection import by_class
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from benchmarks.memory import apart, peak

FEATURES, CLASSES, IMAGES, FRACTION = 512, 10, 60_000, 0.1
SIZES = (2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 300_000, 1_000_000)
#: A run that selects as `grad_match` does by default: epochs in all, on full data, and selections.
EPOCHS, WARM_UP, SELECTIONS = 30, 5, 3


class Way(NamedTuple):
    """A way of selecting: its settings, up to which n it takes minutes, and whether features are float16."""

    settings: dict[str, Any]
    most: int = SIZES[-1]
    half: bool = False


WAYS = {
    "jointly": Way({"per_class": False}, 20_000),
    "by class": Way({"per_class": True}, 50_000),
    "blocks of 512": Way({"per_class": False, "block": 512}),
    "blocks of 1,250": Way({"per_class": False, "block": 1250}),
    "by class, blocks of 512": Way({"per_class": True, "block": 512}),
    "blocks of 512, float16": Way({"per_class": False, "block": 512}, half=True),
    "random": Way({}),
}

_LOOKS = (
    (BLUE, "o"), (ORANGE, "v"), (GREEN, "^"), (VERMILLION, "D"), (PURPLE, "h"), (SKY, "<", "--"), (BLACK, "*", ":"),
)  # fmt: skip


def network(dataset: Dataset) -> tuple[nn.Module, float]:
    """A small network after an epoch of PGD-7 on 10,000 images, and the seconds of training an image took."""
    source = {"fashion_mnist": {"limit": 10_000, "val_select": 0, "val_stop": 0, "test_limit": 100}}
    config = RunConfig.flat(dataset=source, model="mnist_cnn", eps=0.1, epochs=1, batch_size=128, lr=0.02, device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolutions = (nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten())
        head = (nn.Linear(1568, FEATURES), nn.ReLU(), nn.Linear(FEATURES, CLASSES))
        model = nn.Sequential(Normalise(dataset.mean, dataset.std), *convolutions, *head)
    done = train(config, load_dataset(config.dataset), model=model)
    return model, done.ledger["cpu_seconds"]["train"] / done.images_visited


def views(dataset: Dataset) -> Iterator[Tensor]:
    """All images as they are, then shifted by up to 2 pixels and mirrored, each way once."""
    shifts = [(down, right) for down in (0, 1, -1, 2, -2) for right in (0, 1, -1, 2, -2)]
    for flipped in (False, True):
        for shift in shifts:
            images = dataset.train.images.roll(shift, (2, 3))
            yield images.flip(3) if flipped else images


def prepare(work: Path, most: int) -> float:
    """Write labels, logits and features of `most` candidates, view by view; seconds of training an image."""
    work.mkdir(parents=True, exist_ok=True)
    state = work / "done.json"
    done = json.loads(state.read_text()) if state.exists() else {"candidates": 0, "seconds": 0.0}
    if done["candidates"] >= most:
        return float(done["seconds"])
    dataset = load_dataset({"fashion_mnist": {"val_select": 0, "val_stop": 0}})
    model, seconds = network(dataset)
    for view, images in enumerate(views(dataset)):
        begin = view * IMAGES
        if done["candidates"] > begin:
            continue
        if begin >= most:
            break
        with no_trace(model):
            parts = [branch(model, part.float() / 255) for part in images.split(1000)]
        found = {"logits": [p.logits for p in parts], "features": [p.features for p in parts]}
        for name, tensors in found.items():
            with (work / f"{name}.float32").open("r+b" if begin else "wb") as file:
                file.seek(begin * tensors[0].shape[1] * 4)
                for tensor in tensors:
                    tensor.numpy().tofile(file)
        done = {"candidates": begin + IMAGES, "seconds": seconds}
        write_text(state, json.dumps(done))
        print(f"{done['candidates']} candidates", flush=True)
    np.save(work / "labels.npy", dataset.train.labels.numpy())
    return float(done["seconds"])


def outputs(work: Path, n: int, *, half: bool) -> SplitOutputs:
    """The first n candidates, read in pieces, so that no second copy counts as memory."""
    features = torch.empty(n, FEATURES, dtype=torch.float16 if half else torch.float32)
    with (work / "features.float32").open("rb") as file:
        for part in features.split(10_000):
            piece = np.fromfile(file, np.float32, part.numel()).reshape(part.shape)
            part.copy_(torch.from_numpy(piece))
    logits = torch.from_numpy(np.fromfile(work / "logits.float32", np.float32, n * CLASSES).reshape(n, CLASSES))
    labels = torch.from_numpy(np.resize(np.load(work / "labels.npy"), n))
    return SplitOutputs(labels, None, Branch(logits, features))


def measure(work: Path, n: int, name: str) -> dict[str, Any]:
    """One row: what a selection takes, and the residual ||sum of w g - sum of all g|| / ||sum of all g||."""
    way, k, rng = WAYS[name], round(FRACTION * n), np.random.default_rng(0)
    found = outputs(work, n, half=way.half)
    gradients, labels = last_layer_gradients(OBJECTIVES.parse("pgd_at"), found), found.labels.numpy()
    start = time.process_time()
    if name == "random":
        picks = Pursuit(rng.permutation(n)[:k], np.full(k, n / k))
    elif way.settings["per_class"]:
        quotas = largest_remainder(k, np.bincount(labels, minlength=CLASSES))
        picks = grad_match_by_class(gradients, by_class(labels, quotas), block=way.settings.get("block", 0), rng=rng)
    else:
        picks = grad_match(gradients, k, block=way.settings.get("block", 0), rng=rng)
    seconds, everything = time.process_time() - start, gradients.total()
    rows, weights = torch.from_numpy(picks.indices), torch.from_numpy(picks.weights).float()
    residual = float((gradients.combination(rows, weights) - everything).norm() / everything.norm())
    return {
        "candidates": n,
        "way": name,
        "picks": len(picks.indices),
        "n_filled": picks.n_filled,
        "cpu_seconds": round(seconds, 3),
        "peak_gb": round(peak() / 1e9, 3),
        "residual": round(residual, 5),
    }


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Seconds, memory and residual against the number of candidates."""
    panels = {"cpu_seconds": "processor seconds", "peak_gb": "peak memory of the process, GB", "residual": "residual"}
    figure, ((seconds, memory, residual),) = canvas(1, 3, height=2.6)
    looks = {name: Look(name, *look) for name, look in zip(WAYS, _LOOKS, strict=True)}
    for axis, (column, title) in zip((seconds, memory, residual), panels.items(), strict=True):
        for name, look in looks.items():
            own = table[table["way"] == name].sort_values("candidates")
            if column != "cpu_seconds" or name != "random":
                axis.plot(
                    own["candidates"], own[column], color=look.colour, marker=look.mark, linestyle=look.line, ms=3.5
                )
        axis.set(xscale="log", yscale="linear" if column == "peak_gb" else "log", xlabel="candidates", title=title)
    seconds.axhline(60, color=GREY, linestyle=":")
    seconds.text(0.03, 58, "a minute", color=GREY, va="top", fontsize=SMALL, transform=seconds.get_yaxis_transform())
    memory.axhline(4, color=GREY, linestyle=":")
    memory.set_ylim(bottom=0)
    legend(figure, [key(look) for look in looks.values()])
    caption(
        figure,
        "Fashion-MNIST as mnist_cnn sees it after an epoch of PGD-7, L-inf 0.1",
        "a tenth of the candidates by gradient matching, each number once, one thread",
    )
    return figure


def most_candidates(own: pd.DataFrame, seconds: float) -> str:
    """Up to how many candidates selection is below 5 % of a run whose training takes `seconds` an image."""
    own = own.sort_values("candidates")
    n = own["candidates"].to_numpy(float)
    visits = WARM_UP + (EPOCHS - WARM_UP) * FRACTION
    share = np.log(SELECTIONS * own["cpu_seconds"].to_numpy() / (visits * n * seconds))
    if len(n) == 0:
        return "not measured"
    if share[-1] < np.log(0.05):
        return f"beyond {n[-1]:,.0f}"
    if share[0] > np.log(0.05):
        return f"below {n[0]:,.0f}"
    last = int(np.flatnonzero(share < np.log(0.05))[-1])
    return f"about {np.exp(np.interp(np.log(0.05), share[last : last + 2], np.log(n[last : last + 2]))):,.0f}"


def seen(table: pd.DataFrame) -> list[str]:
    """The largest numbers of candidates that blocks, and that joint matching, were measured with, in words."""
    sentences = []
    for name, other in (("blocks of 512", "random"), ("jointly", "blocks of 512"), ("by class", "blocks of 512")):
        both = table.pivot(index="candidates", columns="way").swaplevel(axis=1)
        if not {name, other} <= set(table["way"]):
            continue
        n = both[name]["residual"].dropna().index.intersection(both[other]["residual"].dropna().index).max()
        mine, theirs = both[name].loc[n], both[other].loc[n]
        numbers = (f"{row['cpu_seconds']:.3g} s, residual {row['residual']:.2g}" for row in (mine, theirs))
        sentences.append(f"* {n:,} candidates, {name}: {next(numbers)}; {other}: {next(numbers)}.")
    return sentences


def readme(table: pd.DataFrame, seconds: float, device: str) -> str:
    """What was measured, in words and two tables."""
    lines = ["candidates | " + " | ".join(WAYS), "--- | " * len(WAYS) + "---"]
    for n, rows in table.groupby("candidates"):
        own = rows.set_index("way")
        cells = []
        for name in WAYS:
            if name not in own.index:
                cells.append("")
                continue
            row = own.loc[name]
            cells.append(f"{row['cpu_seconds']:.3g} s, {row['peak_gb']:.2f} GB, {row['residual']:.3f}")
        lines.append(f"{n:,} | " + " | ".join(cells))
    shares = ["seconds of training an image | jointly | by class", "--- | --- | ---"]
    for each in (seconds, 0.01, 0.04):
        cells = [most_candidates(table[table["way"] == name], each) for name in ("jointly", "by class")]
        shares.append(f"{each:.2g}{' (this network)' if each == seconds else ''} | " + " | ".join(cells))
    return "\n".join(
        [
            "# Gradient matching against the number of candidates",
            "",
            f"Written by `benchmarks/selection.py`. A tenth of n candidates, {FEATURES} features, {CLASSES} classes, "
            f"one thread of {device}; processor seconds of the pursuit, peak memory of the whole process with the "
            "features in it, and the residual ‖Σ w g - Σ g‖ / ‖Σ g‖ of the picks' weights. Empty: not measured, "
            f"because it takes many minutes. Beyond {IMAGES:,}, candidates are shifted and mirrored views.",
            "",
            *(f"| {line} |" for line in lines),
            "",
            "![seconds, memory and residual against n](selection.png)",
            "",
            *seen(table),
            "",
            f"Up to how many candidates selecting without blocks is below 5 % of a run ({EPOCHS} epochs, {WARM_UP} of "
            f"them on full data, a tenth kept, {SELECTIONS} selections), by what a step of training takes an image:",
            "",
            *(f"| {line} |" for line in shares),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="candidates")
    parser.add_argument("--work", type=Path, default=Path("results/benchmarks/selection"))
    parser.add_argument("--out", type=Path, default=Path("results/reference/selection"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [n for n in SIZES if n <= options.most]
    seconds = apart(prepare, options.work, sizes[-1])
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "selection.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for n in sizes:
        for name, way in WAYS.items():
            if n > way.most or any(row["candidates"] == n and row["way"] == name for row in rows):
                continue
            rows.append(apart(measure, options.work, n, name))
            print(rows[-1], flush=True)
            table = pd.DataFrame(rows)
            facts = {**environment("cpu"), "threads": 1, "seconds_an_image": seconds, **git_state()}
            write_text(path, table.to_csv(index=False))
            write_text(options.out / "environment.json", json.dumps(facts, indent=1) + "\n")
            write_text(options.out / "README.md", readme(table, seconds, facts["device"]))
            figure = draw(table)
            write(figure, options.out / "selection.png")
            plt.close(figure)


if __name__ == "__main__":
    main()
