"""Files that are never half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from advprune_core.machine import machine_errors
from advprune_core.settings import ConfigError


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside `path`, then rename it into place.

    Raises
    ------
    MachineError
        A full disk, a limit on files: here, because only here it is known which file it was.
    """
    with machine_errors(path):
        _write_atomically(path, write)


def _write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def check_writable(folder: Path) -> None:
    """Raise `ConfigError` if nothing can be written to `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"results cannot be written to {folder} ({error.strerror}); choose another folder with "
            "--out or ADVPRUNE_RESULTS"
        ) from None
