"""Records as files of JSON with their digest: what is read is what was written, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from advprune_core.base.files import DamagedFile, read_with_digest
from advprune_core.base.settings import ConfigError
from advprune_core.study.manifest import Manifest
from advprune_core.study.packed import PACKED, Files
from advprune_core.study.records import SCHEMA, EvaluationRecord, RunRecord

R = TypeVar("R", bound=BaseModel)


def read_record(path: Path, kind: type[R], *, without_digest: bool = False, files: Files | None = None) -> R:
    """Read and verify one file of JSON.

    Parameters
    ----------
    without_digest : bool
        Accept records of the first version, which had none; they come out marked.
    files : Files, optional
        Of the folder that it belongs to, where it may be packed.

    Raises
    ------
    DamagedFile
        What is not the JSON that was written, contradicts itself, or is another run's or evaluation's.
    ConfigError
        A record of another version.
    FileNotFoundError
    """
    try:
        text = path.read_bytes() if files is None else files.read(path)
    except (IsADirectoryError, PermissionError) as error:
        raise DamagedFile(f"it cannot be read: {error.strerror}") from None
    version = _version(text)
    if version == 1 and without_digest:
        content = json.loads(text) | {"schema_version": SCHEMA}
        if "provenance" in kind.model_fields:
            content["provenance"] = "imported without digests"
    elif version == 1 and "digest" not in json.loads(text):
        raise ConfigError(
            f"{path} is of an older version, without digests; `advprune import {_import_folder(path)}` accepts such "
            "records once, as they are"
        )
    elif isinstance(version, int) and version not in (1, SCHEMA):
        raise ConfigError(f"{path} has the schema version {version}; this advprune reads version {SCHEMA}")
    else:
        content = read_with_digest(text)
    try:
        record = kind.model_validate_json(json.dumps(content))
    except ValidationError as error:
        details = error.errors()[0]
        place = ".".join(map(str, details["loc"]))
        reason = details["msg"].removeprefix("Value error, ")
        raise DamagedFile(f"{place}: {reason}" if place else reason) from None
    _check_place(record, path)
    return record


def _check_place(record: BaseModel, path: Path) -> None:
    """Refuse the sound record of something else than its file is named for."""
    if isinstance(record, RunRecord) and record.key != path.parent.name:
        raise DamagedFile(f"it is the record of the run {record.key}")
    if isinstance(record, EvaluationRecord) and (record.train_key, record.key) != (path.parts[-3], path.stem):
        raise DamagedFile(f"it is the evaluation {record.key} of the run {record.train_key}")


def read_manifest(path: Path, *, without_digest: bool = False) -> Manifest:
    """Read and verify a manifest.

    Raises
    ------
    ConfigError
        One that is damaged or of another version.
    """
    try:
        return read_record(path, Manifest, without_digest=without_digest)
    except DamagedFile as error:
        raise ConfigError(f"{path} is damaged ({error}); the study writes it anew, and trains nothing for it") from None


def is_results(folder: Path) -> bool:
    """Whether a folder has runs: a results folder or an exported study."""
    return (folder / "runs").is_dir() or (folder / PACKED).is_file()


def check_is_results(folder: Path) -> None:
    """Refuse a folder without runs, and name exported studies that lie in it.

    Raises
    ------
    ConfigError
    """
    if is_results(folder):
        return
    inside = sorted(path.parent for path in folder.glob(f"*/{PACKED}"))
    hint = f"; the exported studies in it are, such as {inside[0]}" if inside else ""
    raise ConfigError(f"{folder} is not a results folder: it has no runs/{hint}")


def _import_folder(path: Path) -> Path:
    """The folder to import that a record or a manifest lies in."""
    folders = [folder for folder in path.parents if is_results(folder)]
    return folders[0] if folders else path.parent


def _version(text: bytes) -> Any:
    """Schema version of a record that is JSON (1 where none is named); None of what is not JSON."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content.get("schema_version", 1) if isinstance(content, dict) else None
