"""Raw amounts on disk, round by round: what is there is not measured again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from advprune_core.base.files import write_text

COLUMNS = ["case", "round", "contender", "amount", "unit", "device"]


@dataclass(frozen=True)
class Rounds:
    """What is known of one case: the amounts of each round by contender, their unit, and the device."""

    rounds: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    unit: str = ""
    device: str = ""

    def added(self, number: int, amounts: Mapping[str, float]) -> Rounds:
        """With one round more, or another one in its place."""
        return Rounds({**self.rounds, number: dict(amounts)}, self.unit, self.device)


@dataclass(frozen=True)
class Readings:
    """The rounds of cases, by name."""

    cases: Mapping[str, Rounds] = field(default_factory=dict)

    def of(self, case: str) -> Rounds:
        """Those of a case; none where nothing was measured."""
        return self.cases.get(case, Rounds())

    def replaced(self, case: str, rounds: Rounds) -> Readings:
        """With these rounds of a case, instead of whatever there was."""
        return Readings({**self.cases, case: rounds})

    def without(self, *cases: str) -> Readings:
        """As if these cases had never been measured."""
        return Readings({name: rounds for name, rounds in self.cases.items() if name not in cases})

    def over(self, older: Readings) -> Readings:
        """These, and of the cases that are not among them what was known before."""
        return Readings({**older.cases, **self.cases})

    def write(self, path: Path) -> None:
        """As a table, whole or not at all."""
        rows = [
            (case, number, contender, f"{amount:.6g}", found.unit, found.device)
            for case, found in self.cases.items()
            for number, amounts in sorted(found.rounds.items())
            for contender, amount in amounts.items()
        ]
        write_text(path, pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False))


def read(path: Path) -> Readings:
    """What `Readings.write` wrote; nothing where there is no file."""
    if not path.exists():
        return Readings()
    cases: dict[str, Rounds] = {}
    frame = pd.read_csv(path, dtype={"case": str, "contender": str, "unit": str, "device": str})
    for row in frame.itertuples():
        case, number = str(row.case), int(str(row.round))
        before = cases.get(case, Rounds(unit=str(row.unit), device=str(row.device)))
        amounts = before.rounds.get(number, {})
        cases[case] = before.added(number, {**amounts, str(row.contender): float(str(row.amount))})
    return Readings(cases)
