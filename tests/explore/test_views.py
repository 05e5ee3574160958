"""Explorers without a browser: what moving a control changes, and what an executed copy shows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from advprune_core.base.settings import ConfigError
from advprune_core.explore import ImageExplorer, StudyExplorer, WhatIf, views
from advprune_core.explore.images import PAGE
from advprune_core.explore.views import View, tick
from advprune_core.study.runner import run_study
from tests.explore.test_images import network
from tests.tiny import tiny_study

__all__ = ["network"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny study of its own."""
    folder = tmp_path_factory.mktemp("results")
    run_study(tiny_study(folder, epochs=4, eps=0.01), progress=False)  # enough to be advised by
    return folder


def test_the_study_explorer(results: Path) -> None:
    view = StudyExplorer("tiny", results=results)
    assert view.refused.value == ""
    assert [label for label, _ in view.point.options] == [
        "static random subset, 100 %",
        "static random subset, 40 %",
        "full data, same cost: fewer epochs (as 100 %)",
        "full data, same cost: fewer epochs (as 40 %)",
    ]
    assert [label for label, _ in view.run.options] == ["seed 0 (ok)", "seed 1 (ok)"]
    before = view.curve.value
    view.point.value = ("random", 0.4)
    assert view.curve.value != before, "the ring has moved"
    assert "static random subset, 40 %" in view.about_point.value
    assert "--fraction 0.4" in view.about_run.value
    view.run.value = view.run.options[1][1]
    assert "--seed 1" in view.about_run.value
    view.arms.value = ()
    assert (view.point.value, view.about_run.value, view.course.value) == (None, "", b"")
    view.study.value = "when_pruning_wins (reference)"
    assert len(view.threat.options) == 3
    before = view.curve.value
    view.threat.value = view.threat.options[2]
    assert "label_noise 0.4" in view.threat.value
    assert view.curve.value != before
    assert "label_noise" in view.about_run.value


def test_the_image_explorer(network: Any) -> None:
    view = ImageExplorer(network, fraction=0.5)
    assert (view.label.label, view.label.value) == ("all", "all")
    total = len(network.dataset.train)
    assert f"keep_easy keeps {round(total / 2)} of {total} images; {total} fit." in view.counts.value
    assert len(view.image.options) == PAGE
    view.page.value = view.page.max
    assert len(view.image.options) == total - PAGE * (view.page.max - 1)
    view.shown.value = "dropped"
    assert view.page.value == 1
    view.fraction.value = 100
    assert (view.says.value, view.attacked.value) == ("No image fits.", b"")
    view.shown.value = "kept"
    before = view.attacked.value
    view.eps.value = 0.0
    assert view.attacked.value != before


@pytest.mark.parametrize("fraction", [0.01, 0.029, 0.4, 1.0])
def test_the_share_that_is_asked_for_is_kept(network: Any, fraction: float) -> None:
    view, total = ImageExplorer(network, pruner="random", fraction=fraction), len(network.dataset.train)
    assert f"random keeps {round(fraction * total)} of {total} images" in view.counts.value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fraction": 20}, "fraction = 20 is the share that is kept: above 0, at most 1"),
        ({"fraction": 0}, "fraction = 0"),
        ({"fraction": -0.4}, "fraction = -0.4"),
        ({"fraction": float("nan")}, "fraction = nan"),
        ({"pruner": "randm"}, "did you mean 'random'"),
        ({"pruner": "aum"}, "aum"),
    ],
)
def test_an_image_explorer_of_what_cannot_be_is_refused(network: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageExplorer(network, **given)


def test_an_unknown_axis_is_refused(results: Path) -> None:
    with pytest.raises(ConfigError, match="unknown axis 'time'; allowed: cost, fraction, seconds"):
        StudyExplorer("tiny", results=results, axis="time")  # type: ignore[arg-type]


def test_what_if(results: Path) -> None:
    view = WhatIf("tiny", results=results, budget=0.5)
    assert "With 50 % of the most expensive run" in view.says.value
    view.budget.value = 100
    assert "With 100 % of the most expensive run" in view.says.value
    view.here.click()
    assert "on one core of this machine" in view.time.value
    view.study.value = "trainers (reference)"
    assert view.budget.value == 50
    assert view.time.value == ""
    for wrong in (0.0, 1.5, -1.0):
        with pytest.raises(ConfigError, match="share of the most expensive arm's cost"):
            WhatIf("tiny", results=results, budget=wrong)


def test_what_a_callback_is_refused_is_read(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advprune_core.explore import budget_view

    view = WhatIf("tiny", results=results)

    def refuse(*_: object) -> None:
        raise ConfigError("no <data> here")

    monkeypatch.setattr(budget_view, "machine_time", refuse)
    view.here.click()
    assert "no &lt;data&gt; here" in view.refused.value
    view.budget.value = 100
    assert view.refused.value == ""


def test_what_is_moved_in_two_threads_at_once_is_done_twice() -> None:
    """As kernels with subshells may handle what widgets send."""
    first, second, begun, go_on = tick("first", False), tick("second", False), threading.Event(), threading.Event()
    view, done = View([first, second]), list[str]()

    def slow() -> None:
        begun.set()
        assert go_on.wait(30)
        done.append("first")

    view.watch(slow, first)
    view.watch(lambda: done.append("second"), second)
    threads = [threading.Thread(target=setattr, args=(control, "value", True)) for control in (first, second)]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert done == ["first", "second"]


@pytest.mark.parametrize("seen", [True, False])
def test_an_executed_copy_has_pictures_instead_of_controls(
    results: Path, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    view = WhatIf("tiny", results=results)
    monkeypatch.setattr(views, "attended", lambda: seen)
    InteractiveShell.instance()
    with capture_output() as shown:
        view._ipython_display_()
    kinds = [set(output.data) - {"text/plain"} for output in shown.outputs]
    if seen:
        assert kinds == [{"application/vnd.jupyter.widget-view+json"}]
    else:
        assert {"image/png"} in kinds
        assert any("of the most expensive run" in output.data.get("text/html", "") for output in shown.outputs)
        assert not any("widget-view" in kind for found in kinds for kind in found)
