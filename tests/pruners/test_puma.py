"""DeepFool's distances against those of networks whose boundary is known, and what PUMA keeps by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks.geometry import Norm
from advprune_core.base.ledger import Ledger
from advprune_core.models.mode import no_trace
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.pruners.puma import OVERSHOOT, PUMA, boundary_distance
from tests.contexts import beside_a_boundary, context


class Bent(nn.Module):
    """Class 1 where the mean pixel is above 0.5; the logits bend, so that one step does not reach 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.mean((1, 2, 3)) - 0.5
        light = light + 8 * light**3
        return torch.stack([-light, light], 1)


def constant() -> nn.Module:
    """Class 1, whatever the image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([0.0, 1.0]))
    return model


def flat(light: list[float]) -> Tensor:
    return torch.tensor(light)[:, None, None, None].expand(len(light), 1, 2, 2)


@pytest.mark.parametrize(("norm", "unit"), [("linf", 1.0), ("l2", 2.0)])
def test_distances_to_a_known_boundary(norm: Norm, unit: float) -> None:
    """Of four pixels each has to move by the distance of the mean: in L2 twice as far. Wrong images are at 0."""
    light = [0.45, 0.5, 0.51, 0.6, 0.75, 0.95]
    found = boundary_distance(Bent(), flat(light), torch.ones(6).long(), norm=norm)
    exact = unit * (np.array(light) - 0.5).clip(0)
    assert (found.numpy() >= exact - 1e-6).all(), "an image is broken only beyond the boundary"
    np.testing.assert_allclose(found, exact, rtol=1.5 * OVERSHOOT, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_distances_of_a_linear_network(norm: Norm) -> None:
    """``lead / |w_label - w_other|`` in the dual norm."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    x = (0.45 + 0.1 * torch.rand(40, 3, 2, 2, generator=generator)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 12, generator=generator))
        logits = model(x)
        model[1].bias -= logits.mean(0)  # a boundary amid the images
        y, logits = model(x).argmax(1), model(x)
        normal = (model[1].weight[0] - model[1].weight[1]).norm(p=1 if norm == "linf" else 2)
        exact = (logits[:, 0] - logits[:, 1]).abs() / normal
    found = boundary_distance(model, x, y, norm=norm, steps=1)
    torch.testing.assert_close(found, (1 + OVERSHOOT) * exact, rtol=1e-6, atol=1e-9)
    assert (boundary_distance(model, x, 1 - y, norm=norm) == 0).all()


@pytest.mark.parametrize(("norm", "diameter"), [("linf", 1.0), ("l2", 2.0)])
def test_an_image_that_stands_is_the_farthest(norm: Norm, diameter: float) -> None:
    """No step leads out of a flat network, and one is too few for a bent one."""
    assert boundary_distance(constant(), flat([0.3]), torch.tensor([1]), norm=norm).tolist() == [diameter]
    near, far = boundary_distance(Bent(), flat([0.51, 0.9]), torch.tensor([1, 1]), norm=norm, steps=1).tolist()
    assert near < 0.1
    assert far == diameter


def deepfool(model: nn.Module, image: Tensor, label: int, *, norm: Norm, steps: int, classes: int) -> float:
    """DeepFool of one image, as the paper writes it; the diameter of the box where it does not arrive."""
    far = 1.0 if norm == "linf" else float(image.numel()) ** 0.5
    x, total = image[None], torch.zeros_like(image)[None]
    first = model(x)[0].detach()
    others = [int(k) for k in first.argsort(descending=True) if k != label][:classes]
    for step in range(steps + 1):
        x = (image[None] + (1.02 if step else 0) * total).requires_grad_()
        logits = model(x)[0]
        if int(logits.argmax()) != label:
            size = ((x - image).abs().max() if norm == "linf" else (x - image).norm()).item()
            return min(size, far)
        moves = []
        for k in others:
            f = logits[k] - logits[label]
            (w,) = torch.autograd.grad(f, x, retain_graph=True)
            length = (f.abs() / (w.abs().sum() if norm == "linf" else w.norm())).item()
            moves.append((length, length * (w.sign() if norm == "linf" else w / w.norm())))
        total = total + min(moves, key=lambda move: move[0])[1]
    return far


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [1, 2, 9])
def test_deepfool_image_by_image(norm: Norm, classes: int) -> None:
    made = context()
    model, split = made.network.eval().double(), made.dataset.train
    x, y = split.pixels(slice(0, 40)).double(), split.labels[:40]
    with no_trace(model):
        expected = [
            deepfool(model, image, int(label), norm=norm, steps=2, classes=classes)
            for image, label in zip(x, y, strict=True)
        ]
    found = boundary_distance(model, x, y, norm=norm, steps=2, classes=classes)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert len(np.unique(expected)) > 30


def test_puma_keeps_the_nearest_in_the_norm_of_the_run() -> None:
    for norm, eps in (("linf", 0.15), ("l2", 0.5)):
        made = context(0.3, attack=AttackPolicy.create(norm=norm, eps=eps, steps=2))
        split = made.dataset.train
        distance = boundary_distance(made.network, split.pixels(slice(0, made.n)), split.labels, norm=norm).numpy()
        np.testing.assert_allclose(PUMA().scores(made), distance, rtol=1e-5, atol=1e-7)
        selection = PUMA().select(made)
        beyond = distance[selection.indices] > np.sort(distance)[made.k - 1] * (1 + 1e-5)
        assert beyond.sum() <= selection.n_filled <= 3


def test_the_hardest_that_are_cut_are_the_nearest() -> None:
    """On one side of the boundary and the other; 0.5 is where it is."""
    pruner = PUMA.create(keep={"stratified": {"hard_cutoff": 0.3}})
    kept = pruner.select(context(0.7, dataset=beside_a_boundary(), model=Bent()))
    assert kept.indices.tolist() == [1, 2, 3, 5, 6, 7, 8]


def test_what_broken_images_and_standing_ones_cost() -> None:
    """One that is wrong costs its first pass; one that stands 2 a step with one other class, and the last look."""
    for model, light, cost in ((Bent(), [0.4, 0.45], 2), (constant(), [0.3], 1 + 3 * 2 + 1)):
        ledger = Ledger()
        with ledger.watch(model), ledger.phase("select"):
            boundary_distance(model, flat(light), torch.ones(len(light)).long(), steps=3)
        assert ledger.passes == {"select": cost}
    made, ledger = context(), Ledger()
    model, split = made.network.eval(), made.dataset.train
    x, y = split.pixels(slice(0, made.n)), split.labels
    with torch.no_grad():
        right = int((model(x).argmax(1) == y).sum())
    with ledger.watch(model), ledger.phase("select"):
        boundary_distance(model, x, y, steps=1, classes=2)
    assert ledger.passes == {"select": made.n + right * (1 + 2) + right}
