"""Adversarial weight perturbation: the loss is minimised at the worst weights nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import scale
from advprune_core.models.mode import no_trace


@contextmanager
def perturbed_weights(model: nn.Module, loss: Callable[[], Tensor], *, gamma: float) -> Iterator[None]:
    """Run a block at weights moved along their gradient, by `gamma` times each layer's norm.

    Biases and normalisation parameters stay. Helps against robust overfitting: flatter minima.
    Usual setting: gamma 0.005. Cost: one more forward and full backward pass.

    Parameters
    ----------
    model : nn.Module
        In training mode; its buffers are not touched by the extra pass.
    loss : callable
        Computes the loss of the batch, a scalar with its graph.
    gamma : float
        Relative size of the perturbation.

    References
    ----------
    Wu, Xia, Wang, Adversarial Weight Perturbation Helps Robust Generalization, NeurIPS 2020
    (2004.05884), eq. (8) to (10), one step.
    """
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1 and parameter.requires_grad]
    with no_trace(model, "train"):
        gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                gradient = gradient * scale(gradient[None])  # squares of small gradients are 0
                floor = torch.finfo(gradient.dtype).tiny
                weight.add_(gradient * (gamma * weight.norm() / gradient.norm().clamp(min=floor)))
    torch.clear_autocast_cache()  # its copies are of the weights before this
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
        torch.clear_autocast_cache()
