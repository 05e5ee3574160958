"""Where the training attack starts."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from advprune_core.attacks.geometry import Norm, UniformSetting, ascend, project
from advprune_core.attacks.pgd import start_point
from advprune_core.base.components import Component, Registry
from advprune_core.base.randomness import normal
from advprune_core.base.settings import Pixels
from advprune_core.objectives.batch import Batch, PolicyState

STARTS: Registry[Start] = Registry("start", "advprune_core.objectives")


@STARTS.family
class Start(Component):
    """Where the training attack starts."""

    #: Starts at the clean image, where KL has no gradient.
    clean: ClassVar[bool] = False
    #: The start stands in for the image: the ball is around it (N-FGSM).
    augments: ClassVar[bool] = False
    #: Works only where one step is taken by the objective, which knows the gradient at the start.
    needs_gradient: ClassVar[bool] = False

    def state(self, images: int) -> PolicyState:
        """What is kept per image of a training split of `images` images; nothing by default."""
        return {}

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """Images that the attack starts from, shape of ``batch.x``."""
        raise NotImplementedError

    def end(
        self,
        batch: Batch,
        x_adv: Tensor,
        *,
        norm: Norm,
        eps: float,
        state: PolicyState,
        attacked: Tensor | None = None,
        step: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Take note of the attack's result.

        Parameters
        ----------
        x_adv : Tensor, shape of ``batch.x``
        attacked : Tensor of bool, shape (B,), optional
            Which images the attack worked on; None: all.
        step : (start, gradient), shapes of ``batch.x``, optional
            The start and the gradient there, where the one step was the objective's own.
        """


@STARTS.register
class RandomStart(Start):
    """A random point of the ball: uniform for L-inf, uniform direction and radius for L2 (mean 1/2 eps).

    No cost. Where PGD-AT (Madry et al. 2018, 1706.06083) and, with one longer step, Fast AT (Wong et al. 2020,
    2001.03994) start.
    """

    name = "random"
    uniform: UniformSetting = "radius"

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """Noise keyed by seed, epoch and image."""
        batch.need_ids("the start 'random'")
        return start_point(
            batch.x, norm=norm, eps=eps, key=key, ids=batch.ids, epochs=batch.epochs, uniform=self.uniform
        )


@STARTS.register
class CleanStart(Start):
    """The clean image.

    No cost. Where FGSM (Goodfellow et al. 2015, 1412.6572) and GradAlign start; KL has no gradient there.
    """

    name = "clean"
    clean = True

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """The images as they are."""
        return batch.x


@STARTS.register
class NearStart(Start):
    """Beside the clean image, where TRADES and MART start: Gaussian noise of `sigma`, in the ball.

    No cost. At the clean image itself the KL of TRADES (Zhang et al. 2019) has no gradient.
    """

    name = "near"
    sigma: Annotated[Pixels, Field(gt=0, le=1, description="standard deviation of the noise")] = 0.001

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """Noise keyed by seed, epoch and image, projected onto ball and box."""
        batch.need_ids("the start 'near'")
        noise = normal(key, batch.ids, batch.epochs, tuple(batch.x.shape[1:]))
        return project(batch.x + self.sigma * noise, batch.x, norm=norm, eps=eps)


@STARTS.register
class CornerStart(Start):
    """A random corner of the L-inf ball, or a random point of the L2 sphere (FGSM-PGI's first).

    No cost. The first perturbation of FGSM-PGI (Jia et al. 2022, 2207.08859), which later ones lead on from.
    """

    name = "corner"

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """The steepest step along Gaussian noise keyed by seed, epoch and image; in the box."""
        batch.need_ids("the start 'corner'")
        noise = normal(key, batch.ids, batch.epochs, tuple(batch.x.shape[1:]))
        return project(ascend(batch.x, noise, norm=norm, step_size=eps), batch.x, norm=norm, eps=eps)


@STARTS.register
class NoiseStart(Start):
    """A noisy image that the attack takes for the image itself (N-FGSM, de Jorge et al. 2022).

    Noise of `radius` eps is added and the attack moves by up to eps from there: the result is not
    projected onto the ball around the clean image, which is the point of N-FGSM (2202.01181). No cost.
    """

    name = "noise"
    augments = True
    radius: Annotated[float, Field(gt=0, le=100, description="reach of the uniform noise, in units of eps")] = 2.0

    def begin(self, batch: Batch, *, norm: Norm, eps: float, key: int, state: PolicyState) -> Tensor:
        """Noise keyed by seed, epoch and image, in the box only."""
        batch.need_ids("the start 'noise'")
        reach = self.radius * eps
        return start_point(batch.x, norm=norm, eps=reach, key=key, ids=batch.ids, epochs=batch.epochs)


def where_images(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``first`` for the images of a condition (B,), else ``second``; both (B, C, H, W)."""
    return torch.where(condition.view(-1, *[1] * (first.dim() - 1)), first, second)
