"""Where the command begins: before anything that takes time is imported, so that it can be interrupted from then on."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from advprune_core.cli.interrupts import interruptible, listen


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as sentences, without the line of code that they come from."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_args, **_line: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def main() -> None:
    """Entry point: a mistake is one message and exit code 2, what the machine refuses 1, a signal 128 + its number."""
    sys.path.insert(0, os.getcwd())  # "module:factory" may lie beside the shell, as for python -m
    with interruptible("what was written before is kept"), plain_warnings():
        listen()
        from advprune_core.base.machine import MachineError, machine_errors
        from advprune_core.base.settings import AdvpruneError
        from advprune_core.cli.app import app

        try:
            with machine_errors():
                app()
        except AdvpruneError as error:
            print(f"advprune: {error}", file=sys.stderr)
            sys.exit(1 if isinstance(error, MachineError) else 2)
        except OSError as error:
            print(f"advprune: {error}", file=sys.stderr)
            sys.exit(1)
