"""Attacks of one's own in an evaluation: what they may do, and what they may return."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks import Attack, ThreatModel, autoattack
from advprune_core.attacks.evaluate import evaluate
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Split
from tests.networks import linear

EPS = 0.25
X = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(1)) / 2 + 0.25


def split() -> Split:
    return Split(X.clone(), linear()(X).argmax(1))


class Own(Attack):
    """Does to the images what it is told to."""

    name = "own"
    does: ClassVar[Callable[[nn.Module, Tensor], Any]]

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        found: Tensor = type(self).does(model, x)
        return found


def own(does: Callable[[nn.Module, Tensor], Any]) -> Attack:
    """An attack of one's own; each has a class of its own."""

    class One(Own):
        pass

    One.does = staticmethod(does)  # type: ignore[assignment]
    return One()


def grey(model: nn.Module, x: Tensor) -> Tensor:
    """Far enough to break images, and inside the ball."""
    return x + (0.5 - x).sign() * 0.2


#: Ways to say the same, all of which count.
SAME: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "with a graph": lambda model, x: x.clone().requires_grad_() + (grey(model, x) - x),
    "float64": lambda model, x: grey(model, x).double(),
    "in place": lambda model, x: x.copy_(grey(model, x)),
}


@pytest.mark.parametrize("way", SAME)
def test_what_an_attack_returns_is_taken_as_float32_without_a_graph(way: str, tmp_path: Path) -> None:
    expected = evaluate(linear(), split(), own(grey), eps=EPS)
    assert 0 < expected.accuracy < 1
    for work in (None, str(tmp_path)):  # what is kept is an array
        outcome = evaluate(linear(), split(), own(SAME[way]), eps=EPS, work=work)
        assert outcome.robust.tolist() == expected.robust.tolist()
        assert outcome.warnings == ()
    assert list(tmp_path.glob("*.npz"))


REFUSED: dict[str, tuple[Callable[[nn.Module, Tensor], Any], str]] = {
    "array": (lambda model, x: x.numpy(), r"the attack own gives an output of type ndarray"),
    "nothing": (lambda model, x: None, r"an output of type NoneType"),
    "another shape": (lambda model, x: x.flatten(1), r"outputs of shape \(7, 16\).*the images' shape, \(7, 1, 4, 4\)"),
    "fewer": (lambda model, x: x[:3], r"outputs of shape \(3, 1, 4, 4\)"),
    "whole numbers": (lambda model, x: (255 * x).to(torch.uint8), r"outputs of shape .* \(uint8\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_adversarial_images_is_named(case: str) -> None:
    does, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        evaluate(linear(), split(), own(does), eps=EPS)
    with pytest.raises(ConfigError, match=message):
        autoattack(linear(), split().images, split().labels, eps=EPS, version=[own(does)])


@pytest.mark.parametrize("batch_size", [3, 500])
@pytest.mark.parametrize("work", [False, True])
def test_images_outside_the_ball_are_told(batch_size: int, work: bool, tmp_path: Path) -> None:
    """Of seven images one is left where it was; read again from a folder, it is told again."""
    ids = X[:, 0, 0, 0]
    away = own(lambda model, x: x + (x[:, :1, :1, :1] != ids[2]).float())
    options: dict[str, Any] = {"eps": EPS, "batch_size": batch_size, "work": tmp_path if work else None}
    for _ in range(2):
        with pytest.warns(UserWarning, match="^own_1 left the ball") as caught:
            outcome = evaluate(linear(), split(), [own(grey), away], **options)
        assert [str(warning.message) for warning in caught] == list(outcome.warnings)
        standing = outcome.attacks["own"]
        assert outcome.robust.tolist() == standing.tolist()
        left = int(standing.sum()) - bool(standing[2])
        assert outcome.outside == {"own_1": left}
        assert f"on {left} images, which count as not broken by it" in outcome.warnings[0]


def test_an_attack_leaves_the_model_as_it_was(
    network: Any, images: Any, nothing_left: Callable[..., AbstractContextManager[None]]
) -> None:
    def careless(model: nn.Module, x: Tensor) -> Tensor:
        model.requires_grad_(True).train()(x).sum().backward()
        return x + 0.01 * torch.randn_like(x).sign()

    model, (x, _) = network("preact_resnet18"), images(6)
    y = model(x).argmax(1)
    with nothing_left(model, x), pytest.warns(UserWarning, match="in train mode|left the ball"):
        evaluate(model, Split(x, y), [own(careless)], eps=0.05)
