"""Ctrl-C and the signals that ask for an end: what becomes of the work is said, and the exit code is theirs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal other than Ctrl-C has asked for an end; its argument is the signal's number."""


def listen() -> None:
    """Let SIGTERM and SIGHUP interrupt as Ctrl-C does."""
    # Python's trackers of shared resources outlive an interrupted command, and tidy up: that is no news to people.
    quiet = [os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker:UserWarning"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, quiet))
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # none on some systems, ignored under nohup
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _unheard(ignored: sys.UnraisableHookArgs, *, otherwise: Callable[[sys.UnraisableHookArgs], object]) -> None:
    """Send a signal again that came while something was tidied up (``__del__``), where Python drops what is raised."""
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        otherwise(ignored)
        return
    again = threading.Timer(0.1, os.kill, (os.getpid(), _number(ignored.exc_value)))  # when that is over
    again.daemon = True
    again.start()


def _number(error: BaseException | None) -> int:
    return int(error.args[0]) if isinstance(error, Interrupted) else signal.SIGINT


def _interrupt(number: int, frame: Any) -> None:
    raise Interrupted(number)


@contextmanager
def interruptible(fate: str = "what is finished is kept, and the same command goes on from here") -> Iterator[None]:
    """Say on Ctrl-C, SIGTERM and SIGHUP what becomes of the work, and exit with 128 + the signal's number."""
    before = sys.unraisablehook
    sys.unraisablehook = partial(_unheard, otherwise=before)
    try:
        yield
    except KeyboardInterrupt as error:
        number = _number(error)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what follows is short, and not to be cut again
        print(f"\nadvprune: interrupted; {fate}", file=sys.stderr, flush=True)
        os._exit(128 + number)  # at once: threads of ended workers must not hold the exit up
    finally:
        sys.unraisablehook = before
