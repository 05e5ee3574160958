"""The sentinel of catastrophic overfitting: when the training attack is learned instead of robustness.

It reads a run's rows of metrics, and compares like with like: the network that is trained on held-out
images with the same network on its own training attack. A moving average of the weights lags behind
both, and would look collapsed at first and well for too long. A network that withstands the attack on the
images it is trained on, and not on others, has overfitted robustly, which is another fault: what looks like
a collapse on held-out images is looked at on training images too. Near its bounds the flag is decided by
chance, so what is reported beside it are onset and depth. Held-out images are no test: where they are closer
to the training images than the test images are, as with the digits, the accuracy on them is higher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Robust overfitting at its worst (CIFAR-100, 200 epochs of PGD-AT) keeps about a third of the
# training accuracy on held-out images; a collapsed network keeps next to nothing.
_HOLLOW = 0.25
_LEARNED = 0.5
# Images that are trained on need no such allowance: of what is learned of the training attack on them, sound
# networks keep half to two thirds under PGD-10 (Fast AT, PGD-2 at a radius at which FGSM collapses), collapsed a fifth.
_OVERFITTED = 0.5


def fell(*, robust: float, training: float, best_robust: float, training_at_best: float, drop: float = 0.2) -> bool:
    """Whether the robust accuracy on held-out images fell to less than half its best, by more than `drop`.

    Beyond any fall of the accuracy on the training attack (Wong et al. 2020, 2001.03994, stop at a
    drop of 0.2; few held-out images and a high learning rate make smaller dips).

    Parameters
    ----------
    robust, training : float
        Accuracy under PGD on held-out images, and on the training attack, in [0, 1].
    best_robust, training_at_best : float
        The same at the best check so far, this one included.
    drop : float
    """
    bad_patch = max(training_at_best - training, 0.0)
    return best_robust - robust - bad_patch > drop and robust < best_robust / 2


def hollow(*, robust: float, training: float) -> bool:
    """Whether it is less than a quarter of a training accuracy above one half: no height to fall from was reached.

    Parameters
    ----------
    robust, training : float
        See `fell`.
    """
    return training > _LEARNED and robust < _HOLLOW * training


@dataclass(frozen=True)
class Check:
    """Accuracies in [0, 1] of the trained network at the end of `epoch`.

    Attributes
    ----------
    epoch : int
    robust : float
        Under PGD-10, on held-out images.
    training : float
        On the training attack, in training: of the images that it attacks, if some are left out as they are.
    on_training : float, optional
        Under PGD-10, on training images that are kept; known where a collapse was `suspected` (not in older records).
    """

    epoch: int
    robust: float
    training: float
    on_training: float | None = None

    @property
    def overfitted(self) -> bool:
        """Whether training images are known to withstand PGD-10 at least half as often as the training attack."""
        return self.on_training is not None and self.on_training >= _OVERFITTED * self.training


def checks(metrics: Sequence[Mapping[str, Any]]) -> list[Check]:
    """The checks in a run's rows of metrics; none of a plain phase, or where nothing was trained on."""
    return [
        Check(
            row["epoch"],
            row.get("val_pgd_trained", row["val_pgd"]),
            row.get("attacked_accuracy", row["train_accuracy"]),
            row.get("train_pgd"),
        )
        for row in metrics
        if "val_pgd" in row and attacked(row)
    ]


def attacked(row: Mapping[str, Any]) -> bool:
    """Whether a row of metrics is of images that were attacked in training."""
    return not row.get("plain") and row.get("images", 1) > 0


def suspected(course: Sequence[Check], *, drop: float) -> bool:
    """Whether the last check shows a collapse on held-out images."""
    return bool(course) and _down(course[-1], best=max(course, key=lambda check: check.robust), drop=drop) is not None


def _down(check: Check, *, best: Check, drop: float) -> Literal["fallen", "hollow"] | None:
    if fell(
        robust=check.robust,
        training=check.training,
        best_robust=best.robust,
        training_at_best=best.training,
        drop=drop,
    ):
        return "fallen"
    return "hollow" if hollow(robust=check.robust, training=check.training) else None


def onset(course: Sequence[Check], *, drop: float, ended: bool) -> int | None:
    """Epoch of the first check of a collapse, or None.

    A check shows a collapse where robust accuracy `fell` or is `hollow`, and the network has not `overfitted`. One
    alone may be a dip at a high learning rate; two in a row, or the last one of a run, are none. A fall is not taken
    back by a recovery. A hollow network that later withstands more than ever was still learning, and is.

    Parameters
    ----------
    course : sequence of Check
        So far, in order.
    drop : float
        See `fell`.
    ended : bool
        Whether no check will follow.
    """
    best, suspect, believed, fallen = None, None, None, False
    for check in course:
        better = best is None or check.robust > best.robust
        best = check if best is None or better else best
        down = None if check.overfitted else _down(check, best=best, drop=drop)
        if down:
            believed, fallen = suspect if believed is None else believed, fallen or down == "fallen"
            if fallen and believed is not None:
                return believed
            suspect = check.epoch if suspect is None else suspect
        else:
            suspect, fallen = None, False
            believed = None if better else believed
    return suspect if believed is None and ended else believed


def held_out(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    """Accuracy under PGD-10 on held-out images of the weights that are evaluated, at each check since training attacks.

    With a moving average, of that.
    """
    return [row["val_pgd"] for row in metrics if "val_pgd" in row and not row.get("plain")]


def depth(metrics: Sequence[Mapping[str, Any]]) -> float:
    """How far `held_out` fell from its best check to the lowest later one; NaN without checks."""
    values = held_out(metrics)
    if not values:
        return math.nan
    best = max(values)
    return float(best - min(values[values.index(best) :]))
