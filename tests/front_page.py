"""What README, pages of committed studies and advice show of their records; run as a module, it writes them anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import fill

import pandas as pd

from advprune_core.analysis import fronts
from advprune_core.analysis.claims import claims_table
from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.pages import write_page
from advprune_core.analysis.rivals import at_equal_cost, clean_gain
from advprune_core.analysis.summaries import markdown, points
from advprune_core.analysis.verdicts import BETTER, BETTER_HERE, WORSE, WORSE_HERE, Verdict, compare, judge
from advprune_core.base.files import write_text
from advprune_core.study.table import collect, table_columns
from tests.reference import REFERENCE, STUDIES

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parents[1] / "results" / "README.md"


@cache
def of(study: str) -> pd.DataFrame:
    """The table of a committed study."""
    return collect(REFERENCE / study, study=study)


def answer() -> str:
    """What a fixed subset is worth beside a shorter run of its cost, and where pruning wins."""
    digits = _random_subsets("digits", "random", "same_cost(random)", "the digits")
    assert all(row.verdict.comparison.difference.mean < 0 for row in digits), "the sentence says: no better"
    assert digits[-1].verdict.says in (WORSE, WORSE_HERE), "the sentence says that the smallest loses"
    pair = ("PGD-7: random", "PGD-7: same_cost(random)")
    cifar = _random_subsets("cifar10_cpu", *pair, "CIFAR-10, by AutoAttack")
    usual = {row.verdict.says for row in (*digits, *cifar)}
    assert not usual & {BETTER, BETTER_HERE}, "the sentence says: no better"
    wins = [
        _wrong_labels("when_pruning_wins", "the digits, 40 % of the labels wrong"),
        _wrong_labels("noise_cifar10_cpu", "CIFAR-10, 40 % of the labels wrong, by AutoAttack's APGD"),
    ]
    assert wins[0].verdict.says in (BETTER, BETTER_HERE), "the sentence says that it wins"
    assert wins[1].clean.low > 0, "the sentence says that it wins"
    assert wins[1].verdict.says not in (WORSE, WORSE_HERE), "the sentence says that it loses nothing"
    fresh = of("freshness")
    pairs = {way: (f"{way}: random", f"{way}: same_cost(random)") for way in fresh["variant"].unique()}
    (share,), epochs = set(fresh["matched_fraction"]), fresh["epochs"]
    way = "carried, 1 step"
    carried = judge({way: compare(fresh, *pair, fraction=share) for way, pair in pairs.items()})[way]
    assert carried.says in (BETTER, BETTER_HERE), "the sentence says that it may win"
    rest = Row(
        "Fashion-MNIST, one-step attack that starts at the image's perturbation of the epoch before",
        f"a random {100 * share:g} %, {epochs.max():g} epochs",
        f"{epochs.min():.2g} epoch",
        carried,
        clean_gain(*(points(fresh)[arm, share] for arm in pairs[way])),
    )
    table = pd.DataFrame([row.shown() for row in (digits[0], digits[-1], cifar[0], cifar[-1], *wins, rest)])
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


@dataclass(frozen=True)
class Row:
    """A pruned run against one on all the data at equal cost."""

    data: str
    kept: str
    other: str
    verdict: Verdict
    clean: Estimate

    def shown(self) -> dict[str, str]:
        """As the table has it."""
        robust, clean = (
            found.points().replace(" points", "") for found in (self.verdict.comparison.difference, self.clean)
        )
        seeds = f"{self.verdict.comparison.difference.seeds}"
        texts = (self.data, self.kept, self.other, robust, self.verdict.says, clean, seeds)
        names = ("data", "pruned to", "against, on all the data", "robust", "verdict on robust", "clean", "seeds")
        return dict(zip(names, texts, strict=True))


def _random_subsets(study: str, arm: str, control: str, data: str) -> list[Row]:
    """Every share of a study, the largest first, beside runs of as much cost; judged with all that it compares."""
    table = of(study)
    runs = points(table)
    shares = sorted({f for name, f in runs if name == arm} - {1.0}, reverse=True)
    full = {("full", f): compare(table, arm, arm, fraction=f, reference_fraction=1.0) for f in shares}
    judged = judge(full | {("cost", f): compare(table, arm, control, fraction=f) for f in shares})
    return [
        Row(
            data,
            f"a random {100 * f:g} %",
            "fewer epochs",
            judged["cost", f],
            clean_gain(runs[arm, f], runs[control, f]),
        )
        for f in shares
    ]


def _wrong_labels(study: str, data: str) -> Row:
    """The half chosen by margins from plain training, beside the better of the ways to train on all the data."""
    table = of(study)
    judged = judge(at_equal_cost(table))
    rivals = {
        pair: verdict
        for pair, verdict in judged.items()
        if pair[0][0].startswith("plain first, 40 % wrong: aum") and pair[0][1] == 0.5 and pair[1][1] == 1
    }
    pair = min(rivals, key=lambda pair: rivals[pair].comparison.difference.mean)
    gain = clean_gain(*(points(table)[point] for point in pair))
    kept = "half: the images whose labels a first phase without attacks finds most plausible (AUM)"
    return Row(data, kept, "the same cost, with or without that phase: the better", rivals[pair], gain)


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
        "answer: results/reference": answer,
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
