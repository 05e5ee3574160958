"""What README, pages of committed studies and advice show of their records; run as a module, it writes them anew."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from textwrap import fill

import pandas as pd

from advprune_core.analysis import fronts
from advprune_core.analysis.claims import claims_table
from advprune_core.analysis.labels import arm_label
from advprune_core.analysis.pages import write_page
from advprune_core.analysis.rivals import at_equal_cost
from advprune_core.analysis.summaries import markdown, printable
from advprune_core.analysis.verdicts import BETTER, BETTER_HERE, WORSE, WORSE_HERE, compare, judge
from advprune_core.base.files import write_text
from advprune_core.study.table import collect, table_columns
from tests.reference import REFERENCE, STUDIES

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parents[1] / "results" / "README.md"
#: Shares of the digits in the README's table; all of them stand on their page.
SHARES = (0.6, 0.2)


@cache
def of(study: str) -> pd.DataFrame:
    """The table of a committed study."""
    return collect(REFERENCE / study, study=study)


def five_rows() -> pd.DataFrame:
    """The run on all the digits, and two pruned ones beside their controls."""
    shown = printable(of("digits"))
    matched = shown["matched run keeps"].where(shown["matched run keeps"] != "", shown["data kept"])
    full = shown[(shown["data kept"] == "100 %") & (shown["matched run keeps"] == "")]
    rows = pd.concat([full, *(shown[matched == f"{100 * share:g} %"] for share in SHARES)])
    named = rows.assign(
        arm=[
            "all the data" if kept == "100 %" and not other else arm_label(arm)
            for arm, kept, other in zip(rows["arm"], rows["data kept"], rows["matched run keeps"], strict=True)
        ]
    )
    return named.drop(columns=["matched run keeps", "seeds"]).rename(columns={"arm": "training on"})


def answer() -> str:
    """What a fixed subset is worth beside a shorter run of its cost, and where pruning wins."""
    digits, fresh = of("digits"), of("freshness")
    shares = sorted(set(digits["matched_fraction"]) - {1.0}, reverse=True)
    full = {("full", f): compare(digits, "random", "random", fraction=f, reference_fraction=1.0) for f in shares}
    rest = {("cost", f): compare(digits, "random", "same_cost(random)", fraction=f) for f in shares}
    judged = judge(full | rest)
    losses = {f: judged["cost", f] for f in shares}
    assert all(loss.comparison.difference.mean < 0 for loss in losses.values()), "the sentence says: no better"
    assert losses[shares[-1]].says in (WORSE, WORSE_HERE), "the sentence says that the smallest loses"
    told = "; ".join(
        f"{100 * f:g} % kept: {losses[f].comparison.difference.points()}, {losses[f].says}"
        for f in (shares[-1], shares[0])
    )
    pairs = {way: (f"{way}: random", f"{way}: same_cost(random)") for way in fresh["variant"].unique()}
    (share,), epochs = set(fresh["matched_fraction"]), fresh["epochs"]
    win = judge({way: compare(fresh, *pair, fraction=share) for way, pair in pairs.items()})["carried, 1 step"]
    assert win.says in (BETTER, BETTER_HERE), "the sentence says that it wins"
    pair = ("PGD-7: random", "PGD-7: same_cost(random)")
    cifar = judge({f: compare(of("cifar10_cpu"), *pair, fraction=f) for f in (0.6, 0.2)})
    assert not {verdict.says for verdict in cifar.values()} & {BETTER, BETTER_HERE}, "the sentence says: no better"
    there = "; ".join(f"{100 * f:g} % kept: {v.comparison.difference.points()}, {v.says}" for f, v in cifar.items())
    noise = judge(at_equal_cost(of("when_pruning_wins")))
    ours = ("plain first, 40 % wrong: aum warmup_epochs=10 keep=highest", 0.5)
    rivals = {pair[1]: verdict for pair, verdict in noise.items() if pair[0] == ours and pair[1][1] == 1}
    dearest = min(rivals.values(), key=lambda verdict: verdict.comparison.difference.mean)
    assert dearest.says in (BETTER, BETTER_HERE), "the sentence says that it wins"
    return fill(
        "**At equal cost, a fixed random subset is no better than a shorter run on all the data** (robust accuracy on "
        f"the digits, {told}; on CIFAR-10 by AutoAttack, {there}), **but pruning wins where many labels are wrong** "
        "(40 % of the digits': half of them, chosen by their margins in a first phase without attacks, against the "
        "better of two ways to train on all of them, "
        f"{dearest.comparison.difference.points()}, {dearest.says}), **and can win with a one-step "
        f"attack that goes on from the image's last perturbation** ({epochs.max():g} epochs on {100 * share:g} % of "
        f"Fashion-MNIST against {epochs.min():.2g} on all of it: {win.comparison.difference.points()}, {win.says}).",
        width=120,
    )


def claims() -> str:
    """The numbers of the two papers' abstracts beside what the committed studies measured."""
    table = claims_table({study: of(study) for study in STUDIES})
    return markdown(table.rename(columns={"verdict": "verdict here"}))


def columns() -> str:
    """What the columns of the table say."""
    rows = [{"column": name, "what it says": text.rstrip(".")} for name, text in table_columns().items()]
    return markdown(pd.DataFrame(rows))


#: What stands in a file between ``<!-- name -->`` and ``<!-- end -->``, by name.
SHOWN: dict[Path, dict[str, Callable[[], str]]] = {
    README: {
        "answer: results/reference/digits, when_pruning_wins and freshness": answer,
        "table: results/reference/digits": lambda: markdown(five_rows()),
        "claims: results/reference": claims,
    },
    RESULTS: {"columns": columns},
}


def filled(path: Path) -> str:
    """A file with what records and code say today."""
    text = path.read_text()
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
    write_text(fronts.KEPT, fronts.measured_points([REFERENCE / study for study in STUDIES]).to_csv(index=False))
