"""Studies that come into a results folder: every record verified, with what was trained and tested elsewhere."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from advprune_core.base.files import DamagedFile, digest_of, write_atomically
from advprune_core.base.keys import content_key
from advprune_core.base.settings import AdvpruneError, ConfigError
from advprune_core.study.manifest import Manifest
from advprune_core.study.packed import Files
from advprune_core.study.record_files import read_manifest, read_record
from advprune_core.study.records import FILES, OWN_WEIGHTS, EvaluationRecord, RunRecord, Timing
from advprune_core.study.store import RunStore, timing_of

R = TypeVar("R", RunRecord, EvaluationRecord, Timing)


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
    own_weights : list of str
        Weights of somebody's own, of which an evaluation is new here.
    other_manifests : list of str
        Manifests here that stay as they are, though the one that came has runs that they do not name.
    refused : dict of str to str
        Files that are damaged, with the reason.
    """

    runs: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    without_digests: list[str] = field(default_factory=list)
    other_code: list[str] = field(default_factory=list)
    own_weights: list[str] = field(default_factory=list)
    other_manifests: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def import_study(folder: Path, *, results: Path) -> Imported:
    """Bring an exported study, or another results folder, into a results folder; every record is verified.

    Training and evaluations that come in are finished: nothing is trained again for them. Only a study that
    asks for timings trains its first seed's runs once more, for the seconds of those that were not timed alone.
    Weights come along where they are there, also those of a run that is here without them. The records say that
    they were imported. A manifest that has grown elsewhere takes the place of the one here. `folder` may be
    `results` itself, to accept records of the first version.

    Raises
    ------
    ConfigError
        No records there.
    """
    source, target, found = RunStore(folder, read_only=True), RunStore(results), Imported()
    keys = source.run_keys()
    own = {path.parts[-3] for path in source.files.find(f"runs/{OWN_WEIGHTS}*/evaluations/*.json")} - {*keys}
    if not (keys or own):
        raise ConfigError(f"{folder} has no records of runs: name an exported study or a results folder")
    for key in keys:
        with target.lock(key):
            _import_run(source.folder(key), source.files, target, found)
    for key in sorted(own):
        in_place = target.folder(key).resolve() == source.folder(key).resolve()
        with target.lock(key):
            if _import_evaluations(key, source.files, target, found, in_place=in_place):
                found.own_weights.append(key)
    for path in sorted([*folder.glob("manifest*.json"), *folder.glob("*/manifest*.json")]):
        try:
            manifest = read_manifest(path, without_digest=True)
        except ConfigError as error:
            found.refused[str(path)] = str(error)
            continue
        _import_manifest(manifest, path, target, found)
    return found


def _import_manifest(manifest: Manifest, path: Path, target: RunStore, found: Imported) -> None:
    """Write a manifest, unless the one that is here names what it does not."""
    there = target.results / manifest.study / path.name
    if there.exists() and not there.samefile(path):
        try:
            kept = read_manifest(there)
        except ConfigError:  # what it names nobody knows: its study writes it anew
            found.other_manifests.append(str(there))
            return
        here, coming = set(kept.entries), set(manifest.entries)
        if not here < coming:
            if not coming <= here:
                found.other_manifests.append(str(there))
            return
        former = {*kept.former, *manifest.former} - {entry.key for entry in manifest.entries}
        manifest = manifest.model_copy(update={"former": sorted(former)})
    target.write_manifest(manifest, there.parent, name=path.name)


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
        if kept.files == record.files:
            _bring_files(folder, record, set(target.absent(kept)), target, found)
    else:
        found.runs.append(key)
        if old:
            found.without_digests.append(key)
            if _key_today(record) != key:
                found.other_code.append(key)
            there = [name for name in FILES if (folder / name).exists()]
            record = record.model_copy(update={"files": {name: digest_of(folder / name) for name in there}})
        if not in_place:
            _bring_files(folder, record, set(record.files), target, found)
        target.keep_run(_marked(record, in_place=in_place))
    _import_evaluations(key, files, target, found, in_place=in_place)
    _import_timings(record, files, target, found, in_place=in_place)


def _bring_files(folder: Path, record: RunRecord, names: set[str], target: RunStore, found: Imported) -> None:
    """Copy those files of a run that are there as its record names them.

    Each is whole or not there: beside a record, half of one would be damage, for which the run is trained again.
    """
    for name in sorted(names & {*record.files}):
        source = folder / name
        if source.exists() and digest_of(source) != record.files[name]:
            found.refused[str(source)] = "its SHA-256 is not the one in the record"
        elif source.exists():
            with open(source, "rb") as file:
                write_atomically(target.folder(record.key) / name, partial(shutil.copyfileobj, file))


def _import_evaluations(key: str, files: Files, target: RunStore, found: Imported, *, in_place: bool) -> int:
    """Write the evaluations of a run, or of somebody's own weights, that are not there yet; how many these are."""
    new = 0
    for path in files.find(f"runs/{key}/evaluations/*.json"):
        evaluation = _verified(path, EvaluationRecord, files, found)
        if evaluation is None or key in found.otherwise:
            continue
        if in_place or target.evaluation(key, evaluation.key) is None:
            target.write_evaluation(_marked(evaluation, in_place=in_place))
            new += 1
    return new


def _import_timings(record: RunRecord, files: Files, target: RunStore, found: Imported, *, in_place: bool) -> None:
    """Write the timings of a run that are not there yet; one of a run that was there already is one more of it."""
    key = record.key
    kept = target.run(key)
    there: list[RunRecord | Timing] = [] if kept is None or not kept.timed_alone else [kept]
    there += target.timings(key)
    known = [(timing.seconds, timing.cpu_seconds) for timing in there]
    coming: list[tuple[str | None, Timing]] = []
    if record.timed_alone:
        coming.append((None, timing_of(record)))
    for path in files.find(f"runs/{key}/timings/*.json"):
        if (timing := _verified(path, Timing, files, found)) is not None:
            coming.append((path.stem if in_place else None, timing))
    for number, timing in coming:
        if number is not None or (timing.seconds, timing.cpu_seconds) not in known:
            target.write_timing(key, _marked(timing, in_place=in_place), number=number)


def _verified(path: Path, kind: type[R], files: Files, found: Imported) -> R | None:
    """A record, or None of a damaged one, which is refused."""
    try:
        return read_record(path, kind, without_digest=True, files=files)
    except DamagedFile as error:
        found.refused[str(path)] = str(error)
        return None


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
        config = record.run_config
    except (AdvpruneError, ValidationError):
        return None
    return content_key(config.identity(record.dataset.get("train_hash", "")))
