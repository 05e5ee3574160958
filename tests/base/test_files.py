"""Files that are whole or not there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from advprune_core.base import files
from advprune_core.base.files import check_writable, write_atomically, write_text
from advprune_core.base.settings import ConfigError


@pytest.mark.parametrize("text", ["", "one\ntwo\n", "ε ≤ 8/255", "x" * 1_000_000])
@pytest.mark.parametrize("before", [None, "old"])
def test_text_is_written_whole(text: str, before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.json" if before is None else tmp_path / "file.json"
    if before is not None:
        path.write_text(before)
    write_text(path, text)
    assert path.read_bytes() == text.encode()
    assert os.listdir(path.parent) == ["file.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def _raise_before(error: type[BaseException]) -> Callable[[IO[bytes]], Any]:
    def write(file: IO[bytes]) -> None:
        raise error("before")

    return write


def _raise_within(error: type[BaseException]) -> Callable[[IO[bytes]], Any]:
    def write(file: IO[bytes]) -> None:
        file.write(b"half of")
        file.flush()
        raise error("within")

    return write


@pytest.mark.parametrize("when", [_raise_before, _raise_within])
@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_writer_that_fails_leaves_what_was_there(
    when: Callable[[type[BaseException]], Callable[[IO[bytes]], Any]],
    error: type[BaseException],
    before: str | None,
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.pt"
    if before is not None:
        path.write_text(before)
    with pytest.raises(error, match=r"before|within"):
        write_atomically(path, when(error))
    assert os.listdir(tmp_path) == ([] if before is None else ["file.pt"])
    assert before is None or path.read_text() == before


def test_nobody_ever_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")

    def write(file: IO[bytes]) -> None:
        for _ in range(3):
            file.write(b"new")
            file.flush()
            assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "newnewnew"


def test_a_rename_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")

    def refuse(*_: Any) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    check_writable(folder)
    check_writable(folder)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_folder_that_cannot_be_written_is_named(below: str, tmp_path: Path) -> None:
    """Below a regular file, because permissions do not bind an administrator."""
    (tmp_path / "file").write_text("content")
    with pytest.raises(ConfigError, match=r"cannot be written to .*file.*--out or ADVPRUNE_RESULTS"):
        check_writable(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "content"


def test_a_folder_that_refuses_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ConfigError, match="Permission denied"):
        check_writable(tmp_path)
