"""What findings say, worked out again by scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


def interval(values: Any) -> str:
    """``+1.2 points [+0.3, +2.1]`` by scipy's t test against zero."""
    x = 100 * np.asarray(values, float)
    low, high = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    return f"{x.mean():+.1f} points [{low:+.1f}, {high:+.1f}]"


def lines(text: str) -> list[str]:
    """Of a text."""
    return text.splitlines()


def p_after_holm(*differences: Any) -> list[str]:
    """``(Holm p = 0.012)`` of each by scipy's t test: sorted, times how many are left, never falling."""
    p = [float(stats.ttest_1samp(values, 0).pvalue) for values in differences]
    order = sorted(range(len(p)), key=p.__getitem__)
    steps = np.maximum.accumulate([(len(p) - place) * p[i] for place, i in enumerate(order)])
    found = dict(zip(order, steps, strict=True))
    told = [min(found[i], 1) for i in range(len(p))]
    return [f"(Holm p {'< 0.001' if value < 0.001 else f'= {value:.3f}'})" for value in told]
