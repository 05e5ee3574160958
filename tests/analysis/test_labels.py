"""What figures and pages say of the runs they show."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.labels import point_label, sample, setting, settings_told, trainings

PLAIN = {"dataset": "digits", "model": "small_cnn", "norm": "linf", "eps": 0.125, "test_images": 497.0, "robust": 0.5}
SMOOTH = json.dumps({"pgd_at": {"label_smoothing": 0.1}})
FAST = json.dumps({"fixed": {"count": 1, "step_factor": 1.25}})

# objective, start, steps of each row: the ways of training
WAYS: list[tuple[list[tuple[Any, Any, Any]], list[str]]] = [
    ([("pgd_at", "random", 7)] * 2, ["pgd_at (7 attack steps)"]),
    ([(SMOOTH, "noise", 1)], ["n_fgsm (1 attack step, label_smoothing 0.1)"]),
    ([("pgd_at", "random", "7"), ("pgd_at", "random", FAST)], ["pgd_at (7 attack steps)", "fast (1 attack step)"]),
    ([("pgd_at", None, None)], []),
    ([("pgd_at", "random", 7.0), ("pgd_at", "random", "7")], ["pgd_at (7 attack steps)"]),
    ([("trades", "near", "bullet")], ["trades with bullet steps (4.8 attack steps)"]),
    # Of somebody's own, read where it is not imported.
    ([('{"my_loss": {"beta": 2}}', "corner", 1)], ["my_loss (beta 2) from a corner start"]),
]


@pytest.mark.parametrize(("cells", "told"), WAYS)
def test_ways_of_training_by_the_names_of_the_field(cells: list[tuple[Any, Any, Any]], told: list[str]) -> None:
    table = pd.DataFrame([PLAIN | dict(zip(("objective", "start", "steps"), row, strict=True)) for row in cells])
    assert trainings(table) == told
    way = told if len(told) == 1 else []  # of several, none stands for all
    assert setting(table) == ", ".join(["digits", "small_cnn", *way, "L-inf 2/16"])


def test_a_table_without_an_attack_names_no_way_of_training() -> None:
    assert trainings(pd.DataFrame([PLAIN | {"objective": "pgd_at"}])) == []


def test_a_page_says_what_robust_means() -> None:
    row = PLAIN | {"objective": "pgd_at", "start": "noise", "steps": 1, "robust_pgd40": 0.5}
    other = row | {"eps": 0.1875}
    assert settings_told(pd.DataFrame([row, other])) == (
        "digits, L-inf 2/16; digits, L-inf 3/16. Network: small_cnn. Trained by n_fgsm (1 attack step). "
        "Robust: right under pgd40; 497 test images"
    )
    rows = [row | {name: 0.4} for name in ("robust_autoattack", "robust_autoattack_apgd")]
    lost = row | {"robust": None, "robust_pgd40": None}
    for parts in (rows, [*rows, lost]):  # what could not be tested was under no attack
        assert "Robust: right under pgd40, autoattack or autoattack_apgd; 497" in settings_told(pd.DataFrame(parts))
    untested = pd.DataFrame([row]).drop(columns=["test_images", "robust", "robust_pgd40"])
    assert settings_told(untested).endswith("Trained by n_fgsm (1 attack step). Robust: nothing was tested yet")


@pytest.mark.parametrize(
    ("arm", "fraction", "whole", "told"),
    [
        ("random", 0.4, False, "static random subset, 40 %"),
        ("TRADES: random", 1.0, True, "TRADES: all the data"),
        ("TRADES: random", 0.6, True, "TRADES: static random subset, 60 %"),
        # On all the data at the cost of a part of it.
        ("same_cost(random)", 0.4, True, "full data, same cost: fewer epochs (as 40 %)"),
        ("TRADES: same_cost(random)", 0.4, False, "TRADES: full data, same cost: fewer epochs (as 40 %)"),
        ("TRADES: same_cost(random)", 1.0, True, "TRADES: all the data"),
        ("same_cost(craig)", 0.4, True, "full data, same cost: fewer epochs (as craig, 40 %)"),
        # It keeps the same part.
        ("same_steps(random)", 0.4, False, "the same subset, as many steps as the full run, 40 %"),
    ],
)
def test_a_point_says_what_it_is_trained_on(arm: str, fraction: float, whole: bool, told: str) -> None:
    others = [arm, "same_cost(random)", "same_cost(craig)"] if "craig" in arm else [arm]
    assert point_label(arm, fraction, others, whole=whole) == told


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ([3, 3], "mean of 3 seeds"),
        ([3, 5], "mean of 3 to 5 seeds"),
        ([1, 1], "mean of 1 seed"),
        ([], "mean of 0 seeds"),
    ],
)
def test_a_caption_counts_the_seeds_of_each_mean(seeds: list[int], told: str) -> None:
    """Not those of the table: arms may have more of them than others."""
    rows = [
        {"arm": f"arm {place}", "matched_fraction": 1.0, "seed": seed, "robust": 0.5}
        for place, count in enumerate(seeds)
        for seed in range(count)
    ]
    table = pd.DataFrame(rows, columns=["arm", "matched_fraction", "seed", "robust"])
    table = table.assign(key=np.arange(len(table)).astype(str))
    assert sample(table).startswith(told)
