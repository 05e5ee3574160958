"""Prose about ways of training: its numbers are worked out again here."""

from __future__ import annotations

import numpy as np
import pandas as pd

from advprune_core.analysis.summaries import printable_ways
from advprune_core.analysis.trainer_findings import trainer_findings
from advprune_core.datasets.digits import Digits
from tests.analysis.prose import interval, lines, p_after_holm
from tests.made_up import WAYS, trainers_table


def test_one_lucky_seed_takes_no_verdict_from_others() -> None:
    table = trainers_table(WAYS)
    carried = table[(table["variant"] == "carried") & (table["fraction"] == 1)]
    lucky = carried.iloc[:1].assign(variant="lucky", arm="lucky: random", key="lucky", robust=0.99)
    before, after = (trainer_findings(rows) for rows in (table, pd.concat([table, lucky], ignore_index=True)))
    assert "lucky" not in after.partition("Of training on all the data")[2]
    assert "**carried** withstands" in after
    assert "Of the 2 points with a part of the data, 1 cost as much" in after
    assert [line for line in lines(before) if "1 worse on these images" in line]
    assert [line for line in lines(after) if "1 worse on these images" in line]


def test_what_several_arms_share_on_all_the_data_is_one_way_and_no_rival_of_itself() -> None:
    """Two ways of training with two pruners each: both ways are compared, each part with all the data of its own."""
    both = trainers_table({key: value for key, value in WAYS.items() if key[0] in ("PGD-AT", "carried")})
    other = both.assign(arm=both["variant"] + ": dual", key=both["key"].where(both["fraction"] == 1, "d" + both["key"]))
    keyed = [rows.assign(key=rows["variant"] + rows["key"]) for rows in (both, other)]
    text = trainer_findings(pd.concat(keyed, ignore_index=True))
    assert "  - **carried** withstands the attack on 73.0 [" in text
    assert "at 0.29 of the cost of *PGD-AT*: +1.0 points" in text
    assert "no spread" not in text
    assert "by -21.0 (carried: random, 40 %) to -12.0 points (PGD-AT: random, 40 %): 4 " in text
    assert "cost / PGD-AT" in printable_ways(pd.concat(keyed, ignore_index=True))


def test_each_threat_model_has_a_bar_of_its_own() -> None:
    table = trainers_table(WAYS)
    wide = table.assign(eps=2 * table["eps"], robust=table["robust"] - 0.1, key="w" + table["key"])
    for name in ("arm", "variant"):
        wide[name] = "wide " + wide[name]
    text = trainer_findings(pd.concat([table, wide], ignore_index=True))
    told = [line for line in lines(text) if "standard" in line.lower() or "Of 5 others" in line]
    assert "12.0 [7.0, 17.0] % under attack" in told[0]
    assert "all but FGSM at 100 % withstand" in told[1]
    assert " 2.0 [" in told[2]
    assert "all but wide FGSM at 100 % withstand" in told[3]
    assert told[0].count("L-inf") == told[2].count("L-inf") == 1


def test_what_has_no_result_is_not_called_weak() -> None:
    table = trainers_table(WAYS)
    fgsm = table["variant"] == "FGSM"
    table.loc[fgsm, ["clean", "robust", "cost", "val_pgd_best"]] = np.nan
    table.loc[fgsm, "status"] = "diverged"
    text = lines(trainer_findings(table))
    assert "Of 4 others, all withstand at least 20 points more" in text[1]
    assert text[2:4] == ["- Without a result: FGSM at 100 %.", "- Not every run ended well: 3 diverged."]
    shown = printable_ways(table).set_index("way of training")
    assert shown.loc["FGSM"].tolist() == ["", "", "(0 of 3 seeds)", ""]
    alone = lines(trainer_findings(table[fgsm | (table["variant"] == "standard")]))
    assert not [line for line in alone if "others" in line]


def test_what_is_said_of_ways_of_training() -> None:
    table = trainers_table(WAYS)
    fgsm = table["variant"] == "FGSM"
    table.loc[fgsm & (table["seed"] == 2), ["status", "collapse_epoch"]] = "collapsed", 33
    table.loc[fgsm, "val_pgd_best"], table.loc[fgsm, "val_pgd_last"] = [0.50, 0.52, 0.49], [0.48, 0.44, 0.42]
    table.loc[fgsm, "collapse_depth"] = [0.04, 0.09, 0.11]
    text = lines(trainer_findings(table))
    assert "90.0 % on clean images and 12.0 [7.0, 17.0] % under attack" in text[0]
    assert "Of 5 others, all but FGSM at 100 % withstand at least 20 points more" in text[1]
    # Wilson: (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with p = 1/3, n = 3.
    assert "Of 5 others, none withstand at least 70 points more" in trainer_findings(table, margin=0.7)
    assert text[2] == (
        "- **FGSM** at 100 % of the data collapsed in 1 of 3 runs (95 % interval of the rate: 6 to 79 %), from epoch "
        "33 on. Held-out robust accuracy of all 3: 49 to 52 % at best, then a fall of 4 to 11 points, 42 to 48 % at "
        "the end."
    )
    # Less than a quarter of a perfect training accuracy at best: it never had a height to fall from.
    low = table.assign(val_pgd_best=table["val_pgd_best"].where(~fgsm, 0.24))
    assert lines(trainer_findings(low))[2].endswith(
        "None ever was robust: the training attack is all that was learned."
    )
    # The mean of 0.48, 0.44, 0.42, and of 0.30, 0.31, 0.20 on the test.
    assert Digits.held_out in text[3]
    assert "over all 3 runs here, robust accuracy is 45 % on them, under the few steps of PGD of a check" in text[3]
    assert text[3].endswith("and on the test images 27 % under pgd40.")
    both = lines(trainer_findings(table.assign(robust_pgd40=table["robust"] + 0.1)))[3]
    assert both.endswith("37 % under pgd40, 27 % under all its attacks together.")
    assert "nothing here that costs as much or less has a higher mean than" in text[4]
    assert "**carried** withstands the attack on 73.0" in text[5]
    assert text[6].startswith(f"    - at 0.29 of the cost of *PGD-AT*: {interval([0.01, 0.0, 0.02])} robust")
    assert text[7].startswith(
        f"    - at 1.00 of the cost of *FGSM*, the highest mean of those that cost no more: "
        f"{interval([0.41, 0.43, 0.54])} robust"
    )
    # Carried on all data costs less than 40 % of PGD-AT; nothing costs less than 40 % of carried.
    assert "Of the 2 points with a part of the data, 1 cost as much or more than a way" in text[8]
    assert text[8].endswith("1 worse on these images, open for others.")
    assert "by -21.0 (carried, 40 %) to -12.0 points (PGD-AT, 40 %)" in text[9]
    # Three ways on all the data against PGD-AT or what is cheaper, a part of two, one of them twice; whoever is the
    # rival of his rival is compared once.
    pairs = {
        "carried, PGD-AT": [0.01, 0.0, 0.02],
        "carried, FGSM": [0.41, 0.43, 0.54],
        "FGSM, PGD-AT": [-0.40, -0.43, -0.52],
        "PGD-AT 40 %, carried": [-0.11, -0.13, -0.15],
        "PGD-AT 40 %, PGD-AT": [-0.10, -0.13, -0.13],
        "carried 40 %, carried": [-0.21, -0.20, -0.22],
    }
    p = p_after_holm(*pairs.values())
    assert text[6].endswith(f"{p[0]}.")
    assert text[7].endswith(f"{p[1]}.")
    assert "over 6 comparisons together" in text[11]
    assert len(text) == 12
    # Nothing is known of other data, nor to be said where nothing collapsed.
    own = lines(trainer_findings(table.assign(dataset='{"npz": {"path": "a.npz"}}')))
    assert own == text[:3] + text[4:]
    assert "Held-out" not in trainer_findings(trainers_table(WAYS))
