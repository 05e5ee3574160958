"""What a study asks for and does not have yet."""

from __future__ import annotations

from dataclasses import dataclass

from advprune_core.base.settings import ConfigError
from advprune_core.study.grid import Entry, study_grid
from advprune_core.study.manifest import Manifest, ManifestEntry
from advprune_core.study.store import RunStore
from advprune_core.study.study import study_config


@dataclass(frozen=True)
class Missing:
    """A point of a study without a result, and why: see `Entry` for the rest.

    Attributes
    ----------
    passes : float or None
        Forward-equivalents that training it takes at least, to a batch; None if no run says how many images there are.
    """

    arm: str
    fraction: float
    seed: int
    control: str | None
    why: str
    passes: float | None = None

    def text(self) -> str:
        """``random 40 % seed 3: not tested``."""
        return f"{self.arm} {100 * self.fraction:g} % seed {self.seed}: {self.why}"


def unfinished(store: RunStore, manifest: Manifest) -> list[Missing]:
    """Points of a study that have no run, one that failed and is trained again, or a trained run without their test."""
    missing: list[tuple[Entry | ManifestEntry, str]] = []
    sizes = set()
    for entry in manifest.entries:
        record = store.run(entry.key)
        if record is None:
            missing.append((entry, "not trained"))
            continue
        sizes.add(record.n)
        if record.status == "failed":
            missing.append((entry, "failed"))
        elif record.trained and store.evaluation(entry.key, entry.evaluation) is None:
            missing.append((entry, "not tested"))
    try:
        grid = {_place(point): point for point in study_grid(study_config(manifest.config))}
    except ConfigError:  # of an earlier version, or with parts that are not here: its manifest is all that is known
        grid = {}
    known = {_place(entry) for entry in manifest.entries}
    why = "the run that it matches is not finished, or failed"
    asked = [point for point in grid.values() if manifest.asks_for(point.arm, point.fraction)]
    missing += [(point, why) for point in asked if _place(point) not in known]
    size = sizes.pop() if len(sizes) == 1 else None
    return [
        Missing(*_place(point), point.control, why, _least(grid.get(_place(point)), size)) for point, why in missing
    ]


def _place(point: Entry | ManifestEntry) -> tuple[str, float, int]:
    return point.arm, point.fraction, point.seed


def _least(entry: Entry | None, size: int | None) -> float | None:
    """Forward-equivalents that a run takes at least; a control takes what the run it matches has taken."""
    if entry is None or entry.control is not None or size is None:
        return None
    config = entry.config
    share = config.least_passes_per_image / config.passes_per_image if config.attack.steps.adaptive else 1.0
    return share * config.passes(size)
