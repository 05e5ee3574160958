"""Bars that follow the work."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

import pytest

from advprune_core.base import progress
from advprune_core.base.progress import attack_bar, following, progress_bar, tell


def test_a_bar_follows_a_position_and_ends_where_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    positions = [0.0]
    with progress_bar("work", 100) as bar:
        bar.mininterval = 0.01
        seen = threading.Event()
        beginning = threading.current_thread()

        def position() -> tuple[float, str]:
            if threading.current_thread() is not beginning:
                seen.set()
            return positions[-1], ""

        with following(bar, position):
            assert seen.wait(10), "nothing asked for the position"
            positions.append(250.0)
        assert bar.n == 100, "never beyond its end"
    assert "work: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(("reached", "says"), [(100, "took 00:00"), (60, "gone")])
def test_a_bar_that_gets_to_its_end_says_how_long_it_took(
    reached: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("work", 100) as bar:
        bar.update(reached)
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert f"{reached}%" in last
    assert says in last
    assert ("took" in last) == (reached == 100)


def test_in_an_executed_copy_a_bar_is_ordinary_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "kernel", object)
    with progress_bar("work", 100) as bar:
        bar.update(100)
    printed = capsys.readouterr()
    assert "work: 100%" in printed.out
    assert printed.err == ""


def test_where_somebody_watches_a_bar_is_a_widget_whose_total_may_grow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "attended", lambda: True)
    with progress_bar("work", 100) as bar:
        left, widget, right = bar.container.children
        bar.total += 50
        bar.update(75)
        bar.refresh()
        assert (widget.value, widget.max) == (75, 150)
        bar.update(75)
    assert (widget.value, widget.bar_style) == (150, "success")
    assert "100%" in left.value
    assert "took" in right.value
    with progress_bar("nothing", 0) as bar:
        pass
    with progress_bar("hidden", 10, show=False) as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


def test_a_bar_says_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(["", "3 to train", "", "about 00:20 left"])  # once as it begins
    with progress_bar("work", 100) as bar:
        bar.mininterval, bar.start_t = 60, 0.0
        monkeypatch.setattr(bar, "_time", lambda: 20.0)
        with following(bar, lambda: (90.0, next(texts))):
            pass
        assert "90.0/100 passes [00:20 gone, 3 to train]" in str(bar), "once, at its end"
        with following(bar, lambda: (95.0, next(texts))):
            pass
        assert "95.0/100 passes [00:20 gone, about 00:20 left]" in str(bar)


def test_a_hidden_bar_asks_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def position() -> tuple[float, str]:
        raise AssertionError("asked")

    with progress_bar("work", 100, show=False) as bar, following(bar, position):
        pass
    assert capsys.readouterr().err == ""


def test_attack_bar_follows_the_searches(capsys: pytest.CaptureFixture[str]) -> None:
    tell(3, 0.5)  # nobody listens
    with attack_bar(40) as bar:
        begin = bar.of_batch(10, 10, 2)
        begin(1, "square")
        assert bar.bar.n == 30
        tell(4, 0.5)
        assert bar.bar.n == 35
        assert "square: 4 images left" in str(bar.bar)
    tell(1, 0.1)
    assert "100%" in capsys.readouterr().err
    with attack_bar(40, show=False):
        tell(4, 0.5)
    assert capsys.readouterr().err == ""


def test_a_bar_whose_reader_has_gone_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`advprune study ... 2>&1 | head`, a terminal that is closed: the work goes on, and comes to its end."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", stream)
    reached: list[float] = []

    def work() -> None:
        with progress_bar("work", 100) as bar:
            bar.mininterval = 0.01
            with following(bar, lambda: (50.0, "")):
                time.sleep(0.1)
            reached.append(bar.n)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert reached == [50.0]
    with suppress(OSError):
        stream.close()
