"""Studies that leave a results folder: without weights, to be published."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advprune_core.base.files import DamagedFile
from advprune_core.base.settings import AdvpruneError, ConfigError
from advprune_core.study.manifest import Manifest
from advprune_core.study.packed import PACKED, write_packed
from advprune_core.study.record_files import read_record
from advprune_core.study.records import EvaluationRecord, RunRecord, Timing
from advprune_core.study.store import RunStore
from advprune_core.study.unfinished import unfinished

#: Records of a run that an export has; weights and selections stay where they are.
_EXPORTED: dict[str, type[RunRecord] | type[EvaluationRecord] | type[Timing]] = {
    "record.json": RunRecord,
    "evaluations/*.json": EvaluationRecord,
    "timings/*.json": Timing,
}


@dataclass(frozen=True)
class Exported:
    """What an export has.

    Attributes
    ----------
    runs : int
        Runs with a record.
    missing : list of str
        Points of the study that are not finished: not trained, failed, or not tested.
    """

    runs: int
    missing: list[str]


def export_study(study: str, folder: Path, *, results: Path) -> Exported:
    """Copy a study's manifest, tables, figures, notebooks and its runs' records, packed and without weights.

    The study may be under way: what is finished is copied. The copy is made beside `folder` and renamed; in
    an earlier export, only what an export writes is replaced.

    Warns
    -----
    UserWarning
        A damaged record, which is left out.

    Raises
    ------
    ConfigError
        No such study; a folder that is a results folder, the study's own, or has other things in it.
    """
    store = RunStore(results)
    manifest, own = store.manifest(study), results / study
    _check_target(folder, study, results=results, own=own)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.resolve().parent, prefix=f".{folder.name}."))
    try:
        for path in _kept_files(folder):
            _copy(path, beside / path.relative_to(folder))
        for path in sorted(own.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                _copy(path, beside / path.name)
        records = _exported_records(store, sorted({entry.key for entry in manifest.entries}))
        write_packed(beside / PACKED, records)
        beside.chmod(0o755)
        if folder.exists():
            earlier = beside.with_name(f"{beside.name}.earlier")
            folder.rename(earlier)
            beside.rename(folder)
            shutil.rmtree(earlier)
        else:
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    copied = RunStore(folder, read_only=True)
    return Exported(len(copied.run_keys()), [missing.text() for missing in unfinished(copied, manifest)])


def _exported_records(store: RunStore, keys: list[str]) -> dict[str, dict[str, Any]]:
    """Content of the records of runs, as it was written, by their paths below the results."""
    records = {}
    for key, (pattern, kind) in itertools.product(keys, _EXPORTED.items()):
        for path in store.files.find(f"runs/{key}/{pattern}"):
            try:
                read_record(path, kind, without_digest=True, files=store.files)
            except DamagedFile as error:
                warnings.warn(f"{path} is damaged ({error}); left out", stacklevel=3)
                continue
            records[path.relative_to(store.results).as_posix()] = json.loads(store.files.read(path))
    return records


def _check_target(folder: Path, study: str, *, results: Path, own: Path) -> None:
    """Refuse to export over anything but an earlier export of the study."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; an export needs a folder that is new, empty, or an earlier export")
    target = folder.resolve()
    if target in (results.resolve(), own.resolve()) or target.is_relative_to(results.resolve() / "runs"):
        raise ConfigError(f"{folder} belongs to the results that are exported; name another folder, outside of them")
    if folder.exists() and any(folder.iterdir()):
        try:
            earlier = read_record(folder / "manifest.json", Manifest, without_digest=True)
        except (AdvpruneError, FileNotFoundError):
            raise ConfigError(
                f"{folder} is not empty and not an earlier export (it has no readable manifest.json): nothing was "
                "written; name a new folder"
            ) from None
        if earlier.study != study:
            raise ConfigError(f"{folder} has the study {earlier.study!r}: nothing was written; name a new folder")


def _kept_files(folder: Path) -> list[Path]:
    """Files in an earlier export that no export writes: the user's own."""
    written = {path for pattern in _EXPORTED for path in folder.glob(f"runs/*/{pattern}")}
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in written]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
