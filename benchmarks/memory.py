"""Memory of a piece of work, in a process of its own (Linux)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def peak() -> int:
    """Largest resident set of this process so far, in bytes; `getrusage` would count its parent as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def growth(work: Callable[[], object]) -> int:
    """By how many bytes a piece of work lifts the largest resident set above what there is before it."""
    Path("/proc/self/clear_refs").write_text("5")  # the largest so far is what there is now
    before = peak()
    work()
    return peak() - before


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fork of this process, whose memory nothing else has been in.

    Raises
    ------
    RuntimeError
        If it fails there.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def work(end: Connection) -> None:
        end.send(function(*arguments))

    process = context.Process(target=work, args=(there,))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise RuntimeError("a process of its own has failed; what it said is above") from None
    finally:
        process.join()
