"""What README, pages of committed studies and advice show of their records; run as a module, it writes them anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from advprune_core.analysis import fronts
from advprune_core.analysis.claims import CLAIMS, claims_table
from advprune_core.analysis.pages import ABOUT, write_page
from advprune_core.analysis.rivals import at_equal_robustness
from advprune_core.analysis.seeds import points
from advprune_core.analysis.speedups import MARGIN
from advprune_core.analysis.style import write
from advprune_core.analysis.summaries import markdown, pruner_table
from advprune_core.analysis.ways import frontier, once
from advprune_core.base.files import write_text
from advprune_core.study.courses import collect_courses, collect_lifetimes
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect_timings, table_columns
from advprune_core.study.unfinished import unfinished
from tests.committed import answer_rows, of
from tests.first_screens import FIRST_CELLS, first_cell
from tests.front_figure import gains
from tests.front_sentences import answer, further
from tests.reference import REFERENCE, STUDIES

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parents[1] / "results" / "README.md"
FIGURE = REFERENCE / "answer.png"


def equal_cost() -> str:
    """What pruning gains or loses against all the data at equal cost: further sentences, and row by row."""
    return f"{further()}\n\n{markdown(pd.DataFrame([row.shown() for row in answer_rows().values()]))}"


def claims() -> str:
    """What the two papers' abstracts claim beside what the committed studies measured."""
    stores = {
        study: RunStore(REFERENCE / study, read_only=True)
        for study in {claim.study for claim in CLAIMS}.intersection(STUDIES)
    }
    missing = {study: unfinished(store, store.manifest(study)) for study, store in stores.items()}
    read = {"convergence": collect_courses, "reliability": collect_lifetimes}
    courses, lifetimes = (
        {
            study: collect(REFERENCE / study, study=study)
            for study in {claim.study for claim in CLAIMS if claim.kind == kind}.intersection(STUDIES)
        }
        for kind, collect in read.items()
    )
    tables = {study: of(study) for study in stores}
    table = claims_table(tables, missing=missing, courses=courses, lifetimes=lifetimes)
    return markdown(table.rename(columns={"verdict": "verdict here"}))


def columns() -> str:
    """What the columns of the table say."""
    rows = [{"column": name, "what it says": text.rstrip(".")} for name, text in table_columns().items()]
    return markdown(pd.DataFrame(rows))


#: Tables that notebooks write beside that of all runs, by name.
DERIVED: dict[str, Callable[[str], pd.DataFrame]] = {
    "trainers": lambda study: frontier(of(study), collect_timings(REFERENCE / study, study=study)),
    "pruners": lambda study: pruner_table(of(study)),
    "gradient_matching": lambda study: at_equal_robustness(of(study), reference="TRADES: random", margin=MARGIN),
}


def derived(study: str) -> dict[str, pd.DataFrame]:
    """Those of them that stand beside the records of a study, as its records say them."""
    return {name: make(study) for name, make in DERIVED.items() if (REFERENCE / study / f"{name}.csv").exists()}


def held_out(study: str) -> str:
    """What a tuning study decides by: robust accuracy on held-out images at the end, of its one seed."""
    rows = [
        {
            "arm": arm,
            "data kept, of a control: by the run that it matches": f"{100 * kept:g} %",
            "held out, %": f"{100 * runs['val_pgd_last'].mean():.1f}",
        }
        for (arm, kept), runs in points(once(of(study))).items()
    ]
    return markdown(pd.DataFrame(rows))


#: Studies that choose settings, on one tuning seed.
TUNING = ("cifar10_cpu_lr_pgd", "cifar10_cpu_crop")

#: What stands in a file between ``<!-- name -->`` and ``<!-- end -->``, by name.
SHOWN: dict[Path, dict[str, Callable[[], str]]] = {
    README: {
        "answer: results/reference": answer,
        "equal cost: results/reference": equal_cost,
        "claims: results/reference": claims,
    },
    RESULTS: {"columns": columns},
    **{REFERENCE / study / ABOUT: {"held out: results/reference": partial(held_out, study)} for study in TUNING},
    **{path: {"answer: results/reference": partial(first_cell, path)} for path in FIRST_CELLS},
    # Their prose is the notebook's of today.
    **{path: {} for path in sorted(REFERENCE.glob("*/*.ipynb"))},
}


def filled(path: Path) -> str:
    """A file with what records and code say today; of a notebook in its first cell, of an executed one all prose."""
    text = path.read_text()
    if path.is_relative_to(REFERENCE) and path.suffix == ".ipynb":
        executed = json.loads(text)
        now = json.loads((README.parent / "notebooks" / path.name).read_text())  # written before it
        for cell, new in zip(_prose(executed), _prose(now), strict=True):
            cell["source"] = new["source"]
        return json.dumps(executed, indent=1, ensure_ascii=False) + "\n"
    if path.suffix == ".ipynb":
        notebook = json.loads(text)
        cell = notebook["cells"][0]
        cell["source"] = _filled("".join(cell["source"]), path).splitlines(keepends=True)
        return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return _filled(text, path)


def _prose(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def _filled(text: str, path: Path) -> str:
    for name, show in SHOWN[path].items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, found, after = text.partition(start)
        assert found, f"{path} has no place for {name}"
        text = f"{before}{start}{show()}\n{end}{after.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for file in SHOWN:
        file.write_text(filled(file))
    for committed in STUDIES:
        write_page(REFERENCE / committed, committed)
        for title, found in derived(committed).items():
            found.to_csv(REFERENCE / committed / f"{title}.csv", index=False)
    write(gains(answer_rows()), FIGURE)
    write_text(fronts.KEPT, fronts.measured_points([REFERENCE / study for study in STUDIES]).to_csv(index=False))
