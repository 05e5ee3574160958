"""The batch for few images: against counts of steps made by hand."""

from __future__ import annotations

import json

import pytest

from advprune_core.analysis.batches import batch_for, with_enough_steps
from advprune_core.analysis.fronts import read_points, ways_of
from tests.analysis.test_fronts import points


@pytest.mark.parametrize(
    ("images", "batch", "measured", "expected"),
    [
        (154, 128, 48_000, 8),  # 19 steps; of 16 there would be 9
        (160, 128, 48_000, 16),
        (640, 128, 48_000, 64),
        (1279, 128, 48_000, 64),
        (1280, 128, 48_000, 128),  # 10 steps as it is
        (48_000, 128, 48_000, 128),
        (20, 128, 48_000, 8),  # no smaller one
        (154, 4, 48_000, 4),
        (424, 64, 1100, 32),  # 6 steps against 17
        (600, 64, 1100, 64),  # 9 against 17
        (330, 64, 330, 64),  # as was measured
    ],
)
def test_the_batch(images: int, batch: int, measured: int, expected: int) -> None:
    assert batch_for(images, batch, measured=measured) == expected


@pytest.mark.parametrize(
    ("trainer", "fraction", "images", "expected"),
    [
        ({"batch_size": 128, "lr": 0.2}, 1.0, 154, (8, 0.0125)),
        ({"batch_size": 128, "lr": 0.2}, 0.5, 1280, (64, 0.1)),  # an epoch is of the images that are kept
        ({"batch_size": 128}, 1.0, 320, (32, 0.025)),
        ({"lr": 0.3}, 1.0, 320, (32, 0.15)),
    ],
)
def test_the_learning_rate_is_scaled_with_it(
    trainer: dict[str, float], fraction: float, images: int, expected: tuple[int, float]
) -> None:
    pruner = "full" if fraction == 1 else "random"
    (way,) = ways_of(points([(json.dumps(trainer), pruner, fraction, 15.0, 50.0, 0.6)]))
    plan = way.at(50)
    assert plan is not None
    found, (note,) = with_enough_steps(plan, images, measured=48_000)
    assert (found.way.trainer["batch_size"], found.way.trainer["lr"]) == expected
    assert (found.epochs, found.cost, found.robust) == (plan.epochs, plan.cost, plan.robust)
    assert note.startswith(f"not measured: batch size {expected[0]} and learning rate {expected[1]:g} instead of ")


def test_what_was_measured_stays_as_it_was() -> None:
    """On as many images as there were no way of training gets another batch, however little of them it keeps."""
    for _, rows in read_points().groupby(["dataset", "wrong_labels", "images", "eps"]):
        for way in ways_of(rows):
            for cost in way.costs:
                images = int(rows["images"].iloc[0])
                plan = way.at(float(cost))
                assert plan is not None
                assert with_enough_steps(plan, images, measured=images) == (plan, [])
