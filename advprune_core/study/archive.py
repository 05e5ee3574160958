"""Studies that leave a results folder, and that come into one: without weights, every record verified."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from advprune_core.base.files import DamagedFile, digest_of
from advprune_core.base.keys import content_key
from advprune_core.base.settings import AdvpruneError, ConfigError
from advprune_core.study.manifest import Manifest
from advprune_core.study.packed import PACKED, Files, write_packed
from advprune_core.study.record_files import read_manifest, read_record
from advprune_core.study.records import FILES, EvaluationRecord, RunRecord, Timing
from advprune_core.study.store import RunStore
from advprune_core.study.unfinished import unfinished
from advprune_core.trainers.config import RunConfig

R = TypeVar("R", RunRecord, EvaluationRecord, Timing)

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
        Points of the study that are not finished: not trained, or not tested.
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


@dataclass
class Imported:
    """What an import did, by the keys of runs.

    Attributes
    ----------
    runs, there : list of str
        Runs that are new here, or had failed, and runs that were here already and are left as they are.
    otherwise : list of str
        Of the latter, those whose training came out otherwise here: evaluations, of other weights, are not taken.
    without_digests : list of str
        Of the new ones, those whose records are of the first version: taken as they are.
    other_code : list of str
        Of the new ones, those whose key today's code would not give to their settings.
    refused : dict of str to str
        Files that are damaged, with the reason.
    """

    runs: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    without_digests: list[str] = field(default_factory=list)
    other_code: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def import_study(folder: Path, *, results: Path) -> Imported:
    """Bring an exported study, or another results folder, into a results folder; every record is verified.

    Training and evaluations that come in are finished: nothing is trained again for them. Weights
    come along where they are there. The records say that they were imported. `folder` may be
    `results` itself, to accept records of the first version.

    Raises
    ------
    ConfigError
        No records there.
    """
    source, target, found = RunStore(folder, read_only=True), RunStore(results), Imported()
    keys = source.run_keys()
    if not keys:
        raise ConfigError(f"{folder} has no records of runs: name an exported study or a results folder")
    for key in keys:
        with target.lock(key):
            _import_run(source.folder(key), source.files, target, found)
    for path in sorted([*folder.glob("manifest*.json"), *folder.glob("*/manifest*.json")]):
        try:
            manifest = read_manifest(path, without_digest=True)
        except ConfigError as error:
            found.refused[str(path)] = str(error)
            continue
        there = results / manifest.study / path.name
        if not there.exists() or there.samefile(path):
            target.write_manifest(manifest, there.parent, name=path.name)
    return found


def _import_run(folder: Path, files: Files, target: RunStore, found: Imported) -> None:
    """Verify the records of one run, and write what is not there yet."""
    key = folder.name
    try:
        record, old = _run_record(folder / "record.json", files)
    except DamagedFile as error:
        found.refused[str(folder / "record.json")] = str(error)
        return
    in_place = target.folder(key).resolve() == folder.resolve()
    kept = None if in_place else target.run(key)
    if kept is not None and (kept.status != "failed" or record.status == "failed"):
        found.there.append(key)
        if not kept.same_training(record):
            found.otherwise.append(key)
    else:
        found.runs.append(key)
        if old:
            found.without_digests.append(key)
            if _key_today(record) != key:
                found.other_code.append(key)
            there = [name for name in FILES if (folder / name).exists()]
            record = record.model_copy(update={"files": {name: digest_of(folder / name) for name in there}})
        for name, digest in record.files.items():
            if not in_place and (folder / name).exists() and digest_of(folder / name) == digest:
                _copy(folder / name, target.folder(key) / name)
        target.keep_run(_marked(record, in_place=in_place))
    for path in files.find(f"runs/{key}/evaluations/*.json"):
        try:
            evaluation = read_record(path, EvaluationRecord, without_digest=True, files=files)
        except DamagedFile as error:
            found.refused[str(path)] = str(error)
            continue
        if key not in found.otherwise and (in_place or target.evaluation(key, evaluation.key) is None):
            target.write_evaluation(_marked(evaluation, in_place=in_place))
    _import_timings(record, files, target, found, in_place=in_place)


def _import_timings(record: RunRecord, files: Files, target: RunStore, found: Imported, *, in_place: bool) -> None:
    """Write the timings of a run that are not there yet; one of a run that was there already is one more of it."""
    key = record.key
    kept = target.run(key)
    there: list[RunRecord | Timing] = [] if kept is None or not kept.timed_alone else [kept]
    there += target.timings(key)
    known = [(timing.seconds, timing.cpu_seconds) for timing in there]
    coming: list[tuple[str | None, Timing]] = []
    if record.timed_alone:
        times = record.model_dump(include={"seconds", "cpu_seconds", "environment", "provenance"})
        coming.append((None, Timing(**times)))
    for path in files.find(f"runs/{key}/timings/*.json"):
        try:
            timing = read_record(path, Timing, without_digest=True, files=files)
        except DamagedFile as error:
            found.refused[str(path)] = str(error)
            continue
        coming.append((path.stem if in_place else None, timing))
    for number, timing in coming:
        if number is not None or (timing.seconds, timing.cpu_seconds) not in known:
            target.write_timing(key, _marked(timing, in_place=in_place), number=number)


def _run_record(path: Path, files: Files) -> tuple[RunRecord, bool]:
    """A run's record, and whether it is of the first version, without a digest."""
    try:
        return read_record(path, RunRecord, files=files), False
    except ConfigError:
        return read_record(path, RunRecord, without_digest=True, files=files), True


def _marked(record: R, *, in_place: bool) -> R:
    """The record with the mark of where it came from."""
    if in_place or record.provenance != "here":
        return record
    return record.model_copy(update={"provenance": "imported"})


def _key_today(record: RunRecord) -> str | None:
    """The key that today's code gives to the settings of a record."""
    try:
        config = RunConfig.create(**{"speed": "exact", **record.config})  # older records know no other
    except (AdvpruneError, ValidationError):
        return None
    return content_key(config.identity(record.dataset.get("train_hash", "")))
