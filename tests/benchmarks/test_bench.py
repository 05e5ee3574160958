"""The command: what is finished stays, what failed is told, and the committed table is that of its amounts."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from benchmarks import bench
from benchmarks.cases import COLUMNS, Case, Goal, OtherResults, table
from benchmarks.networks import work_folder
from benchmarks.readings import Readings, Rounds, read
from benchmarks.timing import Round
from tests.reference import REFERENCE

DONE: list[tuple[str, int]] = []


def case(name: str, *, long: bool = False, breaks_in: int = 99, other: bool = False) -> Case:
    """A case whose peer takes twice as long; it may break in a round, or see other results before."""

    @contextmanager
    def begin() -> Iterator[Round]:
        if other:
            raise OtherResults("the peer finds other images")

        def measure(number: int) -> dict[str, float]:
            if number == breaks_in:
                raise KeyboardInterrupt
            DONE.append((name, number))
            return {"ours": 1.0 + number / 100, "peer": 2.0 + number / 50}

        yield measure

    return Case(name, "work", f"setting of {name}", (Goal("ours", "peer", 1.5),), begin, long=long)


@pytest.fixture(autouse=True)
def _cases(monkeypatch: pytest.MonkeyPatch) -> None:
    DONE.clear()
    monkeypatch.setattr(bench, "CASES", [case("first"), case("second"), case("third", long=True)])


def rows(out: Path) -> dict[str, str]:
    found = pd.read_csv(out / "benchmarks.csv")
    assert list(found.columns) == COLUMNS
    return dict(zip(found["setting"].str.removeprefix("setting of "), found["met"], strict=True))


def run(out: Path, *arguments: str) -> int:
    return bench.main([*arguments, "--out", str(out)])


def test_what_is_finished_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 0
    assert [name for name, _ in DONE] == ["first"] * 6 + ["second"] * 6  # the first round is a warm-up
    assert rows(tmp_path) == {"first": "yes", "second": "yes", "third": "not measured"}
    assert "setting of third" in capsys.readouterr().out
    DONE.clear()
    assert run(tmp_path) == 0
    assert DONE == []
    assert run(tmp_path, "--again", "second") == 0
    assert [("second", number) for number in range(6)] == DONE
    assert run(tmp_path, "--long") == 0
    assert DONE[6:] == [("third", number) for number in range(6)]
    assert set(rows(tmp_path).values()) == {"yes"}


def test_a_killed_case_goes_on_with_the_round_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CASES", [case("first", breaks_in=4)])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    DONE.clear()
    monkeypatch.setattr(bench, "CASES", [case("first")])
    assert run(tmp_path) == 0
    assert DONE == [("first", 0), ("first", 4), ("first", 5)]
    assert set(read(tmp_path / "timings.csv").of("first").rounds) == {1, 2, 3, 4, 5}


def test_other_results_are_no_row_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "CASES", [case("first", other=True), case("second")])
    assert run(tmp_path) == 1
    assert "first could not be measured: the peer finds other images" in capsys.readouterr().out
    assert rows(tmp_path) == {"first": "not measured", "second": "yes"}


def test_amounts_of_another_device_are_shown_and_not_taken_for_this_ones(tmp_path: Path) -> None:
    there = Rounds({number: {"ours": 5.0, "peer": 5.0} for number in range(1, 6)}, "s", "another CPU")
    Readings({"first": there, "second": there}).write(tmp_path / "timings.csv")
    Readings({"first": there}).write(work_folder() / "timings.csv")
    assert run(tmp_path, "--only", "first") == 0
    assert [name for name, _ in DONE] == ["first"] * 6
    assert rows(tmp_path) == {"first": "yes", "second": "no", "third": "not measured"}
    devices = pd.read_csv(tmp_path / "benchmarks.csv")["device"]
    assert devices[0] != devices[1] == "another CPU"


def test_a_first_look_at_fewer_rounds_is_not_met(tmp_path: Path) -> None:
    assert run(tmp_path, "--only", "first", "--rounds", "1") == 0
    assert rows(tmp_path)["first"] == "after 1 rounds only"


def test_two_at_a_time_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work_folder().mkdir(parents=True)
    with FileLock(work_folder() / "timings.lock"), pytest.raises(SystemExit):
        run(tmp_path)
    assert "another benchmark is under way" in capsys.readouterr().err
    assert DONE == []


def test_a_misspelt_name_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, "--only", "frist")
    assert "there is no case 'frist'" in capsys.readouterr().err
    assert DONE == []


def test_the_committed_table_is_that_of_the_committed_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    folder = REFERENCE / "benchmarks"
    written = pd.read_csv(folder / "benchmarks.csv")
    made = table(bench.CASES, read(folder / "timings.csv")).to_csv(index=False, float_format="%.4g")
    pd.testing.assert_frame_equal(written, pd.read_csv(io.StringIO(made)))
    assert (folder / "README.md").read_text() == bench.page(written, bench.known_ceilings(folder))


def test_the_page_says_how_it_does_beside_other_code_before_it_says_so_of_targets() -> None:
    """A missed target of ours is no slower code than theirs."""
    rows = pd.DataFrame(
        {
            "work": ["PGD", "PGD", "an epoch", "OMP", "PGD", "memory of OMP"],
            "peer": ["ART", "ART", "textbook", "", "torchattacks", "ART"],
            "ratio": [1.5, 0.9, 2.0, 3.0, 1.003, 20.0],
            "target": 2.0,
            "met": "no",
            **dict.fromkeys(["setting", "device"], ""),
        }
    )
    text = bench.page(rows, bench.known_ceilings(Path("nowhere")))
    told = "in 1 of 3 rows of time, compiled ones included; ratios: torchattacks 1.00, ART 0.90 to 1.50."
    assert f"Faster than other libraries by more than 5 % {told}\n\nOf our own targets 0 of 6 are met" in text
    assert "Faster" not in bench.page(rows[2:4], bench.known_ceilings(Path("nowhere")))
