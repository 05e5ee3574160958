"""The command that carries a run out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import Any


def run_command(options: Iterable[tuple[str, Any]]) -> str:
    """``advprune run`` with options by flat name, as they are typed; an option may come several times."""
    words = [word for name, value in options for word in (f"--{name.replace('_', '-')}", typed(value))]
    return shlex.join(["advprune", "run", *words])


def typed(value: Any) -> str:
    """A value as it is typed on the command line: a word as it is, else JSON, which is YAML."""
    return value if isinstance(value, str) else json.dumps(value)
