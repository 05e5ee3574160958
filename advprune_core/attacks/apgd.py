"""Auto-PGD: gradient ascent with momentum that halves its step where progress stalls.

Croce and Hein 2020b (2003.01690), algorithm 1, with the cross-entropy, the difference-of-logits
ratio (equation 5) or, aimed at one class after the other, its targeted form (equation 6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from advprune_core.attacks.base import ATTACKS, Attack
from advprune_core.attacks.geometry import Norm, ThreatModel, ascend, per_image, project
from advprune_core.attacks.inputs import Inputs, check_choice, check_inputs, check_start
from advprune_core.attacks.losses import cross_entropy, dlr, dlr_targeted
from advprune_core.attacks.pgd import start_point
from advprune_core.attacks.search import GiveUp, Precision, Search, hopeless
from advprune_core.attacks.targets import Jobs, in_waves, likeliest, untargeted
from advprune_core.base.progress import tell
from advprune_core.base.randomness import stream
from advprune_core.models.mode import no_trace

Untargeted = Literal["cross_entropy", "dlr"]
#: Losses (J,) of logits (J, classes), labels (J,) and targets (J,).
JobLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

MOMENTUM = 0.75
#: A window in which fewer than this share of the steps went up halves the step.
RISES = 0.75
JOB_LOSSES: dict[str, JobLoss] = {
    "cross_entropy": lambda logits, y, target: cross_entropy(logits, y),
    "dlr": lambda logits, y, target: dlr(logits, y),
    "dlr_targeted": dlr_targeted,
}


def windows(steps: int) -> list[int]:
    """Lengths of the windows between the checkpoints: 22, 19, 16, ..., 6, 6 of 100 steps."""
    length, shortest = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1)
    lengths: list[int] = []
    while sum(lengths) < steps:
        lengths.append(length)
        length = max(length - max(int(0.03 * steps), 1), shortest)
    return lengths


def auto_pgd(
    search: Search,
    jobs: Jobs,
    start: Tensor,
    *,
    norm: Norm,
    eps: float,
    steps: int,
    loss: JobLoss,
    give_up: bool = False,
) -> tuple[Tensor, Tensor]:
    """Auto-PGD from `start` (J, C, H, W): the points reached, and their values (see `targets.Attempt`).

    A job whose image is broken leaves the batch, with all other jobs of that image.

    Parameters
    ----------
    give_up : bool
        Leave jobs that extrapolation calls hopeless; for losses that are 0 at the boundary.
    """
    points, values = start.clone(), torch.full((len(start),), -torch.inf, device=start.device)
    rows = torch.arange(len(start), device=start.device)

    def ask(x_adv: Tensor, *, last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        if not last:
            return search.gradient(x_adv, lambda logits: loss(logits, jobs.y[rows], jobs.target[rows]))
        logits = search.logits(x_adv)
        return torch.zeros_like(x_adv), loss(logits, jobs.y[rows], jobs.target[rows]), logits

    point = before = start
    gradient, value, logits = ask(point)
    best_point, best_gradient, best = point, gradient, value
    at_check, reduced = best, torch.ones_like(best, dtype=torch.bool)
    rises, size = torch.zeros_like(best), torch.full_like(best, 2 * eps)
    checks = [0, *torch.tensor(windows(steps)).cumsum(0).tolist()]
    older = best  # the best of the check before the last: a window in which the step was too long gains nothing
    for step in range(steps + 1):
        fooled = search.broken(point, logits, jobs.y[rows])
        if fooled.any():
            points[rows[fooled]], values[rows[fooled]] = point[fooled], torch.inf
            leave = torch.isin(jobs.owner[rows], jobs.owner[rows[fooled]])
        else:
            leave = fooled
        if 0 < step < steps and step in checks:
            place = checks.index(step)
            reduce = (rises <= RISES * (step - checks[place - 1])) | (~reduced & (at_check >= best))
            if give_up and place > 1:
                leave = leave | hopeless(-best, -older, window=step - checks[place - 2], remaining=steps - step)
            size = torch.where(reduce, size / 2, size)
            pick = per_image(reduce, point)
            point, gradient = torch.where(pick, best_point, point), torch.where(pick, best_gradient, gradient)
            rises, reduced, older, at_check = torch.zeros_like(rises), reduce, at_check, best
        if leave.any():
            gone, stay = leave & ~fooled, ~leave
            points[rows[gone]], values[rows[gone]] = best_point[gone], best[gone]
            state = (rows, point, before, gradient, value, best_point, best_gradient, best, at_check, rises, size)
            rows, point, before, gradient, value, best_point, best_gradient, best, at_check, rises, size = (
                tensor[stay] for tensor in state
            )
            reduced, older = reduced[stay], older[stay]
        tell(len(rows), step / steps)
        if step == steps or len(rows) == 0:
            break
        moved = project(ascend(point, gradient, norm=norm, step_size=size), jobs.x[rows], norm=norm, eps=eps)
        if step > 0:
            moved = point + MOMENTUM * (moved - point) + (1 - MOMENTUM) * (point - before)
            moved = project(moved, jobs.x[rows], norm=norm, eps=eps)
        before, point, last = point, moved, value
        gradient, value, logits = ask(point, last=step == steps - 1)
        rises = rises + (value > last)
        better = value > best
        pick = per_image(better, point)
        best_point, best_gradient = torch.where(pick, point, best_point), torch.where(pick, gradient, best_gradient)
        best = torch.where(better, value, best)
    points[rows], values[rows] = best_point, best
    return points, values


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    steps: int = 100,
    restarts: int = 1,
    loss: Untargeted = "cross_entropy",
    start: Tensor | None = None,
    seed: int = 0,
    ids: Tensor | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Tensor:
    """Auto-PGD without a target.

    Parameters
    ----------
    model : nn.Module
        Images (B, C, H, W) to logits (B, classes); normalises inside. Left as it was.
    x : Tensor of float32, shape (B, C, H, W)
        Clean images in [0, 1].
    y : Tensor of int64, shape (B,)
        Labels.
    threat, or norm and eps
        Threat model; `eps` in pixel units of [0, 1], a number or "8/255"; `norm` is "linf" unless given.
    steps, restarts : int
        An image leaves at its first misclassified iterate.
    loss : "cross_entropy" or "dlr"
    start : Tensor, shape of `x`, optional
        Where the first restart begins, projected onto the ball; default: a random point of it.
    seed, ids
        Noise is keyed by both; `ids` (B,) default to the places in the batch.
    precision : "float32" or "bfloat16"
        Of the search; what it finds is checked in float32.

    Returns
    -------
    Tensor of float32, shape of `x`
        Inside ball and box: misclassified where one was found, else the point of largest loss.

    Raises
    ------
    ConfigError
        What `inputs.check_inputs` refuses; an unknown loss, a start of another shape; a model whose
        outputs are no logits, are not finite, have none for a label, or give the images no gradient.
    """
    given = check_inputs(
        model,
        x,
        y,
        threat=threat,
        norm=norm,
        eps=eps,
        seed=seed,
        ids=ids,
        precision=precision,
        steps=steps,
        restarts=restarts,
    )
    check_choice("loss", loss, get_args(Untargeted))
    ball = given.threat
    begin = None if start is None else project(check_start(start, given.x), given.x, norm=ball.norm, eps=ball.eps)
    search, x, y = Search(model, precision, given.classes), given.x, given.y

    def run(jobs: Jobs) -> tuple[Tensor, Tensor]:
        first = _random_start(given, jobs, seed=seed)
        if begin is not None:
            first = torch.where(per_image(jobs.rank == 0, x), begin[jobs.owner], first)
        return auto_pgd(search, jobs, first, norm=ball.norm, eps=ball.eps, steps=steps, loss=JOB_LOSSES[loss])

    with no_trace(model):
        if restarts == 1:
            return run(untargeted(x, y))[0]
        return in_waves(x, y, y[:, None].expand(-1, restarts), run)


def apgd_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel | None = None,
    norm: str | None = None,
    eps: float | str | None = None,
    steps: int = 100,
    targets: int = 9,
    seed: int = 0,
    ids: Tensor | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    give_up: bool = False,
) -> Tensor:
    """Auto-PGD on the targeted DLR loss, at the likeliest wrong classes (see `apgd` for the rest).

    Parameters
    ----------
    targets : int
        Classes aimed at, by the clean logits; at most all others.
    give_up : bool
        Leave a target as soon as extrapolated progress does not reach it (`search.hopeless`).
    """
    given = check_inputs(
        model,
        x,
        y,
        threat=threat,
        norm=norm,
        eps=eps,
        seed=seed,
        ids=ids,
        precision=precision,
        steps=steps,
        targets=targets,
    )
    ball = given.threat
    search, x, y = Search(model, precision, given.classes), given.x, given.y

    def run(jobs: Jobs) -> tuple[Tensor, Tensor]:
        first = _random_start(given, jobs, seed=seed)
        return auto_pgd(
            search, jobs, first, norm=ball.norm, eps=ball.eps, steps=steps, loss=dlr_targeted, give_up=give_up
        )

    with no_trace(model):
        return in_waves(x, y, likeliest(search.logits(x), y, targets), run)


def _random_start(given: Inputs, jobs: Jobs, *, seed: int) -> Tensor:
    names, threat = given.ids[jobs.owner], given.threat
    return start_point(jobs.x, norm=threat.norm, eps=threat.eps, key=stream(seed, "apgd"), ids=names, epochs=jobs.rank)


@ATTACKS.register
class APGD(Attack):
    """Auto-PGD (Croce and Hein 2020b): momentum, and a step size that halves itself.

    The step begins at 2 eps, and halves where too few of the last steps went up, from the best point so far. Cost: at
    most 2k + 1 forward-equivalents an image and restart; an image that is broken costs no more.

    References
    ----------
    Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks,
    ICML 2020 (2003.01690), alg. 1; the loss `dlr` is eq. (5).
    """

    name = "apgd"
    loss: Annotated[Untargeted, Field(description="what is maximised")] = "cross_entropy"
    steps: Annotated[int, Field(ge=1, le=100_000, description="gradient steps")] = 100
    restarts: Annotated[int, Field(ge=1, le=10_000, description="random starts")] = 1
    precision: Precision = "float32"

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        return apgd(model, x, y, threat=threat, seed=seed, ids=ids, **self.model_dump())


@ATTACKS.register
class APGDT(Attack):
    """Auto-PGD on the targeted DLR loss, at the nine likeliest wrong classes (Croce and Hein 2020b).

    Cost: at most 2k + 1 forward-equivalents an image and target, and 1 for the targets; an image that is broken costs
    no more.

    References
    ----------
    As `APGD`; the loss is eq. (6).
    """

    name = "apgd_t"
    version = 2
    steps: Annotated[int, Field(ge=1, le=100_000, description="gradient steps for each target")] = 100
    targets: Annotated[int, Field(ge=1, le=100_000, description="classes aimed at")] = 9
    precision: Precision = "float32"
    give_up: GiveUp = False

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        return apgd_targeted(model, x, y, threat=threat, seed=seed, ids=ids, **self.model_dump())
