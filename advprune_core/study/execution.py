"""How the runs of a grid are carried out: engine, machines, folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from advprune_core.base.environment import results_root
from advprune_core.base.settings import Settings
from advprune_core.study.engines import EngineName, default_workers


def _checked_resources(resources: dict[str, float]) -> dict[str, float]:
    for name, need in resources.items():
        if need > 1 and need != round(need):
            raise ValueError(f"resources: {name!r} is {need:g}; above 1 they are whole")
    return resources


class CarriedOut(Settings):
    """What a study's parameters say of how it is carried out; nothing here changes a result."""

    any_device: Annotated[
        bool,
        Field(description="runs that another device has trained count: begun on a laptop, then ended on a GPU"),
    ] = False
    timed_repeats: Annotated[
        int, Field(ge=0, le=1000, description="how often the first seed's runs are timed alone")
    ] = 1
    engine: Annotated[EngineName, Field(description="serial; processes: one run per core; ray: a cluster")] = (
        "processes"
    )
    workers: Annotated[
        int | None, Field(ge=1, le=1024, description="runs at once; none: one per core, or what fits on the cluster")
    ] = None
    address: Annotated[
        str | None, Field(min_length=1, description="of a Ray cluster: host:port, auto, ray://host:port")
    ] = None
    resources: Annotated[
        dict[str, Annotated[float, Field(ge=0, le=100_000)]],
        AfterValidator(_checked_resources),
        Field(description="what a run takes of a Ray node: {GPU: 0.5}; by default a core for each thread, and a GPU"),
    ] = {}
    data: Annotated[str | None, Field(description="folder of downloads; none: $ADVPRUNE_DATA")] = None
    results: Annotated[str | None, Field(description="results folder; none: $ADVPRUNE_RESULTS, or the project's")] = (
        None
    )

    @model_validator(mode="after")
    def _of_a_cluster(self) -> Self:
        if self.engine != "ray" and (self.address is not None or self.resources):
            raise ValueError("address and resources are those of a cluster: they need engine = 'ray'")
        return self


class Execution(CarriedOut):
    """How a grid is carried out."""

    checkpoint_seconds: Annotated[
        float, Field(ge=0, le=1_000_000, description="least time between checkpoints of a run")
    ] = 30.0
    retrain: Annotated[
        bool, Field(description="train runs again whose weights are not here, where a test needs them")
    ] = False

    @property
    def root(self) -> Path:
        """Results folder."""
        return results_root(self.results)

    @property
    def worker_count(self) -> int:
        """Tasks that are under way at once; of a cluster it is known only when it is there."""
        if self.engine == "processes":
            return self.workers or default_workers()
        return 1 if self.engine == "serial" else self.workers or 1
