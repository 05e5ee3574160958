"""Many small records in one file: ``records.jsonl.gz``, a line of JSON for each.

A line holds the name that the record would have as a file of its own and what that file would hold, digest
included: ``{"file": "runs/<key>/record.json", "content": {...}}``. `pandas.read_json(path, lines=True)` reads it.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from advprune_core.base.files import write_atomically
from advprune_core.base.settings import ConfigError

#: Name of the file, in an exported study.
PACKED = "records.jsonl.gz"


def write_packed(path: Path, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Write records by their names; the same records give the same bytes, whenever they are written."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        for name in sorted(records):
            line = json.dumps({"file": name, "content": records[name]}, separators=(",", ":"))
            file.write(f"{line}\n".encode())
    write_atomically(path, lambda target: target.write(buffer.getvalue()))


def read_packed(path: Path) -> dict[str, bytes]:
    """JSON of each record by its name; nothing where there is no such file.

    Raises
    ------
    ConfigError
        A file that is not what was written. Whether a record is, its own digest says.
    """
    try:
        packed = path.read_bytes()
        if not packed:  # which gzip takes for nothing, packed
            raise EOFError("it is empty")
        rows = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
        names = [PurePosixPath(row["file"]) for row in rows]
        if astray := [name for name in names if name.is_absolute() or ".." in name.parts]:
            raise ValueError(f"it names {astray[0]}")
        return {str(name): json.dumps(row["content"]).encode() for name, row in zip(names, rows, strict=True)}
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, zlib.error, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): get it, or export its study, once more") from None


class Files:
    """The JSON files of a results folder or an exported study: those by themselves, and those that are packed.

    Packed ones go by the path that they would have by themselves; where both are there, the file counts.

    Raises
    ------
    ConfigError
        Packed records that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._packed = folder, read_packed(folder / PACKED)

    def find(self, pattern: str) -> list[Path]:
        """Paths that match ``runs/<key>/...``, sorted."""
        parts = len(PurePosixPath(pattern).parts)
        packed = {PurePosixPath(name) for name in self._packed}
        matching = {self.folder / name for name in packed if len(name.parts) == parts and name.match(pattern)}
        return sorted(matching | set(self.folder.glob(pattern)))

    def read(self, path: Path) -> bytes:
        """Content of one.

        Raises
        ------
        OSError
            It is not there, or cannot be read.
        """
        if self._packed and not path.exists():
            packed = self._packed.get(path.relative_to(self.folder).as_posix())
            if packed is not None:
                return packed
        return path.read_bytes()
