"""What every public attack refuses, with a sentence, and what it converts; one table over all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks import (
    FGSM,
    PGD,
    ThreatModel,
    apgd,
    apgd_targeted,
    autoattack,
    pgd,
    square,
)
from advprune_core.attacks.evaluate import evaluate
from advprune_core.base.settings import AdvpruneError
from advprune_core.datasets.splits import Split
from tests import networks
from tests.networks import linear


def _evaluate(model: Any, x: Any, y: Any, **given: Any) -> Any:
    return evaluate(model, Split(x, y), [PGD(steps=2)], **given)


ATTACKS: dict[str, Callable[..., Any]] = {**networks.ATTACKS, "evaluate": _evaluate}
EVERY = pytest.mark.parametrize("attack", ATTACKS)
#: These differentiate, so they cannot attack what hides its gradient.
BY_GRADIENT = [name for name in ATTACKS if name not in ("square", "evaluate")]
X = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 3])


def adds_in_place(x: Tensor) -> Tensor:
    x += 1
    return x


def hides_that_it_adds(x: Tensor) -> Tensor:
    with torch.no_grad():
        x.add_(1)
    return x


def through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": "resnet"}, "must be an nn.Module, not str"),
    "a function": ({"model": lambda x: x.flatten(1)}, "must be an nn.Module, not function"),
    "meta": ({"model": linear().to("meta")}, "on the meta device"),
    "tuple": ({"model": linear(lambda z: (z, z))}, "an output of type tuple for .* one tensor of logits"),
    "dict": ({"model": linear(lambda z: {"logits": z})}, "an output of type dict"),
    "one number each": ({"model": linear(lambda z: z[:, 0])}, r"outputs of shape \(\d,\)"),
    "maps": ({"model": linear(lambda z: z[:, :, None])}, r"outputs of shape \(\d, 4, 1\)"),
    "classes": ({"model": linear(lambda z: z.argmax(1)[:, None])}, r"\(int64\)"),
    "NaN": ({"model": linear(lambda z: z * float("nan"))}, "outputs are NaN or infinite for .* images"),
    "overflow": ({"model": linear(lambda z: z.exp().exp() * 1e38 * 1e38)}, "outputs are NaN or infinite"),
    "in place": ({"model": linear(before=adds_in_place)}, r"its input in place.*use x = x \+ 1 instead of x \+= 1"),
    "in place, hidden": ({"model": linear(before=hides_that_it_adds)}, "changes its input in place"),
    "other channels": ({"model": nn.Conv2d(3, 4, 4)}, r"cannot take images of shape \(.*1, 4, 4\) \(float32, on cpu\)"),
    "float64": ({"model": linear().double()}, r"cannot take images of shape .*\(float32"),
    "an error of its own": ({"model": linear(lambda z: z.no_such_thing())}, "cannot take images .*no_such_thing"),
    "array": ({"x": X.numpy()}, "a torch tensor of floats in .0, 1., not ndarray"),
    "grey levels": ({"x": (X * 255).to(torch.uint8)}, "divided by 255 if they are grey levels; these are uint8"),
    "whole numbers": ({"x": (X > 0.5).long()}, "must be floats in .0, 1.; these are int64"),
    "one image": ({"x": X[0]}, r"must have the shape \(B, C, H, W\), not \(1, 4, 4\)"),
    "no pixels": ({"x": X[:, :, :0]}, "have no pixels"),
    "normalised": ({"x": (X - 0.5) / 0.25}, r"must lie in \[0, 1\], these are in \[-.*normalise inside"),
    "not finite": ({"x": X * float("nan")}, r"must lie in \[0, 1\], these are in \[nan"),
    "slightly out": ({"x": X * 0.5 + 0.501}, r"must lie in \[0, 1\]"),
    "images on meta": ({"x": X.to("meta")}, "on meta"),
    "labels as floats": ({"y": Y.float()}, "labels must be a tensor of whole numbers .*one of float32"),
    "labels as a list": ({"y": [0, 1, 2, 3]}, "labels must be a tensor of whole numbers .*not list"),
    "one-hot labels": ({"y": torch.eye(4).long()}, r"labels have shape \(4, 4\), for 4 images it must be \(4,\)"),
    "labels below 0": ({"y": Y - 1}, "labels are classes from 0, but the least is -1"),
    "labels from 1": ({"y": Y + 1}, "a label is 4, but the model has 4 classes, whose labels are 0 to 3"),
    "a label of a million": ({"y": torch.tensor([0, 1, 1, 1_000_000])}, "a label is 1000000"),
    "no eps": ({"eps": None}, "the radius is missing"),
    "eps 8": ({"eps": 8}, "more than the whole range of a pixel.*'8/255'"),
    "eps of words": ({"eps": "large"}, "eps must be a number above 0, or a ratio"),
    "norm": ({"norm": "l1"}, "unknown norm 'l1'.*allowed: l2, linf"),
    "both": ({"threat": ThreatModel()}, "not both"),
    "a dict as threat": ({"threat": {"eps": 0.1}, "eps": None}, "threat must be a ThreatModel"),
}  # fmt: skip
#: A `Split` may hold grey levels, and says the others in its own words.
NOT_OF_A_SPLIT = {"array", "labels as a list", "grey levels", "one image"}


@pytest.mark.parametrize("case", REFUSED)
@EVERY
def test_what_every_attack_refuses(attack: str, case: str) -> None:
    if attack == "evaluate" and case in NOT_OF_A_SPLIT:
        return
    change, message = REFUSED[case]
    given: dict[str, Any] = {"model": linear(), "x": X.clone(), "y": Y, "eps": 0.1, **change}
    before = given["x"].clone() if isinstance(given["x"], Tensor) else None
    model, x, y = given.pop("model"), given.pop("x"), given.pop("y")
    with pytest.raises(AdvpruneError, match=message) as caught:
        ATTACKS[attack](model, x, y, **given)
    assert re.fullmatch(r"[^\n]{20,400}", str(caught.value)), "one sentence"
    if before is not None and not x.is_meta:
        assert torch.equal(x.nan_to_num(), before.nan_to_num()), "the data are never changed"


@pytest.mark.parametrize("change", ["no_grad", "detach", "numpy"])
@pytest.mark.parametrize("attack", BY_GRADIENT)
def test_models_that_hide_their_gradient(attack: str, change: str) -> None:
    before: dict[str, Callable[[Tensor], Tensor]] = {
        "no_grad": torch.no_grad()(lambda x: x * 1),
        "detach": lambda x: x.detach(),
        "numpy": through_numpy,
    }
    message = "cannot take images.*numpy" if change == "numpy" else "no gradient reaches the images.*such as square"
    with pytest.raises(AdvpruneError, match=message):
        ATTACKS[attack](linear(before=before[change]), X, linear()(X).argmax(1), eps=0.1)


def test_square_needs_no_gradient() -> None:
    model = linear(before=lambda x: x.detach())
    assert square(model, X, model(X).argmax(1), eps=0.1, queries=5).shape == X.shape
    with pytest.warns(UserWarning, match="only an attack without gradients"):
        evaluate(model, Split(X, model(X).argmax(1)), {"square": {"queries": 3}}, eps=0.1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("start", "randon", "unknown start 'randon' .did you mean 'random'"),
        ("start", 3, "start must be a name or a tensor"),
        ("start", X.half().double() * float("nan"), "not finite"),
        ("mode", "training", "unknown mode 'training' .did you mean 'train'"),
        ("loss", "ce", "unknown loss 'ce'; allowed: cross_entropy, kl, margin"),
        ("loss", None, "loss must be one of"),
        ("loss", "kl", r"the target holds the clean logits, floats of shape \(4, classes\)"),
        ("uniform", "ball", "unknown uniform 'ball'; allowed: radius, volume"),
        ("seed", -1, "seed must be a whole number of at least 0, not -1"),
        ("seed", True, "seed must be a whole number"),
        ("seed", 2**63, "seed must be a whole number"),
        ("steps", 2.5, "steps must be a whole number"),
        ("steps", torch.tensor([1, 2]), r"steps have shape \(2,\), for 4 images"),
        ("steps", torch.rand(4), "steps must be a tensor of whole numbers"),
        ("restarts", "2", "restarts must be a whole number"),
        ("step_size", "fast", "step_size must be a number above 0, or a ratio"),
        ("step_size", torch.ones(3), r"floats of shape \(4,\), not \(3,\)"),
        ("ids", torch.arange(3), r"ids have shape \(3,\)"),
        ("ids", "first", "ids must be a tensor of whole numbers"),
        ("labels", Y + 1, "a label is 4"),
    ],
)
def test_what_pgd_refuses(name: str, value: Any, message: str) -> None:
    with pytest.raises(AdvpruneError, match=message):
        pgd(linear(), X, Y, **{"eps": 0.1, "steps": 2, name: value})


@pytest.mark.parametrize(
    ("attack", "given", "message"),
    [
        (apgd, {"loss": "margin"}, "unknown loss 'margin'; allowed: cross_entropy, dlr"),
        (apgd, {"precision": "float16"}, "unknown precision 'float16'"),
        (apgd, {"start": X[:2]}, "start has shape"),
        (apgd_targeted, {"targets": 0}, "targets must be a whole number of at least 1"),
        (square, {"queries": 0}, "queries must be a whole number of at least 1"),
        (autoattack, {"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        (_evaluate, {"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        (_evaluate, {"seed": 0.5}, "seed must be a whole number"),
        (_evaluate, {"ids": torch.arange(3)}, "ids have shape"),
    ],
)
def test_what_others_refuse(attack: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(AdvpruneError, match=message):
        attack(linear(), X, Y, **{"eps": 0.1, **given})


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return a.robust.tolist() == b.robust.tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"x": X.clone().requires_grad_()},
        {"x": X.double()},
        {"x": X.clone(memory_format=torch.channels_last)},
        {"y": Y.to(torch.int32)},
        {"y": Y.to(torch.uint8)},
        {"eps": "1/10"},
        {"eps": np.float64(0.1)},
        {"norm": "Linf"},
        {"threat": ThreatModel(eps=0.1), "eps": None},
        {"ids": torch.arange(4, dtype=torch.int32)},
        {"seed": np.int64(0)},
    ],
    ids=lambda change: next(iter(change)) + str(next(iter(change.values())))[:12].replace("\n", ""),
)
@EVERY
def test_what_is_converted(attack: str, change: dict[str, Any]) -> None:
    if attack in ("fab_targeted", "fgsm") and {"ids", "seed"} & set(change):
        return  # without noise
    model = linear()
    y = model(X).argmax(1)
    given: dict[str, Any] = {"x": X, "y": y, "eps": 0.1, **change}
    if "y" in change:
        given["y"] = y.to(change["y"].dtype)
    x, labels = given.pop("x"), given.pop("y")
    expected = ATTACKS[attack](model, X, y, eps=0.1)
    assert _same(ATTACKS[attack](model, x, labels, **given), expected)
    with torch.inference_mode():
        inside = ATTACKS[attack](model, x.detach().clone(), labels, **given)
    assert _same(inside, expected)


@EVERY
def test_bfloat16_images_are_those_of_float32(attack: str) -> None:
    model, rough = linear(), X.bfloat16()
    y = model(rough.float()).argmax(1)
    assert _same(ATTACKS[attack](model, rough, y, eps=0.1), ATTACKS[attack](model, rough.float(), y, eps=0.1))


@EVERY
def test_rounding_out_of_the_box_is_clamped(attack: str) -> None:
    model, x = linear(), X.round()
    y = model(x).argmax(1)
    off = x + torch.where(x > 0, 5e-7, -5e-7)
    assert off.max() > 1 > 0 > off.min()
    assert _same(ATTACKS[attack](model, off, y, eps=0.1), ATTACKS[attack](model, x, y, eps=0.1))


class Pixels(nn.Module):
    """No parameters: four pixels are the logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4] * 9


def _frozen() -> nn.Module:
    return linear().requires_grad_(False)


OWN: dict[str, Callable[[], nn.Module]] = {
    "no parameters": Pixels,
    "frozen": _frozen,
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(16, 4))),
    "traced": lambda: torch.jit.trace(linear(), X[:1].detach()),
    "jit-frozen": lambda: torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval())),
    "bfloat16 outputs": lambda: linear(lambda z: z.bfloat16()),
    "a class ruled out": lambda: linear(lambda z: torch.cat([z, torch.full_like(z[:, :1], -torch.inf)], 1)),
}


#: These aim at classes, and one at minus infinity is no aim.
AIMING = ("fab_targeted", "apgd_targeted", "autoattack")
WORKING = [(attack, own) for attack in ATTACKS for own in OWN if own != "a class ruled out" or attack not in AIMING]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("attack", "own"), WORKING)
def test_models_of_ones_own_work(attack: str, own: str) -> None:
    model = OWN[own]()
    with torch.no_grad():
        y = model(X).argmax(1)
    result = ATTACKS[attack](model, X, y, eps=0.3)
    if isinstance(result, Tensor):
        assert ((result - X).abs().amax((1, 2, 3)) <= 0.3 + 1e-6).all()
        assert result.isfinite().all()
        if attack in ("pgd", "apgd") and own != "bfloat16 outputs":
            assert (model(result).argmax(1) != y).any()


def test_components_take_the_same(images: Any, network: Any) -> None:
    model, (x, y) = network("small_cnn"), images(5)
    threat = ThreatModel.create(norm="L2", eps="1/2")
    for attack in (FGSM(), PGD(steps=2), PGD(steps=2, loss="kl")):
        expected = attack.perturb(model, x, y, threat=threat, seed=0)
        assert torch.equal(attack.perturb(model, x.double(), y.int(), threat=threat, seed=0), expected)


def test_nan_at_the_end_of_the_way_is_found() -> None:
    """Finite at the images, not a number where the attack goes."""
    x = torch.full((2, 1, 4, 4), 0.5)
    wall = linear(before=lambda x: torch.where((x - 0.5).abs() > 0.05, float("nan"), x))
    assert wall(x).isfinite().all()
    for attack in (partial(pgd, steps=4), partial(apgd, steps=4), partial(square, queries=9)):
        with pytest.raises(AdvpruneError, match="NaN or infinite"):
            attack(wall, x, wall(x).argmax(1), eps=0.1)
