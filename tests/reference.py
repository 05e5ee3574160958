"""What is committed under ``results/reference``."""

from __future__ import annotations

from pathlib import Path

from advprune_core.study.records import RunRecord
from advprune_core.study.store import RunStore

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
#: The exported studies among it, by name.
STUDIES = sorted(path.parent.name for path in REFERENCE.glob("*/manifest.json"))


def committed_records() -> list[RunRecord]:
    """The record of every run of every committed study."""
    stores = [RunStore(REFERENCE / study, read_only=True) for study in STUDIES]
    found = [store.run(key) for store in stores for key in store.run_keys()]
    assert None not in found, "a committed record cannot be believed"
    return [record for record in found if record is not None]
