"""Pruning of one's own data, without training."""

from __future__ import annotations

from typing import Annotated

import typer

from advprune_core.base.settings import ConfigError
from advprune_core.cli.interrupts import interruptible
from advprune_core.cli.options import value_of
from advprune_core.cli.reports import not_by_its_rule


def select(
    arrays: Annotated[
        str,
        typer.Argument(help=".npz with y, and as needed x, (adversarial_)logits, (adversarial_)features, trajectory"),
    ],
    pruner: Annotated[
        str, typer.Option(help="What chooses: a name or {name: {setting: value}} (advprune list pruners)")
    ],
    fraction: Annotated[str, typer.Option(help="Share to keep")],
    out: Annotated[str, typer.Option("--out", help=".npz of indices and weights")] = "selection.npz",
    picture: Annotated[str | None, typer.Option(help=".png of images that are kept and dropped")] = None,
    model: Annotated[str | None, typer.Option(help="Network: a name, YAML, or module:factory")] = None,
    weights: Annotated[str | None, typer.Option(help="Its state dict (.pt)")] = None,
    objective: Annotated[str, typer.Option(help="Loss that you will train with")] = "pgd_at",
    norm: Annotated[str, typer.Option(help="Norm of the scoring attack: linf or l2")] = "linf",
    eps: Annotated[
        str | None,
        typer.Option(help="Its radius in units of [0, 1] [default: 8/255, in L2 128/255: usual of photographs]"),
    ] = None,
    steps: Annotated[str, typer.Option(help="Its steps")] = "7",
    seed: Annotated[str, typer.Option(help="Of random choices")] = "0",
    min_per_class: Annotated[str, typer.Option(help="Images kept of every class at least")] = "0",
    layout: Annotated[str | None, typer.Option(help="Axes of x: NHWC or NCHW [default: seen from its shape]")] = None,
    device: Annotated[str, typer.Option(help="Of the network: cpu, cuda, or auto: a GPU if there is one")] = "auto",
) -> None:
    """Prune your own data without training here: arrays in, indices and weights out."""
    from advprune_core.pruners.selection_files import save_selection, select_file

    if not out.endswith(".npz") or (picture is not None and not picture.endswith(".png")):
        raise ConfigError("--out must end in .npz, --picture in .png")
    with interruptible("no selection was written"):
        selection, split = select_file(
            arrays,
            pruner=value_of(pruner),
            fraction=value_of(fraction),
            model=None if model is None else value_of(model),
            weights=weights,
            objective=value_of(objective),
            norm=norm,
            eps=eps,
            steps=value_of(steps),
            seed=value_of(seed),
            min_per_class=value_of(min_per_class),
            layout=layout,
            device=device,  # type: ignore[arg-type]
            drawn=picture is not None,
        )
    save_selection(selection, out)
    filled = not_by_its_rule(selection.n_filled)
    print(f"{pruner} keeps {len(selection)} of {len(split)} images{filled}: indices and weights in {out}")
    if picture is not None:
        from advprune_core.analysis.gallery import gallery
        from advprune_core.base.files import own_path, write_atomically

        figure = gallery(split, selection, title=f"{pruner}, {fraction} of the images")
        write_atomically(own_path(picture), lambda file: figure.savefig(file, format="png", dpi=150))
        print(f"some that are kept and dropped: {picture}")
