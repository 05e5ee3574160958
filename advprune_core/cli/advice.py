"""What to do with a budget, by what was measured."""

from __future__ import annotations

from typing import Annotated

import typer

from advprune_core.cli.interrupts import interruptible
from advprune_core.cli.options import Data, value_of


def advise(
    budget: Annotated[str | None, typer.Option(help="Time to train on this machine: '20 min', '2 h', '90 s'")] = None,
    cost: Annotated[str | None, typer.Option(help="Instead: a share of what a full run costs, as 0.3")] = None,
    dataset: Annotated[str, typer.Option(help="Data set: a name, or {folder: {path: mine, size: 32}}")] = "digits",
    model: Annotated[str, typer.Option(help="Network: a name, YAML, or module:factory")] = "small_cnn",
    eps: Annotated[str | None, typer.Option(help="Radius in units of [0, 1] [default: the data set's]")] = None,
    norm: Annotated[str, typer.Option(help="linf or l2")] = "linf",
    wrong_labels: Annotated[
        str | None, typer.Option(help="Share of your labels that are wrong, as 0.4 [default: none, or label_noise]")
    ] = None,
    data: Data = None,
) -> None:
    """Say which training to take for a budget, whether to prune, and what to expect: --budget '20 min', or --cost 0.3.

    A few steps of training are timed on this machine. The rest is read from what the published studies measured, and
    what lies outside of that is named.
    """
    from advprune_core.analysis.advice import Request
    from advprune_core.analysis.advice import advise as advice
    from advprune_core.analysis.fronts import read_points
    from advprune_core.datasets.base import load_dataset
    from advprune_core.study.plans import measured_pace
    from advprune_core.trainers.config import RunConfig

    request = Request.create(budget=budget, cost=cost, wrong_labels=wrong_labels)
    asked = {"dataset": value_of(dataset), "model": value_of(model), "norm": norm}
    config = RunConfig.flat(**asked, **({} if eps is None else {"eps": eps}))
    with interruptible("nothing was written"):
        loaded = load_dataset(config.dataset, folder=data)
        print(advice(read_points(), config, loaded, request, lambda way: measured_pace(way, loaded)))
