"""Standard data sets through torchvision, from real files where they are there; never the network."""

from __future__ import annotations

import gzip
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from advprune_core.datasets.base import DATASETS, DataError, load_dataset

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
FASHION = SHARED / "FashionMNIST"
CIFAR = SHARED / "stock_cifar10.py"
needs_fashion = pytest.mark.skipif(not FASHION.is_dir(), reason="the real Fashion-MNIST is not beside this checkout")
needs_cifar = pytest.mark.skipif(not CIFAR.is_file(), reason="the real CIFAR-10 is not beside this checkout")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """A copy: torchvision unpacks beside the files."""
    shutil.copytree(FASHION, tmp_path / "FashionMNIST")
    return tmp_path


def idx(path: Path, header: int) -> np.ndarray:
    """The bytes after the header of an IDX file, read without torchvision."""
    with gzip.open(path) as file:
        sizes = struct.unpack(f">{header}I", file.read(4 * header))[1:]
        return np.frombuffer(file.read(), np.uint8).reshape(sizes)


@needs_fashion
def test_fashion_mnist_is_read_whole(fashion: Path) -> None:
    dataset = load_dataset("fashion_mnist", folder=fashion)
    raw = FASHION / "raw"
    assert [len(s) for s in (dataset.train, dataset.val_select, dataset.val_stop)] == [58000, 1000, 1000]
    assert dataset.image_shape == (1, 28, 28)
    assert np.array_equal(dataset.test.images[:, 0].numpy(), idx(raw / "t10k-images-idx3-ubyte.gz", 4))
    assert np.array_equal(dataset.test.labels.numpy(), idx(raw / "t10k-labels-idx1-ubyte.gz", 2))
    labels = np.concatenate([s.labels.numpy() for s in (dataset.train, dataset.val_select, dataset.val_stop)])
    assert np.array_equal(np.bincount(labels), np.full(10, 6000))
    # The published statistics of the training set, as the field normalises with them.
    assert dataset.mean[0] == pytest.approx(0.2860, abs=1e-3)
    assert dataset.std[0] == pytest.approx(0.3530, abs=1e-3)


@needs_fashion
def test_a_limit_of_fashion_mnist_is_stratified(fashion: Path) -> None:
    source = {"fashion_mnist": {"limit": 500, "test_limit": 100, "val_select": 0, "val_stop": 50}}
    dataset = load_dataset(source, folder=fashion)
    assert dataset.train.labels.bincount().tolist() == [45] * 10
    assert dataset.val_stop.labels.bincount().tolist() == [5] * 10
    assert dataset.test.labels.bincount().tolist() == [10] * 10


@needs_fashion
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_a_damaged_download_is_named(fashion: Path, name: str) -> None:
    path = fashion / "FashionMNIST" / "raw" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} is damaged.*MD5.*delete it"):
        load_dataset("fashion_mnist", folder=fashion)
    assert path.read_bytes() == bytes(content), "a damaged file is the user's to delete"


@needs_fashion
@pytest.mark.parametrize("size", [5000, 3, 0])
def test_a_truncated_unpacked_file_is_refused(fashion: Path, size: int) -> None:
    load_dataset({"fashion_mnist": {"limit": 200}}, folder=fashion)
    path = fashion / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="fashion_mnist"):
        load_dataset({"fashion_mnist": {"limit": 201}}, folder=fashion)


@needs_fashion
def test_the_folder_may_come_from_the_environment(fashion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVPRUNE_DATA", str(fashion))
    assert len(load_dataset({"fashion_mnist": {"limit": 100, "test_limit": 50}}).test) == 50


NAMES = ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"]


def published(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of bytes as the set has them, grey, of colours last or of colours first, and all labels in a row."""
    shape = {"mnist": (28, 28), "fashion_mnist": (28, 28), "svhn": (3, 32, 32)}.get(name, (32, 32, 3))
    images = np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, (3 * np.arange(count) + count) % 7


def stand_in(name: str, real: Any) -> Any:
    """A class of torchvision with seven training images and four test images, which it has in its own types."""

    def fill(self: Any, *, train: bool, download: bool) -> None:
        assert download
        images, labels = published(name, 7 if train else 4)
        grey = name in ("mnist", "fashion_mnist")
        self.data = torch.from_numpy(images) if grey else images
        if name == "svhn":
            self.labels = labels
        else:
            self.targets = torch.from_numpy(labels) if grey else labels.tolist()

    def of_a_flag(self: Any, root: str, train: bool = True, download: bool = False) -> None:
        fill(self, train=train, download=download)

    def of_a_part(self: Any, root: str, split: str = "train", download: bool = False) -> None:
        fill(self, train={"train": True, "test": False}[split], download=download)

    return type(real.__name__, (real,), {"__init__": of_a_part if name == "svhn" else of_a_flag})


@pytest.mark.parametrize("name", NAMES)
def test_training_images_are_for_training_and_test_images_for_tests(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each array is the published one, whose labels stay with their images; colours come first in the splits."""
    cls = DATASETS.classes()[name]
    real = getattr(torchvision.datasets, cls.torchvision_class)
    monkeypatch.setattr(torchvision.datasets, cls.torchvision_class, stand_in(name, real))
    found = cls().arrays(tmp_path)
    for part, count in (("train", 7), ("test", 4)):
        images, labels = published(name, count)
        assert np.array_equal(found[f"x_{part}"], images)
        assert found[f"y_{part}"].tolist() == labels.tolist()
    dataset = load_dataset({name: {"val_select": 0, "val_stop": 0}}, folder=tmp_path)
    for split, count in ((dataset.train, 7), (dataset.test, 4)):
        images, labels = published(name, count)
        if images.ndim == 3:
            images = images[:, None]
        elif name != "svhn":
            images = images.transpose(0, 3, 1, 2)
        np.testing.assert_allclose(split.pixels(slice(0, count)).numpy(), images / 255, atol=1e-6)
        assert split.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_and_no_network_say_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def download(self: Any) -> None:
        tried.append(name)
        raise OSError("Tried:\n  name resolution\n\nfailed")

    monkeypatch.setattr(getattr(torchvision.datasets, DATASETS.classes()[name].torchvision_class), "download", download)
    with pytest.raises(
        DataError, match=rf"{name} is not in .*Tried: name resolution failed\).*ADVPRUNE_DATA.*'digits'"
    ):
        load_dataset(name, folder=tmp_path)
    assert tried == [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_made_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=f"{name} is not in .*file"):
        load_dataset(name, folder=tmp_path / "file" / "below")


FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte.gz",
    "cifar10": "cifar-10-batches-py/data_batch_2",
    "cifar100": "cifar-100-python/train",
    "svhn": "train_32x32.mat",
}


@pytest.mark.parametrize("name", FILES)
def test_any_file_with_another_checksum_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / FILES[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half a download")
    with pytest.raises(DataError, match=f"{path.name} is damaged"):
        load_dataset(name, folder=tmp_path)


@pytest.mark.parametrize(("name", "eps"), [("fashion_mnist", 0.1), ("cifar10", 8 / 255), ("digits", 2 / 16)])
def test_threat_models_are_those_of_the_design(name: str, eps: float) -> None:
    assert DATASETS.classes()[name].default_eps["linf"] == eps


@pytest.mark.slow
@needs_cifar
def test_cifar10_is_read_whole(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(CIFAR), str(tmp_path)], check=True, capture_output=True)
    dataset = load_dataset({"cifar10": {"val_select": 500, "val_stop": 500}}, folder=tmp_path)
    assert [len(s) for s in (dataset.train, dataset.val_select, dataset.val_stop)] == [49000, 500, 500]
    assert dataset.image_shape == (3, 32, 32)
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    # The published statistics of the training set, as the field normalises with them.
    assert dataset.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
    assert dataset.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=1e-3)


def test_arrays_under_the_name_of_a_set_must_be_that_set(tmp_path: Path) -> None:
    values = np.zeros((20, 32, 32, 3), np.uint8), np.arange(20) % 10
    np.savez(tmp_path / "cifar10.npz", x_train=values[0], y_train=values[1], x_test=values[0], y_test=values[1])
    with pytest.raises(DataError, match=r"cifar10.npz is not cifar10: the SHA-256.*published one 80387d.*of your own"):
        load_dataset("cifar10", folder=tmp_path)
    np.savez(tmp_path / "cifar100.npz", x_train=values[0], y_train=values[1])
    with pytest.raises(DataError, match=r"cifar100.npz lacks x_test, y_test"):
        load_dataset("cifar100", folder=tmp_path)


@needs_cifar
@pytest.mark.slow
def test_cifar_100_is_read_from_arrays(tmp_path: Path) -> None:
    script = CIFAR.with_name("unpack_cifar.py")
    subprocess.run([sys.executable, str(script), "cifar100", str(tmp_path / "cifar100.npz")], check=True)
    dataset = load_dataset("cifar100", folder=tmp_path)
    assert [len(s) for s in (dataset.train, dataset.val_select, dataset.val_stop, dataset.test)] == [
        48_000, 1000, 1000, 10_000
    ]  # fmt: skip
    assert dataset.test.labels.bincount().tolist() == [100] * 100
    assert dataset.train.labels.bincount().tolist() == [480] * 100
    # The published statistics of the training set, as the field normalises with them.
    assert dataset.mean == pytest.approx((0.5071, 0.4865, 0.4409), abs=1e-3)
    assert dataset.std == pytest.approx((0.2673, 0.2564, 0.2762), abs=1e-3)
