"""The handwritten digits that ship with scikit-learn: no network, a few seconds a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from advprune_core.datasets.base import DATASETS, DatasetSource

_TEST_IMAGES = 497  # the set is in writer order, so that the last images are other people's hands


@DATASETS.register
class Digits(DatasetSource):
    """1,797 real 8x8 digits (UCI, in scikit-learn); 1,300 to train on, 200 of them held out; the last 497 as test.

    The validation images are drawn from the 1,300, so that their writers are those of training images:
    accuracies on them are higher than on the test images, which other people wrote.
    """

    name = "digits"
    held_out = "the people who wrote them also wrote training images, and others the test images"
    default_eps = {"linf": 2 / 16, "l2": 0.5}

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """The digits with pixels k/16; `folder` is not used."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = (digits.images / 16).astype(np.float32)
        y = digits.target.astype(np.int64)
        return {
            "x_train": x[:-_TEST_IMAGES],
            "y_train": y[:-_TEST_IMAGES],
            "x_test": x[-_TEST_IMAGES:],
            "y_test": y[-_TEST_IMAGES:],
        }
