"""The page of an exported study: its tables, findings and figures, all from its records."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from advprune_core.analysis.budgets import budget_findings
from advprune_core.analysis.cells import settings, with_accuracies
from advprune_core.analysis.convergence import convergence_findings
from advprune_core.analysis.decomposition import decomposition, decomposition_findings
from advprune_core.analysis.doubts import doubts
from advprune_core.analysis.figures import FIGURES, pictures_in, redraw
from advprune_core.analysis.findings import accuracy_findings, pruner_findings
from advprune_core.analysis.labels import settings_told
from advprune_core.analysis.markup import escape
from advprune_core.analysis.rivals import equal_cost_findings, equal_robustness_findings
from advprune_core.analysis.seeds import points, well_covered
from advprune_core.analysis.speedups import MARGIN
from advprune_core.analysis.summaries import after_attacks, markdown, printable, printable_ways, pruner_table
from advprune_core.analysis.survival import survival_findings
from advprune_core.analysis.tested import attacks_of
from advprune_core.analysis.trainer_findings import trainer_findings
from advprune_core.analysis.ways import SAME_COST, way_labels, whole_runs
from advprune_core.base.files import write_text
from advprune_core.study.courses import collect_courses, collect_lifetimes
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect, collect_timings
from advprune_core.study.unfinished import unfinished

#: What somebody has to say of a study: the beginning of its page.
ABOUT = "about.md"
#: With more arms than this, controls aside, their differences are one table instead of a sentence each.
_MANY = 6
#: With more points than this they are not listed one by one.
_LISTED = 20


def write_tables(table: pd.DataFrame, folder: Path, name: str = "table") -> tuple[Path, Path]:
    """Write the table of a study as CSV, and its summary as LaTeX."""
    csv, latex = folder / f"{name}.csv", folder / f"{name}.tex"
    write_text(csv, table.to_csv(index=False))
    write_text(latex, printable(table).to_latex(index=False, escape=True))
    return csv, latex


def write_page(folder: Path, study: str) -> None:
    """Write tables, figures that are there and the page of an exported study into its folder."""
    table = collect(folder, study=study)
    if len(table):
        write_tables(table, folder)
        redraw(folder, study)
    write_text(folder / "README.md", page(folder, study))


def page(folder: Path, study: str) -> str:
    """Markdown of what the records of an exported study say, after what ``about.md`` says where it is there."""
    table = collect(folder, study=study)
    about, source = folder / ABOUT, "`records.jsonl.gz`"
    head = about.read_text().strip() if about.exists() else f"# {study}"
    source += f" and `{ABOUT}`" if about.exists() else ""
    head += f"\n\nWritten by `advprune export {study}` from {source}; an edit here is lost."
    store = RunStore(folder, read_only=True)
    if missing := unfinished(store, store.manifest(study)):
        failed = sum(point.why == "failed" for point in missing)
        told = f" ({failed} of these runs failed)" * bool(failed)
        head += f" Under way: {len(missing)} runs or their tests are missing{told}, and no verdict is corrected for "
        head += "looking before the end."
    if not len(table):
        return f"{head}\n\nNo run is finished yet.\n"
    runs, seeds = table["key"].nunique(), table["seed"].nunique()
    tested = table[table["robust"].notna()]["key"].nunique() if "robust" in table else 0
    untested = f", {tested} of them tested" if tested < runs else ""
    parts = [
        f"{runs} runs{untested}, {seeds} seed{'s' * (seeds != 1)}. {escape(settings_told(table))}. "
        "A control stands beside the run that it matches; accuracies "
        "in per cent with 95 % t intervals over seeds, costs in forward-equivalents. "
        f"`table.csv` has a row for each run. {_made(store, list(table['key'].unique()))}",
        *_executed(folder),
        *(_picture(folder / f"{name}.png") for name in pictures_in(folder)),
        markdown(rows_of(table, folder, study)),
    ]
    if len(attacks_of(table, parts=True)) > 2:
        parts += ["## After each attack and all before it", markdown(after_attacks(table))]
    parts += ["## Findings", findings_of(table)]
    if (folder / "convergence.png").exists():
        parts += ["## How soon it gets there", _courses(folder, study)]
    for title, text in more_findings(table).items():
        parts += [f"## {title}", text]
    return "\n\n".join([head, *parts]) + "\n"


def _made(store: RunStore, keys: list[str]) -> str:
    """Where the runs of a page were trained, by which version of torch, and whether nothing vouches for records."""
    records = [record for key in keys if (record := store.run(key)) is not None]
    where, by = (
        " and ".join(sorted({str(record.environment.get(name, "unknown")) for record in records}))
        for name in ("device", "torch")
    )
    bare = sum(record.provenance == "imported without digests" for record in records)
    unsealed = f" {bare} of the records are of a version that wrote no digests." if bare else ""
    return f"Trained on {where}, by torch {by}.{unsealed}"


def _courses(folder: Path, study: str) -> str:
    """How soon runs were robust, and which collapsed before."""
    courses, lives = collect_courses(folder, study=study), collect_lifetimes(folder, study=study)
    return f"{convergence_findings(courses)}\n\nCatastrophic overfitting:\n\n{survival_findings(lives)}"


def _executed(folder: Path) -> list[str]:
    """Links to the notebooks that were executed with these records."""
    links = [f"[{path.stem}]({path.name})" for path in sorted(folder.glob("*.ipynb"))]
    return [f"Executed with these runs: {', '.join(links)}."] if links else []


def _picture(path: Path) -> str:
    """A figure of a page, what it says, and a link to it as SVG."""
    vector = path.with_suffix(".svg")
    says = [FIGURES[path.stem].says] if path.stem in FIGURES else []
    says += [f"[The same as SVG]({vector.name})."] if vector.exists() else []
    return f"![{path.stem.replace('_', ' ')}]({path.name})\n\n{' '.join(says)}".rstrip()


def more_findings(table: pd.DataFrame) -> dict[str, str]:
    """Markdown by title: what follows for those who choose, where a part of the data was tried."""
    if not (table["fraction"] < 1).any():
        return {}
    parts = _cheaper(table) if len(points(table)) <= _LISTED else {}
    if many_arms(table):
        return parts
    if len(decomposition(table)):
        parts["What the loss is made of"] = decomposition_findings(table)
    return parts | {"With this budget, use ...": budget_findings(table)}


def _cheaper(table: pd.DataFrame) -> dict[str, str]:
    """What is cheaper and as robust as all the data, by objective, where all is one task: data set, threat model.

    Beside the most robust arm on all the data: to be as robust as one that has collapsed is easy.
    """
    table = with_accuracies(table)
    whole = whole_runs(table[table["robust"].notna()])
    if len(settings(table)) != 1:
        return {}
    parts: dict[str, str] = {}
    for objective, full in whole.groupby("objective", sort=False):
        runs = table[table["objective"] == objective]
        levels = full.groupby("arm", sort=False).agg(robust=("robust", "mean"), seeds=("seed", "nunique"))
        reference = str(levels[well_covered(levels["seeds"])]["robust"].idxmax())
        most = full[full["arm"] == reference]["cost"].mean() / (1 + SAME_COST)
        costs = [rows["cost"].mean() for rows in points(runs[runs["robust"].notna()]).values()]
        if (runs["fraction"] < 1).any() and min(costs) < most:
            title = "Cheaper at equal robustness" + (f": beside {reference}" if parts else "")
            parts[title] = equal_robustness_findings(runs, reference=reference, margin=MARGIN)
    return parts


def compares_ways(table: pd.DataFrame) -> bool:
    """Whether it compares ways of training, not what stands beside each other in one."""
    return bool(way_labels(table).nunique() > 1 and table["variant"].nunique() > 1 and table["control"].isna().all())


def many_arms(table: pd.DataFrame) -> bool:
    """Whether it has too many arms for a sentence on each."""
    return bool(not compares_ways(table) and table[table["control"].isna()]["arm"].nunique() > _MANY)


def rows_of(table: pd.DataFrame, folder: Path, study: str) -> pd.DataFrame:
    """The table of a study as people read it, by its kind."""
    labels = way_labels(table)
    if compares_ways(table) and set(labels[table["matched_fraction"] == 1]) == set(labels):
        return printable_ways(table, collect_timings(folder, study=study))
    return printable(table)


def findings_of(table: pd.DataFrame) -> str:
    """Markdown: what a study shows, by its kind, and what is to be doubted in it."""
    doubt = escape(doubts(table))
    return _findings_of(table) + (f"\n\n**{doubt}.**" if doubt else "")


def _bought_longer(table: pd.DataFrame) -> bool:
    """Whether runs on a part of the data were trained for as many epochs as cost what all of it does.

    Theirs are resolved to epochs; those on all the data still have the setting.
    """
    return bool("equal_cost" in table and table["equal_cost"].eq(True).any() and (table["fraction"] < 1).any())


def _findings_of(table: pd.DataFrame) -> str:
    if table["dataset"].astype(str).nunique() > 1 or _bought_longer(table):
        return equal_cost_findings(table)
    if compares_ways(table):
        return trainer_findings(table)
    if many_arms(table):
        several = table["variant"].nunique() > 1
        return equal_cost_findings(table) if several else pruner_findings(pruner_table(table))
    return accuracy_findings(table)
