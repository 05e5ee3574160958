"""What the machine refuses: a full disk, a limit on files, a worker that was killed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

from advprune_core.base.settings import AdvpruneError


class MachineError(AdvpruneError):
    """The machine cannot go on; the message says why, what is kept, and how to go on."""


#: What is wrong, and what helps, by the number of the operating system's error.
_REASONS = {
    errno.ENOSPC: ("the disk is full", "make room"),
    errno.EDQUOT: ("the quota of the disk is used up", "make room"),
    errno.EFBIG: ("a file may not become so large (ulimit -f)", "raise the limit"),
    errno.EMFILE: ("a process may not open so many files (ulimit -n)", "raise the limit, or use fewer workers"),
    errno.ENFILE: ("too many files are open on this machine", "close some, or use fewer workers"),
    errno.ENOMEM: ("there is no memory left", "use fewer workers"),
    errno.EAGAIN: ("no more processes or threads can be started (ulimit -u)", "raise the limit, or use fewer workers"),
    errno.EROFS: ("the disk can only be read", "choose another folder (--out or ADVPRUNE_RESULTS)"),
    errno.EIO: ("the disk reports an error", "choose another one (--out or ADVPRUNE_RESULTS)"),
}


def machine_error(error: BaseException, path: str | os.PathLike[str] | None = None) -> MachineError | None:
    """The sentence for an error that is the machine's, None for any other.

    Parameters
    ----------
    error : BaseException
        Its causes are looked through as well: PyTorch reports a full disk as a wrong position.
    path : path, optional
        The file in question, where the error does not name it.
    """
    if isinstance(error, MachineError):
        return error
    if isinstance(error, BrokenExecutor):
        return MachineError(
            "a worker process was killed, perhaps for lack of memory; what is finished is kept: "
            "run the same again, with fewer workers if need be"
        )
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _REASONS:
            what, help_ = _REASONS[cause.errno]
            name = cause.filename or path
            where = f" ({os.fspath(name)})" if name else ""
            return MachineError(f"{what}{where}; what is finished is kept: {help_}, and run the same again")
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def machine_errors(path: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Raise `MachineError` for what the machine refuses in a block; other errors pass."""
    try:
        yield
    except Exception as error:
        found = machine_error(error, path)
        if found is None or found is error:
            raise
        raise found from error
