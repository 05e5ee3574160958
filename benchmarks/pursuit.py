"""Orthogonal matching pursuit of last-layer gradients beside the textbook's: seconds, and memory at 100 classes.

The textbook makes the matrix of all gradients, classes times (features + 1) numbers each, and solves a
least-squares problem from nothing after every pick. Here the gradients stay factored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from advprune_core.datasets.base import load_dataset
from advprune_core.objectives.base import OBJECTIVES
from advprune_core.pruners.branches import SplitOutputs
from advprune_core.pruners.gradients import LastLayerGradients, last_layer_gradients
from advprune_core.pruners.omp import omp
from benchmarks import selection
from benchmarks.cases import Case, Goal, OtherResults
from benchmarks.memory import apart, growth
from benchmarks.networks import NETWORKS, outputs, trained, work_folder
from benchmarks.timing import Round, alternating

#: Ours has no negative weights, which cannot come as near: by so much more than the textbook's residual, at most.
FURTHER = 1.1
#: Picks of the pursuits whose memory is measured; what they take does not depend on it by much.
FEW = 50


def textbook_omp(matrix: NDArray[np.float32], target: NDArray[np.float32], k: int) -> tuple[list[int], NDArray[Any]]:
    """At most k rows of a matrix (n, dimensions), and weights, by least squares after every pick (Pati et al. 1993)."""
    support = list[int]()
    weights: NDArray[Any] = np.zeros(0)
    residual: NDArray[Any] = target
    for _ in range(k):
        correlations = matrix @ residual
        correlations[support] = -np.inf
        support.append(int(correlations.argmax()))
        weights = np.linalg.lstsq(matrix[support].T, target, rcond=None)[0]
        residual = target - weights @ matrix[support]
    return support, weights


def gradients_of(found: SplitOutputs) -> LastLayerGradients:
    """Last-layer gradients of the cross-entropy, the outputs standing for those of attacked images."""
    return last_layer_gradients(OBJECTIVES.parse("pgd_at"), found)


def dense(gradients: LastLayerGradients) -> NDArray[np.float32]:
    """The matrix that the textbook needs, shape (n, classes * (features + 1))."""
    own = gradients[:]
    pairs = zip(own.errors, own.features, strict=True)
    parts = [torch.einsum("nc,nd->ncd", errors, features).flatten(1) for errors, features in pairs]
    return parts[0].numpy()


@contextmanager
def seconds(images: int, k: int) -> Iterator[Round]:
    """Both on the same gradients, with a look at how near the sum of all gradients they come."""
    work = work_folder() / "selection"
    selection.prepare(work, images)
    gradients = gradients_of(selection.outputs(work, images, half=False))
    target, matrix = gradients.total(), dense(gradients)
    flat = target.flatten().numpy()
    found: dict[str, float] = {}

    def own() -> None:
        picks = omp(gradients[:], target, k)  # a copy with the bias stored, as `grad_match` makes it
        rows, weights = torch.from_numpy(picks.indices), torch.from_numpy(picks.weights).float()
        found["ours"] = float((gradients.combination(rows, weights) - target).norm() / target.norm())

    def written() -> None:
        support, weights = textbook_omp(matrix, flat, k)
        found["textbook"] = float(np.linalg.norm(flat - weights @ matrix[support]) / np.linalg.norm(flat))

    def measured(number: int) -> Any:
        amounts = alternating({"ours": own, "textbook": written})(number)
        if not found["ours"] <= FURTHER * found["textbook"] + 1e-3:
            raise OtherResults(f"relative residual {found['ours']:.3g}, the textbook's {found['textbook']:.3g}")
        return amounts

    yield measured


@contextmanager
def memory(images: int) -> Iterator[Round]:
    """Memory of both beyond the outputs of the network, each in a process of its own."""
    config = NETWORKS["cpu_network"].config(dataset={"cifar100": {"limit": images, "val_select": 0, "val_stop": 0}})
    gradients = gradients_of(outputs(trained(config), load_dataset(config.dataset).train))

    def own() -> None:
        omp(gradients[:], gradients.total(), FEW)

    def written() -> None:
        matrix = dense(gradients)
        textbook_omp(matrix, matrix.sum(0), FEW)

    def measured(number: int) -> dict[str, float]:
        return {name: apart(growth, work) / 1e6 for name, work in {"ours": own, "textbook": written}.items()}

    yield measured


def _case(images: int, k: int, *, long: bool) -> Case:
    setting = f"{images:,} images of Fashion-MNIST, k = {k}, 10 classes, 512 features"
    goals = (Goal("ours", "textbook", 10.0),)
    return Case(f"omp-{images}", "OMP", setting, goals, partial(seconds, images, k), warm_up=False, long=long)


CASES = [
    _case(5000, 500, long=False),
    _case(50_000, 500, long=True),
    Case(
        "omp-memory",
        "memory of OMP",
        "10,000 images of CIFAR-100, 100 classes, 128 features; PreActResNet for CPUs",
        (Goal("ours", "textbook", 10.0),),
        partial(memory, 10_000),
        warm_up=False,
        unit="MB",
    ),
]
