"""One image under attack: what the attack adds, and what that does to the network's answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from advprune_core.analysis.style import BLUE, ORANGE
from advprune_core.attacks.apgd import APGD
from advprune_core.attacks.base import FGSM, PGD, Attack
from advprune_core.attacks.fab import FABT
from advprune_core.attacks.geometry import ThreatModel
from advprune_core.attacks.square import Square
from advprune_core.base.settings import ConfigError
from advprune_core.explore.networks import Network
from advprune_core.explore.pictures import blank
from advprune_core.models.mode import quiet_logits
from advprune_core.pruners.steps_to_break import steps_to_break

#: Attacks to choose from, by what they are called.
ATTACKS: dict[str, Attack] = {
    "FGSM (1 step)": FGSM(),
    "PGD, 10 steps": PGD(steps=10),
    "PGD, 40 steps": PGD(),
    "PGD, 40 steps, on the margin": PGD(loss="margin"),
    "APGD": APGD(),
    "FAB, targeted": FABT(),
    "Square (no gradients)": Square(),
}
#: Steps that are tried until an image breaks.
STEPS = 20


@dataclass(frozen=True, eq=False)
class Attacked:
    """An image before and after an attack.

    Attributes
    ----------
    before, after : Tensor, shape (C, H, W)
        In [0, 1].
    logits_before, logits_after : Tensor, shape (classes,)
    label : int
    eps : float
    steps_to_break : int
        Steps of PGD from the clean image within eps: 0 for an image that is wrong anyway, `STEPS` + 1 for one
        that withstands them all.
    """

    before: Tensor
    after: Tensor
    logits_before: Tensor
    logits_after: Tensor
    label: int
    eps: float
    steps_to_break: int

    def text(self) -> str:
        """What happened, in a sentence or two."""
        said, now = int(self.logits_before.argmax()), int(self.logits_after.argmax())
        if said != self.label:
            return f"Class {self.label}; taken for {said} without any attack."
        told = f"Class {self.label}, and recognised. Under attack within {self.eps:.3f}: "
        told += "still recognised." if now == said else f"taken for {now}."
        if self.eps == 0:
            return told
        steps = self.steps_to_break
        step = f"{steps} step{'s' * (steps != 1)}"
        return told + (f" Withstands {STEPS} steps of PGD." if steps > STEPS else f" Breaks after {step} of PGD.")


def attack_image(network: Network, place: int, *, attack: Attack, eps: float) -> Attacked:
    """Attack a training image within the network's norm.

    Parameters
    ----------
    place : int
        In the training split.
    eps : float
        Radius in units of [0, 1]; 0: no attack.

    Raises
    ------
    ConfigError
        No such image.
    """
    split = network.dataset.train
    if not 0 <= place < len(split):
        raise ConfigError(f"there is no training image {place}: they are 0 to {len(split) - 1}")
    x, y = split.pixels(slice(place, place + 1)), split.labels[place : place + 1]
    norm, after, steps = network.config.attack.norm, x, torch.zeros(1)
    if eps:
        threat = ThreatModel(norm=norm, eps=eps)
        after = attack.perturb(network.model, x, y, threat=threat, seed=0, ids=torch.tensor([place]))
        steps = steps_to_break(network.model, x, y, norm=norm, eps=eps, steps=STEPS)
    logits, logits_after = (quiet_logits(network.model, images)[0] for images in (x, after))
    return Attacked(x[0], after[0], logits, logits_after, label=int(y), eps=eps, steps_to_break=int(steps))


def attack_figure(found: Attacked) -> Figure:
    """The image, what the attack adds (enlarged), the attacked image, and the logits before and after."""
    figure = blank(width=9, height=2.7)
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.7))
    change = (found.after - found.before).permute(1, 2, 0).numpy()
    largest = max(float(np.abs(change).max()), 1e-9)
    times = min(10.0, 0.5 / largest)  # more would leave [0, 1]
    pictures = {
        "image": found.before.permute(1, 2, 0).numpy(),
        f"what is added (x{times:.2g})": 0.5 + times * change,
        f"attacked, eps {found.eps:.3f}": found.after.permute(1, 2, 0).numpy(),
    }
    for axis, (title, image) in zip(axes, pictures.items(), strict=False):
        axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    classes = np.arange(len(found.logits_before))
    axes[3].bar(classes - 0.2, found.logits_before.numpy(), 0.38, color=BLUE, label="before")
    axes[3].bar(classes + 0.2, found.logits_after.numpy(), 0.38, color=ORANGE, hatch="///", label="after")
    axes[3].axhline(0, color="0.5", linewidth=0.8)
    axes[3].set_xticks(classes if len(classes) <= 20 else classes[::10])
    axes[3].set_title(f"logits by class (it is a {found.label})", fontsize=9)
    axes[3].legend(frameon=False, fontsize=8)
    return figure
