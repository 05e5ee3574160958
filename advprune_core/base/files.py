"""Files that are never half-written, and that show when they were altered."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from advprune_core.base.machine import machine_errors
from advprune_core.base.settings import AdvpruneError, ConfigError

#: Begins every sealed file; the SHA-256 of what follows comes next.
_SEAL = b"advprune sealed "


class DamagedFile(AdvpruneError):
    """A file that does not hold what was written to it."""


def own_path(text: str | Path) -> Path:
    """A path that somebody typed, ``~`` expanded.

    Raises
    ------
    ConfigError
        A home folder that is not known, a zero byte.
    """
    if "\0" in str(text):
        raise ConfigError(f"there is no file {str(text)!r}: a path has no zero bytes")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text}: {error}") from None


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside `path`, to the disk itself, then rename it into place.

    Raises
    ------
    MachineError
        A full disk, a limit on files: here, because only here it is known which file it was.
    """
    with machine_errors(path):
        _write_atomically(path, write)


def _write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_begun(path))
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the new name with no content
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _begun(path: Path) -> str:
    """How the name of a file begins that becomes `path` once it is whole."""
    return f".{path.name}."


def half_written(path: Path) -> list[Path]:
    """What is left of writes of `path` that were killed, or one that is under way."""
    return sorted(path.parent.glob(f"{_begun(path)}*"))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def check_writable(folder: Path) -> None:
    """Raise `ConfigError` if nothing can be written to `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"results cannot be written to {folder} ({error.strerror}); choose another folder with "
            "--out or ADVPRUNE_RESULTS"
        ) from None


def digest_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sealed(path: Path, payload: bytes) -> None:
    """Write `payload` behind its own SHA-256: for state that is read back in the middle of work."""
    seal = _SEAL + hashlib.sha256(payload).hexdigest().encode() + b"\n"
    write_atomically(path, lambda file: file.write(seal + payload))


def read_sealed(path: Path) -> bytes | None:
    """What `write_sealed` wrote; None where there is nothing, or nothing that can be believed.

    Warns
    -----
    UserWarning
        A file without its seal, or with another content: it is set aside, and its work begins anew.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        set_aside(path, f"cannot be read: {error.strerror}")
        return None
    seal, _, payload = content.partition(b"\n")
    if seal != _SEAL + hashlib.sha256(payload).hexdigest().encode():
        set_aside(path, "its SHA-256 is not the one that it was written with")
        return None
    return payload


def set_aside(path: Path, reason: str, *, fate: str = "what it held is made again", what: str = "is damaged") -> Path:
    """Rename what cannot be believed to ``<name>.damaged``, with a warning that names it."""
    aside = path.with_name(f"{path.name}.damaged")
    with suppress(FileNotFoundError):  # another process did it meanwhile
        os.replace(path, aside)
    warnings.warn(f"{path} {what} ({reason}); set aside as {aside.name}, {fate}", stacklevel=3)
    return aside


def with_digest(content: dict[str, Any]) -> str:
    """JSON of `content` with the SHA-256 of itself as ``digest``."""
    return json.dumps({**content, "digest": json_digest(content)}, indent=1)


def json_digest(content: dict[str, Any]) -> str:
    """SHA-256 of JSON data in canonical form, whatever its layout and the order of its names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_with_digest(text: bytes) -> dict[str, Any]:
    """Content of `with_digest`, verified.

    Raises
    ------
    DamagedFile
        What is no JSON object, or not the one that was written.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"it is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DamagedFile("it is not a JSON object")
    digest = content.pop("digest", None)
    if digest is None:
        raise DamagedFile("it has no digest")
    if digest != json_digest(content):
        raise DamagedFile("its content is not the one that its digest was made of")
    return content


def shown(path: Path) -> str:
    """A path as people read it: relative to the current folder or its parent where it can be."""
    for base, prefix in ((Path.cwd(), ""), (Path.cwd().parent, "../")):
        if path.resolve().is_relative_to(base):
            return prefix + str(path.resolve().relative_to(base))
    return str(path)
