"""What makes a robust accuracy meaningless, found before any work: errors and warnings that say what to do."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from advprune_core.attacks.geometry import check_images
from advprune_core.attacks.losses import cross_entropy
from advprune_core.attacks.mode import no_trace, true_float32
from advprune_core.attacks.search import Search

#: Images that the questions are asked of.
SAMPLE = 32


def check_model(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Look at a model through a few images; leaves it as it was.

    Raises
    ------
    ValueError
        An empty batch, images outside [0, 1], labels that the model has no logit for.

    Warns
    -----
    UserWarning
        Model in train mode; random outputs; probabilities instead of logits; images without a
        gradient; fewer than four classes.
    """
    if len(x) == 0:
        raise ValueError("the batch is empty: there is nothing to attack")
    check_images(x)
    if any(module.training for module in model.modules()):
        _warn("the model is in train mode: it is attacked in eval mode and put back; call model.eval() to say so")
    largest, least = int(y.max()), int(y.min())
    x, y = x[:SAMPLE], y[:SAMPLE]
    search = Search(model)
    with no_trace(model), true_float32(x.device):
        gradient, _, logits = search.gradient(x, lambda logits: cross_entropy(logits, y.clamp(0, logits.shape[1] - 1)))
        again = search.logits(x)
    classes = logits.shape[1]
    if largest >= classes or least < 0:
        raise ValueError(f"the labels are {least} to {largest}, but the model has {classes} classes, from 0")
    if classes < 4:
        _warn(
            f"the model has {classes} classes, and the targeted DLR loss needs 4: its denominator is "
            f"{'that of the untargeted one' if classes == 3 else '1, so that the loss is the margin'}"
        )
    if float((logits - again).abs().max()) > 1e-4 * max(1.0, float(logits.abs().max())):
        _warn(
            "the outputs are random: two passes of the same images differ in eval mode, so that no attack here "
            "is strong and no number reliable; fix the randomness, or attack the mean of several passes"
        )
    if float(logits.min()) >= 0 and float((logits.sum(1) - 1).abs().max()) < 1e-4:
        _warn(
            "the outputs look like probabilities (not below 0, sums of 1): attacks need logits, because softmax "
            "hides the gradient; leave the softmax out of the model"
        )
    silent = int((gradient.flatten(1).abs().amax(1) == 0).sum())
    if silent:
        _warn(
            f"{silent} of {len(x)} images have no gradient at all: gradients are masked (saturated or "
            "non-differentiable parts), so that only Square, which needs none, can be trusted"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
