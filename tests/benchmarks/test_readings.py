"""Amounts on disk come back as they were, and are kept by case and round."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.readings import Readings, Rounds, read

KNOWN = Readings(
    {
        "pgd": Rounds({1: {"ours": 1.5, "peer": 3.0}, 2: {"ours": 1.25, "peer": 2.0}}, "s", "a CPU, of 2 cores"),
        "memory": Rounds({1: {"ours": 12.0}}, "MB", "another"),
    }
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "below" / "timings.csv"
    assert read(path) == Readings()
    KNOWN.write(path)
    assert read(path) == KNOWN
    Readings().write(path)
    assert read(path) == Readings()


@given(
    amounts=st.dictionaries(
        st.text("abc, ;:%\"'0é", min_size=1, max_size=8).filter(lambda name: name.strip() == name),
        st.floats(1e-6, 1e6),
        min_size=1,
    )
)
def test_names_and_amounts_survive_to_six_digits(
    amounts: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("readings") / "timings.csv"
    Readings({"case": Rounds({1: amounts}, "s", "here")}).write(path)
    found = read(path).of("case").rounds[1]
    assert list(found) == list(amounts)
    assert list(found.values()) == pytest.approx(list(amounts.values()), rel=1e-5)


def test_a_case_is_replaced_dropped_or_comes_before_an_older_one() -> None:
    new = Rounds({1: {"ours": 9.0}}, "s", "here")
    assert KNOWN.replaced("pgd", new).of("pgd") == new
    assert KNOWN.replaced("pgd", new).of("memory") == KNOWN.of("memory")
    assert KNOWN.without("pgd").of("pgd") == Rounds()
    assert set(KNOWN.without("pgd").cases) == {"memory"}
    shown = Readings({"pgd": new, "more": new}).over(KNOWN)
    assert (shown.of("pgd"), shown.of("memory"), shown.of("more")) == (new, KNOWN.of("memory"), new)


def test_a_round_is_added_in_its_place() -> None:
    found = KNOWN.of("pgd").added(2, {"ours": 4.0}).added(3, {"ours": 5.0})
    assert [found.rounds[number].get("ours") for number in (1, 2, 3)] == [1.5, 4.0, 5.0]
    assert KNOWN.of("pgd").rounds[2]["ours"] == 1.25
