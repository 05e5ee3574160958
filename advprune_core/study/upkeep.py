"""Whether a results folder is what was written to it, and what in it no study needs any more."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, Timeout

from advprune_core.base.files import digest_of, half_written
from advprune_core.base.settings import AdvpruneError
from advprune_core.study.manifest import Manifest
from advprune_core.study.packed import Files
from advprune_core.study.record_files import check_is_results, read_record
from advprune_core.study.records import FILES, OWN_WEIGHTS, EvaluationRecord, RunRecord, Timing
from advprune_core.study.store import RunStore
from advprune_core.trainers.state import left_in

#: Name of a folder of what was put away: when.
_PUT_AWAY = "%Y-%m-%d_%H-%M-%S"


@dataclass(frozen=True)
class Finding:
    """A file that is not what was written, and what becomes of it."""

    path: Path
    reason: str
    consequence: str

    def text(self) -> str:
        """One line."""
        return f"{self.path}: {self.reason}; {self.consequence}"


def check_results(results: Path) -> list[Finding]:
    """Verify a results folder or an exported study: digests, keys, files, manifests. Nothing is changed.

    Raises
    ------
    ConfigError
        A folder without runs.
    """
    check_is_results(results)
    files = Files(results)
    exported = (results / "manifest.json").exists()
    found: list[Finding] = []
    sound: dict[str, set[str]] = {}
    diverged: set[str] = set()
    folders = {path for path in results.glob("runs/*") if path.is_dir()}
    for folder in sorted(folders | {path.parent for path in files.find("runs/*/record.json")}):
        found += _check_run(folder, files, sound, diverged, exported=exported)
    for path in sorted([*results.glob("manifest*.json"), *results.glob("*/manifest*.json")]):
        found += _check_manifest(path, sound, diverged)
    return found


def _check_run(
    folder: Path, files: Files, sound: dict[str, set[str]], diverged: set[str], *, exported: bool
) -> Iterator[Finding]:
    """Findings of one run; `sound` gets its key and those of its evaluations where these can be believed.

    `diverged` gets the key of a run that nothing tests.
    """
    path, key = folder / "record.json", folder.name
    again, judged = "the run is trained again", "the evaluation is made again"
    own = key.startswith(OWN_WEIGHTS)
    if files.find(f"runs/{key}/record.json"):
        try:
            record = read_record(path, RunRecord, files=files)
        except AdvpruneError as error:
            yield Finding(path, str(error), again)
            return
        sound[key] = set()
        if record.status == "diverged":
            diverged.add(key)
        for name, digest in record.files.items():
            file = folder / name
            if not file.exists():
                if record.provenance == "here" and not exported:
                    yield Finding(file, "missing", "a new attack needs it: --retrain trains the run again")
            elif digest_of(file) != digest:
                yield Finding(file, "its SHA-256 is not the one in the record", again)
    elif own:
        sound[key] = set()
    elif not (folder / "work").exists():
        yield Finding(path, "missing", f"{again}, if a study asks for it")
        return
    else:
        return  # under way
    for file in files.find(f"runs/{key}/evaluations/*.json"):
        try:
            sound[key].add(read_record(file, EvaluationRecord, files=files).key)
        except AdvpruneError as error:
            yield Finding(file, str(error), judged)
    for file in files.find(f"runs/{key}/timings/*.json"):
        try:
            read_record(file, Timing, files=files)
        except AdvpruneError as error:
            yield Finding(file, str(error), "the run is timed again")


def _check_manifest(path: Path, sound: dict[str, set[str]], diverged: set[str]) -> Iterator[Finding]:
    """What a manifest names and the runs do not have."""
    try:
        manifest = read_record(path, Manifest)
    except AdvpruneError as error:
        yield Finding(path, str(error), "the study writes it anew")
        return
    for key in sorted({entry.key for entry in manifest.entries} - set(sound)):
        yield Finding(path, f"it names the run {key}, which has no sound record", "the study trains it")
    for entry in manifest.entries:
        if entry.key in sound and entry.key not in diverged and entry.evaluation not in sound[entry.key]:
            text = f"it names the evaluation {entry.evaluation} of the run {entry.key}, which has no sound record"
            yield Finding(path, text, "the study makes it, unless the run failed")


@dataclass(frozen=True)
class Garbage:
    """What no study needs.

    Attributes
    ----------
    paths : list of (Path, int)
        Folders and files with their bytes.
    unaccounted : list of Path
        Runs that no manifest names or used to name: kept, since nobody knows whose they are.
    """

    paths: list[tuple[Path, int]]
    unaccounted: list[Path]


def collect_garbage(results: Path, *, remove: bool = False) -> Garbage:
    """Find runs that their study has given up, checkpoints of finished runs, and warm-ups where all are finished.

    A run is given up if a manifest says that its study used to have it and no manifest has it now.
    With `remove`, what is found is moved to ``trash/<time>/``, each under the lock of its run.

    Warns
    -----
    UserWarning
        A manifest that cannot be read: any run may be its study's, and none is given up.
    """
    manifests, unreadable = [], []
    for path in results.glob("*/manifest*.json"):
        try:
            manifests.append(read_record(path, Manifest))
        except AdvpruneError as error:
            unreadable.append(path)
            warnings.warn(f"{path} cannot be read ({error}): no run is put away while it is so", stacklevel=2)
    named = {entry.key for manifest in manifests for entry in manifest.entries}
    former = set() if unreadable else {key for manifest in manifests for key in manifest.former} - named
    trash = results / "trash" / datetime.now().strftime(_PUT_AWAY)
    store = RunStore(results, read_only=not remove)
    garbage = Garbage([], [])

    def put_away(path: Path) -> None:
        garbage.paths.append((path, _size(path)))
        if remove:
            target = trash / path.relative_to(results)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    for folder in sorted(path for path in results.glob("runs/*") if path.is_dir()):
        wanted = folder.name in named or store.asked_for(folder.name) or folder.name.startswith(OWN_WEIGHTS)
        with suppress(Timeout), _held(store.lock(folder.name), needed=remove):  # else it is under way
            given_up = folder.name in former and not wanted
            if not given_up and not wanted:
                garbage.unaccounted.append(folder)
            for path in [folder] if given_up else _left_over(store, folder):
                put_away(path)
    if not unreadable and all(store.finished(key) is not None for key in named):  # else a run may still go on from it
        for folder in sorted(results.glob("cache/warmups/*")):
            with suppress(Timeout), _held(store.warmup_lock(folder.name), needed=remove):
                put_away(folder)
    return garbage


def empty_trash(results: Path) -> tuple[list[Path], list[Path]]:
    """Delete for good what `collect_garbage` has put away.

    Returns
    -------
    gone, stay : list of Path
        What was deleted of ``trash/``, and what was not, because it is somebody else's.
    """
    gone, stay = [], []
    for path in sorted((results / "trash").glob("*")):
        try:
            datetime.strptime(path.name, _PUT_AWAY)
        except ValueError:
            stay.append(path)
        else:
            shutil.rmtree(path)
            gone.append(path)
    return gone, stay


@contextmanager
def _held(lock: BaseFileLock, *, needed: bool) -> Iterator[None]:
    """Hold a lock that nobody has; where it is not needed, as to look only, a folder that can only be read will do."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise
    except OSError:
        if needed:
            raise
    try:
        yield
    finally:
        lock.release()


def _left_over(store: RunStore, folder: Path) -> list[Path]:
    """What training has left beside a finished run, and what a kill cut off while it was written.

    The state of an evaluation is somebody's work.
    """
    work, cut_off = folder / "work", [path for name in ("record.json", *FILES) for path in half_written(folder / name)]
    if not (cut_off or work.exists()) or store.finished(folder.name) is None:
        return []
    return [*cut_off, *left_in(work)]


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
