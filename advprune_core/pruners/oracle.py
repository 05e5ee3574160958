"""What a score that finds every wrong label would keep: a bound, for data whose noise is known."""

from __future__ import annotations

import numpy as np

from advprune_core.base.settings import ConfigError
from advprune_core.pruners.base import PRUNERS, Context, ScheduledPruner
from advprune_core.pruners.selection import Selection


@PRUNERS.register
class Oracle(ScheduledPruner):
    """A random subset of the images whose labels are right; no cost, and no method: it knows the noise.

    The bound of every score that looks for wrong labels, on data with `label_noise`. Where the right
    labels are fewer than what is to be kept, wrong ones fill the rest at random (`n_filled`).
    """

    name = "oracle"

    def check(self, context: Context) -> None:
        """Refuse data of which nobody knows the right labels.

        Raises
        ------
        ConfigError
        """
        if context.dataset.true_labels is None:
            raise ConfigError(
                "the pruner 'oracle' needs to know which labels are wrong: a data set with label_noise, such as "
                "{digits: {label_noise: 0.4}}"
            )

    def select(self, context: Context) -> Selection:
        """Right labels first, at random."""
        self.check(context)
        wrong = context.dataset.wrong_labels()
        order = context.rng.permutation(context.n)
        kept = order[np.argsort(wrong[order], kind="stable")][: context.k]
        return Selection(kept, n_filled=int(wrong[kept].sum()))
