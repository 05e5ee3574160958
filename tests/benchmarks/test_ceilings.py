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
from benchmarks import ceilings, training_steps
from benchmarks.cases import table
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


def test_passes_of_the_whole_network_have_its_gradients() -> None:
    model, x, y = network(), torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    found = ceilings.passes(model, x, y)
    x = x.requires_grad_()
    F.cross_entropy(model(x), y).backward()
    (by_images,), by_weights = found["attack"](), found["update"]()  # type: ignore[misc, attr-defined]
    torch.testing.assert_close(by_images, x.grad)
    torch.testing.assert_close(list(by_weights), [weight.grad for weight in model.parameters()])


def test_amounts_are_those_of_the_steps() -> None:
    amounts = {f"{kind}, {layout}": 1.0 for kind in ceilings.KINDS for layout in ceilings.LAYOUTS}
    amounts |= {f"{ceilings.KINDS[0]}, {next(iter(ceilings.LAYOUTS))}": 0.5}
    amounts |= {"forward": 2.0, "attack": 5.0, "update": 7.0}
    assert ceilings.least(amounts) == {
        ("PGD-10", "exact"): 50.0,
        ("step of PGD-AT", "exact"): 7 * 5.0 + 7.0,
        ("step of TRADES", "exact"): 10 * 5.0 + 2.0 + 2 * 7.0,
        ("step of MART", "exact"): 10 * 5.0 + 2 * 7.0,
        (training_steps.FLOOR, "exact"): 7 * 5.0 + 7.0,
        ("PGD-10", "compiled"): 10 * 1.5,
        ("step of PGD-AT", "compiled"): 7 * 1.5 + 2.5,
        ("step of TRADES", "compiled"): 10 * 1.5 + 0.5 + 2 * 2.5,
        ("step of MART", "compiled"): 10 * 1.5 + 2 * 2.5,
        (training_steps.FLOOR, "compiled"): 7 * 1.5 + 2.5,
    }


def readings(device: str) -> Readings:
    """Every contender of every case takes six seconds."""
    return Readings(
        {
            case.name: Rounds({n: dict.fromkeys(case.contenders(), 6.0) for n in range(1, 6)}, "s", device)
            for case in ceilings.CASES
        }
    )


def test_a_ceiling_is_the_peers_time_over_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {(case.work, way): 2.0 for case in ceilings.CASES for way in ("exact", "compiled")}
    monkeypatch.setattr(ceilings, "measured", lambda network, rounds: needed)
    found = readings(str(environment("cpu")["device"]))
    ceiling, rows = ceilings.ceilings(found, rounds=1), table(ceilings.CASES, found)
    assert set(ceiling["ceiling"]) == {3.0}
    columns = ["work", "setting", "peer", "target"]
    pd.testing.assert_frame_equal(ceiling[columns], rows[columns])


def test_seconds_of_another_processor_are_no_ceiling_here() -> None:
    with pytest.raises(ValueError, match="was measured on another CPU"):
        ceilings.ceilings(readings("another CPU"), rounds=1)
