"""How much any other code around the same passes could gain: `python -m benchmarks.ceilings`.

    python -m benchmarks.ceilings [--rounds N] [--out FOLDER]

What a row's work cannot do without, on one thread, beside what the table says that its peer takes for the whole:

* *exact* rows: the network's passes alone, plain ones: forward and the gradient by the images for each step of the
  attack, forward and the gradient by the weights for the update; no attack, no optimiser.
* *compiled* rows: the convolutions of these passes alone, in the quicker of two layouts; no normalisation, no
  activations, no losses.

The *ceiling* is the peer's median over that: a target above it cannot be met in float32 by these kernels, whatever is
written around them. Writes ceilings.csv into FOLDER (default results/reference/benchmarks): columns `work, setting,
peer, ceiling, target, device`, a row for each row of the table about attacks and steps.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from advprune_core.base.environment import environment
from advprune_core.base.files import write_text
from benchmarks import attacks, training_steps
from benchmarks.bench import OUT
from benchmarks.networks import NETWORKS, Network
from benchmarks.readings import Readings, read
from benchmarks.timing import Work, alternating, medians

KINDS = ("forward alone", "by input alone", "by weights alone")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
#: Passes of a batch, forward and backward, in an update of the weights.
UPDATES = {"pgd_at": 1, "trades": 2, "mart": 2}
CASES = [*attacks.CASES, *training_steps.CASES]


@dataclass(frozen=True)
class Convolution:
    """One convolution of a pass: its module, and the shape of what it is given."""

    module: nn.Conv2d
    shape: torch.Size

    def work(self, layout: torch.memory_format) -> tuple[Work, Work, Work]:
        """It forward, its gradient by the input, its gradient by the weights; nothing else."""
        own, weight = self.module, self.module.weight.detach().to(memory_format=layout)
        x = torch.randn(self.shape).to(memory_format=layout)
        options = (own.stride, own.padding, own.dilation)
        out = F.conv2d(x, weight, None, *options, own.groups)
        backward = torch.ops.aten.convolution_backward

        def gradient(by_input: bool) -> Work:
            mask = [by_input, not by_input, False]
            return lambda: backward(out, x, weight, None, *options, False, [0, 0], own.groups, mask)

        return partial(F.conv2d, x, weight, None, *options, own.groups), gradient(True), gradient(False)


def convolutions(model: nn.Module, x: Tensor) -> list[Convolution]:
    """All of a pass, in their order."""
    found: list[Convolution] = []

    def seen(module: nn.Module, arguments: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        found.append(Convolution(module, arguments[0].shape))

    handles = [module.register_forward_hook(seen) for module in model.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def parts(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Work]:
    """Passes of the network, and their convolutions alone in each layout."""
    work, found = passes(model, x, y), convolutions(model, x)
    for name, layout in LAYOUTS.items():
        kinds = zip(*(each.work(layout) for each in found), strict=True)
        for kind, calls in zip(KINDS, kinds, strict=True):
            work[f"{kind}, {name}"] = partial(_all, calls)
    return work


def passes(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Work]:
    """Plain passes of a whole network: forward, with the gradient by the images, with that by the weights."""
    searched, trained, leaf = copy.deepcopy(model).eval(), copy.deepcopy(model).train(), x.clone().requires_grad_()
    weights = list(trained.parameters())
    return {
        "forward": lambda: searched(leaf),
        "attack": lambda: torch.autograd.grad(F.cross_entropy(searched(leaf), y), leaf),
        "update": lambda: torch.autograd.grad(F.cross_entropy(trained(x), y), weights),
    }


def _all(calls: Sequence[Work]) -> None:
    for call in calls:
        call()


def least(amounts: dict[str, float]) -> dict[tuple[str, str], float]:
    """Seconds that (work, way) of the table cannot do without, from those of `parts`."""
    quick = {kind: min(amounts[f"{kind}, {layout}"] for layout in LAYOUTS) for kind in KINDS}
    attack = quick["forward alone"] + quick["by input alone"]
    found = {}
    for way, forward, search, update in (
        ("exact", amounts["forward"], amounts["attack"], amounts["update"]),
        ("compiled", quick["forward alone"], attack, attack + quick["by weights alone"]),
    ):
        found[attacks.TITLE, way] = attacks.STEPS * search
        for name, title in training_steps.TITLES.items():
            clean = forward if name == "trades" else 0.0
            found[title, way] = training_steps.STEPS[name] * search + clean + UPDATES[name] * update
        found[training_steps.FLOOR, way] = found[training_steps.TITLES["pgd_at"], way]
    return found


def ceilings(readings: Readings, rounds: int) -> pd.DataFrame:
    """The table; one round more of each network to warm up.

    Raises
    ------
    ValueError
        If the peers were not measured on this processor.
    """
    rows: list[dict[str, Any]] = []
    device, needed = environment("cpu")["device"], dict[str, dict[tuple[str, str], float]]()
    for case in CASES:
        found = readings.of(case.name)
        if found.device != device:
            raise ValueError(f"{case.name} was measured on {found.device or 'nothing yet'}, and this is {device}")
        network = next(name for name in NETWORKS if case.name.endswith(f"-{name}"))
        needed[network] = needed.get(network) or measured(NETWORKS[network], rounds)
        taken = medians(found.rounds.values())
        for goal in (goal for goal in case.goals if goal.peer in taken):
            setting = case.setting_of(goal)
            way = "compiled" if setting.endswith("compiled") else "exact"
            ceiling = taken[goal.peer] / needed[network][case.work, way]
            row = {"work": case.work, "setting": setting, "peer": goal.peer, "ceiling": ceiling}
            rows.append({**row, "target": goal.target, "device": device})
    return pd.DataFrame(rows)


def measured(network: Network, rounds: int) -> dict[tuple[str, str], float]:
    """Seconds that the works of a network cannot do without."""
    one_round = alternating(parts(network.model(), *network.images()))
    return least(medians([one_round(number) for number in range(rounds + 1)][1:]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        table = ceilings(read(options.out / "timings.csv"), options.rounds)
    write_text(options.out / "ceilings.csv", table.to_csv(index=False, float_format="%.3g"))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
