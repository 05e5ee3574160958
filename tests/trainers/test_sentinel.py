"""The sentinel on single checks; `test_validation` has whole courses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from advprune_core.trainers.sentinel import Check, checks, depth, fell, hollow, onset, suspected
from tests.reference import committed_records

# robust, training, best robust, training at best, drop, collapsed
CHECKS = [
    (0.00, 0.99, 0.45, 0.60, 0.2, True),  # FGSM
    (0.45, 0.81, 0.54, 0.62, 0.2, False),  # PGD-AT on CIFAR-10, 200 epochs: robust overfitting
    (0.22, 0.70, 0.28, 0.40, 0.2, False),  # the same on CIFAR-100
    (0.35, 0.74, 0.54, 0.70, 0.1, False),  # PGD-AT at a large radius: a dip at the peak rate
    (0.24, 0.70, 0.51, 0.60, 0.2, True),
    (0.24, 0.70, 0.51, 0.60, 0.3, False),
    (0.26, 0.70, 0.51, 0.60, 0.2, False),
    (0.24, 0.50, 0.51, 0.60, 0.2, False),  # training fell too
    (0.10, 0.10, 0.10, 0.10, 0.2, False),
    (0.12, 0.49, 0.12, 0.49, 0.2, False),
    (0.12, 0.51, 0.12, 0.51, 0.2, True),
]


@pytest.mark.parametrize(("robust", "training", "best", "at_best", "drop", "expected"), CHECKS)
def test_checks(robust: float, training: float, best: float, at_best: float, drop: float, expected: bool) -> None:
    down = fell(robust=robust, training=training, best_robust=best, training_at_best=at_best, drop=drop)
    assert (down or hollow(robust=robust, training=training)) == expected


# robust, training, best robust, PGD-10 on training images, suspected, collapsed
LOOKS = [
    (0.05, 0.99, 0.45, None, True, True),
    (0.05, 0.99, 0.45, 0.05, True, True),
    (0.05, 0.99, 0.45, 0.40, True, True),  # less than half of what it learned of its own attack on the same images
    (0.05, 0.99, 0.45, 0.60, True, False),  # robust on what it has seen: robust overfitting
    (0.12, 0.60, 0.15, 0.20, True, True),  # it never rose, so it cannot have fallen
    (0.12, 0.60, 0.15, 0.30, True, False),
    (0.30, 0.60, 0.35, 0.00, False, False),  # held-out images say that nothing is wrong
]


@pytest.mark.parametrize(("robust", "training", "best", "on_training", "looks_down", "collapsed"), LOOKS)
def test_what_looks_like_a_collapse_is_looked_at_on_training_images(
    robust: float, training: float, best: float, on_training: float | None, looks_down: bool, collapsed: bool
) -> None:
    course = [Check(0, best, 0.6), Check(1, robust, training, on_training)]
    assert suspected(course, drop=0.2) == looks_down
    assert onset(course, drop=0.2, ended=True) == (1 if collapsed else None)


def test_nothing_is_suspected_of_no_checks() -> None:
    assert not suspected([], drop=0.2)


def rows(held_out: list[float], training: list[float], every: int = 1) -> list[dict[str, Any]]:
    """Rows of metrics with a check after every so many epochs."""
    found: list[dict[str, Any]] = []
    for epoch in range(every * len(held_out)):
        found.append({"epoch": epoch, "train_accuracy": training[epoch // every]})
        if (epoch + 1) % every == 0:
            found[-1]["val_pgd"] = held_out[epoch // every]
    return found


def test_checks_are_the_epochs_that_have_one() -> None:
    assert checks(rows([0.2, 0.3], [0.4, 0.5], every=2)) == [Check(1, 0.2, 0.4), Check(3, 0.3, 0.5)]
    assert checks([{"epoch": 0, "train_accuracy": 0.4, "val_pgd": 0.1, "val_pgd_trained": 0.3}]) == [Check(0, 0.3, 0.4)]
    row = {"epoch": 0, "train_accuracy": 0.8, "val_pgd": 0.1}
    assert checks([{**row, "train_pgd": 0.3}]) == [Check(0, 0.1, 0.8, 0.3)]
    assert checks([{**row, "plain": True}]) == [], "of images that nobody attacked"
    assert checks([{**row, "images": 0}]) == [], "an epoch too short for a batch"
    assert checks([]) == []


# (held out, training, onset after the last check, onset while the run goes on)
COURSES: list[tuple[list[float], list[float], int | None, int | None]] = [
    ([], [], None, None),
    ([0.2, 0.5, 0.1, 0.0], [0.4, 0.6, 0.9, 1.0], 2, 2),
    ([0.2, 0.5, 0.5, 0.1], [0.4, 0.6, 0.9, 0.6], 3, None),
    ([0.2, 0.5, 0.1, 0.5, 0.1, 0.1], [0.4, 0.6, 0.9, 0.6, 0.9, 0.9], 4, 4),
    ([0.2, 0.5, 0.1, 0.1, 0.5], [0.4, 0.6, 0.9, 0.9, 0.6], 2, 2),  # that it recovers does not take it back
    ([0.2, 0.5, 0.1, 0.5], [0.4, 0.6, 0.9, 0.6], None, None),
    ([0.2, 0.35, 0.1, 0.16, 0.6], [0.4, 0.6, 0.9, 0.9, 0.9], 2, 2),  # a fall, then hollow: a fall all the same
    # Hollow at first, then better than ever: it was learning. Back below, it is not.
    ([0.1, 0.1, 0.1, 0.3, 0.5], [0.4, 0.6, 0.6, 0.7, 0.8], None, None),
    ([0.1, 0.1, 0.1, 0.3, 0.1, 0.1], [0.4, 0.6, 0.6, 0.7, 0.8, 0.9], 4, 4),
    ([0.1, 0.1, 0.12, 0.15, 0.2], [0.4, 0.6, 0.7, 0.8, 0.9], 1, 1),  # better and better, and hollow all the same
    ([0.2, 0.1, 0.1, 0.18, 0.1], [0.4, 0.6, 0.6, 0.7, 0.8], 1, 1),  # less hollow than ever is not better than ever
]


@pytest.mark.parametrize(("held_out", "training", "ended", "going_on"), COURSES)
def test_onset(held_out: list[float], training: list[float], ended: int | None, going_on: int | None) -> None:
    course = checks(rows(held_out, training))
    assert onset(course, drop=0.2, ended=True) == ended
    assert onset(course, drop=0.2, ended=False) == going_on


def test_depth_is_the_fall_after_the_best_check() -> None:
    assert depth(rows([0.2, 0.5, 0.1, 0.3], [0.5] * 4)) == pytest.approx(0.4)
    assert depth(rows([0.3, 0.1, 0.5], [0.5] * 3, every=2)) == 0
    assert math.isnan(depth(rows([], [])))
    assert math.isnan(depth([{"epoch": 0, "train_accuracy": 0.5}]))


def test_records_say_of_a_collapse_what_their_checks_show() -> None:
    """The published runs, none of which has an average, were watched check by check."""
    seen = 0
    for record in committed_records():
        course = checks(record.epochs)
        if course and "standard" not in record.config["objective"]:
            seen += 1
            told = onset(course, drop=record.config["collapse_drop"], ended=True)
            assert (told, "ok" if told is None else "collapsed") == (record.collapse_epoch, record.status)
    assert seen > 0
