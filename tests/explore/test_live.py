"""Training as it happens, without a browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.utils.capture import capture_output

from advprune_core.explore import live
from advprune_core.explore.live import KEPT, Courses, course_figure, watching
from advprune_core.study.driver import Driver
from advprune_core.study.runner import run_study
from tests.tiny import tiny_study


def rows(count: int) -> list[dict[str, Any]]:
    return [{"epoch": e, "train_loss": 1 / (e + 1), "train_accuracy": e / 10} for e in range(count)]


def test_the_figure_has_the_runs_under_way_in_colour_and_the_others_in_grey() -> None:
    checked = [{**row, "val_pgd": 0.25} for row in rows(3)]
    figure = course_figure({"one": rows(4), "two": checked}, {"old": rows(5)})
    loss, right = figure.axes
    assert [len(line.get_xdata()) for line in loss.lines] == [5, 4, 3]
    assert loss.lines[0].get_color() == "0.8"
    assert loss.lines[1].get_color() != loss.lines[2].get_color()
    assert list(loss.lines[1].get_ydata()) == [1, 1 / 2, 1 / 3, 1 / 4]
    stars = [list(line.get_ydata()) for line in right.lines if line.get_marker() == "*"]
    assert stars == [[], [], [25, 25, 25]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
    assert not course_figure({}, {}).legends


def driver_of(under_way: Callable[[], dict[str, int]], finished: Callable[[str], Any] = lambda key: None) -> Any:
    """A driver of which only this is known."""

    def runs() -> list[SimpleNamespace]:
        return [
            SimpleNamespace(key=f"key of {name}", name=name, epochs=rows(count)) for name, count in under_way().items()
        ]

    return SimpleNamespace(under_way=runs, timing=False, store=SimpleNamespace(finished=finished))


def test_what_is_over_is_remembered_for_a_while() -> None:
    now: dict[str, int] = {}
    courses = Courses(driver_of(lambda: now))
    assert not courses.look(), "nothing has been trained"
    now["a"] = 0
    assert not courses.look()
    now["a"] = 1
    assert courses.look()
    assert not courses.look(), "nothing new"
    for number in range(KEPT + 2):
        now.clear()
        now[f"run {number}"] = 2
        assert courses.look()
    assert list(courses.running) == [f"run {KEPT + 1}"]
    assert len(courses.over) == KEPT
    assert "a" not in courses.over


def test_a_run_that_is_over_is_drawn_to_its_end() -> None:
    now = {"a": 2}
    records = {"key of a": SimpleNamespace(epochs=rows(3))}
    courses = Courses(driver_of(lambda: now, records.get))
    assert courses.look()
    now.clear()
    assert courses.look()
    assert (courses.running, courses.over) == ({}, {"a": rows(3)})


def test_nothing_is_drawn_while_a_run_is_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 0.01)
    looks: list[bool] = []
    driver = driver_of(lambda: {"a": looks.append(driver.timing) or len(looks)})  # type: ignore[func-returns-value]
    driver.timing = True
    with capture_output(), watching(driver):
        time.sleep(0.2)
        assert not looks, "nothing keeps the process busy"
        driver.timing = False
        patience = time.monotonic() + 30
        while len(looks) < 3 and time.monotonic() < patience:
            time.sleep(0.01)
    assert len(looks) >= 3
    assert not any(looks)


def test_a_driver_tells_what_is_under_way_and_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    class Watch:
        def __init__(self, driver: Driver) -> None:
            self.driver, begin = driver, driver.begin

            def watched(*arguments: Any) -> None:
                seen.append((driver.grid.finished(), [run.name for run in driver.under_way()]))
                begin(*arguments)

            driver.begin = watched  # type: ignore[method-assign]

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            seen.append((self.driver.grid.finished(), []))

    run_study(tiny_study(tmp_path, seeds=[0], fractions=[1.0, 0.5], epochs=1), progress=False, beside=Watch)
    assert seen[0][0] == (0, 3)
    assert seen[-1] == ((3, 3), [])
