"""Your own images: an .npz file, or a folder of class folders."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from advprune_core.data import DATASETS, DataError, DatasetSource, stack_pairs

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@DATASETS.register
class Npz(DatasetSource):
    """Your own arrays: an .npz with x_train, y_train, x_test, y_test (uint8 or float in [0, 1])."""

    name: ClassVar[str] = "npz"
    path: Annotated[str, Field(description="the .npz file")]
    sha256: Annotated[str | None, Field(description="checksum the file must have")] = None

    def stamp(self) -> tuple[int, ...]:
        """Time and size of the file."""
        path = Path(self.path).expanduser()
        return (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else ()

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """Read the four arrays; nothing is unpickled."""
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        if self.sha256 is not None:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != self.sha256.lower():
                raise DataError(f"{path} has the SHA-256 {found}, not {self.sha256}: a wrong or damaged file")
        try:
            archive = np.load(path, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds one array; an .npz with {', '.join(_ARRAYS)} is needed")
            with archive:
                missing = [name for name in _ARRAYS if name not in archive.files]
                if missing:
                    raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(archive.files)}")
                return {name: archive[name] for name in _ARRAYS}
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} cannot be read as an .npz of plain arrays: {error}") from None


@DATASETS.register
class ImageFolder(DatasetSource):
    """Your own images: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png, all of one size."""

    name: ClassVar[str] = "folder"
    path: Annotated[str, Field(description="the folder with train/ and test/ inside")]

    def stamp(self) -> tuple[int, ...]:
        """Time of the newest file or folder, and how many there are."""
        times = [path.stat().st_mtime_ns for path in Path(self.path).expanduser().rglob("*")]
        return (max(times, default=0), len(times))

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """Read every image."""
        from torchvision.datasets import ImageFolder as Folder

        root = Path(self.path).expanduser()
        try:
            train, test = Folder(str(root / "train")), Folder(str(root / "test"))
        except FileNotFoundError as error:
            raise DataError(f"{root} must hold train/CLASS/... and test/CLASS/...: {error}") from None
        if train.classes != test.classes:
            raise DataError(f"{root}: train has the classes {train.classes}, test {test.classes}")
        try:
            (x_train, y_train), (x_test, y_test) = stack_pairs(train), stack_pairs(test)
        except OSError as error:
            raise DataError(f"an image in {root} cannot be read: {error}") from None
        return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
