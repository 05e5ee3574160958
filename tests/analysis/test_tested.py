"""Which attacks runs were tested by, and what counts as the same test."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from advprune_core.analysis.tested import attacks_of, equally_tested


def runs(*tests: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([{"robust": 0.3, "robust_low": 0.2, "test_images": 100, **test} for test in tests])


def test_attacks_and_their_parts() -> None:
    table = runs({"robust_fgsm": 0.7, "robust_autoattack/apgd": 0.4, "robust_autoattack": 0.3})
    assert attacks_of(table) == ["fgsm", "autoattack"]
    assert attacks_of(table, parts=True) == ["fgsm", "autoattack/apgd"]
    assert attacks_of(pd.DataFrame({"arm": []})) == []


APGD = {"robust_autoattack_apgd": 0.3, "robust_pgd20": 0.4}


def whole(after_apgd: float) -> dict[str, float]:
    return {"robust_autoattack/apgd_t": after_apgd, "robust_autoattack": 0.3, "robust_pgd20": 0.4}


@pytest.mark.parametrize(
    ("ours", "theirs", "alike"),
    [
        ({"robust_pgd20": 0.5}, {"robust_pgd20": 0.3}, True),
        ({"robust_pgd20": 0.5}, {"robust_pgd1": 0.3}, False),
        ({"robust_pgd20": 0.5}, {"robust_pgd20": 0.5, "robust_pgd1": 0.3}, False),
        ({"test_images": 100}, {"test_images": 200}, False),
        (whole(0.3), APGD, True),  # the other two attacks broke nothing
        (whole(0.31), APGD, False),
        (whole(0.31), whole(0.31), True),
        (whole(0.31), whole(0.3), True),
        ({"robust_pgd20": 0.5}, {"robust": None}, True),  # was not tested at all
        ({}, {}, True),
    ],
    ids=str,
)
def test_the_same_test(ours: dict[str, Any], theirs: dict[str, Any], alike: bool) -> None:
    both = runs(ours, theirs)
    assert equally_tested(both[:1], both[1:]) == equally_tested(both[1:], both[:1]) == alike
