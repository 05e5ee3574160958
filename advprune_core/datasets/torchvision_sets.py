"""Standard data sets through torchvision's checksummed downloads, or from arrays with the same content."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from advprune_core.datasets.arrays import DataError
from advprune_core.datasets.base import DATASETS, DatasetSource
from advprune_core.datasets.npz import four_arrays, read_npz


def _check_files(folder: Path, files: Iterable[tuple[str, str]]) -> None:
    """Refuse a damaged file by name; torchvision would silently try to download it again."""
    for name, md5 in files:
        path = folder / name
        if path.is_file():
            found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            if found != md5:
                raise DataError(
                    f"{path} is damaged: its MD5 is {found}, the published one {md5}; "
                    "delete it, and it will be downloaded again"
                )


class TorchvisionSource(DatasetSource):
    """A data set of torchvision, by its class name."""

    torchvision_class: ClassVar[str]
    #: SHA-256 of training images, training labels, test images, test labels, all as bytes, in the published order.
    content: ClassVar[str] = ""

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """Load from `folder`, downloading what is not there.

        A file ``<name>.npz`` with x_train, y_train, x_test, y_test of the published content comes first,
        for those who have no way to the original files.
        """
        if self.content and (path := folder / f"{self.name}.npz").is_file():
            return self._from_npz(path)
        import torchvision

        cls = getattr(torchvision.datasets, self.torchvision_class)
        self.check(cls, folder)
        try:
            train, test = self.load(cls, folder)
        except (ValueError, AssertionError, EOFError, zlib.error) as error:
            reason = str(error) or type(error).__name__
            raise DataError(f"{self.name} in {folder} is damaged ({reason}): delete its unpacked files") from None
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())  # of a download: a line for each place that was tried
            raise DataError(
                f"{self.name} is not in {folder}, or damaged there, and cannot be downloaded to it ({reason}); set "
                "ADVPRUNE_DATA to a folder that has it, or use the embedded 'digits'"
            ) from None
        return {
            "x_train": np.asarray(train.data),
            "y_train": np.asarray(self.labels(train), dtype=np.int64),
            "x_test": np.asarray(test.data),
            "y_test": np.asarray(self.labels(test), dtype=np.int64),
        }

    def _from_npz(self, path: Path) -> dict[str, np.ndarray]:
        """The four arrays of a file, whose content has to be the published one."""
        found = read_npz(path, wanted=four_arrays(path))
        digest = hashlib.sha256()
        for values in found.values():
            digest.update(np.ascontiguousarray(values.astype(np.uint8)).data)
        if digest.hexdigest() != self.content:
            raise DataError(
                f"{path} is not {self.name}: the SHA-256 of its images and labels is {digest.hexdigest()}, the "
                f"published one {self.content}; for data of your own use {{npz: {{path: ...}}}}"
            )
        return {name: values.astype(np.int64) if name[0] == "y" else values for name, values in found.items()}

    def check(self, cls: Any, folder: Path) -> None:
        """Verify the published checksums of the files that are there."""

    def load(self, cls: Any, folder: Path) -> tuple[Any, Any]:
        """The training and the test set."""
        return tuple(cls(str(folder), train=flag, download=True) for flag in (True, False))

    def labels(self, dataset: Any) -> Any:
        """The labels of a torchvision data set."""
        return dataset.targets


@DATASETS.register
class Mnist(TorchvisionSource):
    """MNIST: 60,000 + 10,000 handwritten digits, 28x28 grey."""

    name = "mnist"
    torchvision_class = "MNIST"
    images = 60_000
    side = 28
    default_eps = {"linf": 0.3, "l2": 1.0}

    def check(self, cls: Any, folder: Path) -> None:
        """Check the compressed files against torchvision's MD5s."""
        _check_files(folder / cls.__name__ / "raw", cls.resources)


@DATASETS.register
class FashionMnist(Mnist):
    """Fashion-MNIST: 60,000 + 10,000 articles of clothing, 28x28 grey."""

    name = "fashion_mnist"
    torchvision_class = "FashionMNIST"
    default_eps = {"linf": 0.1, "l2": 1.0}


@DATASETS.register
class Cifar10(TorchvisionSource):
    """CIFAR-10: 50,000 + 10,000 photographs in 10 classes, 32x32 colour."""

    name = "cifar10"
    torchvision_class = "CIFAR10"
    content = "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"
    images = 50_000
    side = 32

    def check(self, cls: Any, folder: Path) -> None:
        """Check the batches against torchvision's MD5s."""
        _check_files(folder / cls.base_folder, [*cls.train_list, *cls.test_list])


@DATASETS.register
class Cifar100(Cifar10):
    """CIFAR-100: 50,000 + 10,000 photographs in 100 classes, 32x32 colour."""

    name = "cifar100"
    torchvision_class = "CIFAR100"
    content = "84b86054909012b11f3c2443ad844f6353586312facc59cd4b8385c15ada0166"


@DATASETS.register
class Svhn(TorchvisionSource):
    """SVHN: 73,257 + 26,032 house-number digits, 32x32 colour."""

    name = "svhn"
    torchvision_class = "SVHN"
    images = 73_257
    side = 32

    def check(self, cls: Any, folder: Path) -> None:
        """Check the .mat files against torchvision's MD5s."""
        _check_files(folder, [(cls.split_list[part][1], cls.split_list[part][2]) for part in ("train", "test")])

    def load(self, cls: Any, folder: Path) -> tuple[Any, Any]:
        """The training and the test part."""
        return tuple(cls(str(folder), split=part, download=True) for part in ("train", "test"))

    def labels(self, dataset: Any) -> Any:
        """SVHN calls its labels so."""
        return dataset.labels
