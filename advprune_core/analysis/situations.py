"""What advice is asked for: a setting, the measured one that is nearest to it, and how far apart the two are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from advprune_core.analysis.cells import threat_name
from advprune_core.analysis.fronts import SETTING, spec_text
from advprune_core.datasets.splits import Dataset
from advprune_core.trainers.config import RunConfig

#: Times as many training images, or as few, that count as the measured number.
_AS_MANY = 1.1


@dataclass(frozen=True)
class Situation:
    """What advice is asked for; the fields are those of a measured setting, its test aside."""

    dataset: str
    wrong_labels: float
    images: int
    shape: str
    model: str
    norm: str
    eps: float

    @classmethod
    def of(cls, config: RunConfig, dataset: Dataset, wrong_labels: float | None = None) -> Situation:
        """That of a run; its data are as wrong as is said, or as they were made."""
        return cls(
            dataset=config.dataset.name,
            wrong_labels=config.dataset.label_noise if wrong_labels is None else wrong_labels,
            images=len(dataset.train),
            shape="x".join(map(str, dataset.image_shape)),
            model=spec_text(config.model),
            norm=config.threat.norm,
            eps=config.threat.eps,
        )


def nearest(points: pd.DataFrame, asked: Situation) -> pd.DataFrame:
    """The points of the measured setting that is nearest to what is asked.

    First in the share of wrong labels, which is what the answer turns on; then the data set, else one of about as many
    images of about as many values (epochs on many say nothing of few); then norm, radius and network; then the one with
    most points.
    """

    def distance(place: tuple[Any, ...], count: int) -> tuple[float, ...]:
        there = dict(zip(SETTING, place, strict=True))
        return (
            round(abs(there["wrong_labels"] - asked.wrong_labels), 9),
            there["dataset"] != asked.dataset,
            0.0 if there["dataset"] == asked.dataset else _apart(there, asked),
            there["norm"] != asked.norm,
            abs(math.log(there["eps"] / asked.eps)),
            there["model"] != asked.model,
            -count,
        )

    groups = [(distance(place, len(rows)), rows) for place, rows in points.groupby(list(SETTING))]
    return min(groups, key=lambda group: group[0])[1]


def _apart(there: dict[str, Any], asked: Situation) -> float:
    """How far apart two data sets are in the sizes of their images and how many there are."""
    sizes = math.log(_values(there["shape"]) / _values(asked.shape)), math.log(there["images"] / asked.images)
    return abs(sizes[0]) + abs(sizes[1])


def _values(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


def measured(there: pd.Series) -> str:
    """A measured setting in a sentence."""
    wrong = f", {100 * there['wrong_labels']:g} % of the labels wrong" if there["wrong_labels"] else ""
    return (
        f"Measured: {there['dataset']} ({there['images']:,} training images of {there['shape']}{wrong}), "
        f"{there['model']}, {threat_name(there['norm'], there['eps'])}, "
        f"robust under {there['test'].replace('+', ', ')}."
    )


def beyond(there: pd.Series, asked: Situation) -> list[str]:
    """Each way in which what is asked lies outside of what was measured."""
    found = []
    if there["dataset"] != asked.dataset:
        found.append(
            f"extrapolated to {asked.dataset}, {asked.images:,} images of {asked.shape}: accuracies say nothing of "
            "yours, at best the choice carries over"
        )
    elif abs(math.log(there["images"] / asked.images)) > math.log(_AS_MANY):
        found.append(f"extrapolated to {asked.images:,} training images")
    if there["model"] != asked.model:
        found.append(f"extrapolated to the network {asked.model}")
    if there["norm"] != asked.norm or not math.isclose(there["eps"], asked.eps, rel_tol=1e-3):
        found.append(
            f"extrapolated to {threat_name(asked.norm, asked.eps)}; one-step attacks can collapse at a larger radius"
        )
    if not math.isclose(there["wrong_labels"], asked.wrong_labels, abs_tol=1e-9):
        found.append(
            f"extrapolated to {100 * asked.wrong_labels:g} % of the labels wrong: whether to prune turns on this"
        )
    return found
