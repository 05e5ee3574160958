"""A page for every component: what its docstring says, its settings, and what committed studies measured with it."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from sphinx.ext.napoleon import Config, NumpyDocstring

from advprune_core.analysis.cells import component_name, described, settings, threat
from advprune_core.analysis.report import sortable
from advprune_core.analysis.summaries import after_attacks, attacks_of, markdown, printable
from advprune_core.base.components import Component
from advprune_core.objectives.base import TRAINERS
from advprune_core.study.table import collect
from advprune_core.trainers.config import RunConfig

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
#: The exported studies among what is committed.
STUDIES = sorted(path.parent.name for path in REFERENCE.glob("*/manifest.json"))
#: Family to what `advprune run` takes a member by, where it does, and what the table calls it.
OPTIONS = {
    "pruners": "pruner",
    "trainers": "trainer",
    "objectives": "objective",
    "starts": "start",
    "steps": "steps",
    "schedules": "schedule",
    "models": "model",
    "datasets": "dataset",
    "controls": "control",
}
TITLES = {
    "pruners": "Which images are kept",
    "keep_rules": "Which scores a score's pruner keeps",
    "attacks": "How a trained network is tested",
    "trainers": "Ways of training, by the field's names: an objective with its attack",
    "objectives": "The loss of a batch",
    "starts": "Where the training attack starts",
    "steps": "How many steps each image gets",
    "schedules": "How the learning rate goes",
    "models": "Networks",
    "datasets": "Images and labels",
    "controls": "What a pruned run is judged beside",
}
#: Types of parameters and attributes are prose (shapes and units), of which fields would make links.
_STYLE = Config(
    napoleon_use_param=False, napoleon_use_rtype=False, napoleon_custom_sections=[("Attributes", "params_style")]
)
_ARXIV = re.compile(r"(?<![\w./-])(\d\d(?:0[1-9]|1[0-2])\.\d{4,5})(?![\w.]*\w)")


def as_rst(docstring: str) -> str:
    """A docstring of NumPy style as ReStructuredText, in which the arXiv numbers of papers are links."""
    return _ARXIV.sub(r"`\1 <https://arxiv.org/abs/\1>`__", str(NumpyDocstring(docstring, _STYLE)))


def card(family: str, name: str, component: type[Component]) -> str:
    """The Markdown page of a component."""
    module = component.__module__
    text = as_rst(inspect.cleandoc(component.__doc__ or ""))
    parts = [f"# {name}", rst(f".. py:currentmodule:: {module}\n\n{text}")]
    option = "trainer" if family == "objectives" and name in TRAINERS.classes() else OPTIONS.get(family)
    if option and not any(field.is_required() for field in component.model_fields.values()):
        parts.append(f"`advprune run --{option} {name}`, or `{option}: {name}` in a profile.")
    if component.model_fields:
        parts += ["## Settings", markdown(pd.DataFrame(settings_of(component)))]
    code = (inspect.getdoc(sys.modules[module]) or "").partition("\n\nTo add")[0]
    parts += ["## Code", rst(as_rst(code)), summaries([component.__name__, *functions(module)])]
    told = {function: inspect.getdoc(getattr(sys.modules[module], function)) or "" for function in functions(module)}
    # Those that say where they are from have the formula, too.
    cited = [f".. rubric:: {function}\n\n{as_rst(text)}" for function, text in told.items() if "\nReferences\n" in text]
    parts += map(rst, cited)
    return "\n\n".join([*parts, *results(family, name)]) + "\n"


def rst(text: str) -> str:
    """ReStructuredText inside Markdown."""
    return f"````{{eval-rst}}\n{text}\n````"


def summaries(names: list[str]) -> str:
    """A table of names of the current module with the first lines of their docstrings, each linked."""
    return rst(".. autosummary::\n   :nosignatures:\n\n" + "\n".join(f"   {name}" for name in names))


def functions(module: str) -> list[str]:
    """Public functions that a module defines, in the order of the source."""
    members = vars(importlib.import_module(module)).items()
    own = [value for name, value in members if inspect.isfunction(value) and not name.startswith("_")]
    return [function.__name__ for function in own if function.__module__ == module]


def settings_of(component: type[Component]) -> Iterator[dict[str, str]]:
    """The rows of a component's table of settings."""
    for name, field in component.model_fields.items():
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        default = default.spec() if isinstance(default, Component) else default
        row = {"setting": name, "default": str(default), "allowed": _allowed(field.annotation, field.metadata)}
        yield row | {"what it is": field.description or ""}


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    """``0 <= ... <= 1``, or the words that a setting takes; empty where its type says it all."""
    if annotation is bool:
        return "True, False"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [f"{sign} {getattr(item, at)}" for item in metadata for at, sign in signs.items() if hasattr(item, at)]
    words = [str(word) for word in get_args(annotation) if isinstance(word, str | int)]
    return ", ".join(words or bounds)


def sortable_html(table: pd.DataFrame, page: str) -> str:
    """A table that sorts and filters, as HTML for a page of the site."""
    script = f'<script src="{"../" * page.count("/")}_static/itables.js"></script>'
    return f'<div class="results">{script}\n{sortable(table)}</div>'


def raw(html: str) -> str:
    """HTML inside Markdown."""
    return f"````{{raw}} html\n{html}\n````"


@cache
def of(study: str) -> pd.DataFrame:
    """The table of a committed study."""
    return collect(REFERENCE / study, study=study)


@cache
def printed(study: str) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The runs of each data set and threat model of a study, and their summary as people read it."""
    return [(table, printable(table)) for _, table in settings(of(study))]


def results(family: str, name: str) -> list[str]:
    """Its rows of the committed studies, each with the control beside it; nothing where no study has it."""
    rows = [rows_with(family, name, study) for study in STUDIES]
    found = pd.concat(rows) if any(map(len, rows)) else pd.DataFrame()
    if not len(found):
        return []
    links = ", ".join(f"[{study}](../../results/reference/{study}/README.md)" for study in found["study"].unique())
    said = "Means over seeds with 95 % t intervals; rows of different data or threat models don't compare."
    return ["## Results", f"{said} From {links}.", raw(sortable_html(found, f"components/{family}/{name}.md"))]


def rows_with(family: str, name: str, study: str) -> pd.DataFrame:
    """Its rows of one study as people read them."""
    parts = []
    for table, all_rows in printed(study):
        if family == "attacks":
            shown = _under(name, table)
        else:
            arms = set(table[_uses(family, name, table)]["arm"])
            beside = {arm for arm in table["arm"].unique() if any(f"({own})" in arm for own in arms)}
            shown = all_rows[all_rows["arm"].isin(arms | beside)]
        data = described(table["dataset"].iloc[0])
        named = pd.DataFrame({"study": study, "data, threat model": f"{data}, {threat(table)}"}, index=shown.index)
        parts.append(pd.concat([named, shown], axis=1))
    return pd.concat(parts)


def _under(attack: str, table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies under an attack and all before it in the test; no row where the test is without it."""
    shown = after_attacks(table)
    # Labels are "pgd40_margin", "square_queries=100", or "autoattack/square" for a part of another.
    called, labels = re.compile(rf"{attack}\d*(?:_margin|_\w+=.*)?"), attacks_of(table, parts=True)
    others = [label for label in labels if not any(map(called.fullmatch, label.split("/")))]
    return shown.drop(columns=others) if len(others) < len(labels) else shown[:0]


def _uses(family: str, name: str, table: pd.DataFrame) -> pd.Series:
    """Which runs are of a component."""
    if family == "trainers":
        config = RunConfig.flat(trainer=name).model_dump(mode="json")
        preset = {"objective": config["objective"], **{part: config["attack"][part] for part in ("start", "steps")}}
        cells = [json.dumps(spec, sort_keys=True) if isinstance(spec, dict) else spec for spec in preset.values()]
        return pd.concat([table[part] == cell for part, cell in zip(preset, cells, strict=True)], axis=1).all(axis=1)
    column = OPTIONS.get(family)
    return table[column].map(component_name) == name if column in table else pd.Series(False, index=table.index)
