"""Whatever model and arguments a public attack is given: a value, or one sentence of one kind of error."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from advprune_core.attacks import (
    ThreatModel,
)
from advprune_core.attacks.evaluate import Outcome, evaluate
from advprune_core.base.settings import AdvpruneError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Split
from advprune_core.models.base import check_model
from tests.networks import ATTACKS, Around, linear

FUZZ = settings(derandomize=True, max_examples=120)
CLASSES, SIDE = 4, 4

#: What a network's input and outputs may be made into.
BEFORE: dict[str, Callable[[Tensor], Any]] = {
    "nothing": lambda x: x,
    "in place": lambda x: x.add_(1),
    "in place, hidden": lambda x: x.data.add_(1),
    "detached": lambda x: x.detach(),
    "numpy": lambda x: torch.from_numpy(np.asarray(x)),
    "rounded": lambda x: x.round(),
    "float64": lambda x: x.double(),
    "twice the images": lambda x: torch.cat([x, x]),
}
AFTER: dict[str, Callable[[Tensor], Any]] = {
    "nothing": lambda z: z,
    "huge": lambda z: z * 1e4,
    "tiny": lambda z: z * 1e-30,
    "nan": lambda z: z * math.nan,
    "inf": lambda z: z / 0,
    "constant": lambda z: z * 0,
    "softmax": lambda z: z.softmax(1),
    "dropout": lambda z: nn.functional.dropout(z, 0.5, training=True),
    "tuple": lambda z: (z, z),
    "dict": lambda z: {"logits": z},
    "none": lambda z: None,
    "whole numbers": lambda z: z.long(),
    "one class": lambda z: z[:, :1],
    "two classes": lambda z: z[:, :2],
    "no dimension": lambda z: z.sum(),
    "maps": lambda z: z[:, :, None, None],
    "bfloat16": lambda z: z.bfloat16(),
    "an error": lambda z: 1 // 0,
}


@st.composite
def models(draw: Any) -> Any:
    kind = draw(st.sampled_from(["own"] * 6 + ["frozen", "train", "meta", "scripted", "pixels", "none", "class"]))
    if kind in ("none", "class"):
        return None if kind == "none" else Around
    if kind == "scripted":
        return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES)))
    if kind == "pixels":
        return nn.Flatten()
    before, after = (things[draw(st.sampled_from(sorted(things)))] for things in (BEFORE, AFTER))
    model = linear(after, before)
    if kind == "meta":
        return model.to("meta")
    return model.requires_grad_(kind != "frozen").train(kind == "train")


def images(n: int) -> Tensor:
    return torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(n))


X, Y = images(3), torch.tensor([0, 1, 3])
IMAGES: list[Any] = [
    X, X.double(), X.bfloat16(), X.half(), X.to(torch.uint8), X.bool(), X * 255, X - 0.5, X * math.nan, X[:0], X[0],
    X[:, :, :0], X.to("meta"), X.numpy(), X.tolist(), None, X + 1e-7, X.clone().requires_grad_(), X.to_sparse(),
    X.repeat(1, 3, 1, 1), X.to(torch.complex64),
]  # fmt: skip
LABELS: list[Any] = [
    Y, Y.int(), Y.to(torch.uint8), Y.float(), Y.bool(), Y + 1, Y - 1, Y[:2], Y[:0], Y[:, None], torch.eye(4)[Y],
    torch.tensor([0, 1, 1_000_000]), torch.tensor([0, 1, 2**62]), [0, 1, 3], Y.numpy(), None, Y.to("meta"), 3,
]  # fmt: skip
NUMBERS: list[Any] = [
    0, 1, 2, -1, 0.1, 1.5, 8, 255, math.nan, math.inf, True, None, "8/255", "1/0", "", "x", 10**30, np.float32(0.1),
    np.int64(2), torch.tensor(2), torch.tensor([1, 2, 3]), torch.tensor([0.1, 0.2, 0.3]), [1], 0j,
]  # fmt: skip
WORDS: list[Any] = [
    "linf", "Linf", "L2", "inf", "l1", "", "cross_entropy", "margin", "kl", "dlr", "clean", "random", "train", "eval",
    "volume", "radius", "float32", "float16", "standard", None, 2, True, X, X[:1], ["linf"], {},
]  # fmt: skip
THREATS: list[Any] = [None, ThreatModel(eps=0.1), ThreatModel(norm="l2", eps=0.5), "linf", 0.1, {"eps": 0.1}]
#: Names of arguments, and what they are likely to be given.
ARGUMENTS: dict[str, list[Any]] = {
    "threat": THREATS,
    "norm": WORDS,
    "eps": NUMBERS,
    "seed": NUMBERS,
    "ids": [*LABELS, *NUMBERS],
    **dict.fromkeys(("steps", "restarts", "queries", "targets", "step_size", "batch_size"), NUMBERS),
    **dict.fromkeys(("loss", "start", "mode", "uniform", "precision"), WORDS),
    "labels": LABELS,
}
SOME = {"steps": 2}


def value_or_sentence(call: Callable[[], Any]) -> Any:
    """The value of a call, or None where it was refused as people should be refused."""
    refusal = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except AdvpruneError as error:
            refusal = str(error)
    assert 15 < len(refusal) < 600
    assert "Traceback" not in refusal
    return None


def untouched(before: Any, after: Any) -> bool:
    if not isinstance(before, Tensor) or before.is_meta:
        return True
    return torch.equal(before.to_dense().nan_to_num(), after.detach().to_dense().nan_to_num())


@FUZZ
@given(models(), st.sampled_from(sorted(ATTACKS)))
def test_any_model(model: Any, name: str) -> None:
    attack = ATTACKS[name]
    x, flags = X.clone(), [m.training for m in model.modules()] if isinstance(model, nn.Module) else []
    result = value_or_sentence(lambda: attack(model, x, Y, eps=0.1))
    assert torch.equal(x, X)
    assert not flags or flags == [m.training for m in model.modules()]
    if isinstance(result, Tensor):
        assert result.isfinite().all()
        assert ((result - X).abs() <= 0.1 + 1e-6).all()
        assert 0 <= result.min() <= result.max() <= 1


@FUZZ
@given(models(), st.sampled_from(["fgsm", "square", {"pgd": SOME}, "autoattack"]))
def test_any_model_is_evaluated_or_refused(model: Any, attack: Any) -> None:
    attack = {"autoattack": {"version": [{"apgd": SOME}]}} if attack == "autoattack" else attack
    attack = {"square": {"queries": 3}} if attack == "square" else attack
    split = Split(X.clone(), Y)
    result = value_or_sentence(lambda: evaluate(model, split, attack, eps=0.1))
    assert torch.equal(split.images, X)
    assert result is None or (isinstance(result, Outcome) and not (result.robust & ~result.clean).any())


@FUZZ
@given(models())
def test_any_model_is_trained_or_refused(model: Any) -> None:
    x = (images(40)[:, 0].numpy() * 255).astype(np.uint8)
    dataset = dataset_from_arrays(x, np.arange(40) % CLASSES, x, np.arange(40) % CLASSES, val_select=0, val_stop=0)
    before = dataset.train.images.clone()
    value_or_sentence(lambda: check_model(model, dataset))
    assert torch.equal(dataset.train.images, before)


@FUZZ
@given(st.sampled_from(sorted(ATTACKS)), st.sampled_from(range(len(IMAGES))), st.sampled_from(range(len(LABELS))))
def test_any_images_and_labels(name: str, image: int, label: int) -> None:
    attack = ATTACKS[name]
    x, y = IMAGES[image], LABELS[label]
    kept = [value.detach().clone() if isinstance(value, Tensor) else value for value in (x, y)]
    result = value_or_sentence(lambda: attack(linear(), x, y, eps=0.1))
    assert all(map(untouched, kept, (x, y)))
    assert result is None or isinstance(x, Tensor)


@FUZZ
@given(st.sampled_from(sorted(ATTACKS)), st.data())
def test_any_arguments(name: str, data: st.DataObject) -> None:
    attack = ATTACKS[name]
    taken = [argument for argument in inspect.signature(attack).parameters if argument in ARGUMENTS]
    names = data.draw(st.lists(st.sampled_from(taken), min_size=1, max_size=3, unique=True))
    chosen = {
        argument: ARGUMENTS[argument][data.draw(st.integers(0, len(ARGUMENTS[argument]) - 1))] for argument in names
    }
    given = {"eps": 0.1, **chosen}
    if any(isinstance(given.get(count), int) and given[count] > 100 for count in ("steps", "restarts", "queries")):
        return  # they would be made
    value_or_sentence(lambda: attack(linear(), X, Y, **given))


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_the_plain_call_is_no_refusal(name: str) -> None:
    """A fuzz test of calls that are all refused would show nothing."""
    attack = ATTACKS[name]
    assert value_or_sentence(lambda: attack(linear(), X, Y, eps=0.1)) is not None
