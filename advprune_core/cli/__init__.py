"""The command `advprune`: thin over the package; one module for each group of commands.

Knows everything, and imports what is heavy where a command uses it, so that help and lists come at once. `entry` turns
errors and signals into exit codes, `app` is the table of commands. To add one: a function in a module here, with the
first line of its docstring as its help, and a line in `app`.
"""

from advprune_core.cli.entry import main

__all__ = ["main"]
