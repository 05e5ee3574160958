"""What went wrong, and where, in a line: of somebody's own code its file."""

from __future__ import annotations

import traceback
from pathlib import Path

from advprune_core.base.sources import is_installed_file


def note_place(error: BaseException) -> None:
    """Note in an error where it happened: that goes with it to another process, as its traceback does not."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    if frames:
        own = [frame for frame in frames if not is_installed_file(frame.filename)]
        error.add_note(", then ".join(dict.fromkeys(map(_told, [*own[-1:], frames[-1]]))))


def message_of(error: BaseException) -> str:
    """What went wrong, and where, if that is known: ``KeyError: 'x' (mine.py, line 3 of select, then ...)``."""
    places = getattr(error, "__notes__", ())
    return f"{type(error).__name__}: {error}" + (f" ({places[-1]})" if places else "")


def _told(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}, line {frame.lineno} of {frame.name}"
