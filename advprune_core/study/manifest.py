"""Which runs a study consists of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: A study has a folder of its name, in the results folder.
STUDY_NAME = r"^\w[\w.-]*$"


class ManifestEntry(BaseModel):
    """One point of a study: where it stands in the grid, and which run and evaluation it is.

    ``fraction`` is the grid's: of a control, the share that the run it matches keeps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    arm: str
    variant: str = ""
    fraction: float
    seed: int
    control: str | None
    key: str
    evaluation: str


class Manifest(BaseModel):
    """Which runs a study consists of.

    Attributes
    ----------
    study : str
    config : dict
        Its parameters.
    entries : list of ManifestEntry
    former : list of str
        Keys that an earlier grid of this study had, and this one has not.
    only : list of (str, float), optional
        Arms at shares of the data that were chosen elsewhere, of a grid that has more; None: all of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[2] = 2
    study: Annotated[str, Field(pattern=STUDY_NAME)]
    config: dict[str, Any]
    entries: list[ManifestEntry]
    former: list[str] = []
    only: list[tuple[str, float]] | None = None

    def asks_for(self, arm: str, fraction: float) -> bool:
        """Whether an arm of the grid, at a share of the data, is to be run."""
        return self.only is None or (arm, fraction) in self.only
