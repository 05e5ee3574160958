"""Columns of the table, each declared where it is computed: from there it reaches records, table and description.

What is measured in training is a field of `RunRecord` with a `Column` that says how; what follows from a record is a
function with the decorator `derived`, which its docstring describes. Nothing else names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from advprune_core.datasets.splits import Dataset
from advprune_core.trainers.result import TrainResult

F = TypeVar("F", bound=Callable[[Any], Any])


@dataclass(frozen=True)
class Column:
    """The annotation of a record's field that is a column.

    Attributes
    ----------
    of : callable, optional
        The value for a training's result and its data; None of what the driver gives.
    name : str
        Of the column, where the field's own is taken by a setting.
    """

    description: str
    of: Callable[[TrainResult, Dataset], Any] | None = None
    name: str = ""


#: Columns that follow from a record, by name.
_DERIVED: dict[str, Callable[[Any], Any]] = {}


def derived(function: F) -> F:
    """Make a function of a run's record the column of that name."""
    _DERIVED[function.__name__] = function
    return function


def _columns(record: type[BaseModel]) -> dict[str, Column]:
    """Columns of a kind of record, by field."""
    found = ((name, item) for name, field in record.model_fields.items() for item in field.metadata)
    return {name: item for name, item in found if isinstance(item, Column)}


def measured(record: type[BaseModel], result: TrainResult, dataset: Dataset) -> dict[str, Any]:
    """The fields of a record that are measured in training."""
    return {name: column.of(result, dataset) for name, column in _columns(record).items() if column.of is not None}


def values(record: BaseModel) -> dict[str, Any]:
    """The columns of a record, by their names in the table."""
    fields = {column.name or name: getattr(record, name) for name, column in _columns(type(record)).items()}
    return fields | {name: function(record) for name, function in _DERIVED.items()}


def descriptions(record: type[BaseModel]) -> dict[str, str]:
    """What each column says, by its name in the table."""
    fields = {column.name or name: column.description for name, column in _columns(record).items()}
    return fields | {name: " ".join(str(function.__doc__).split()) for name, function in _DERIVED.items()}
