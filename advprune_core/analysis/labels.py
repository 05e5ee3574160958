"""What figures and findings call arms, and what figures say above and below of data, threat model and seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from advprune_core.analysis.cells import (
    component_name,
    component_settings,
    described,
    setting_of,
    settings,
    specification,
    threat,
)
from advprune_core.analysis.markup import plain
from advprune_core.analysis.tested import attacks_told
from advprune_core.base.settings import ConfigError
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.controls import CONTROLS, OF_ALL_DATA, control_of
from advprune_core.trainers.presets import steps_told, trainer_name


def arm_label(arm: str, arms: Sequence[str] = ()) -> str:
    """What a legend says of an arm; controls are described, pruners named."""
    way, colon, rest = arm.partition(": ")
    if colon and way in {other.partition(": ")[0] for other in arms or [arm]} and "=" not in way:
        own = [other.removeprefix(way + colon) for other in arms if other.startswith(way + colon)]
        return f"{way}: {arm_label(rest, own)}"
    control, bracket, matched = arm.partition("(")
    if bracket and control in CONTROLS:
        several = len({other.partition("(")[2] for other in arms if other.startswith(f"{control}(")}) > 1
        text = CONTROLS[control]
        return f"{text} (as {matched.rstrip(')')})" if several else text
    return {"random": "static random subset", "redraw": "random subset, redrawn each epoch"}.get(arm, arm)


def point_label(arm: str, fraction: float, arms: Sequence[str] = (), *, whole: bool = False) -> str:
    """An arm at a fraction: ``static random subset, 40 %``; of the `whole` data, ``TRADES: all the data``.

    A control on all the data keeps another share than the run that it matches: ``full data, same cost: fewer epochs
    (as 40 %)``.
    """
    if whole and fraction == 1:
        return f"{''.join(arm.rpartition(': ')[:2])}all the data"
    return with_share(arm_label(arm, arms), fraction, matched=control_of(arm) in OF_ALL_DATA)


def with_share(label: str, fraction: float, *, matched: bool) -> str:
    """A label and the share that is kept; `matched`: that the run keeps which a control on all the data matches."""
    share = f"{100 * fraction:g} %"
    if not matched:
        return f"{label}, {share}"
    return f"{label[:-1]}, {share})" if " (as " in label else f"{label} (as {share})"


def setting(table: pd.DataFrame) -> str:
    """Data, network and way of training where there is one of each, the threat models, the attacks of the test.

    What a table has no columns for is left out.
    """
    parts: list[str] = []
    for column in ("dataset", "model"):
        found = dict.fromkeys(map(described, table[column].dropna())) if column in table else {}
        parts += map(plain, found) if len(found) == 1 else []
    ways = trainings(table)
    parts += ways if len(ways) == 1 else []
    if {"norm", "eps"} <= set(table):
        known = table.dropna(subset=["norm", "eps"])
        models = [threat(rows) for _, rows in known.groupby(["norm", "eps"], sort=False)]
        parts += [" and ".join(models)] if models else []
    attacks = attacks_told(table)
    return ", ".join(parts) + (f"; robust: right under {attacks}" if attacks else "")


def settings_told(table: pd.DataFrame) -> str:
    """In sentences: data and threat models, network, way of training where there is one, attacks and images."""
    threats = "; ".join(dict.fromkeys(setting_of(rows) for _, rows in settings(table)))
    told = [threats, f"Network: {', '.join(dict.fromkeys(map(described, table['model'].dropna())))}"]
    ways = trainings(table)
    told += [f"Trained by {ways[0]}"] if len(ways) == 1 else []
    images = sorted(set(table["test_images"].dropna().astype(int))) if "test_images" in table else []
    tested = f"right under {attacks_told(table)}; {', '.join(f'{n:,}' for n in images)} {_images(table)}"
    told.append(f"Robust: {tested if images else 'nothing was tested yet'}")
    return ". ".join(told)


def _images(table: pd.DataFrame) -> str:
    """What the images of the test are: those of the test, or held out of training to choose by."""
    cells = table["dataset"].dropna() if "dataset" in table else pd.Series(dtype=object)
    held_out = any("tested_on" in component_settings(cell) for cell in cells.unique())
    return "held-out images" if held_out else "test images"


def trainings(table: pd.DataFrame) -> list[str]:
    """The ways of training of a table: ``n_fgsm (1 attack step, label_smoothing 0.1)``; none without their columns."""
    columns = ["objective", "start", "steps"]
    if not set(columns) <= set(table):
        return []
    cells = table[columns].dropna().drop_duplicates().astype(str)
    return list(dict.fromkeys(_training(*row) for row in cells.itertuples(index=False)))


def _training(objective: str, start: str, steps: str) -> str:
    """A way of training from its cells; of a component that is not known here, its name."""
    count = steps.removesuffix(".0")  # of a column with gaps
    policy = int(count) if count.isdigit() else specification(count)
    try:
        config = RunConfig.flat(objective=specification(objective), start=specification(start), steps=policy)
    except ConfigError:
        return f"{described(objective)} from a {component_name(start)} start"
    more = [f"{name} {value}" for name, value in component_settings(objective).items()]
    return f"{trainer_name(config)} ({', '.join([steps_told(config), *more])})"


def sample(table: pd.DataFrame) -> str:
    """``mean of 3 seeds on 497 test images``, or of 3 to 5 where arms differ, and how many runs are in no mean."""
    point = ["arm", "matched_fraction"]
    shown = table[table["robust"].notna()] if "robust" in table else table  # a point without any result has no mean
    seeds = table.groupby(point)["seed"].nunique().reindex(shown.groupby(point).size().index)
    most = int(seeds.max()) if len(seeds) else 0
    told = f"{most}" if (seeds == most).all() else f"{seeds.min()} to {most}"
    lost = table[table["robust"].isna()] if "robust" in table else table[:0]
    missing = lost["key"].nunique() if len(lost) else 0
    images = list(table["test_images"].dropna().unique()) if "test_images" in table else []
    on = f" on {int(images[0]):,} {_images(table)}" if len(images) == 1 else ""
    left_out = f" ({missing} run{'s' * (missing > 1)} without a result left out)" if missing else ""
    return f"mean of {told} seed{'s' * (most != 1)}{on}{left_out}"
