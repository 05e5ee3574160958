"""What commands that run things say at their end."""

from __future__ import annotations

import sys
from typing import Any

import typer


def print_plan(entries: list[Any], execution: Any) -> None:
    """Print the grid and what it will take."""
    from advprune_core.study.plans import plan

    print(plan(entries, execution))


def not_by_its_rule(filled: int) -> str:
    """How many images a pruner's rule fell short of, as of a class that it would have left without any."""
    return f", {filled} of them not by its own rule" if filled else ""


def report_left_out(names: list[str]) -> None:
    """Say which runs a new attack had to leave out."""
    if names:
        print(
            f"{len(names)} runs have no weights here, so a new attack on them was left out ({names[0]}, ...): "
            "--retrain trains them again"
        )


def report_failures(failed: dict[str, str]) -> None:
    """Name the runs that failed; exit code 1 if there are any."""
    for name, message in failed.items():
        print(f"FAILED {name}: {message}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
