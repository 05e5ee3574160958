"""Own arrays and own folders of images, whole and damaged, and `pack`, which writes the former."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import DataError, load_dataset
from advprune_core.datasets.packing import pack

WHOLE = {"val_select": 0, "val_stop": 0}


def arrays(n: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, 8, 7), dtype=np.uint8)
    y = np.arange(n) % 4
    return {"x_train": x, "y_train": y, "x_test": x[:8], "y_test": y[:8]}


def npz(path: Path, **settings: Any) -> dict[str, Any]:
    return {"npz": {"path": str(path), **settings}}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_as_it_was_written(save: Any, tmp_path: Path) -> None:
    data = arrays()
    save(tmp_path / "own.npz", **data, extra=np.zeros(3))
    dataset = load_dataset(npz(tmp_path / "own.npz", **WHOLE))
    assert np.array_equal(dataset.train.images[:, 0].numpy(), data["x_train"])
    assert np.array_equal(dataset.train.labels.numpy(), data["y_train"])
    assert np.array_equal(dataset.test.images[:, 0].numpy(), data["x_test"])
    assert dataset.classes == 4


def test_the_checksum_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for right in (digest, digest.upper()):
        assert len(load_dataset(npz(path, sha256=right, **WHOLE)).train) == 40
    with pytest.raises(DataError, match=rf"own\.npz has the SHA-256 {digest}.*wrong or damaged"):
        load_dataset(npz(path, sha256="0" * 64))


def test_a_layout_is_a_setting_of_the_file(tmp_path: Path) -> None:
    """Two channels, last or first: the file cannot say which, and the setting does."""
    path, x = tmp_path / "own.npz", np.random.default_rng(0).integers(0, 256, (12, 5, 6, 2), dtype=np.uint8)
    np.savez(path, x_train=x, y_train=np.arange(12) % 2, x_test=x, y_test=np.arange(12) % 2)
    with pytest.raises(DataError, match="layout='NHWC' or layout='NCHW'"):
        load_dataset(npz(path))
    assert np.array_equal(load_dataset(npz(path, layout="NHWC")).test.images.numpy(), x.transpose(0, 3, 1, 2))
    assert load_dataset(npz(path, layout="NCHW")).image_shape == (5, 6, 2)
    with pytest.raises(ConfigError, match="NHWC"):
        load_dataset(npz(path, layout="HWC"))


@pytest.mark.parametrize("kind", ["npz", "folder"])
@pytest.mark.parametrize("path", ["~nobody-of-that-name/own", "a\0b", "a" * 5000, "", "."])
def test_paths_that_lead_nowhere(kind: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no|Could not determine home|must hold train"):
        load_dataset({kind: {"path": path}})


def _truncated(path: Path) -> None:
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-400])


def _flipped(path: Path) -> None:
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    content[900] ^= 1
    path.write_bytes(content)


def _flipped_compressed(path: Path) -> None:
    """Give the first array's first deflate block a type that does not exist."""
    np.savez_compressed(path, **arrays())
    content = bytearray(path.read_bytes())
    name, extra = struct.unpack("<HH", content[26:30])
    content[30 + name + extra] = 0xFF
    path.write_bytes(content)


def _array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, arrays()["x_train"])


def _objects(path: Path) -> None:
    labels = np.array([0, "one", None, 3] * 10, dtype=object)
    np.savez(path, **{**arrays(), "y_train": labels})


DAMAGED = {
    "truncated": (_truncated, "cannot be read"),
    "a flipped bit": (_flipped, "cannot be read"),
    "a damaged compressed array": (_flipped_compressed, "cannot be read"),
    "a single array": (_array, "own.npz"),
    "text": (lambda path: path.write_text("x,y\n1,2\n"), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "pickled objects": (_objects, "pickled objects"),
    "an array missing": (
        lambda path: np.savez(path, **{k: v for k, v in arrays().items() if k != "y_test"}),
        "lacks y_test; it has x_train, y_train, x_test",
    ),
    "no file": (lambda path: None, "there is no file"),
    "a folder": (lambda path: path.mkdir(), "there is no file"),
    "bad pixels": (lambda path: np.savez(path, **{**arrays(), "x_train": arrays()["x_train"] * 1.0}), r"\[0, 1\]"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_named(case: str, tmp_path: Path) -> None:
    damage, message = DAMAGED[case]
    path = tmp_path / "own.npz"
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(npz(path))
    assert "own.npz" in str(caught.value) or "x_train" in str(caught.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A pickle that would run code on loading is refused, and does not run."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (Path.touch, (trap,))

    np.savez(tmp_path / "own.npz", **{**arrays(), "x_train": np.array([Trap()] * 40, dtype=object)})
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset(npz(tmp_path / "own.npz"))
    assert not trap.exists()


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays(40))
    assert len(load_dataset(npz(path, **WHOLE)).train) == 40
    np.savez(path, **arrays(60))
    assert len(load_dataset(npz(path, **WHOLE)).train) == 60


def picture(path: Path, value: int, *, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour: Any = (value, 255 - value, 7) if mode == "RGB" else value
    Image.new(mode, size, colour).save(path)


def image_folder(root: Path) -> dict[str, Any]:
    """Two classes, six training images and two test images each, every one of its own colour."""
    for part, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                picture(root / part / name / f"{number}.png", 100 * label + 10 * number)
    return {"folder": {"path": str(root), **WHOLE}}


def test_class_folders_become_labels(tmp_path: Path) -> None:
    dataset = load_dataset(image_folder(tmp_path))
    assert dataset.image_shape == (3, 5, 6)
    assert dataset.classes == 2
    assert dataset.train.labels.tolist() == [0] * 6 + [1] * 6
    assert dataset.train.images[:, 0, 0, 0].tolist() == [100 * (i // 6) + 10 * (i % 6) for i in range(12)]
    assert dataset.test.images[:, 1, 4, 5].tolist() == [255, 245, 155, 145]
    assert (dataset.train.images[:, 2] == 7).all()


@pytest.mark.parametrize(
    ("fit", "shape", "expected"),
    [
        # A red middle between blue ends, 24 x 8: cropped to the middle, or shrunk to a third between black bars.
        ("crop", (24, 8), np.tile([255, 0, 0], (8, 8, 1))),
        ("crop", (8, 24), np.tile([255, 0, 0], (8, 8, 1))),
        ("pad", (24, 8), None),
        ("pad", (8, 24), None),
    ],
)
def test_images_of_mixed_sizes_are_brought_to_one(
    fit: str, shape: tuple[int, int], expected: np.ndarray | None, tmp_path: Path
) -> None:
    source = image_folder(tmp_path)
    pixels = np.zeros((24, 8, 3), np.uint8)
    pixels[8:16, :, 0] = pixels[:8, :, 2] = pixels[16:, :, 2] = 255
    pixels = pixels if shape == (24, 8) else pixels.transpose(1, 0, 2)
    Image.fromarray(pixels).save(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(DataError, match="size: 32"):
        load_dataset(source)
    dataset = load_dataset({"folder": {**source["folder"], "size": 8, "fit": fit}})
    assert dataset.image_shape == (3, 8, 8)
    assert len(dataset.train) == 12
    found = dataset.train.images[0].permute(1, 2, 0).numpy()
    if expected is not None:
        assert np.array_equal(found, expected)
    else:
        upright = found if shape == (24, 8) else found.transpose(1, 0, 2)
        assert (upright[:, [0, 1, 6, 7]] == 0).all()  # 8 / 3 pixels are left of its width: 3, in the middle
        assert upright[4, 3, 0] > 200
        assert upright[0, 3, 2] > 200
    # An image that is square already and of that size is as it was.
    plain = load_dataset({"folder": {**image_folder(tmp_path / "square")["folder"], "size": 8, "fit": fit}})
    assert plain.train.images[1, 0, 4, 4] == 10


def test_how_a_size_is_reached_makes_other_data(tmp_path: Path) -> None:
    source = image_folder(tmp_path)["folder"]
    hashes = {
        load_dataset({"folder": {**source, "size": n, "fit": fit}}).train_hash
        for n in (4, 8)
        for fit in ("crop", "pad")
    }
    assert len(hashes) == 4
    for wrong in ({"size": 3}, {"size": 8, "fit": "stretch"}):
        with pytest.raises(ConfigError, match=r"size = 3|'crop' or 'pad'"):
            load_dataset({"folder": {**source, **wrong}})


BAD_FOLDERS = {
    "other sizes": (lambda root: picture(root / "train" / "cat" / "9.png", 0, size=(7, 5)), "one shape"),
    "other classes": (lambda root: picture(root / "test" / "eel" / "0.png", 0), "only test has eel"),
    "an empty class": (lambda root: (root / "train" / "eel").mkdir(), "eel"),
    "a damaged image": (lambda root: (root / "train" / "cat" / "3.png").write_bytes(b"\x89PNG no"), r"3\.png"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders_are_refused(case: str, tmp_path: Path) -> None:
    damage, message = BAD_FOLDERS[case]
    source = image_folder(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        load_dataset(source)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_folder_without_a_part_is_refused(part: str, tmp_path: Path) -> None:
    other = "test" if part == "train" else "train"
    picture(tmp_path / other / "cat" / "0.png", 0)
    with pytest.raises(ConfigError, match=r"train/CLASS/\.\.\. and test/CLASS/"):
        load_dataset({"folder": {"path": str(tmp_path)}})


def test_pack_takes_torch_data_sets(tmp_path: Path) -> None:
    images = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 4
    tensors = torch.utils.data.TensorDataset(images, labels)
    path = pack(tensors, tensors, tmp_path / "own.npz")
    dataset = load_dataset({"npz": {"path": str(path), "val_select": 0, "val_stop": 0}})
    assert torch.equal(dataset.train.images, images)
    assert torch.equal(dataset.test.labels, labels)


def test_pack_takes_pil_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 5, 6, 3), dtype=np.uint8)
    pairs = [(Image.fromarray(image), number % 2) for number, image in enumerate(pixels)]
    path = pack(pairs, pairs, tmp_path / "own.npz")
    dataset = load_dataset({"npz": {"path": str(path), "val_select": 0, "val_stop": 0}})
    assert np.array_equal(dataset.train.images.permute(0, 2, 3, 1).numpy(), pixels)


@pytest.mark.parametrize(("mode", "expected"), [("P", "RGB"), ("CMYK", "RGB"), ("RGBA", "RGB"), ("1", "L"), ("L", "L")])
def test_pack_takes_the_colours_of_pil_images_and_not_their_codes(mode: str, expected: str, tmp_path: Path) -> None:
    """The pixels of an image with a palette are indices."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 5, 6, 3), dtype=np.uint8)
    images = [Image.fromarray(image).convert(mode) for image in pixels]
    path = pack(
        [(image, number % 2) for number, image in enumerate(images)],
        [(images[0], 0), (images[1], 1)],
        tmp_path / "own.npz",
    )
    with np.load(path) as found:
        assert np.array_equal(found["x_train"], np.stack([np.asarray(image.convert(expected)) for image in images]))


BAD_PAIRS = {
    "two shapes": ([(torch.zeros(1, 6, 6), 0), (torch.zeros(1, 5, 6), 1)], "one shape"),
    "normalised": ([(torch.full((1, 6, 6), -1.0), 0), (torch.zeros(1, 6, 6), 1)], r"\[0, 1\]"),
    "targets of a regression": ([(torch.zeros(1, 6, 6), 0.7), (torch.zeros(1, 6, 6), 1.2)], "label|class"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_pack_refuses_bad_input_before_writing(case: str, tmp_path: Path) -> None:
    pairs, message = BAD_PAIRS[case]
    with pytest.raises(DataError, match=message):
        pack(pairs, pairs, tmp_path / "own.npz")
    assert not list(tmp_path.iterdir())
