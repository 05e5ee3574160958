"""Bars that follow the work."""

from __future__ import annotations

import threading

import pytest

from advprune_core.progress import following, progress_bar


def test_a_bar_follows_a_position_and_ends_where_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    positions = [0.0]
    with progress_bar("work", 100) as bar:
        bar.mininterval = 0.01
        seen = threading.Event()

        def position() -> float:
            seen.set()
            return positions[-1]

        with following(bar, position):
            assert seen.wait(10), "nothing asked for the position"
            positions.append(250.0)
        assert bar.n == 100, "never beyond its end"
    assert "work: 100%" in capsys.readouterr().err


def test_a_hidden_bar_asks_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def position() -> float:
        raise AssertionError("asked")

    with progress_bar("work", 100, show=False) as bar, following(bar, position):
        pass
    assert capsys.readouterr().err == ""
