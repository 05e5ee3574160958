"""Convolutions alone: every one of a pass, doing what the pass does, and amounts that add up as steps do."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advprune_core.base.environment import environment
from advprune_core.datasets.base import load_dataset
from advprune_core.models.base import build_model
from advprune_core.trainers.config import RunConfig
from benchmarks import attacks, ceilings, training_steps
from benchmarks.readings import Readings, Rounds


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.Flatten()
    )


def test_every_convolution_is_found_with_what_it_is_given() -> None:
    found = ceilings.convolutions(network(), torch.rand(2, 3, 8, 8))
    assert [(each.module.out_channels, tuple(each.shape)) for each in found] == [(4, (2, 3, 8, 8)), (6, (2, 4, 8, 8))]


def test_a_whole_network_has_all_its_layers() -> None:
    dataset = load_dataset({"digits": {"limit": 200}})
    model = build_model(RunConfig.flat().model, dataset)
    found = ceilings.convolutions(model, dataset.test.pixels(slice(0, 4)))
    assert len(found) == sum(isinstance(module, nn.Conv2d) for module in model.modules())


@pytest.mark.parametrize("layout", ceilings.LAYOUTS.values(), ids=str)
def test_the_work_is_the_gradients_of_autograd(layout: torch.memory_format) -> None:
    module = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    forward, by_input, by_weights = ceilings.Convolution(module, torch.Size((2, 4, 8, 8))).work(layout)
    (x, weight), options = forward.args[:2], forward.args[3:]  # type: ignore[attr-defined]
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = F.conv2d(x, weight, None, *options)
    torch.testing.assert_close(forward(), out)
    wanted = torch.autograd.grad(out, (x, weight), out.detach())
    input_alone, weights_alone = by_input(), by_weights()
    torch.testing.assert_close(input_alone[0], wanted[0])
    torch.testing.assert_close(weights_alone[1], wanted[1])
    assert input_alone[1] is None
    assert weights_alone[0] is None


def test_amounts_are_those_of_the_steps() -> None:
    amounts = {
        f"{kind}, {layout}": 1.0 for kind in ("forward", "by input", "by weights") for layout in ceilings.LAYOUTS
    }
    quick = next(iter(ceilings.LAYOUTS))
    amounts |= {f"forward, {quick}": 0.5}
    assert ceilings.least(amounts) == {
        "PGD-10": 10 * 1.5,
        "step of PGD-AT": 7 * 1.5 + 2.5,
        "step of TRADES": 10 * 1.5 + 0.5 + 2 * 2.5,
        "step of MART": 10 * 1.5 + 2 * 2.5,
    }


def readings(device: str) -> Readings:
    """Every contender of every case takes six seconds."""
    cases = [*attacks.CASES, *training_steps.CASES]
    return Readings(
        {
            case.name: Rounds({n: dict.fromkeys(case.contenders(), 6.0) for n in range(1, 6)}, "s", device)
            for case in cases
        }
    )


def test_a_ceiling_is_the_peers_time_over_that_of_the_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    works = ["PGD-10", *training_steps.TITLES.values()]
    monkeypatch.setattr(ceilings, "measured", lambda network, rounds: dict.fromkeys(works, 2.0))
    table = ceilings.ceilings(readings(str(environment("cpu")["device"])), rounds=1)
    assert set(table["ceiling"]) == {3.0}
    goals = [goal for case in (*attacks.CASES, *training_steps.CASES) for goal in case.goals if goal.ours == "compiled"]
    assert list(table["target"]) == [goal.target for goal in goals]
    assert table["setting"].str.endswith("; compiled").all()
    assert isinstance(table, pd.DataFrame)


def test_seconds_of_another_processor_are_no_ceiling_here() -> None:
    with pytest.raises(ValueError, match="was measured on another CPU"):
        ceilings.ceilings(readings("another CPU"), rounds=1)
