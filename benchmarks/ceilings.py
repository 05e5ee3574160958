"""How much any other execution of the same convolutions could gain: `python -m benchmarks.ceilings`.

    python -m benchmarks.ceilings [--rounds N] [--out FOLDER]

For each network of the table, on one thread: the convolutions of a pass alone, without normalisation, activations,
losses or the optimiser, in the quicker of two layouts, beside what the table says that peers take for the whole. A
step of an attack has each convolution forward, and its gradient by the input; an update of the weights has each
gradient by them as well. The *ceiling* is the peer's median over theirs: a target above it cannot be met in float32
by these kernels, whatever is compiled around them.

Writes ceilings.csv into FOLDER (default results/reference/benchmarks): columns `work, setting, peer, ceiling, target,
device`, a row for each target of the compiled rows of the table.
"""

from __future__ import annotations

import argparse
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

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
#: Passes of a batch, forward and backward, in an update of the weights.
UPDATES = {"pgd_at": 1, "trades": 2, "mart": 2}


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


def parts(model: nn.Module, x: Tensor) -> dict[str, Work]:
    """A pass forward, by the input, by the weights, in each layout; convolutions alone."""
    work = {}
    for name, layout in LAYOUTS.items():
        kinds = zip(*(each.work(layout) for each in convolutions(model, x)), strict=True)
        for kind, calls in zip(("forward", "by input", "by weights"), kinds, strict=True):
            work[f"{kind}, {name}"] = partial(_all, calls)
    return work


def _all(calls: Sequence[Work]) -> None:
    for call in calls:
        call()


def least(amounts: dict[str, float]) -> dict[str, float]:
    """Seconds of convolutions alone by work of the table."""
    quick = {
        kind: min(amounts[f"{kind}, {layout}"] for layout in LAYOUTS) for kind in ("forward", "by input", "by weights")
    }
    attack = quick["forward"] + quick["by input"]
    update = attack + quick["by weights"]  # by the images as well, which only the first convolution does not need
    found = {"PGD-10": attacks.STEPS * attack}
    for name, title in training_steps.TITLES.items():
        clean = quick["forward"] if name == "trades" else 0.0
        found[title] = training_steps.STEPS[name] * attack + clean + UPDATES[name] * update
    return found


def ceilings(readings: Readings, rounds: int) -> pd.DataFrame:
    """The table; one round more of each network to warm up.

    Raises
    ------
    ValueError
        If the peers were not measured on this processor.
    """
    rows: list[dict[str, Any]] = []
    device, alone = environment("cpu")["device"], dict[str, dict[str, float]]()
    for case in (*attacks.CASES, *training_steps.CASES):
        goals = [goal for goal in case.goals if goal.ours == "compiled"]
        found = readings.of(case.name)
        if not goals:
            continue
        if found.device != device:
            raise ValueError(f"{case.name} was measured on {found.device or 'nothing yet'}, and this is {device}")
        network = next(name for name in NETWORKS if case.name.endswith(f"-{name}"))
        alone[network] = alone.get(network) or measured(NETWORKS[network], rounds)
        taken = medians(found.rounds.values())
        for goal in goals:
            ceiling = taken[goal.peer] / alone[network][case.work]
            row = {"work": case.work, "setting": f"{case.setting}; {goal.ours}", "peer": goal.peer, "ceiling": ceiling}
            rows.append({**row, "target": goal.target, "device": device})
    return pd.DataFrame(rows)


def measured(network: Network, rounds: int) -> dict[str, float]:
    """Seconds of convolutions alone by work of the table."""
    one_round = alternating(parts(network.model(), network.images()[0]))
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
