"""The studies that there are to look at: the user's own, and in a checkout those that come with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from advprune_core.base.environment import results_root
from advprune_core.base.settings import ConfigError, near_miss
from advprune_core.study.notebooks import SHIPPED
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect, collect_timings

#: Studies that come with a checkout; a wheel has none.
REFERENCE = SHIPPED.parent / "results" / "reference"


@dataclass(frozen=True)
class Source:
    """A study on disk, read when it is asked for.

    Attributes
    ----------
    folder : Path
        A results folder, or that of an exported study.
    study : str
    """

    folder: Path
    study: str

    @cached_property
    def store(self) -> RunStore:
        """Its records."""
        return RunStore(self.folder, read_only=True)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Its table, see `collect`: without runs that are not tested, because of those there is nothing to show."""
        table = collect(self.folder, study=self.study)
        tested = table[table["robust"].notna()] if "robust" in table else table.iloc[:0]
        return tested.reset_index(drop=True)

    @cached_property
    def timings(self) -> pd.DataFrame:
        """Seconds of its runs that were timed alone, see `collect_timings`."""
        return collect_timings(self.folder, study=self.study)


def sources(results: str | Path | None = None) -> dict[str, Source]:
    """Studies by name: the user's, then those that come with a checkout, as ``digits (reference)``.

    Raises
    ------
    ConfigError
        There is none.
    """
    root = results_root(results)
    own = {path.parent.name: Source(root, path.parent.name) for path in sorted(root.glob("*/manifest.json"))}
    shipped = {
        f"{path.parent.name} (reference)": Source(path.parent, path.parent.name)
        for path in sorted(REFERENCE.glob("*/manifest.json"))
    }
    if not own and not shipped:
        raise ConfigError(
            f"there is no study in {root} to explore: carry one out (`advprune study digits`, minutes), or open this "
            "in a checkout, which has those of results/reference"
        )
    return own | shipped


def source(name: str, results: str | Path | None = None) -> Source:
    """The study of a name; one that comes with a checkout also without ``(reference)``.

    Raises
    ------
    ConfigError
        No such study, or none of its runs is tested.
    """
    known = sources(results)
    found = known.get(name) or known.get(f"{name} (reference)")
    if found is None:
        raise ConfigError(f"unknown study {name!r}{near_miss(name, known)}")
    if not len(found.table):
        raise ConfigError(f"no run of the study {name!r} in {found.folder} is finished and tested yet")
    return found
