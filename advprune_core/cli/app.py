"""The table of commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from advprune_core import __version__
from advprune_core.cli.advice import advise
from advprune_core.cli.catalogue import list_components
from advprune_core.cli.interrupts import interruptible
from advprune_core.cli.options import RunCommand
from advprune_core.cli.results import check, collect, export, gc, import_, report
from advprune_core.cli.runs import evaluate, run
from advprune_core.cli.selections import select
from advprune_core.cli.studies import init, study


class _Commands(TyperGroup):
    """The commands: each one can be interrupted, before typer makes an "Aborted!" of it."""

    def invoke(self, ctx: Any) -> Any:
        with interruptible("what was written before is kept"):
            return super().invoke(ctx)


def _version(asked: bool) -> None:
    if asked:
        print(f"advprune {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="advprune",
    cls=_Commands,
    help="Which training images to keep for faster adversarial training, and what that costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def of_all(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What is asked of no command."""


app.command()(init)
app.command("list")(list_components)
app.command(cls=RunCommand)(run)
app.command()(study)
app.command()(collect)
app.command()(evaluate)
app.command()(select)
app.command()(advise)
app.command()(report)
app.command()(export)
app.command("import")(import_)
app.command()(check)
app.command()(gc)
