"""Square: random search without gradients, by squares of shrinking size.

Andriushchenko et al. 2020 (1912.00049). For L-inf the proposals are finitely many, so one that
was refused is not asked again until something else was accepted: its answer is known. On small grey
images that leaves few of the 5,000 queries.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.base import ATTACKS, Attack
from advprune_core.attacks.geometry import ThreatModel
from advprune_core.attacks.inputs import check_inputs
from advprune_core.attacks.losses import margin
from advprune_core.attacks.search import GiveUp, Precision, Search, hopeless
from advprune_core.attacks.windows import DRAWS, HALVINGS, side, square_l2, square_linf, stripes, tiles
from advprune_core.base.progress import tell
from advprune_core.base.randomness import stream, uniform
from advprune_core.models.mode import no_trace

#: Queries whose numbers are drawn at once, and before the first look at an image's pace.
BLOCK, FIRST_LOOK = 100, 1000
#: Most proposals of one side that are remembered for an image.
REMEMBERED = 2**14


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    queries: int = 5000,
    seed: int = 0,
    ids: Tensor | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    give_up: bool = False,
) -> Tensor:
    """Square attack on the margin, which asks for outputs only.

    Parameters
    ----------
    model, x, y, threat, norm, eps, seed, ids, precision
        As for `apgd.apgd`. Every image has its own windows, whatever the batch.
    queries : int
        Proposals for each image, the first one included; an image leaves when it is broken.
    give_up : bool
        Leave images whose margin shrank too little with the last side of the windows to arrive at 0.

    Returns
    -------
    Tensor of float32, shape of `x`
        Inside ball and box: misclassified where one was found, else the point of least margin.

    Raises
    ------
    ConfigError
        As for `apgd.apgd`; queries out of range.
    """
    given = check_inputs(
        model, x, y, threat=threat, norm=norm, eps=eps, seed=seed, ids=ids, precision=precision, queries=queries
    )
    x, y, names, norm, eps = given.x, given.y, given.ids, given.threat.norm, given.threat.eps
    search, key = Search(model, precision, given.classes), stream(seed, "square")
    with no_trace(model):
        channels, size = x.shape[1], (x.shape[2], x.shape[3])
        low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
        zero = torch.zeros_like(names)
        if norm == "linf":
            best = stripes(uniform(stream(key, "start"), names, zero, (channels, size[1])) < 0.5, low, high)
        else:
            best = tiles(uniform(stream(key, "start"), names, zero, (25, 1 + channels)), x, eps=eps)
        result, rows = x.clone(), torch.arange(len(x), device=x.device)
        different = size[0] * size[1] * 2**channels
        memory = norm == "linf" and different <= REMEMBERED
        refused = torch.zeros(len(x), different if memory else 0, dtype=torch.bool, device=x.device)
        length, draws = 0, x.new_zeros(len(x), BLOCK, 0)
        logits = search.logits(best)
        gap = -margin(logits, y)
        before = gap.clone()  # what an accepted query gains is written into `gap`
        fooled = search.broken(best, logits, y)
        for query in range(1, queries + 1):
            leave = fooled
            if query in HALVINGS:
                # Windows of one side run dry; the next, smaller ones go on: so the pace is that of a side.
                sides = sum(query <= bound < queries for bound in HALVINGS)
                if give_up and query >= FIRST_LOOK:
                    leave = leave | hopeless(gap, before, window=1, remaining=sides)
                before = gap.clone()
            if leave.any():
                result[rows[leave]] = best[leave]
                stay = ~leave
                rows, x, y, names, low, high, best, gap, before, refused, draws = (
                    tensor[stay] for tensor in (rows, x, y, names, low, high, best, gap, before, refused, draws)
                )
            tell(len(rows), query / queries)
            if len(rows) == 0 or query == queries:
                break
            if (query - 1) % BLOCK == 0:
                block = torch.full_like(names, (query - 1) // BLOCK)
                draws = uniform(key, names, block, (BLOCK, DRAWS + channels))
            if length != (length := side(query, size, norm=norm)):
                refused.zero_()
            now = draws[:, (query - 1) % BLOCK]
            if norm == "linf":
                tried, number = square_linf(now, length, best, low, high)
                changed = (tried != best).flatten(1).any(1)
                ask = (changed & ~refused.gather(1, number[:, None]).squeeze(1) if memory else changed).nonzero()
            else:
                tried = square_l2(now, length, best, x, eps=eps)
                number, ask = rows, torch.ones_like(rows).nonzero()
            ask = ask.squeeze(1)
            fooled = torch.zeros_like(rows, dtype=torch.bool)
            if len(ask) == 0:
                continue
            proposed = tried[ask]
            logits = search.logits(proposed)
            found = -margin(logits, y[ask])
            broken = search.broken(proposed, logits, y[ask])
            better = (found < gap[ask]) | broken
            if memory:
                refused[ask[~better], number[ask[~better]]] = True
            taken = ask[better]
            best[taken], gap[taken], fooled[taken] = proposed[better], found[better], broken[better]
            if memory:
                refused[taken] = False
    result[rows] = best
    return result


@ATTACKS.register
class Square(Attack):
    """Square attack (Andriushchenko et al. 2020): random search, no gradients.

    Finds what hides from gradients. Cost: at most one forward-equivalent a query and image; less where no query is left
    whose answer is unknown, and none for an image that is broken.

    References
    ----------
    Andriushchenko et al., Square Attack: a Query-efficient Black-box Adversarial Attack via Random Search, ECCV 2020
    (1912.00049).
    """

    name = "square"
    version = 2
    queries: Annotated[int, Field(ge=1, le=10_000_000, description="forward passes for each image")] = 5000
    precision: Precision = "float32"
    give_up: GiveUp = False

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        return square(model, x, y, threat=threat, seed=seed, ids=ids, **self.model_dump())
