"""One page of studies that opens from a file: the answer, figures, tables, cost, and how to repeat them."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import itables.options
import matplotlib.pyplot as plt
import pandas as pd
import yaml
from itables import JavascriptFunction
from itables.javascript import generate_init_offline_itables_html, to_html_datatable
from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from advprune_core.analysis.against_cost import robust_vs_cost
from advprune_core.analysis.budgets import iso_cost_map
from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.decomposition import decomposition, decomposition_figure
from advprune_core.analysis.labels import settings_told
from advprune_core.analysis.pages import compares_ways, findings_of, many_arms, more_findings, rows_of
from advprune_core.analysis.plots import accuracy_vs_fraction
from advprune_core.analysis.style import DPI
from advprune_core.analysis.summaries import after_attacks
from advprune_core.analysis.tested import attacks_of
from advprune_core.base.settings import ConfigError
from advprune_core.study.records import RunRecord
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect
from advprune_core.study.unfinished import unfinished

#: Columns of the table of all runs.
_RUN = ("arm", "matched_fraction", "seed", "status", "clean", "robust", "cost", "key")

#: Of a column of estimates, for DataTables: what is shown and filtered stays as it is.
_BY_MEAN = 'function (data, type) { return type === "sort" || type === "type" ? parseFloat(data) : data; }'


@dataclass(frozen=True)
class Picture:
    """A figure as it stands in the page: PNG in base64, and what it shows."""

    caption: str
    data: str


@dataclass(frozen=True)
class Part:
    """One study of a report; texts and tables are HTML, but for `title`, `setting`, `ends`, `made` and `profile`."""

    name: str
    title: str
    answer: str
    setting: str
    figures: list[Picture]
    tables: dict[str, str]
    findings: dict[str, str]
    ends: str
    made: str
    profile: str


def report(sources: Sequence[tuple[Path, str]]) -> str:
    """An HTML page of studies, with all that it needs inside.

    Parameters
    ----------
    sources : sequence of (Path, str)
        Results folder, or that of an exported study, and the study's name.

    Raises
    ------
    ConfigError
        No study, one that is not there, or of which no run is finished.
    """
    if not sources:
        raise ConfigError("name a study, or the folder of an exported one")
    parts = [_part(folder, study) for folder, study in sources]
    loader = PackageLoader("advprune_core.analysis", package_path="")
    template = Environment(loader=loader, autoescape=True).get_template("report.html")
    return template.render(
        title=parts[0].title if len(parts) == 1 else "Data pruning for adversarial training",
        written=f"Written by advprune from the records of its runs, {datetime.now(UTC):%d %B %Y}.",
        tables_script=generate_init_offline_itables_html(itables.options.dt_bundle),
        parts=parts,
    )


def _part(folder: Path, study: str) -> Part:
    store = RunStore(folder, read_only=True)
    manifest, table = store.manifest(study), with_accuracies(collect(folder, study=study))
    if not len(table) or table["robust"].isna().all():
        raise ConfigError(f"no run of the study {study!r} in {folder} is finished and tested")
    tables = {"In short": sortable(rows_of(table, folder, study))}
    if len(attacks_of(table, parts=True)) > 1:
        tables["After each attack and all before it, %"] = sortable(after_attacks(table))
    tables["Every run"] = sortable(every_run(table))
    records = [record for key in table["key"].unique() if (record := store.run(key)) is not None]
    return Part(
        name=study,
        title=study,
        answer=_html(findings_of(table)),
        setting=_setting(table),
        figures=[_picture(caption, draw(table)) for caption, draw in _figures(table).items()],
        tables=tables,
        findings={title: _html(text) for title, text in more_findings(table).items()},
        ends=_ends(table, len(unfinished(store, manifest))),
        made=_made(records),
        profile=f"# advprune study {study}.yaml, with this in {study}.yaml:\n"
        + yaml.safe_dump(manifest.config, sort_keys=False, allow_unicode=True),
    )


def _html(markdown: str) -> str:
    """Markdown of findings as HTML; names in it are escaped, and raw HTML stays text."""
    return MarkdownIt("commonmark", {"html": False}).render(markdown)


def every_run(table: pd.DataFrame) -> pd.DataFrame:
    """What a page shows of each run: which it is, how it ended, what it reached and cost."""
    return table[[name for name in _RUN if name in table]].round({"clean": 4, "robust": 4})


def sortable(table: pd.DataFrame) -> str:
    """A table that sorts and filters, as HTML; estimates, ``97.3 [96.9, 97.6]``, by their means.

    Works where `generate_init_offline_itables_html` of itables stands in the page, without anything from elsewhere.
    """
    estimates = [at for at, name in enumerate(table) if table[name].map(_is_estimate).any()]
    by_mean = [{"targets": estimates, "render": JavascriptFunction(_BY_MEAN)}] if estimates else []
    return str(
        to_html_datatable(
            table,
            connected=False,
            showIndex=False,
            lengthMenu=[20, 100, 1000],
            maxBytes=0,
            columnDefs=by_mean,
            text_in_header_can_be_selected=False,  # a click on it sorts
        )
    )


def _is_estimate(cell: object) -> bool:
    return isinstance(cell, str) and re.match(r"[+-]?[0-9.]+ \[", cell) is not None


def _figures(table: pd.DataFrame) -> dict[str, Callable[[pd.DataFrame], Figure]]:
    """What there is to draw, by caption."""
    first: dict[str, Callable[[pd.DataFrame], Figure]] = (
        {"Robust accuracy against cost, by way of training or pruner.": robust_vs_cost}
        if compares_ways(table) or many_arms(table)
        else {"Accuracy against the share of the data kept; controls beside the runs that they match.": _by_fraction}
    )
    if len(decomposition(table)):
        first["What the loss against all the data is made of."] = decomposition_figure
    return first | {"Images visited and the cost of each; on a grey line all cost the same.": iso_cost_map}


def _by_fraction(table: pd.DataFrame) -> Figure:
    return accuracy_vs_fraction(table)


def _picture(caption: str, figure: Figure) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    plt.close(figure)
    return Picture(caption, base64.b64encode(file.getvalue()).decode("ascii"))


def _setting(table: pd.DataFrame) -> str:
    seeds = table["seed"].nunique()
    return f"{settings_told(table)}. {seeds} seed{'s' * (seeds != 1)}."


def _ends(table: pd.DataFrame, missing: int) -> str:
    counts = Counter(table.drop_duplicates("key")["status"])
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"Runs: {told}." + (f" {missing} points of the study have no result yet." if missing else "")


def _made(records: Sequence[RunRecord]) -> str:
    """Machines, versions and commits of the runs, the most frequent first."""
    places: Counter[str] = Counter()
    for record in records:
        facts, commit = record.environment, str(record.git.get("commit", ""))[:10]
        where = ", ".join(str(facts[name]) for name in ("device", "system") if facts.get(name))
        with_ = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "numpy") if facts.get(name))
        places["; ".join(filter(None, [where, with_, commit and f"commit {commit}"]))] += 1
    return " ".join(
        f"{count} run{'s' * (count != 1)}: {place or 'not known'}." for place, count in places.most_common()
    )
