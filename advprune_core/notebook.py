"""What the experiment notebooks share: their parameters, and where their files go."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.pages import write_tables
from advprune_core.analysis.style import write
from advprune_core.base.cells import statements
from advprune_core.base.files import shown as shown
from advprune_core.base.frontend import attended
from advprune_core.base.settings import check_names
from advprune_core.base.yaml_files import parse_yaml
from advprune_core.study.driver import Driver
from advprune_core.study.grid import check_arms
from advprune_core.study.options import check_options
from advprune_core.study.runner import StudyResult, run_study
from advprune_core.study.study import NOTEBOOKS, StudyConfig, study_config


def injected_names(cells: Iterable[str]) -> list[str]:
    """Names that papermill's injected cell sets, found among the sources of executed cells."""
    return [name for source in cells if source.startswith("# Parameters\n") for name in _assigned(source)]


def typed_names(cells: Iterable[str]) -> list[str]:
    """Names that the parameter cell sets as it was executed last: that which says the study and its seeds."""
    found = [names for names in map(_assigned, cells) if {"study", "seeds"} <= set(names)]
    return found[-1] if found else []


def _assigned(source: str) -> list[str]:
    """Names that the assignments of a cell set; of one with magics, or that is broken, none."""
    targets: list[ast.expr] = []
    for statement in statements(source):
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return [target.id for target in targets if isinstance(target, ast.Name)]


def config_of_notebook(
    namespace: Mapping[str, Any], *, options: Sequence[str] = (), arms: Sequence[str] = ()
) -> StudyConfig:
    """Read and check a notebook's parameters.

    Papermill itself only logs a misspelt parameter and goes on with the default, and so would a
    notebook whose parameter cell is given a line ``epoch = 3``. Here both are errors. Only these two
    cells are looked at, so that running a notebook's cells again, in any order, is no mistake.

    Parameters
    ----------
    namespace : mapping
        ``globals()`` of the notebook.
    options : sequence of str
        Parameters beside those of the study (of its figure, say); see `study.options` for what is checked of them.
    arms : sequence of str
        Those of them that name arms of the study, an arm or lists of arms; `advprune study` reads them here, too.

    Raises
    ------
    ConfigError
        Unknown names with the near miss named, values out of range, arms or a reference that the study does not have.
    """
    known = [*StudyConfig.model_fields, *options, *arms, NOTEBOOKS]  # a profile that papermill reads says it, too
    cells = namespace.get("In", [])
    injected, typed = injected_names(cells), typed_names(cells)
    check_names([*injected, *typed], known, what="parameter")
    config = study_config({name: _meant(namespace[name]) for name in StudyConfig.model_fields if name in namespace})
    check_arms(config, {name: namespace[name] for name in arms})
    # Of what papermill was given the parameter cell has the defaults; else somebody may have typed there.
    values = {name: _meant(namespace[name]) for name in (*options, *arms) if name in namespace}
    check_options(config, values, given=set(injected or typed) - set(arms))
    return config


def _meant(value: Any) -> Any:
    """A parameter; papermill's ``-p seeds '[0, 1]'`` passes a list or a map as its text."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        return parse_yaml(value, what=f"the parameter {value!r}")
    return value


class StudyInterrupted(KeyboardInterrupt):
    """A study was interrupted; the message says what is kept."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the sentence alone."""
        return [f"Interrupted: {self}"]


def run_watched(config: StudyConfig, *, only: Collection[tuple[str, float]] | None = None) -> StudyResult:
    """Carry a study out as `run_study` does, where it can be watched and stopped.

    In JupyterLab a curve is drawn while it trains, under a button that stops it; an executed copy has neither.

    Parameters
    ----------
    config, only
        As of `run_study`.

    Raises
    ------
    StudyInterrupted
        Instead of the interruption, which is what the button makes.
    """
    driver: Driver | None = None

    @contextmanager
    def beside(started: Driver) -> Iterator[None]:
        nonlocal driver
        driver = started
        if attended():
            from advprune_core.explore.live import watching

            with watching(started):
                yield
        else:
            yield

    try:
        return run_study(config, only=only, beside=beside)
    except KeyboardInterrupt:
        raise StudyInterrupted(_kept(driver)) from None


def _kept(driver: Driver | None) -> str:
    """What an interruption leaves."""
    if driver is None:
        return "nothing was trained yet; run the cell again to begin"
    finished, planned = driver.grid.finished()
    return (
        f"{finished} of {planned} runs are trained and kept, with what was tested of them; run the cell again to go on "
        "from there (a run that was under way: from its last checkpoint)"
    )


def save_figure(figure: Figure, config: StudyConfig, name: str, *, dpi: int = 150) -> Path:
    """Write a figure to ``results/<study>/<name>.png``, and beside it as SVG."""
    return write(figure, config.folder / f"{name}.png", dpi=dpi)


def save_table(table: pd.DataFrame, config: StudyConfig, name: str = "table") -> tuple[Path, Path]:
    """Write the tidy table as CSV, and its summary as LaTeX, to ``results/<study>/``."""
    return write_tables(table, config.folder, name)
