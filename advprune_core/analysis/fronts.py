"""What was measured: accuracy against cost of every way of training, in each setting; what advice is read from.

The points are made from the records under ``results/reference`` and kept beside this file, so that an installed
package has them. ``python -m advprune_core.analysis.fronts results/reference`` writes them anew; a test holds them
against the records.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from advprune_core.analysis.estimates import Estimate, accuracy
from advprune_core.analysis.seeds import MIN_SEEDS, as_a_constant
from advprune_core.analysis.tested import attacks_of
from advprune_core.base.components import Component
from advprune_core.base.files import write_text
from advprune_core.pruners.oracle import Oracle
from advprune_core.study.record_files import read_manifest
from advprune_core.study.runs import StoredRun
from advprune_core.study.store import RunStore
from advprune_core.study.table import collect
from advprune_core.trainers.config import RunConfig, flat_values

KEPT = Path(__file__).with_name("fronts.csv")

#: What is one setting: nothing is comparable across them.
SETTING = ("dataset", "wrong_labels", "images", "shape", "model", "norm", "eps", "test")
#: What is one point in it.
POINT = ("trainer", "pruner", "fraction", "epochs")
#: Settings of a run that are the setting's or the point's, or do not change what is expected of it.
_PLACED = {
    *("dataset", "model", "norm", "eps", "pruner", "fraction", "epochs", "seed", "device", "threads", "speed"),
    *("best_every", "collapse_drop", "on_collapse", "warm_start", "equal_cost"),
}
_FULL = "full"


def measured_points(folders: Sequence[Path]) -> pd.DataFrame:
    """The points that exported studies have measured; a seed counts once, in however many studies it was run.

    Parameters
    ----------
    folders : sequence of Path
        Of exported studies.

    Returns
    -------
    DataFrame
        ``dataset`` (name), ``wrong_labels`` (share), ``images`` (training images), ``shape`` (1x8x8), ``model``,
        ``norm``, ``eps``, ``test`` (attacks); ``trainer`` (settings that are not the defaults, JSON), ``pruner``
        (JSON; ``"full"``: all the data), ``fraction``, ``epochs``; ``cost`` in forward-equivalents for each training
        image; ``clean, robust``: a value in [0, 1] for each seed, JSON. Points of fewer than three seeds are left out,
        what is no more robust than a constant answer, and wrong labels on which no pruned run was tested.
    """
    rows = pd.DataFrame([row for folder in folders for row in _runs(folder)])
    rows = rows.drop_duplicates([*SETTING, *POINT, "seed"])
    points = []
    for place, runs in rows.groupby([*SETTING, *POINT], sort=True):
        if len(runs) < MIN_SEEDS or as_a_constant(runs):
            continue
        runs = runs.sort_values("seed")
        values = {name: json.dumps([round(value, 6) for value in runs[name]]) for name in ("clean", "robust")}
        cost = round(float(runs["cost"].mean()), 4)
        points.append(dict(zip((*SETTING, *POINT), place, strict=True)) | {"cost": cost} | values)
    found = pd.DataFrame(points, columns=[*SETTING, *POINT, "cost", "clean", "robust"])
    # What to do about wrong labels only a study that has pruned can say; one that is under way may not have yet.
    pruned = found.groupby(list(SETTING))["fraction"].transform("min") < 1
    return found[pruned | (found["wrong_labels"] == 0)].reset_index(drop=True)


def _runs(folder: Path) -> Iterator[dict[str, Any]]:
    store = RunStore(folder, read_only=True)
    table = collect(folder, study=read_manifest(folder / "manifest.json").study)
    attacks = attacks_of(table)
    for row in table[table["robust"].notna()].to_dict("records"):
        record = store.run(row["key"])
        assert record is not None  # it is in the table
        config = StoredRun(store, record).config
        # An oracle knows what nobody knows of data of one's own; what settings are chosen by is no test; a run that a
        # budget ends has not the epochs of its setting.
        budget = config.optimisation.cost_budget
        if config.pruner.name == Oracle.name or config.dataset.tested_on != "test" or budget is not None:
            continue
        yield {
            "seed": row["seed"],
            "dataset": config.dataset.name,
            "wrong_labels": config.dataset.label_noise,
            "images": record.n,
            "shape": "x".join(map(str, record.dataset["image_shape"])),
            "model": spec_text(config.model),
            "norm": config.threat.norm,
            "eps": config.threat.eps,
            "test": "+".join(name for name in attacks if pd.notna(row[f"robust_{name}"])),
            "trainer": json.dumps(other_settings(config), sort_keys=True),
            "pruner": json.dumps(config.pruner.spec(), sort_keys=True),
            "fraction": config.fraction,
            "epochs": config.optimisation.epochs,
            "classes": row["classes"],
            "cost": row["cost"] / record.n,
            "clean": row["clean"],
            "robust": row["robust"],
        }


def other_settings(config: RunConfig) -> dict[str, Any]:
    """How a run is trained where it is not by default, by flat name: ``{"start": "noise", "steps": 1}``."""
    own, default = (flat_values(settings.model_dump(mode="json")) for settings in (config, RunConfig()))
    return {name: value for name, value in own.items() if name not in _PLACED and value != default[name]}


def spec_text(component: Component) -> str:
    """A component's specification in one word, or in JSON where it has settings."""
    spec = component.spec()
    return spec if isinstance(spec, str) else json.dumps(spec, sort_keys=True)


def read_points() -> pd.DataFrame:
    """The points that this package carries."""
    return pd.read_csv(KEPT)


@dataclass(frozen=True)
class Plan:
    """What a way of training does, and is expected to reach, at a cost.

    Attributes
    ----------
    way : Way
    cost : float
        In forward-equivalents for each training image.
    fraction, epochs : float
    clean, robust : Estimate
        Means over seeds, with 95 % intervals.
    between : (float, float)
        Measured costs on either side; both are `cost` where it was measured.
    spread : float
        Standard deviation of single runs' robust accuracy; NaN where one seed was run.
    """

    way: Way
    cost: float
    fraction: float
    epochs: float
    clean: Estimate
    robust: Estimate
    between: tuple[float, float]
    spread: float

    @property
    def pruned(self) -> bool:
        """Whether it leaves out a part of the data."""
        return self.way.pruner != _FULL


@dataclass(frozen=True)
class Way:
    """A way of training with its measured points: on all the data for more or fewer epochs, or on a share of it.

    Between its points accuracy is expected on a monotone cubic (Fritsch and Carlson 1980, as SciPy's PCHIP) through
    the means over the logarithm of the cost. The interval is as wide as Student's 95 % intervals of the two
    neighbours, interpolated, and on either side by what the curve differs from a straight line between them.

    Attributes
    ----------
    trainer : dict
        Settings of a run, by flat name.
    pruner : str or dict
        Specification; ``"full"``: all the data.
    points : DataFrame
        Of `measured_points`, by rising cost.
    """

    trainer: dict[str, Any]
    pruner: Any
    points: pd.DataFrame

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Of its points, rising."""
        return self.points["cost"].to_numpy(np.float64)

    def at(self, budget: float) -> Plan | None:
        """The plan for a budget in forward-equivalents for each training image; None if it pays for no point.

        More than its most expensive point costs is not spent.
        """
        if budget < self.costs[0] * (1 - 1e-3):
            return None
        cost = float(np.clip(budget, self.costs[0], self.costs[-1]))
        if self.pruner != _FULL and len(self.costs) > 1 and np.interp(cost, self.costs, self.points["fraction"]) == 1:
            cost = float(self.costs[-2])  # the end is all the data, which is another way
        after = int(np.searchsorted(self.costs, cost))
        before = after if np.isclose(self.costs[after], cost, rtol=1e-3) else after - 1
        fraction, epochs = (float(np.interp(cost, self.costs, self.points[name])) for name in ("fraction", "epochs"))
        spreads = [np.std(json.loads(cell), ddof=1) if "," in cell else np.nan for cell in self.points["robust"]]
        return Plan(
            way=self,
            cost=cost,
            fraction=fraction,
            epochs=epochs,
            clean=self._expected("clean", cost),
            robust=self._expected("robust", cost),
            between=(float(self.costs[before]), float(self.costs[after])),
            spread=float(np.interp(np.log(cost), np.log(self.costs), spreads)),
        )

    def _expected(self, name: str, cost: float) -> Estimate:
        known = [accuracy(np.array(json.loads(cell))) for cell in self.points[name]]
        x, at, means = np.log(self.costs), np.log(cost), np.array([one.mean for one in known])
        if len(known) == 1:
            return known[0]
        straight = float(np.interp(at, x, means))
        mean = float(PchipInterpolator(x, means)(at))
        half = float(np.interp(at, x, [one.mean - one.low for one in known])) + abs(mean - straight)
        return Estimate(mean, max(mean - half, 0.0), min(mean + half, 1.0), min(one.seeds for one in known))


def ways_of(points: pd.DataFrame) -> list[Way]:
    """The ways of training among the points of one setting.

    On all the data, the epochs differ from point to point; pruned, the share that is kept, up to all of it.
    """
    all_data = points["pruner"] == json.dumps(_FULL)
    whole = points[all_data]
    ways = [_way(str(trainer), _FULL, rows) for trainer, rows in whole.groupby("trainer")]
    for _, rows in points[~all_data].groupby(["trainer", "pruner", "epochs"]):
        first = rows.iloc[0]
        end = whole[(whole["trainer"] == first["trainer"]) & (whole["epochs"] == first["epochs"])]
        ways.append(_way(str(first["trainer"]), json.loads(first["pruner"]), pd.concat([rows, end])))
    return ways


def _way(trainer: str, pruner: Any, rows: pd.DataFrame) -> Way:
    rows = rows.sort_values("cost").drop_duplicates("cost", keep="last")
    return Way(json.loads(trainer), pruner, rows.reset_index(drop=True))


if __name__ == "__main__":
    committed = sorted(path.parent for path in Path(sys.argv[1]).glob("*/manifest.json"))
    write_text(KEPT, measured_points(committed).to_csv(index=False))
