"""Folders of classes: which images they hold, and what in them is none."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from advprune_core.base.values import some
from advprune_core.datasets.arrays import DataError

#: What is taken for an image.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
#: Files left out that are named.
_NAMED = 3


@dataclass
class Skipped:
    """What was left out: hidden entries (.DS_Store, ._a.png, .cache/), counted, and files that are no images."""

    hidden: int = 0
    others: list[str] = field(default_factory=list)

    def takes(self, name: str, *, folder: bool = False) -> bool:
        """Whether an entry is to be left out, noted if so."""
        hidden = name.startswith(".") or name == "__MACOSX"
        other = not hidden and not folder and not name.lower().endswith(_SUFFIXES)
        self.hidden += hidden
        self.others += [name] * other
        return hidden or other

    def warn(self, root: Path) -> None:
        """Say what, if anything."""
        said = []
        if self.hidden:
            said.append(f"{self.hidden} hidden {'file or folder' if self.hidden == 1 else 'files or folders'}")
        if self.others:
            count = len(self.others)
            kind = "file that is no image" if count == 1 else "files that are no images"
            named = ", ".join(self.others[:_NAMED]) + ", ..." * (count > _NAMED)
            said.append(f"{count} {kind}: {named} (images are: {', '.join(_SUFFIXES)})")
        if said:
            warnings.warn(f"{root}: left out {' and '.join(said)}", stacklevel=3)


def class_files(root: Path, part: str, skipped: Skipped) -> dict[str, list[Path]]:
    """Images of ``root/part`` by class, in the order of their paths; links are followed.

    Raises
    ------
    DataError
        No such folder, no class folders, classes without images, a folder that cannot be listed, a
        link to a folder that it is in.
    """
    layout = "must hold train/CLASS/... and test/CLASS/..."
    for path in (root, root / part):
        if not os.path.isdir(path):
            what = "is a file" if os.path.exists(path) else "there is no such folder"
            raise DataError(f"{root} {layout}, but {path}: {what}")
    entries = sorted(_list(root / part), key=lambda entry: entry.name)
    folders = [entry for entry in entries if not skipped.takes(entry.name, folder=entry.is_dir()) and entry.is_dir()]
    if not folders:
        raise DataError(f"{root} {layout}, but {root / part} has no class folders")
    found = {entry.name: _images(entry.path, skipped, (os.path.realpath(root / part),)) for entry in folders}
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(f"{root / part} has class folders without any image: {some(empty)}")
    return found


def _images(top: str, skipped: Skipped, above: tuple[str, ...]) -> list[Path]:
    """Images in and under a folder: folders in the order of their paths, files by name in each."""
    folders = _folders(top, skipped, above)
    return [
        Path(folder, name)
        for folder in sorted(folders)
        for name in sorted(entry.name for entry in _list(folder) if not _is_folder(entry))
        if not skipped.takes(name)
    ]


def _folders(top: str, skipped: Skipped, above: tuple[str, ...]) -> list[str]:
    """A folder and all that are in it."""
    real = os.path.realpath(top)
    if real in above:
        raise DataError(f"{top} is a link to a folder that it is in: an endless loop; delete the link")
    inner = [entry.path for entry in _list(top) if _is_folder(entry) and not skipped.takes(entry.name, folder=True)]
    return [top, *(folder for path in inner for folder in _folders(path, skipped, (*above, real)))]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _list(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None
