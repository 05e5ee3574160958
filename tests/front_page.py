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
from advprune_core.analysis.verdicts import BETTER, BETTER_ALONE, BETTER_HERE, UNDECIDED, WORSE, WORSE_ALONE
from advprune_core.analysis.ways import frontier, once
from advprune_core.base.files import write_text
from advprune_core.study.courses import collect_courses, collect_lifetimes
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect_timings, table_columns
from advprune_core.study.unfinished import unfinished
from tests.committed import (
    about_wrong_labels,
    answer_rows,
    balanced_rule_on_the_digits,
    by_rule,
    by_rule_on_the_digits,
    half_of_some_wrong,
    of,
    one_step_in_l2,
    one_step_on_all_digits,
    one_step_within_3_16,
)
from tests.first_screens import FIRST_CELLS, first_cell
from tests.front_figure import gains
from tests.reference import REFERENCE, STUDIES

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parents[1] / "results" / "README.md"
FIGURE = REFERENCE / "answer.png"


def equal_cost() -> str:
    """What pruning gains or loses against all the data at equal cost, row by row."""
    return markdown(pd.DataFrame([row.shown() for row in answer_rows().values()]))


def answer() -> str:
    """What a fixed subset is worth beside a shorter run of its cost, and where pruning wins."""
    rows = answer_rows()
    says = {name: row.verdict.says for name, row in rows.items()}
    gain = {name: f"{100 * row.case.comparison.difference.mean:+.1f}" for name, row in rows.items()}
    right = {name: said for name, said in says.items() if not about_wrong_labels(name)}
    assert not {BETTER, BETTER_HERE} & set(right.values()), "the sentence says: none is known to be more robust"
    assert {says["digits, least"], says["digits, L2, least"]} == {WORSE}, "the sentence says that it loses"
    settings = ("cifar", "cifar, no crops", "fast", "trades", "bullet", "resnet18", "trades, 100")
    large = [f"{name}, least" for name in settings]
    assert {says[name] for name in large} == {UNDECIDED}, "the sentence says: no difference"
    fifths = [rows[name].case.comparison.over_images for name in large]
    ends = min(fifth.low for fifth in fifths), max(fifth.high for fifth in fifths)
    rules, digits, digits_l2 = (
        [found.over_images for found in each.values()]
        for each in (by_rule(), by_rule_on_the_digits(), by_rule_on_the_digits("pruners_l2"))
    )
    assert max(rule.high for rule in (*rules, *digits, *digits_l2)) < 0, "the sentence says that all of them lose"
    assert says["chosen"] == WORSE_ALONE, "the sentence says: the least by itself"
    most = max(right, key=lambda name: rows[name].case.comparison.difference.mean)
    assert (most, says[most]) == ("carried", BETTER_ALONE), "the sentence says which, and: by itself"
    assert says["carried, cifar"] == WORSE, "the sentence says that it loses"
    assert says["carried, cifar, least"] == UNDECIDED, "the sentence says: not significant"
    assert {says["cheaper, digits"], says["cheaper, digits, L2"]} == {WORSE}, "the sentence says that it saves more"
    assert says["cheaper"] == WORSE_ALONE, "the sentence says: by itself"
    assert says["cheaper, fast"] == UNDECIDED, "the sentence says: not significant"
    dearer = rows["cheaper, fast"].case.clean
    assert dearer.high < 0, "the sentence says that it loses"
    one_step, farther = one_step_on_all_digits().over_images, one_step_within_3_16().over_images
    assert one_step.low > 0 > farther.high, "the sentence says that it gains, and loses within 3/16"
    ball = one_step_in_l2().over_images
    assert ball.low < 0 < ball.high, "the sentence says: not significant"
    balanced, balanced_l2 = (
        100 * balanced_rule_on_the_digits(study).over_images.mean for study in ("pruners", "pruners_l2")
    )
    updates = of("pruners").query("fraction == 1 and control.isna()").eval("optimiser_steps / epochs").mean()
    assert {says["few wrong, half"], says["few wrong, half, L2"]} == {WORSE}, "the sentence says that it loses"
    assert {says["few wrong"], says["many wrong"]} == {BETTER}, "the sentence says that it wins"
    assert {says["few wrong, L2"], says["many wrong, L2"]} == {BETTER_HERE}, "the sentence says: on these images"
    cifar = [rows[f"{share} wrong, cifar"] for share in ("fewest", "few", "many")]
    assert min(row.case.clean.low for row in cifar) > 0, "the sentence says that it wins"
    assert {row.verdict.says for row in cifar} == {UNDECIDED}, "the sentence says: in clean accuracy alone"
    clean = "{}, {} and {}".format(*(f"{100 * row.case.clean.mean:+.1f}" for row in cifar))
    half = [case.clean for case in half_of_some_wrong()]
    assert all(
        case.comparison.over_images.high > 0 and case.clean.mean > row.case.clean.mean
        for case, row in zip(half_of_some_wrong(), cifar[1:], strict=True)
    ), "the sentence says that half does as well"
    smoothed = [name for name, row in rows.items() if about_wrong_labels(name) and "smoothing" in row.case.other]
    assert smoothed == ["many wrong", "many wrong, L2", "many wrong, cifar"], "the sentence says beside which"
    told = (
        "**Where labels are right, nothing pruned is known to be more robust than all the data at the same cost, that "
        "is for fewer epochs.** Points of robust accuracy: a random fifth is "
        f"{gain['digits, least']} on the digits ({gain['digits, L2, least']} within an L2 ball); on CIFAR-10 (six "
        "settings) and CIFAR-100 (one) no difference is "
        f"seen, but few seeds leave room for {100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}. Fifths chosen by "
        f"Kaufmann's four rules are {100 * rules[0].mean:+.1f} (by itself, see below) to {100 * rules[-1].mean:+.1f} "
        f"on CIFAR-10, after five epochs on all the data, and {100 * digits[0].mean:+.1f} to "
        f"{100 * digits[-1].mean:+.1f} on the digits, after one ({updates:.0f} updates; {balanced:+.1f} by the rule "
        f"that has each class keep its share), within an L2 ball {100 * digits_l2[0].mean:+.1f} to "
        f"{100 * digits_l2[-1].mean:+.1f} ({balanced_l2:+.1f}). "
        f"The largest gain, {gain[most]} on Fashion-MNIST, is one by itself; the same idea is {gain['carried, cifar']} "
        f"on CIFAR-10 at the cost of six epochs, {gain['carried, cifar, least']} (not significant) at that of two.",
        "**On the digits a cheaper attack saves more than fewer images, within 2/16 and an L2 ball of 0.5.** Beside "
        f"one step on all the data, which costs less, seven steps on a part are {gain['cheaper, digits']} and "
        f"{gain['cheaper, digits, L2']} there (N-FGSM, which is {100 * one_step.mean:+.1f} and "
        f"{100 * ball.mean:+.1f}, not significant, beside seven steps on all of them, too; within 3/16, "
        f"{100 * farther.mean:+.1f}); on CIFAR-10 {gain['cheaper']} (N-FGSM; "
        f"by itself) and {gain['cheaper, fast']} (Fast AT; not significant, but {100 * dearer.mean:+.1f} clean).",
        "**Where labels are wrong, pruning wins on the digits, within 2/16**, if about as many are kept as are right, "
        f"which must be known: {gain['few wrong']} where 20 % are wrong, {gain['many wrong']} where 40 % are (planned "
        f"after half of them, where 20 % are wrong, had lost: {gain['few wrong, half']}). Within an L2 ball it gains "
        f"less, {gain['few wrong, L2']} and {gain['many wrong, L2']} on these test images, and nobody can tell of "
        f"others (half, where 20 % are wrong: {gain['few wrong, half, L2']}). On CIFAR-10 it wins clean "
        f"accuracy alone, {clean} where 10, 20 and 40 % are, and as much with half of the images "
        f"({100 * half[0].mean:+.1f} and {100 * half[1].mean:+.1f} where 20 and 40 % are). More label smoothing was "
        "set beside all these where 40 % are wrong alone.",
    )
    return "\n".join(f"* {text}" for text in told)


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
