"""The explorers, a study that is watched and stopped, and the start page, moved by a mouse in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="no playwright here: the test extra has it")
pytest.importorskip("jupyterlab", reason="no JupyterLab here: the test extra has it")

from playwright.sync_api import Locator, Page, expect

from advprune_core.study.notebooks import lay_out
from tests.notebooks.lab import CHROMIUM, PATIENCE, Notebook, browser, server

pytestmark = [
    pytest.mark.slow(seconds=120),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)"),
]
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab over the notebooks as they are laid out for a user, beside the reference studies of the checkout."""
    folder, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    lay_out(folder)
    with server(folder, home) as found:
        yield found


@pytest.fixture
def page() -> Iterator[Page]:
    with browser() as found:
        yield found


def named(view: Locator, kind: str, name: str) -> Locator:
    """The control of a kind with a name in a view."""
    return view.locator(kind, has=view.page.locator(".widget-label").get_by_text(name, exact=True))


def choose(view: Locator, control: str, label: str) -> None:
    """Choose by the label in a view's dropdown of that name."""
    named(view, ".widget-dropdown", control).locator("select").select_option(label=label)


def slide(view: Locator, control: str, value: str) -> None:
    """Type a number into the field beside a view's slider."""
    field = named(view, ".widget-slider", control).locator(".widget-readout")
    field.click()
    field.fill(value)
    field.press("Enter")


def changes(image: Locator, before: str | None) -> str:
    """Wait for another picture than before; gives it."""
    expect(image).not_to_have_attribute("src", str(before))
    return str(image.get_attribute("src"))


def test_every_explorer_is_moved(address: str, page: Page, tmp_path: Path) -> None:
    notebook = Notebook(page, address, "notebooks/explore.ipynb")
    notebook.run_all()

    studies = notebook.cell("StudyExplorer(").locator(".jp-OutputArea")
    expect(studies).to_contain_text("The same again")
    curve = studies.locator("img").first
    seen = str(curve.get_attribute("src"))
    choose(studies, "study", "trainers (reference)")
    expect(studies).to_contain_text("standard: static random subset")
    seen = changes(curve, seen)
    choose(studies, "accuracy", "clean")
    seen = changes(curve, seen)
    choose(studies, "x axis", "processor seconds of training and selection, of runs timed alone")
    seen = changes(curve, seen)
    studies.locator("select[multiple]").select_option(
        label=["PGD-AT: static random subset", "N-FGSM: static random subset"]
    )
    seen = changes(curve, seen)
    choose(studies, "point", "N-FGSM: static random subset, 40 %")
    expect(studies.locator("b", has_text="N-FGSM: static random subset, 40 %")).to_be_visible()
    choose(studies, "run", "seed 3 (ok)")
    expect(studies.locator("pre")).to_contain_text("--seed 3")
    seen = changes(curve, seen)
    studies.get_by_text("single runs").click()
    changes(curve, seen)
    notebook.shoot(studies, tmp_path / "studies.png")

    images = notebook.cell("ImageExplorer(").locator(".jp-OutputArea")
    expect(images).to_contain_text("keep_easy keeps 440 of 1100 images; 1100 fit.")
    sheet, attacked = images.locator("img").first, images.locator("img").nth(1)
    seen, hit = str(sheet.get_attribute("src")), str(attacked.get_attribute("src"))
    choose(images, "pruner", "random")
    expect(images).to_contain_text("random keeps 440 of 1100 images")
    seen = changes(sheet, seen)
    choose(images, "images", "dropped")
    choose(images, "class", "8")
    expect(images).to_contain_text(re.compile(r"random keeps \d+ of \d+ images of class 8; \d+ fit"))
    slide(images, "kept, %", "20")
    expect(images).to_contain_text(re.compile(r"random keeps 2\d of 1\d\d images of class 8; 8\d fit"))
    seen = changes(sheet, seen)
    choose(images, "score", "steps to break")
    seen = changes(sheet, seen)
    slide(images, "page", "2")
    seen = changes(sheet, seen)
    hit = changes(attacked, hit)
    choose(images, "attack", "FGSM (1 step)")
    slide(images, "eps", "0.3125")
    expect(images).to_contain_text("Under attack within 0.312")
    changes(attacked, hit)
    slide(images, "eps", "0")
    expect(images).to_contain_text("Under attack within 0.000: still recognised")
    slide(images, "eps", "0.1875")
    expect(images).to_contain_text("within 0.188")
    notebook.shoot(images, tmp_path / "images.png")

    budgets = notebook.cell("WhatIf(").locator(".jp-OutputArea")
    expect(budgets).to_contain_text("With 40 % of the most expensive run's cost")
    front = budgets.locator("img").first
    seen = str(front.get_attribute("src"))
    slide(budgets, "budget, %", "100")
    expect(budgets).to_contain_text("With 100 % of the most expensive run's cost: all the data")
    seen = changes(front, seen)
    budgets.get_by_role("button", name="How long here?").click()
    expect(budgets).to_contain_text("on one core of this machine")
    choose(budgets, "study", "freshness (reference)")
    expect(budgets).to_contain_text("carried, 1 step")
    changes(front, seen)
    notebook.shoot(budgets, tmp_path / "budgets.png")


def test_a_study_is_watched_and_stopped_and_goes_on(address: str, page: Page, tmp_path: Path) -> None:
    notebook = Notebook(page, address, "notebooks/accuracy_vs_fraction.ipynb")
    given = {"study": "stopped", "epochs": 400, "fractions": [1.0], "controls": [], "seeds": [0], "timed_repeats": 0}
    notebook.replace(1, "\n".join(f"{name} = {value!r}" for name, value in {**given, "figure_dpi": 50}.items()))
    notebook.run_all()
    training = notebook.cell("run_watched(").locator(".jp-OutputArea")
    expect(training.locator(".widget-hprogress")).to_be_visible()
    curve = training.locator("img:visible").first
    seen = str(curve.get_attribute("src"))
    changes(curve, seen)
    notebook.shoot(training, tmp_path / "watched.png")
    training.get_by_role("button", name="Stop").click()
    expect(training).to_contain_text("Interrupted: 0 of 1 runs are trained and kept")
    expect(training).not_to_contain_text("Traceback")
    expect(training.get_by_role("button", name="Stop")).to_be_hidden()
    notebook.shoot(training, tmp_path / "stopped.png")
    notebook.replace(1, "\n".join(f"{name} = {value!r}" for name, value in {**given, "epochs": 3}.items()))
    page.keyboard.press("Escape")
    notebook.run_all()
    expect(training).to_contain_text("1 runs trained and 1 evaluated now")
    expect(training).to_contain_text("100%")
    expect(training).to_contain_text("took 00:")
    assert not training.locator("[data-mime-type='application/vnd.jupyter.stderr']").count()
    notebook.shoot(training, tmp_path / "finished.png")
    notebook.replace(1, "study = 'stopped'\nseeds = [0]\nepoch = 3")
    page.keyboard.press("Escape")
    notebook.run_all()
    refused = notebook.cell("config_of_notebook(").locator(".jp-OutputArea")
    expect(refused).to_contain_text("ConfigError: unknown parameter 'epoch' (did you mean 'epochs'?)")
    expect(refused).not_to_contain_text("Traceback")
    notebook.shoot(refused, tmp_path / "refused.png")


def test_the_start_page_leads_to_every_notebook(address: str, page: Page, tmp_path: Path) -> None:
    notebook = Notebook(page, address, "notebooks/README.ipynb")
    notebook.run_all()
    expect(notebook.cell("overview()")).to_contain_text("digits (reference)")
    notebook.shoot(page.locator(".jp-NotebookPanel"), tmp_path / "start.png")
    page.get_by_role("link", name="explore").first.click()
    expect(page.locator(".jp-Cell", has_text="What can I ask here?").first).to_be_visible()
