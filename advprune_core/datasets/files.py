"""Your own images: an .npz file, or a folder of class folders."""

from __future__ import annotations

import hashlib
import zipfile
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
            with np.load(path, allow_pickle=False) as archive:
                missing = [name for name in _ARRAYS if name not in archive.files]
                if missing:
                    raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(archive.files)}")
                return {name: archive[name] for name in _ARRAYS}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} cannot be read as an .npz of plain arrays: {error}") from None


@DATASETS.register
class ImageFolder(DatasetSource):
    """Your own images: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png, all of one size."""

    name: ClassVar[str] = "folder"
    path: Annotated[str, Field(description="the folder with train/ and test/ inside")]

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
        (x_train, y_train), (x_test, y_test) = stack_pairs(train), stack_pairs(test)
        return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
