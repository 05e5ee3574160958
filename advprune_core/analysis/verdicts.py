"""Whether one arm is better than another, or that may be chance: the one place that says so.

The seed is the unit: two arms are compared by the differences of their seeds, in a paired t test. All
comparisons of one text or table are judged together (Holm). Fewer than three seeds, or seeds that
all say the same, allow no verdict. A verdict that is not limited to these test images holds for
others as well: there the standard error is that of drawing seeds and images. What only its own test
shows is told apart from what not even that shows: of few seeds and many comparisons, large
differences are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from advprune_core.analysis.comparisons import Comparison
from advprune_core.analysis.estimates import detectable, holm, p_told, seeds_for
from advprune_core.analysis.seeds import MIN_SEEDS

K = TypeVar("K", bound=Hashable)

LEVEL = 0.05

BETTER = "better beyond chance"
WORSE = "worse beyond chance"
BETTER_HERE = "better on these images, open for others"
WORSE_HERE = "worse on these images, open for others"
BETTER_ALONE = "better by itself, open over all"
WORSE_ALONE = "worse by itself, open over all"
UNDECIDED = "not significant"
NO_VERDICT = "no verdict"
_ENDS = _BEYOND_CHANCE, _HERE, _ALONE = (BETTER, WORSE), (BETTER_HERE, WORSE_HERE), (BETTER_ALONE, WORSE_ALONE)
_MIRRORED = dict(_ENDS) | {worse: better for better, worse in _ENDS}


@dataclass(frozen=True)
class Verdict:
    """What a comparison shows among all those that it is judged with.

    Attributes
    ----------
    comparison : Comparison
    says : str
        `BETTER`, `WORSE`, `BETTER_HERE`, `WORSE_HERE`, `BETTER_ALONE`, `WORSE_ALONE`, `UNDECIDED`, or
        `NO_VERDICT` and why.
    p : float
        After Holm, of the test over seeds and images; of that over seeds where the verdict is on these images, or
        outcomes of images are not known. NaN without a verdict.
    """

    comparison: Comparison
    says: str
    p: float

    def mirrored(self) -> Verdict:
        """The verdict on the reference against the arm."""
        return Verdict(self.comparison.mirrored(), _MIRRORED.get(self.says, self.says), self.p)

    def text(self) -> str:
        """The comparison, then ``; better beyond chance (Holm p = 0.012)``."""
        p = "" if np.isnan(self.p) else f" {p_told(self.p)}"
        return f"{self.comparison.text()}; {self.says}{p}"


def judge(comparisons: Mapping[K, Comparison]) -> dict[K, Verdict]:
    """The verdicts on all the comparisons that stand in one text or table, at 5 % over all of them.

    An arm is better or worse beyond chance if the t test over seeds and images says so after Holm's
    correction; it is so on these images if only the one over seeds does, and by itself if the first does without the
    correction.
    """
    seeds = np.array([comparison.p for comparison in comparisons.values()])
    images = np.array([comparison.p_images for comparison in comparisons.values()])
    unknown = np.isnan(images) & ~np.isnan(seeds)
    over_seeds, over_images = holm(seeds), holm(np.where(unknown, 1.0, images))
    return {
        key: Verdict(comparison, *_told(comparison, *p))
        for (key, comparison), *p in zip(comparisons.items(), over_seeds, over_images, strict=True)
    }


def _told(comparison: Comparison, over_seeds: float, over_images: float) -> tuple[str, float]:
    """What a comparison shows, and the corrected p value that this rests on."""
    seeds, worse = comparison.difference.seeds, comparison.difference.mean <= 0
    why = ""
    if seeds < MIN_SEEDS:
        why = f"{seeds or 'no'} seed{'s' * (seeds > 1)}{'' if seeds else ' has both'}"
    elif not comparison.alike:
        why = "not tested by the same attacks, on the same images"
    elif not comparison.learned:
        why = "neither is more robust than a constant answer"
    elif np.isnan(over_seeds):
        why = f"no spread over {seeds} seeds"
    if why:
        return f"{NO_VERDICT}: {why}", float("nan")
    if over_images <= LEVEL:
        return _BEYOND_CHANCE[worse], float(over_images)
    if over_seeds <= LEVEL:
        return _HERE[worse], float(over_seeds)
    unknown = np.isnan(comparison.p_images)
    alone = comparison.p if unknown else comparison.p_images
    return _ALONE[worse] if alone <= LEVEL else UNDECIDED, float(over_seeds if unknown else over_images)


def how_judged(says: Iterable[str]) -> str:
    """A sentence on how the verdicts of a text or table came about; empty without any."""
    told = list(says)
    tested = sum(not text.startswith(NO_VERDICT) for text in told)
    if not tested:
        constant = ", or on runs no more robust than a constant answer" * any("constant" in text for text in told)
        rests = f"No verdict rests on fewer than {MIN_SEEDS} seeds, or on seeds without spread{constant}."
        return rests if told else ""
    alone = "; *by itself*: at that level in a test of its own" * any("by itself" in text for text in told)
    return (
        f"Verdicts: paired t tests over seeds and test images, at {100 * LEVEL:g} % over {tested} "
        f"comparison{'s' * (tested > 1)} together (Holm); *on these images*: over seeds alone"
        f"{alone}. Intervals: 95 %, each for itself, over seeds; *other images*: by a bootstrap of seeds and test "
        "images."
    )


def planning(comparisons: Iterable[Comparison], *, difference: float = 0.02) -> str:
    """A sentence on what so many seeds can show; see `seeds_told`."""
    known = [found for found in comparisons if not np.isnan(found.deviation)]
    seeds = max((found.difference.seeds for found in known), default=0)
    return seeds_told([found.deviation for found in known], seeds, difference=difference)


def seeds_told(deviations: Sequence[float], seeds: int, *, difference: float = 0.02) -> str:
    """A sentence on what so many seeds can show, by how differences deviate from seed to seed; empty if not known.

    Parameters
    ----------
    deviations : sequence of float
        Standard deviation over seeds of each comparison, in the unit of the accuracy.
    seeds : int
        The most that any of them has.
    difference : float
        In the same unit, for which the number of seeds is told.
    """
    if not len(deviations):
        return ""
    ends = sorted({float(np.median(deviations)), max(deviations)})
    shown = between(f"{100 * detectable(deviation, seeds):.1f}" for deviation in ends)
    spread = between(f"{100 * deviation:.1f}" for deviation in ends)
    wanted = between(f"{seeds_for(difference, deviation)}" for deviation in ends)
    which = " (the median of these comparisons, the largest)" if len(ends) > 1 else ""
    return (
        f"What {seeds} seeds can show: on these test images, in a single test at {100 * LEVEL:g} %, they find a true "
        f"difference of {shown} points four times in five, as differences deviate by {spread} points from seed to "
        f"seed{which}; {100 * difference:g} points take {wanted} seeds. A verdict for other images, or over many "
        "comparisons, takes more."
    )


def between(ends: Iterable[str]) -> str:
    """``1.9 to 3.6``, or one number if they agree."""
    return " to ".join(dict.fromkeys(ends))


def method(verdicts: Iterable[Verdict]) -> str:
    """How the verdicts of a text or table came about, and what its seeds can show; empty without any."""
    told = list(verdicts)
    sentences = how_judged(verdict.says for verdict in told), planning(verdict.comparison for verdict in told)
    return " ".join(filter(None, sentences))
