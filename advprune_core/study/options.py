"""Parameters of notebooks that are none of a study: what its figures and findings go by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import Field

from advprune_core.base.settings import Settings, check_names
from advprune_core.study.grid import study_grid
from advprune_core.study.study import StudyConfig

_Pair = Annotated[list[str], Field(strict=False, min_length=2, max_length=2)]  # a tuple is one, too


class Options(Settings):
    """Those that notebooks have in common; each has some of them."""

    figure_dpi: Annotated[int, Field(ge=1, le=1200, description="pixels per inch of saved figures")] = 150
    share: Annotated[float, Field(gt=0, le=1, description="of a full run's robust accuracy: converged")] = 0.95
    margin: Annotated[float, Field(ge=0, lt=1, description="robust accuracy that may be lost")] = 0.02
    reference: Annotated[str, Field(description="way of training that others are compared with")] = "PGD-AT"
    compare: Annotated[tuple[_Pair, ...], Field(description="pairs of arms to compare by seed")] = ()


def check_options(config: StudyConfig, values: Mapping[str, Any], *, given: Collection[str]) -> None:
    """Refuse what a study's notebook could not show, before any work.

    Parameters
    ----------
    config : StudyConfig
    values : mapping of str to any
        Parameters of a notebook; those that are no `Options` are left alone.
    given : collection of str
        Names that somebody gave, but for those of arms, which `check_arms` looks for. A `reference` that nobody gave
        may be missing: the default is of the default study.

    Raises
    ------
    ConfigError
        A value out of range; a given reference that is neither a way of training nor an arm of the study.
    """
    options = Options.create(**{name: value for name, value in values.items() if name in Options.model_fields})
    if "reference" in values and "reference" in given:
        arms = {entry.arm for entry in study_grid(config)}
        if options.reference not in arms:  # of those that there are, ways of training are meant where there are some
            check_names([options.reference], config.variants or arms, what="reference")
