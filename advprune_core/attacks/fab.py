"""Fast adaptive boundary attack, aimed at one class after the other.

Croce and Hein 2020a (1907.02044): project onto the linearised boundary, biased towards the clean
image, overshoot, and step back where the boundary was crossed; the smallest perturbation counts.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.base import ATTACKS, Attack
from advprune_core.attacks.geometry import Norm, ThreatModel, lengths, per_image, project, scale
from advprune_core.attacks.inputs import check_inputs
from advprune_core.attacks.search import GiveUp, Precision, Search, hopeless
from advprune_core.attacks.targets import Jobs, in_waves, likeliest
from advprune_core.base.progress import tell
from advprune_core.models.mode import no_trace

#: Largest pull towards the clean image, overshoot, and step back: the paper's.
ALPHA, ETA, BETA = 0.1, 1.05, 0.9
#: Steps between two looks at a job's pace.
WINDOW = 10


def to_hyperplane(x: Tensor, normal: Tensor, offset: Tensor, *, norm: Norm) -> Tensor:
    """Smallest move from points of the box [0, 1] to a hyperplane, inside the box.

    Along the path every coordinate goes as fast as the norm wants, until it meets the box; what is
    gained is concave and piecewise linear in the length of the path, so Newton's method arrives from
    below, without sorting and after at most as many steps as there are pieces.

    Parameters
    ----------
    x, normal : Tensor, shape (B, ...)
    offset : Tensor, shape (B,)
        Points z of the hyperplane have <normal, z> = offset.

    Returns
    -------
    Tensor, shape of `x`
        The move; where the box does not meet the hyperplane, the one to its nearest corner.
    """
    z, w = x.flatten(1), normal.flatten(1)
    need = offset - (w * z).sum(1)
    w = w * need.sign()[:, None]
    need = need.abs()
    room = torch.where(w > 0, 1 - z, torch.where(w < 0, z, 0))
    weight = w.abs()
    speed = (weight > 0).to(z.dtype) if norm == "linf" else weight
    length, gained = torch.zeros_like(need), torch.zeros_like(need)
    reachable = (weight * room).sum(1) > need
    for _ in range(z.shape[1]):
        moved = torch.minimum(length[:, None] * speed, room)
        gained = (weight * moved).sum(1)
        slope = (weight * speed * (moved < room)).sum(1)
        step = (need - gained) / slope
        going = reachable & (slope > 0) & (step > 1e-7 * length)
        if not going.any():
            break
        length = torch.where(going, length + step, length)
    move = torch.where(reachable[:, None], torch.minimum(length[:, None] * speed, room), room)
    return (move * w.sign()).view_as(x)


def approach(
    search: Search, jobs: Jobs, *, norm: Norm, eps: float, steps: int, give_up: bool = False
) -> tuple[Tensor, Tensor]:
    """FAB from the clean images: the points reached, and their values (see `targets.Attempt`).

    A job whose image is broken inside the ball leaves the batch, with all other jobs of the image.

    Parameters
    ----------
    give_up : bool
        Leave jobs whose smallest perturbation shrinks too slowly to come down to `eps`.
    """
    x, y, target = jobs.x, jobs.y, jobs.target
    points, values = x.clone(), torch.full_like(x[:, 0, 0, 0], -torch.inf)
    rows = torch.arange(len(x), device=x.device)
    point, nearest, smallest = x, x, torch.full_like(values, torch.inf)
    before = smallest

    def gap(logits: Tensor) -> Tensor:
        return logits.gather(1, target[:, None]).squeeze(1) - logits.gather(1, y[:, None]).squeeze(1)

    for step in range(1, steps + 1):
        slope, height, _ = search.gradient(point, gap)
        unit = scale(slope)  # the hyperplane is the same in any unit, and in this one squares are numbers
        normal, height = slope * per_image(unit, slope), height * unit
        offset = (normal * point).flatten(1).sum(1) - height
        moves = to_hyperplane(torch.cat([point, x]), normal.repeat(2, 1, 1, 1), offset.repeat(2), norm=norm)
        near, far = moves.chunk(2)
        sizes = lengths(moves, norm=norm).clamp(min=1e-8).chunk(2)
        pull = per_image((sizes[0] / (sizes[0] + sizes[1])).clamp(max=ALPHA), x)
        point = ((point + ETA * near) * (1 - pull) + (x + ETA * far) * pull).clamp(0, 1)
        logits, size = search.logits(point), lengths(point - x, norm=norm)
        crossed = logits.argmax(1) != y
        closer = crossed & (size < smallest)
        smallest, nearest = torch.where(closer, size, smallest), torch.where(per_image(closer, x), point, nearest)
        fooled = size <= eps
        fooled[fooled.clone()] = search.broken(point[fooled], logits[fooled], y[fooled])
        leave = torch.isin(jobs.owner[rows], jobs.owner[rows[fooled]]) if fooled.any() else fooled
        if give_up and step % WINDOW == 0:
            leave = leave | hopeless(smallest - eps, before - eps, window=WINDOW, remaining=steps - step)
            before = smallest
        if fooled.any():
            points[rows[fooled]], values[rows[fooled]] = point[fooled], torch.inf
        point = torch.where(per_image(crossed, x), x + BETA * (point - x), point)
        if leave.any():
            gone, stay = leave & ~fooled, ~leave
            points[rows[gone]], values[rows[gone]] = nearest[gone], -smallest[gone]
            rows, x, y, target, point, nearest, smallest, before = (
                tensor[stay] for tensor in (rows, x, y, target, point, nearest, smallest, before)
            )
        tell(len(rows), step / steps)
        if len(rows) == 0:
            break
    points[rows], values[rows] = nearest, -smallest
    # What is broken was checked as it is; not even rounding may touch it.
    kept = per_image(torch.isposinf(values), points)
    return torch.where(kept, points, project(points, jobs.x, norm=norm, eps=eps)), values


def fab_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    steps: int = 100,
    targets: int = 9,
    precision: Literal["float32", "bfloat16"] = "float32",
    give_up: bool = False,
) -> Tensor:
    """FAB at the likeliest wrong classes; starts from the clean images, so there is no noise.

    Parameters
    ----------
    model, x, y, threat, norm, eps, precision
        As for `apgd.apgd`.
    steps : int
        Projections for each target; an image leaves at its first success inside the ball.
    targets : int
        Classes aimed at, by the clean logits; at most all others.
    give_up : bool
        Leave a target as soon as extrapolated progress does not reach the ball.

    Returns
    -------
    Tensor of float32, shape of `x`
        Inside ball and box: misclassified where one was found, else the closest point beyond the
        boundary, cut off at the ball (the clean image where there was none).

    Raises
    ------
    ConfigError
        As for `apgd.apgd`; targets out of range.
    """
    given = check_inputs(
        model, x, y, threat=threat, norm=norm, eps=eps, precision=precision, steps=steps, targets=targets
    )
    search, x, y, ball = Search(model, precision, given.classes), given.x, given.y, given.threat
    with no_trace(model):
        return in_waves(
            x,
            y,
            likeliest(search.logits(x), y, targets),
            lambda jobs: approach(search, jobs, norm=ball.norm, eps=ball.eps, steps=steps, give_up=give_up),
        )


@ATTACKS.register
class FABT(Attack):
    """Fast adaptive boundary attack, at the nine likeliest wrong classes (Croce and Hein 2020a).

    Looks for the smallest perturbation, so it does not depend on the step's length. Cost: at most 3k
    forward-equivalents an image and target, and 1 for the targets; an image that is broken costs no more.

    References
    ----------
    Croce and Hein, Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack, ICML 2020
    (1907.02044).
    """

    name = "fab_t"
    steps: Annotated[int, Field(ge=1, le=100_000, description="projections for each target")] = 100
    targets: Annotated[int, Field(ge=1, le=100_000, description="classes aimed at")] = 9
    precision: Precision = "float32"
    give_up: GiveUp = False

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        return fab_targeted(model, x, y, threat=threat, **self.model_dump())
