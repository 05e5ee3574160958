"""What training itself says of each image, epoch after epoch: kept by id, at no extra pass."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.pruners.base import Context
from advprune_core.pruners.keep_rules import Highest, KeepRule, Rule, ScorePruner, Scores

History = dict[str, Tensor]


def remembered(state: History, name: str, ids: Tensor, *, width: int | None = None, fill: float = 0.0) -> Tensor:
    """The tensor `name` of a state, with a row for every id: created or lengthened where it is not.

    Parameters
    ----------
    state : dict of str to Tensor
        Changed in place.
    ids : Tensor of int64, shape (B,)
    width : int, optional
        Columns; default: a vector.
    fill : float
        Of images that have not been seen.

    Returns
    -------
    Tensor of float32, shape (n,) or (n, width)
    """
    rows = int(ids.max()) + 1
    have = state.get(name)
    if have is None or len(have) < rows:
        shape = (rows,) if width is None else (rows, width)
        grown = torch.full(shape, fill, device=ids.device)
        if have is not None:
            grown[: len(have)] = have
        state[name] = grown
    return state[name]


def visit(state: History, ids: Tensor) -> Tensor:
    """Count a visit of each of `ids`; how often each was seen before, int64 of shape (B,)."""
    visits = remembered(state, "visits", ids)
    before = visits[ids].long()
    visits[ids] += 1
    return before


def label_window(
    state: History, *, ids: Tensor, logits: Tensor, y: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Take note of the label's probability for a batch: logits (B, classes) of the images `ids` (B,), labels `y` (B,).

    Returns
    -------
    p : Tensor, shape (B,)
        That probability now.
    recent : Tensor, shape (B, window)
        The last ones of each image.
    complete : Tensor of bool, shape (B,)
        Whether that is a whole window.
    """
    before = visit(state, ids)
    recent = remembered(state, "recent", ids, width=window)
    p = torch.softmax(logits.float(), 1).gather(1, y[:, None]).squeeze(1)
    recent[ids, before % window] = p
    return p, recent[ids], before + 1 >= window


def window_mean(state: History, name: str, n: int, *, window: int) -> Scores:
    """The sums over windows that `name` has, divided by how many each image had, shape (n,)."""
    windows = state["visits"] - window + 1
    return completed(state[name] / windows, windows > 0, n)


def completed(values: Tensor, known: Tensor, n: int) -> Scores:
    """Scores (n,), the median of the known ones where nothing is known.

    The remnant of an epoch waits for the next one, so a few images miss a visit by chance.

    Raises
    ------
    ConfigError
        If nothing is known of more than half.
    """
    scores = np.full(n, np.nan)
    rows = known.cpu().numpy()
    scores[: len(rows)][rows] = values.cpu().numpy()[rows]
    if np.isnan(scores).sum() > n / 2:
        raise ConfigError("too few epochs were observed for these scores: raise warmup_epochs (or score_epochs)")
    return np.where(np.isnan(scores), np.nanmedian(scores), scores)


class HistoryPruner(ScorePruner):
    """A pruner whose score training gives for free, on the outputs that it trains on."""

    warmup_epochs: Annotated[int, Field(ge=1, le=100_000, description="epochs on full data before selecting")] = 5
    keep: Rule = Highest()

    def needed_visits(self) -> int:
        """How often an image has to be trained on to have a score; with a window, as often as that is long."""
        return 1

    def with_window_of(self, window: int) -> Self:
        """The pruner itself, if it observes a window of so many epochs; for validators.

        Raises
        ------
        ValueError
            If it observes fewer.
        """
        if self.observed_epochs() < window:
            name = "score_epochs" if self.score_epochs else "warmup_epochs"
            raise ValueError(f"{self.observed_epochs()} {name} have no window of {window}")
        return self

    def rule(self) -> KeepRule:
        return self.keep

    def observed(self, context: Context) -> History:
        """The state.

        Raises
        ------
        ConfigError
            If nothing was observed.
        """
        if not context.state:
            raise ConfigError(
                f"{self.name} has observed nothing: it needs epochs before it selects, or the trajectory of some "
                "(what a network said of each image in each epoch) beside the images"
            )
        return context.state
