"""What README, pages of committed studies and advice show of their records; run as a module, it writes them anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import fill

import pandas as pd

from advprune_core.analysis import fronts
from advprune_core.analysis.claims import CLAIMS, claims_table
from advprune_core.analysis.pages import write_page
from advprune_core.analysis.style import write
from advprune_core.analysis.summaries import markdown
from advprune_core.analysis.verdicts import BETTER, BETTER_HERE, WORSE, WORSE_HERE
from advprune_core.base.files import write_text
from advprune_core.study.archive import unfinished
from advprune_core.study.store import RunStore
from advprune_core.study.table import table_columns
from tests.committed import answer_rows, carried, fixed_subsets, of, wrong_labels
from tests.first_screens import FIRST_CELLS, first_cell
from tests.front_figure import gains
from tests.reference import REFERENCE, STUDIES

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parents[1] / "results" / "README.md"
FIGURE = REFERENCE / "answer.png"


def answer() -> str:
    """What a fixed subset is worth beside a shorter run of its cost, and where pruning wins."""
    digits, cifar = fixed_subsets()
    assert all(row.verdict.comparison.difference.mean < 0 for row in digits), "the sentence says: no better"
    assert digits[-1].verdict.says in (WORSE, WORSE_HERE), "the sentence says that the smallest loses"
    usual = {row.verdict.says for row in (*digits, *cifar)}
    assert not usual & {BETTER, BETTER_HERE}, "the sentence says: no better"
    wins = wrong_labels()
    assert wins[0].verdict.says in (BETTER, BETTER_HERE), "the sentence says that it wins"
    assert wins[1].clean.low > 0, "the sentence says that it wins"
    assert wins[1].verdict.says not in (WORSE, WORSE_HERE), "the sentence says that it loses nothing"
    assert carried().verdict.says in (BETTER, BETTER_HERE), "the sentence says that it may win"
    table = pd.DataFrame([row.shown() for row in answer_rows()])
    told = fill(
        "**Usually pruning gains nothing: at the same cost, a fixed random subset is no better than fewer epochs on "
        "all the data. Where many labels are wrong, pruning wins**: robust accuracy on the digits, clean accuracy at "
        "about the same robust accuracy on CIFAR-10. It may win, too, with a one-step attack that carries its "
        "perturbations on (last row). What pruned runs gain or lose against runs of equal cost on all the data, in "
        "points of robust accuracy (per cent of the test images that stay right under attack; AutoAttack is the "
        "field's standard set of attacks) and of clean accuracy, with 95 % intervals over seeds:",
        width=120,
    )
    return f"{told}\n\n{markdown(table)}"


def claims() -> str:
    """The numbers of the two papers' abstracts beside what the committed studies measured."""
    stores = {
        study: RunStore(REFERENCE / study, read_only=True)
        for study in {claim.study for claim in CLAIMS}.intersection(STUDIES)
    }
    under_way = {study for study, store in stores.items() if unfinished(store, store.manifest(study))}
    table = claims_table({study: of(study) for study in stores}, under_way=under_way)
    return markdown(table.rename(columns={"verdict": "verdict here"}))


def columns() -> str:
    """What the columns of the table say."""
    rows = [{"column": name, "what it says": text.rstrip(".")} for name, text in table_columns().items()]
    return markdown(pd.DataFrame(rows))


#: What stands in a file between ``<!-- name -->`` and ``<!-- end -->``, by name.
SHOWN: dict[Path, dict[str, Callable[[], str]]] = {
    README: {
        "answer: results/reference": answer,
        "claims: results/reference": claims,
    },
    RESULTS: {"columns": columns},
    **{path: {"answer: results/reference": partial(first_cell, path.stem)} for path in FIRST_CELLS},
}


def filled(path: Path) -> str:
    """A file with what records and code say today; of a notebook in its first cell."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        notebook = json.loads(text)
        cell = notebook["cells"][0]
        cell["source"] = _filled("".join(cell["source"]), path).splitlines(keepends=True)
        return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return _filled(text, path)


def _filled(text: str, path: Path) -> str:
    for name, show in SHOWN[path].items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, found, after = text.partition(start)
        assert found, f"{path} has no place for {name}"
        text = f"{before}{start}{show()}\n{end}{after.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for committed in STUDIES:
        write_page(REFERENCE / committed, committed)
    for file in SHOWN:
        file.write_text(filled(file))
    write(gains(answer_rows()), FIGURE)
    write_text(fronts.KEPT, fronts.measured_points([REFERENCE / study for study in STUDIES]).to_csv(index=False))
