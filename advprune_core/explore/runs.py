"""A point of a study, and a single run of it: settings, cost by phase, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from advprune_core.analysis.estimates import accuracy, estimate
from advprune_core.analysis.seeds import Point
from advprune_core.attacks.base import Attack, parse_attacks
from advprune_core.base.settings import ConfigError
from advprune_core.explore.curves import metrics_of
from advprune_core.explore.sources import Source
from advprune_core.study.commands import run_command
from advprune_core.study.evaluations import PGD_40
from advprune_core.study.records import RunRecord
from advprune_core.trainers.config import RunConfig, flat_values


def options_of(config: RunConfig) -> dict[str, Any]:
    """The flat settings that a run needs to be told: without any of them it would be another one."""
    values = flat_values(config.model_dump(mode="json"))
    for name in list(values):
        rest = {other: value for other, value in values.items() if other != name}
        with suppress(ConfigError):  # what cannot be without it
            values = rest if RunConfig.flat(**rest) == config else values
    return values


def command(config: RunConfig, attacks: Sequence[Attack] = PGD_40) -> str:
    """The command that trains a run, and tests it with some attacks."""
    tests = attacks if tuple(attacks) != PGD_40 else ()
    return run_command([*options_of(config).items(), *(("evaluation", attack.spec()) for attack in tests)])


def attacks_of_row(source: Source, row: pd.Series) -> tuple[Attack, ...]:
    """The attacks that a row of a study's table was tested with."""
    found = source.store.evaluation(row["key"], row["evaluation"])
    return PGD_40 if found is None else parse_attacks(found.config["attacks"])


def point_summary(table: pd.DataFrame, point: Point) -> pd.DataFrame:
    """What an arm reaches and costs at a (matched) fraction, as people read it: a row for each measure."""
    runs = table[(table["arm"] == point[0]) & (table["matched_fraction"] == point[1])]
    rows = {label: f"{accuracy(runs[column].dropna()).text()} %" for label, column in metrics_of(table).items()}
    rows["forward-equivalents for each training image"] = estimate(runs["cost"] / runs["n"]).text(1.0, 0)
    statuses = ", ".join(f"{count} {status}" for status, count in runs["status"].value_counts().items())
    rows["runs"] = f"{statuses}; seeds {', '.join(map(str, sorted(runs['seed'])))}"
    return pd.DataFrame({"measure": list(rows), "mean over seeds, 95 % interval": list(rows.values())})


def cost_by_phase(record: RunRecord) -> pd.DataFrame:
    """What a run cost by phase: forward-equivalents and processor seconds."""
    seconds = {phase: value for phase, value in record.cpu_seconds.items() if phase in record.passes}
    found = pd.DataFrame({"forward-equivalents": record.passes, "processor seconds": seconds})
    return found.rename_axis("phase").reset_index()
