"""The sentinel of catastrophic overfitting: when the training attack is learned instead of robustness."""

from __future__ import annotations

# Robust overfitting at its worst (CIFAR-100, 200 epochs of PGD-AT) keeps about a third of the
# training accuracy on held-out images; a collapsed network keeps next to nothing.
_HOLLOW = 0.25
_LEARNED = 0.5


def collapsed(
    *, robust: float, training: float, best_robust: float, training_at_best: float, drop: float = 0.2
) -> bool:
    """Whether a check looks like a collapse; the loop believes two in a row, or the last one.

    Either the robust accuracy on held-out images fell to less than half its best, by more than
    `drop`, beyond any fall of the accuracy on the training attack (Wong et al. 2020, 2001.03994,
    stop at a drop of 0.2; few held-out images and a high learning rate make smaller dips). Or it
    is less than a quarter of a training accuracy above one half: then there was hardly a height to
    fall from.

    Parameters
    ----------
    robust, training : float
        Accuracy under PGD on held-out images, and on the training attack, in [0, 1].
    best_robust, training_at_best : float
        The same at the best check so far, this one included.
    drop : float
    """
    fall = best_robust - robust
    bad_patch = max(training_at_best - training, 0.0)
    fell = fall - bad_patch > drop and robust < best_robust / 2
    return fell or (training > _LEARNED and robust < _HOLLOW * training)
