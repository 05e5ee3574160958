"""Progress bars for terminals, notebooks and log files alike."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TextIO

from tqdm import tqdm

from advprune_core.base.frontend import attended, kernel

_TIME = "[{elapsed} gone, {remaining} left{postfix}]"
_OWN_TIME = "[{elapsed} gone{postfix}]"
_ENDED = "[took {elapsed}]"
_PASSES = "{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} passes "
_ATTACKS = "{desc}: {percentage:3.0f}%|{bar:20}| "
_LISTENER: ContextVar[Callable[[int, float], None] | None] = ContextVar("listener", default=None)


def tell(left: int, share: float) -> None:
    """Say how many images a search still has, and which share of it is done; whoever listens shows it."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(left, share)


@contextmanager
def listening(listener: Callable[[int, float], None]) -> Iterator[None]:
    """Hear what searches `tell` during a block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class _Unread:
    """A stream whose reader may go away, a closed pipe say: that is no reason for the work to stop.

    An error within tqdm would leave its lock held, and whoever draws next would wait for ever.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


@contextmanager
def _bar(name: str, total: float, counts: str, *, show: bool, time: str = _TIME, **options: Any) -> Iterator[tqdm[Any]]:
    """A bar that says how long it took, if it gets to its end.

    A widget where somebody watches. Else plain text, which stays readable in executed copies and does not fill
    them; there it is ordinary output and no error, whose background is red.
    """
    kind: Callable[..., tqdm[Any]] = tqdm
    seen, place = attended(), sys.stderr if kernel() is None else sys.stdout
    if seen:
        from advprune_core.base.widget_bar import WidgetBar

        kind, counts = WidgetBar, counts.replace("{bar:20}", "{bar}")
    # Few updates where no one watches.
    interval = 1.0 if seen or place.isatty() else 10.0
    settings = {"mininterval": interval, "maxinterval": interval, "disable": not show, "file": _Unread(place)}
    with kind(total=total, desc=name, bar_format=counts + time, **settings, **options) as bar:
        yield bar
        if bar.n >= bar.total:
            bar.bar_format = counts + _ENDED


def progress_bar(name: str, total: float, *, show: bool = True) -> AbstractContextManager[tqdm[Any]]:
    """A bar that counts forward-equivalents; how much longer it takes, whoever follows it with `following` says."""
    return _bar(name, total, _PASSES, show=show, time=_OWN_TIME, unit_scale=True, dynamic_ncols=True)


@contextmanager
def following(bar: tqdm[Any], look: Callable[[], tuple[float, str]]) -> Iterator[None]:
    """Let a bar show the position and the text that `look()` gives, now and then, whatever the block is busy with."""
    stop = threading.Event()

    def show() -> None:
        position, text = look()
        bar.n = min(position, bar.total)
        bar.set_postfix_str(text, refresh=False)
        bar.refresh()

    def follow() -> None:
        while not stop.wait(bar.mininterval):
            show()

    thread = threading.Thread(target=follow, daemon=True)
    if not bar.disable:
        bar.n = min(look()[0], bar.total)
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if not bar.disable:
            thread.join()
            show()


class AttackBar:
    """Where an evaluation is: which attack, how many images it still has, how long it will take."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar, self._label, self._place, self._size = bar, "", 0, 0

    def begin(self, label: str, place: int, size: int) -> None:
        """An attack begins at `place` of the total, of which its batch is `size`."""
        self._label, self._place, self._size = label, place, size
        self.hear(size, 0.0)

    def of_batch(self, first: int, size: int, attacks: int) -> Callable[[int, str], None]:
        """What to call with the number and name of each of a batch's `attacks` as it begins."""
        return lambda number, label: self.begin(label, first * attacks + number * size, size)

    def hear(self, left: int, share: float) -> None:
        """What a search tells of itself."""
        self.bar.set_postfix_str(f"{self._label}: {left} images left", refresh=False)
        self.bar.update(self._place + self._size * share - self.bar.n)


@contextmanager
def attack_bar(total: int, *, show: bool = True) -> Iterator[AttackBar]:
    """A bar over images times attacks that listens to the searches of a block."""
    with _bar("evaluate", total, _ATTACKS, show=show) as bar:
        shown = AttackBar(bar)
        with listening(shown.hear):
            yield shown
        bar.set_postfix_str("", refresh=False)
        bar.update(total - bar.n)
