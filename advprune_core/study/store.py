"""The folder ``results/runs``: what runs leave, read back only where it is what was written.

``runs/<key>/record.json`` is the run, beside it ``selections.npz``, ``last.pt``, ``best.pt``,
``evaluations/<key>.json`` and ``timings/<number>.json``. Only the driver of a study writes these;
``work/`` belongs to the process that trains. In an exported study the records are packed (see `packed`).
What may go at any time is in ``cache/``.
"""

from __future__ import annotations

import itertools
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock
from pydantic import BaseModel

from advprune_core.base.files import (
    DamagedFile,
    digest_of,
    set_aside,
    with_digest,
    write_atomically,
    write_text,
)
from advprune_core.base.settings import ConfigError, near_miss
from advprune_core.pruners.selection import Selection
from advprune_core.study.manifest import Manifest
from advprune_core.study.packed import Files
from advprune_core.study.record_files import read_manifest, read_record
from advprune_core.study.records import EvaluationRecord, RunRecord, Timing

R = TypeVar("R", bound=BaseModel)


class RunStore:
    """Finds, reads and writes what belongs to a run key.

    What is damaged is set aside with a warning and counts as missing; with `read_only` it is left
    where it is.
    """

    def __init__(self, results: str | Path, *, read_only: bool = False) -> None:
        self.results, self.read_only = Path(results), read_only
        self.files = Files(self.results)

    def folder(self, key: str) -> Path:
        """Folder of a run."""
        return self.results / "runs" / key

    def work(self, key: str) -> Path:
        """Folder of the process that trains the run."""
        return self.folder(key) / "work"

    def lock(self, key: str) -> FileLock:
        """Held by whoever trains or evaluates a run or writes its files, so that two studies can share it."""
        self.folder(key).mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder(key) / ".lock")

    def warmup(self, key: str) -> Path:
        """Folder of a warm-up that several runs share, while any of them is to be trained."""
        return self.results / "cache" / "warmups" / key

    def warmup_lock(self, key: str) -> FileLock:
        """Held by whoever trains a warm-up or puts it away."""
        self.warmup(key).mkdir(parents=True, exist_ok=True)
        return FileLock(self.warmup(key) / ".lock")

    def run_keys(self) -> list[str]:
        """All keys that have a record."""
        return [path.parent.name for path in self.files.find("runs/*/record.json")]

    def run(self, key: str) -> RunRecord | None:
        """The record of a run, or None if it is missing or damaged."""
        return self._read(self.folder(key) / "record.json", RunRecord)

    def finished(self, key: str) -> RunRecord | None:
        """The record of a run that is not to be trained again; its weights may be elsewhere."""
        record = self.run(key)
        return None if record is None or record.status == "failed" else record

    def file(self, record: RunRecord, name: str) -> Path | None:
        """A file that a record names (``last.pt``, ...), if it is there and is what was written."""
        path = self.folder(record.key) / name
        if name not in record.files or not path.exists():
            return None
        if digest_of(path) == record.files[name]:
            return path
        self._damaged(path, "its SHA-256 is not the one in the record")
        return None

    def absent(self, record: RunRecord) -> list[str]:
        """Names of the files that a run has, and that are not there; weights it has in any case.

        A record that came without digests names no files at all.
        """
        names = sorted({"last.pt", *record.files})
        return [name for name in names if not (self.folder(record.key) / name).exists()]

    def altered(self, record: RunRecord) -> list[str]:
        """Names of the files of a run that are there and are not what was written."""
        paths = {name: self.folder(record.key) / name for name in record.files}
        return [name for name, path in paths.items() if path.exists() and digest_of(path) != record.files[name]]

    def damaged(self, record: RunRecord) -> list[str]:
        """The same; these are set aside."""
        return [name for name in self.altered(record) if self.file(record, name) is None]

    def evaluations(self, key: str) -> list[EvaluationRecord]:
        """All evaluations of a run."""
        names = [path.stem for path in self.files.find(f"runs/{key}/evaluations/*.json")]
        return [record for name in names if (record := self.evaluation(key, name)) is not None]

    def evaluation(self, key: str, evaluation_key: str) -> EvaluationRecord | None:
        """One evaluation, or None."""
        return self._read(self.evaluation_file(key, evaluation_key), EvaluationRecord)

    def evaluation_file(self, key: str, evaluation_key: str) -> Path:
        """File of an evaluation."""
        return self.folder(key) / "evaluations" / f"{evaluation_key}.json"

    def timings(self, key: str) -> list[Timing]:
        """Repeated timings of a run."""
        files = self.files.find(f"runs/{key}/timings/*.json")
        return [timing for file in files if (timing := self._read(file, Timing)) is not None]

    def selections(self, key: str) -> dict[int, Selection]:
        """Selections of a run, by the epoch from which each holds."""
        record = self.run(key)
        path = None if record is None else self.file(record, "selections.npz")
        if record is None or path is None:
            return {}
        result = {}
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                if name.startswith("kept_"):
                    epoch = int(name.removeprefix("kept_"))
                    kept = np.unpackbits(arrays[name])[: record.n]
                    weights = arrays.get(f"weights_{epoch}", np.empty(0, np.float32))
                    filled, ratio = int(arrays.get(f"filled_{epoch}", 0)), arrays.get(f"ratio_{epoch}")
                    measured = None if ratio is None else float(ratio)
                    result[epoch] = Selection(np.flatnonzero(kept), weights, filled, measured)
        return result

    def write_run(
        self,
        record: RunRecord,
        *,
        last: dict[str, Any] | None = None,
        best: dict[str, Any] | None = None,
        selections: dict[int, Selection] | None = None,
    ) -> RunRecord:
        """Write weights and selections, and the record with their digests last: where it is, the rest is.

        Evaluations of other weights than these, which an earlier record had, are set aside. Its seconds, if the run
        was alone, are kept as a timing.
        """
        folder, digests = self.folder(record.key), {}
        earlier = self.run(record.key)
        for name, weights in (("last.pt", last), ("best.pt", best)):
            if weights is not None:
                write_atomically(folder / name, partial(torch.save, weights))
                digests[name] = digest_of(folder / name)
        if selections:
            arrays = _packed(selections, record.n)
            write_atomically(folder / "selections.npz", lambda file: np.savez_compressed(file, **arrays))
            digests["selections.npz"] = digest_of(folder / "selections.npz")
        record = record.model_copy(update={"files": digests})
        if earlier is not None and not earlier.same_training(record):
            for path in sorted((folder / "evaluations").glob("*.json")):
                set_aside(path, "the run was trained again and came out otherwise")
        if earlier is not None and earlier.timed_alone:
            timing, known = timing_of(earlier), [(t.seconds, t.cpu_seconds) for t in self.timings(record.key)]
            if (timing.seconds, timing.cpu_seconds) not in known:  # else killed after this, an earlier time
                self.write_timing(record.key, timing)
        self._write(folder / "record.json", record)
        return record

    def keep_run(self, record: RunRecord) -> None:
        """Write the record of a run that was trained elsewhere, as it is."""
        self._write(self.folder(record.key) / "record.json", record)

    def ask_for(self, key: str) -> None:
        """Note that a run was asked for by itself, by no study: no study's end makes it garbage."""
        self.folder(key).mkdir(parents=True, exist_ok=True)
        if not self.asked_for(key):
            (self.folder(key) / ".asked_for").touch()

    def asked_for(self, key: str) -> bool:
        """Whether somebody wanted this run by itself."""
        return (self.folder(key) / ".asked_for").exists()

    def write_evaluation(self, record: EvaluationRecord) -> None:
        """Write an evaluation beside its run."""
        self._write(self.evaluation_file(record.train_key, record.key), record)

    def write_timing(self, key: str, timing: Timing, *, number: str | None = None) -> None:
        """Add a repeated timing, or write the one of a given number."""
        folder = self.folder(key) / "timings"
        number = number or next(str(n) for n in itertools.count(1) if not list(folder.glob(f"{n}.json*")))
        self._write(folder / f"{number}.json", timing)

    def manifest(self, study: str) -> Manifest:
        """The manifest of a study, in a results folder or in an exported copy of one.

        Raises
        ------
        ConfigError
            No such study, or a copy of another one; a damaged manifest, which its study writes anew.
        """
        path, alone = self.results / study / "manifest.json", self.results / "manifest.json"
        if not path.exists() and alone.exists():
            path = alone
        if not path.exists():
            known = [file.parent.name for file in self.results.glob("*/manifest.json")]
            hint = (
                near_miss(study, known)
                if known
                else ": `advprune study` makes one there, `advprune import` brings one in"
            )
            raise ConfigError(f"no study {study!r} in {self.results}{hint}")
        found = read_manifest(path)
        if path == alone and found.study != study:
            raise ConfigError(f"{self.results} is a copy of the study {found.study!r}, and has no {study!r}")
        return found

    def write_manifest(self, manifest: Manifest, folder: Path, *, name: str = "manifest.json") -> None:
        """Write a study's manifest to its folder."""
        self._write(folder / name, manifest)

    def _write(self, path: Path, record: BaseModel) -> None:
        write_text(path, with_digest(json.loads(record.model_dump_json())))

    def _read(self, path: Path, kind: type[R]) -> R | None:
        """Read a record; one that cannot be believed is named in a warning and set aside."""
        try:
            return read_record(path, kind, files=self.files)
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            self._damaged(path, str(error))
            return None

    def _damaged(self, path: Path, reason: str) -> None:
        if self.read_only or not path.exists():  # a packed one stays where it is
            warnings.warn(f"{path} is damaged ({reason}); left out", stacklevel=4)
        else:
            set_aside(path, reason)


def timing_of(record: RunRecord) -> Timing:
    """What a run that was trained alone says of its time."""
    return Timing(**record.model_dump(include={"seconds", "cpu_seconds", "environment", "provenance"}))


def _packed(selections: dict[int, Selection], n: int) -> dict[str, Any]:
    """Selections as arrays: a bit for each image, weights where they are not all 1."""
    arrays: dict[str, Any] = {}
    for epoch, selection in selections.items():
        kept = np.zeros(n, dtype=bool)
        kept[selection.indices] = True
        arrays[f"kept_{epoch}"] = np.packbits(kept)
        if selection.n_filled:
            arrays[f"filled_{epoch}"] = np.array(selection.n_filled)
        if selection.step_ratio is not None:
            arrays[f"ratio_{epoch}"] = np.array(selection.step_ratio)
        if not (selection.weights == 1).all():
            arrays[f"weights_{epoch}"] = selection.weights
    return arrays
