"""What makes a robust accuracy meaningless, found before any work: errors, and doubts that say what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from advprune_core.attacks.geometry import ThreatModel
from advprune_core.attacks.inputs import check_inputs
from advprune_core.attacks.losses import cross_entropy, margin
from advprune_core.attacks.search import Search
from advprune_core.base.settings import ConfigError
from advprune_core.models.mode import first_logits, no_trace, true_float32
from advprune_core.models.passes import PROBABILITIES, check_classes, check_sound, look_like_probabilities

#: Images that the questions are asked of.
SAMPLE = 32
#: The brightest pixel of grey levels 0..16 that were divided by 255.
BLACK = 16 / 255
#: The largest L-inf radius that is usual on photographs. L2 radii begin at more than twice that (36/255, of certified
#: networks on CIFAR): one up to here, where so many pixels share it that it hardly moves them, was meant in L-inf.
LARGEST_LINF = 16 / 255


def inspect(model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel) -> tuple[tuple[str, ...], int]:
    """Look at a model through a few images; leaves it, and them, as they were.

    Costs 4 forward-equivalents of at most `SAMPLE` images, 2 more where gradients vanish.

    Parameters
    ----------
    model : nn.Module
    x : Tensor of float32, shape (B, C, H, W)
        The first images of an evaluation, on the model's device.
    y : Tensor of int64, shape (n,)
        All its labels.
    threat : ThreatModel

    Returns
    -------
    doubts : tuple of str
        Model in train mode; random outputs; probabilities instead of logits; gradients that vanish;
        images that are nearly black; a radius that makes every image grey; an L2 radius in units of L-inf.
    classes : int
        Number of logits.

    Raises
    ------
    ConfigError
        What `inputs.check_inputs` refuses; a model that changes its input, gives no finite logits, or
        none for a label.
    """
    given = check_inputs(model, x[:SAMPLE], y[:SAMPLE], threat=threat)
    x, labels = given.x, given.y
    doubts = [*doubts_of_images(x, threat)]
    if any(isinstance(module, _NormBase | _DropoutNd) and module.training for module in model.modules()):
        doubts.append(
            "the model is in train mode (dropout, normalisation): it is attacked in eval mode and put back; "
            "call model.eval() to say so"
        )
    search = Search(model, classes=int(y.max()) + 1)
    with no_trace(model), true_float32(x.device):
        logits = first_logits(model, x)
        check_classes(logits, search.classes)
        check_sound(logits)
        doubts += _doubts_of_gradients(search, x, labels, logits)
        again = search.logits(x)
    if float((logits - again).abs().max()) > 1e-4 * max(1.0, float(logits.abs().max())):
        doubts.append(
            "the outputs are random: two passes of the same images differ in eval mode (dropout that is always on?), "
            "so that no attack here is strong and no number reliable; fix the randomness, or attack the mean of "
            "several passes"
        )
    if look_like_probabilities(logits):
        doubts.append(PROBABILITIES)
    return tuple(doubts), logits.shape[1]


def doubts_of_images(x: Tensor, threat: ThreatModel) -> Iterator[str]:
    """What images (B, C, H, W) in [0, 1] and a threat model say by themselves."""
    brightest, pixels = float(x.max()), x[0].numel()
    if brightest <= BLACK + 1e-6:
        yield (
            f"the images are nearly black (brightest pixel {brightest:.3f}): grey levels of 0 to {255 * brightest:.0f} "
            "that were divided by 255? Give floats in [0, 1], or eps is many times what it says"
        )
    grey = 0.5 if threat.norm == "linf" else 0.5 * math.sqrt(pixels)
    if threat.eps >= grey:
        yield (
            f"eps = {threat.eps:g} turns any image of {pixels} pixels into plain grey ({threat.norm}, from {grey:g}): "
            "no model can be robust; it is in units of [0, 1], 8 grey levels are '8/255'"
        )
    moved = threat.eps / math.sqrt(pixels)
    if threat.norm == "l2" and threat.eps <= LARGEST_LINF and moved < 1 / 255:
        yield (
            f"eps = {threat.eps:g} in L2 is next to no attack: spread over {pixels} pixels it moves each by "
            f"{255 * moved:.2g} of 255 grey levels; was an L-inf radius meant? Usual in L2 are 0.5 for 3x32x32 pixels "
            "and 2 for 28x28"
        )


def _doubts_of_gradients(search: Search, x: Tensor, y: Tensor, logits: Tensor) -> Iterator[str]:
    """What attacks cannot climb: images whose gradient is 0, or below what float32 holds in full."""

    def vanish(loss: Callable[[Tensor], Tensor]) -> int:
        try:
            gradient, _, _ = search.gradient(x, loss)
        except ConfigError:  # the model detaches its input: no attack by gradients gets as far as this
            return len(x)
        return int((gradient.flatten(1).abs().amax(1) < torch.finfo(gradient.dtype).tiny).sum())

    if not (silent := vanish(lambda logits: cross_entropy(logits, y))):
        return
    if vanish(lambda logits: margin(logits, y)) < silent:
        yield (
            f"the cross-entropy has no gradient on {silent} of {len(x)} images, whose logits are too large for it (up "
            f"to {float(logits.abs().max()):.3g}): gradients are masked, and attacks on the cross-entropy are blind; "
            "believe those on the margin (pgd with loss: margin, autoattack)"
        )
    else:
        yield (
            f"{silent} of {len(x)} images have no gradient at all: gradients are masked (saturated or "
            "non-differentiable parts), so that only an attack without gradients (square) can be trusted"
        )
