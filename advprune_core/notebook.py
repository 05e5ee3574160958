"""What the experiment notebooks share: their parameters, and where their files go."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.pages import write_tables
from advprune_core.base.files import write_atomically
from advprune_core.base.settings import check_names
from advprune_core.study.study import NOTEBOOKS, StudyConfig, study_config


def injected_names(cells: Iterable[str]) -> list[str]:
    """Names that papermill's injected cell sets, found among the sources of executed cells."""
    names = []
    for source in cells:
        if source.startswith("# Parameters\n"):
            assignments = [s for s in ast.parse(source).body if isinstance(s, ast.Assign)]
            targets = [target for assignment in assignments for target in assignment.targets]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def config_of_notebook(namespace: Mapping[str, Any], *, options: Sequence[str] = ()) -> StudyConfig:
    """Read and check a notebook's parameters.

    Papermill itself only logs a misspelt parameter and goes on with the default. Here it is an
    error. Only papermill's own cell is looked at, so that running a notebook's cells again, in
    any order, is no mistake.

    Parameters
    ----------
    namespace : mapping
        ``globals()`` of the notebook.
    options : sequence of str
        Parameters of this notebook alone (of its figure, say).

    Raises
    ------
    ConfigError
        Unknown names with the near miss named, values out of range.
    """
    known = [*StudyConfig.model_fields, *options, NOTEBOOKS]  # a profile that papermill reads says it, too
    check_names(injected_names(namespace.get("In", [])), known, what="parameter")
    return study_config({name: namespace[name] for name in StudyConfig.model_fields if name in namespace})


def save_figure(figure: Figure, config: StudyConfig, name: str, *, dpi: int = 150) -> Path:
    """Write a figure to ``results/<study>/<name>.png``."""
    path = config.folder / f"{name}.png"
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi))
    return path


def save_table(table: pd.DataFrame, config: StudyConfig, name: str = "table") -> tuple[Path, Path]:
    """Write the tidy table as CSV, and its summary as LaTeX, to ``results/<study>/``."""
    return write_tables(table, config.folder, name)


def shown(path: Path) -> str:
    """A path as people read it: relative to the current folder or its parent where it can be."""
    for base, prefix in ((Path.cwd(), ""), (Path.cwd().parent, "../")):
        if path.resolve().is_relative_to(base):
            return prefix + str(path.resolve().relative_to(base))
    return str(path)
