"""The studies that there are to look at: the user's own, and in a checkout those that come with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from advprune_core.analysis.cells import component_name
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
        """Its table, see `collect`: of the runs that are tested.

        Raises
        ------
        ConfigError
            None is.
        """
        table = collect(self.folder, study=self.study)
        if "robust" not in table or table["robust"].isna().all():
            raise ConfigError(f"no run of the study {self.study!r} in {self.folder} is finished and tested yet")
        return table[table["robust"].notna()].reset_index(drop=True)

    @cached_property
    def timings(self) -> pd.DataFrame:
        """Seconds of its runs that were timed alone, see `collect_timings`."""
        return collect_timings(self.folder, study=self.study)


def sources(results: str | Path | None = None) -> dict[str, Source]:
    """Studies by name: the user's, if any run is tested; then those of a checkout, as ``digits (reference)``.

    Raises
    ------
    ConfigError
        There is none.
    """
    root = results_root(results)
    found = [Source(root, path.parent.name) for path in sorted(root.glob("*/manifest.json"))]
    own = {source.study: source for source in found if _is_tested(source)}
    shipped = {
        f"{path.parent.name} (reference)": Source(path.parent, path.parent.name)
        for path in sorted(REFERENCE.glob("*/manifest.json"))
    }
    if not own and not shipped:
        raise ConfigError(
            f"there is no study in {root} of which a run is tested: carry one out (`advprune study digits`, minutes), "
            "or open this in a checkout, which has those of results/reference"
        )
    return own | shipped


def _is_tested(source: Source) -> bool:
    """Whether the test of any of its runs is there; of one with a damaged manifest that is not known."""
    try:
        entries = source.store.manifest(source.study).entries
    except ConfigError:
        return False
    return any(source.store.evaluation_file(entry.key, entry.evaluation).exists() for entry in entries)


def name_of(study: str, known: Mapping[str, Source]) -> str:
    """The name of a study among those that are known; one that comes with a checkout also without ``(reference)``.

    Raises
    ------
    ConfigError
        No such study.
    """
    for name in (study, f"{study} (reference)"):
        if name in known:
            return name
    own_names = {name.removesuffix(" (reference)") for name in known}
    raise ConfigError(f"unknown study {study!r}{near_miss(study, own_names)}")


def overview(results: str | Path | None = None) -> pd.DataFrame:
    """The studies that are here: a row for each, with its data, network, points and seeds.

    Raises
    ------
    ConfigError
        There is none.
    """
    rows = []
    for name, found in sources(results).items():
        manifest = found.store.manifest(found.study)
        config, points = manifest.config, {(entry.arm, entry.fraction) for entry in manifest.entries}
        seeds = {entry.seed for entry in manifest.entries}
        rows.append(
            {
                "study": name,
                "data set": component_name(_cell(config.get("dataset", ""))),
                "network": component_name(_cell(config.get("model", ""))),
                "arms and fractions": len(points),
                "seeds": len(seeds),
            }
        )
    return pd.DataFrame(rows).set_index("study")


def _cell(spec: Any) -> str:
    """A component's specification as it stands in a table."""
    return spec if isinstance(spec, str) else json.dumps(spec)
