"""Arrays, archives and image folders as people have them: a value, or an error of one class with a sentence."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from advprune_core.base.settings import AdvpruneError
from advprune_core.datasets.base import dataset_from_arrays, load_dataset
from advprune_core.datasets.class_folders import Skipped
from advprune_core.datasets.splits import Dataset
from advprune_core.pruners.selecting import select
from advprune_core.pruners.selection_files import load_selection, select_file

fuzz = settings(derandomize=True, max_examples=80, database=None)
N = 24
Y = np.arange(N) % 3
GREY = np.random.default_rng(0).integers(0, 256, (N, 6, 5), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (N, 6, 5, 3), dtype=np.uint8)
LOGITS = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)


def outcome(call: Callable[[], Any]) -> Any:
    """The value, or the sentence of the error; any other exception fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return call()
        except AdvpruneError as error:
            sentence = str(error)
    assert len(sentence.split()) >= 4, "an error is a sentence"
    return sentence


def own(x: Any = GREY, y: Any = Y, x_test: Any = None, y_test: Any = None, **options: Any) -> Dataset:
    return dataset_from_arrays(x, y, x if x_test is None else x_test, y if y_test is None else y_test, **options)


def sound(dataset: Dataset) -> None:
    """What every data set promises."""
    for split in (dataset.train, dataset.val_select, dataset.val_stop, dataset.test):
        pixels = split.pixels(slice(None))
        assert pixels.dtype == torch.float32
        assert pixels.shape[1:] == dataset.image_shape
        assert len(pixels) == len(split)
        assert ((pixels >= 0) & (pixels <= 1)).all()
        assert split.labels.dtype == torch.int64
        assert ((split.labels >= 0) & (split.labels < dataset.classes)).all()
    assert len(dataset.train)
    assert len(dataset.test)


# ---------------------------------------------------------------------------------------------- arrays

FLOATS = GREY / 255
#: By name: what is given in place of `own`'s defaults, and the sentence.
REFUSED_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "empty training split": ({"x": GREY[:0], "y": Y[:0], "x_test": GREY, "y_test": Y}, "x_train has 0 images"),
    "empty test split": ({"x_test": GREY[:0], "y_test": Y[:0]}, "x_test has 0 images"),
    "labels that start at 1": ({"y": Y + 1}, "begin at 1.*np.unique"),
    "labels 0 and 1000000": ({"y": (Y > 0) * 1_000_000}, "65535 is the largest"),
    "labels 0 and 1000": ({"y": (Y > 0) * 1000}, r"are 2 of 0\.\.1000.*np.unique"),
    "label 10^9": ({"y": np.where(Y, Y, 10**9)}, "0 to 1000000000|1 to 1000000000"),
    "label 2^40": ({"y": np.where(Y, Y, 2**40)}, "1099511627776"),
    "label 2^63 + 5": ({"y": np.where(Y, Y, 2**63 + 5).astype(np.uint64)}, "9223372036854775813"),
    "counts that differ": ({"y": Y[1:]}, "x_train has 24 images, y_train has 23"),
    "negative labels": ({"y": Y - 1}, "from -1"),
    "labels that are not whole": ({"y": Y + 0.5}, "not whole"),
    "NaN labels": ({"y": Y * np.nan}, "not whole"),
    "labels as text": ({"y": Y.astype(str)}, "vector of class numbers"),
    "labels as objects": ({"y": Y.astype(object)}, "vector of class numbers"),
    "one label for all": ({"y": 3}, "vector of class numbers.*shape is"),
    "pixels off by 1e-3": ({"x": FLOATS + 1e-3}, r"\[0, 1\]"),
    "uint8 images 0..16": ({"x": GREY // 16 + (GREY.max() == GREY)}, r"nearly black.*x_train / 16"),
    "uint8 images 0..1": ({"x": GREY // 128}, r"nearly black.*x_train / 1\)"),
    "scaled twice": ({"x": FLOATS / 255}, r"nearly black.*x_train \* 255"),
    "bool images": ({"x": GREY > 9}, r"x\.astype\(np\.float32\)"),
    "int64 images": ({"x": GREY.astype(np.int64)}, r"x\.astype\(np\.uint8\)"),
    "complex images": ({"x": FLOATS + 0j}, "must be uint8 or float"),
    "images of two sizes": ({"x": [GREY[0], GREY[1, :3]]}, "x_train is no array"),
    "zero-height images": ({"x": GREY[:, :0]}, "without a single pixel"),
    "NHWC of 2 channels": ({"x": COLOUR[..., :2]}, "layout="),
    "NHWC of 5 channels": ({"x": COLOUR[..., [0, 1, 2, 0, 1]]}, "layout="),
    "NHWC of height 3": ({"x": COLOUR[:, :3]}, "both fit.*layout='NHWC'"),
    "NHWC of height 4": ({"x": COLOUR[:, :4]}, "both fit.*layout='NHWC'"),
    "a layout of another order": ({"layout": "HWCN"}, "'NHWC' or 'NCHW'"),
    "a limit that is no number": ({"limit": 2.5}, "limit must be a whole number"),
    "a negative split": ({"val_stop": -1}, "val_stop must be a whole number, at least 0"),
    "a meta tensor": ({"x": torch.zeros(N, 1, 6, 5, device="meta")}, "x_train is no array"),
}


@pytest.mark.parametrize("case", REFUSED_ARRAYS)
def test_arrays_that_are_refused(case: str) -> None:
    given_, message = REFUSED_ARRAYS[case]
    with pytest.raises(AdvpruneError, match=message):
        own(**given_)


#: By name: what is given, and the pixels (n, C, H, W) of the test split.
TAKEN_ARRAYS: dict[str, tuple[dict[str, Any], Any]] = {
    "pixels off by 9e-7": ({"x": FLOATS * (1 + 18e-7) - 9e-7}, FLOATS[:, None]),
    "float16": ({"x": FLOATS.astype(np.float16)}, FLOATS.astype(np.float16)[:, None]),
    "float64, other byte order": ({"x": FLOATS.astype(">f8")}, FLOATS[:, None]),
    "bfloat16 with gradients": (
        {"x": torch.tensor(FLOATS).bfloat16().requires_grad_()},
        torch.tensor(FLOATS).bfloat16().float()[:, None],
    ),
    "a black set": ({"x": GREY * 0}, GREY[:, None] * 0.0),
    "NHWC of 2 channels, as said": (
        {"x": COLOUR[..., :2], "layout": "NHWC"},
        COLOUR[..., :2].transpose(0, 3, 1, 2) / 255,
    ),
    "NHWC of height 3, as said": ({"x": COLOUR[:, :3], "layout": "NHWC"}, COLOUR[:, :3].transpose(0, 3, 1, 2) / 255),
    "NCHW of width 3, as said": ({"x": COLOUR[:, :3], "layout": "NCHW"}, COLOUR[:, :3] / 255),
    "one pixel": ({"x": FLOATS[:, None, :1, :1]}, FLOATS[:, None, :1, :1]),
}


@pytest.mark.parametrize("case", TAKEN_ARRAYS)
def test_arrays_that_are_taken(case: str) -> None:
    given_, pixels = TAKEN_ARRAYS[case]
    dataset = own(**given_)
    sound(dataset)
    np.testing.assert_allclose(dataset.test.pixels(slice(None)).numpy(), pixels, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.uint64, np.float16, np.float64, ">i4", bool])
def test_whole_labels_of_any_type_are_the_same_labels(dtype: Any) -> None:
    labels = Y % 2
    assert own(y=labels.astype(dtype)).train_hash == own(y=labels).train_hash


def test_what_is_printed_is_short() -> None:
    dataset = own()
    assert (
        repr(dataset)
        == "Dataset('own', 3 classes, images of shape (1, 6, 5): 22 train, 1 val_select, 1 val_stop, 24 test)"
    )
    assert repr(dataset.test) == "Split(24 images of shape (1, 6, 5), torch.uint8)"
    assert repr(select(Y, pruner="random", fraction=0.5)) == "Selection(12 images, weights 1 to 1)"


DTYPES = ["uint8", "int32", "int64", "float16", "float32", "float64", "bool", "complex64", "U3", "O", "M8[s]", ">f4"]


@st.composite
def any_array(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]]) -> np.ndarray:
    values = draw(st.sampled_from([0, 1, 0.5, 255, 16, -1, 2, 1.0000005, np.nan, np.inf, 10**9, 2**40]))
    array = np.random.default_rng(draw(st.integers(0, 3))).random(draw(shapes)) * values
    with np.errstate(all="ignore"):
        return array.astype(draw(st.sampled_from(DTYPES)))


SIDES = st.sampled_from([0, 1, 2, 3, 4, 5, 8])
SHAPES = st.lists(SIDES, min_size=0, max_size=3).map(lambda sides: (N, *sides)) | st.lists(SIDES, max_size=5).map(tuple)


@fuzz
@given(
    x=any_array(SHAPES),
    y=st.just(Y) | any_array(st.sampled_from([(N,), (N,), (), (3,), (N, 3)])),
    layout=st.sampled_from([None, None, "NHWC", "NCHW", "nhwc"]),
)
def test_any_arrays(x: np.ndarray, y: np.ndarray, layout: Any) -> None:
    found = outcome(lambda: own(x, y, layout=layout))
    if isinstance(found, Dataset):
        sound(found)


# -------------------------------------------------------------------------------------------- archives


def lying(path: Path, shape: str, **arrays: np.ndarray) -> None:
    """An archive, each of whose arrays says that it has another shape; its checksums are right."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            content = buffer.getvalue()
            begin, end = content.index(b"'shape': ") + 9, content.index(b"}")
            header = content[:begin] + shape.encode() + b", " + content[end:]
            pad = len(header) - len(content)
            header = (
                header.replace(b" " * pad + b"\n", b"\n", 1)
                if pad > 0
                else header.replace(b"\n", b" " * -pad + b"\n", 1)
            )
            assert len(header) == len(content)
            archive.writestr(f"{name}.npy", header)


def damaged(change: Callable[[bytearray], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.savez(path, y=Y, logits=LOGITS)
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)

    return write


def flip(content: bytearray) -> None:
    """One bit of one number."""
    content[content.index(LOGITS.tobytes()) + 70] ^= 16


def saved(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, Y)


def twice(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for array in (Y, Y + 1):
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr("y.npy", buffer.getvalue())


#: By name: how a file is written, options of `select_file`, and the sentence.
ARCHIVES: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no file": (lambda path: None, {}, "there is no file"),
    "a folder": (lambda path: path.mkdir(), {}, "there is no file"),
    ".npy": (npy, {}, "holds one array; an .npz"),
    "empty": (lambda path: path.write_bytes(b""), {}, "cannot be read"),
    "text": (lambda path: path.write_text("0,1,2"), {}, "cannot be read"),
    "truncated": (damaged(lambda content: content.__delitem__(slice(-200, None))), {}, "cannot be read"),
    "bit-flipped": (damaged(flip), {}, "cannot be read.*CRC"),
    "lying: shorter": (lambda path: lying(path, "(9,)", y=Y), {}, "y in .* is damaged: its shape"),
    "lying: 8 TiB": (lambda path: lying(path, "(1099511627776,)", y=Y), {}, "is damaged.*takes 8796093022208 bytes"),
    "lying: 2^70": (lambda path: lying(path, f"({2**70},)", y=Y), {}, "is damaged"),
    "lying: negative": (lambda path: lying(path, "(-24,)", y=Y), {}, "is damaged|cannot be read"),
    "y twice": (twice, {}, "holds y twice"),
    "no labels": (saved(x=GREY), {}, "has no labels"),
    "x and x_train": (saved(y=Y, x=GREY, x_train=GREY), {}, "has both x and x_train"),
    "y and y_train": (saved(y=Y, y_train=Y), {}, "has both y and y_train"),
    "half of the held-out": (saved(y=Y, x_held_out=GREY), {}, "belong together"),
    "held-out of another shape": (
        saved(y=Y, x=GREY, x_held_out=GREY[:, 1:], y_held_out=Y),
        {},
        "held-out labels.*images have the shape",
    ),
    "0-d labels": (saved(y=3), {}, "vector of class numbers"),
    "label 10^9": (saved(y=np.where(Y, Y, 10**9)), {}, "1000000000"),
    "label 2^40": (saved(y=np.where(Y, Y, 2**40)), {}, "1099511627776"),
    "label 2^63 + 5": (saved(y=np.where(Y, Y, 2**63 + 5).astype(np.uint64)), {}, "9223372036854775813"),
    "negative labels": (saved(y=Y - 1), {}, "from -1"),
    "no images": (saved(y=Y[:0]), {}, "has 0"),
    "zero-height images": (saved(y=Y, x=GREY[:, :0]), {}, "without a single pixel"),
    "NaN outputs": (saved(y=Y, logits=LOGITS * np.nan), {}, "logits must be finite, and 72 of 72"),
    "text outputs": (saved(y=Y, logits=LOGITS.astype(str)), {}, "logits must be numbers"),
    "object outputs": (saved(y=Y, logits=LOGITS.astype(object)), {}, "pickled objects"),
    "object labels": (saved(y=Y.astype(object)), {}, "pickled objects"),
    "outputs beyond float32": (saved(y=Y, logits=LOGITS.astype(float) * 1e300), {}, "logits must be finite"),
    "too few columns": (saved(y=Y, logits=LOGITS[:, :2]), {}, "a column for each of 3 classes"),
    "too few columns of a history": (
        saved(y=Y, trajectory=LOGITS[None, :, :2]),
        {"pruner": "aum"},
        "with 3 classes at least",
    ),
    "features alone": (saved(y=Y, features=LOGITS), {}, "need their logits"),
    "a rule that keeps everything": (saved(y=Y), {"pruner": "loss_top"}, "loss_top keeps all 24 images"),
    "everything": (saved(y=Y), {"pruner": "full"}, "full keeps all 24 images"),
    "nothing": (saved(y=Y), {"fraction": 0.01}, "keeps none of 24"),
    "not a share": (saved(y=Y), {"fraction": float("nan")}, "fraction must be above 0"),
    "a device that is not known": (saved(y=Y), {"device": "gpu"}, "device must be one of auto, cpu, cuda"),
    "a seed below 0": (saved(y=Y), {"seed": -1}, "seed must be a whole number"),
    "a pruner that is no name": (saved(y=Y), {"pruner": ["random"]}, "a pruner is a name"),
    **{
        f"clean outputs for {objective} and {spec}": (
            saved(y=Y, logits=LOGITS, features=LOGITS),
            {"objective": objective, "pruner": spec},
            "adversarial outputs are needed.*give adversarial_logits",
        )
        for objective in ("trades", "mart")
        for spec in ("grad_match", "craig", "score")
    },
    "adversarial outputs alone for TRADES": (
        saved(y=Y, adversarial_logits=LOGITS, adversarial_features=LOGITS),
        {"objective": "trades", "pruner": "grad_match"},
        "clean outputs are needed.*give logits",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_that_are_refused(case: str, tmp_path: Path) -> None:
    write, options, message = ARCHIVES[case]
    path = tmp_path / "mine.npz"
    write(path)
    with pytest.raises(AdvpruneError, match=message):
        select_file(path, **{"pruner": "score", "fraction": 0.5, **options})


@pytest.mark.parametrize("objective", ["trades", "mart"])
def test_both_kinds_of_outputs_serve_an_objective_of_both(objective: str) -> None:
    """The adversarial term is not 0: other adversarial outputs, another selection or other weights."""
    first, second = (np.random.default_rng(seed).standard_normal((N, 3)).astype(np.float32) for seed in (1, 2))
    clean = {"logits": LOGITS, "features": LOGITS, "objective": objective, "pruner": "grad_match", "fraction": 0.5}
    found = [select(Y, **clean, adversarial_logits=x, adversarial_features=x) for x in (first, second)]
    assert len(found[0]) == len(found[1]) == 12
    assert not (np.array_equal(found[0].indices, found[1].indices) and np.allclose(found[0].weights, found[1].weights))


def test_a_pruner_of_clean_outputs_needs_no_adversarial_ones() -> None:
    """EL2N by hand, on clean outputs, whatever is trained with."""
    errors = np.linalg.norm(torch.softmax(torch.tensor(LOGITS), 1).numpy() - np.eye(3)[Y], axis=1)
    spec = {"score": {"score": "el2n", "steps": 0, "keep": "highest"}}
    found = select(Y, logits=LOGITS, objective="trades", pruner=spec, fraction=0.5)
    assert found.indices.tolist() == sorted(np.argsort(errors)[-12:].tolist())


@fuzz
@given(
    place=st.integers(0, 10_000),
    value=st.integers(1, 255),
    cut=st.none() | st.integers(0, 2000),
    compressed=st.booleans(),
)
def test_any_damage(place: int, value: int, cut: int | None, compressed: bool, tmp_path_factory: Any) -> None:
    """Three readers of archives: whatever byte changes, the right values come out, or a sentence."""
    path = tmp_path_factory.mktemp("fuzz") / "mine.npz"
    save = np.savez_compressed if compressed else np.savez
    data = {"x_train": GREY, "y_train": Y, "x_test": GREY, "y_test": Y}
    save(path, **data, indices=np.arange(3), weights=np.ones(3), n_filled=np.array(0))
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= value
    path.write_bytes(content[:cut])
    kept = outcome(lambda: select_file(path, pruner="random", fraction=0.5))
    assert isinstance(kept, str) or kept[1].labels.tolist() == Y.tolist()
    loaded = outcome(lambda: load_dataset({"npz": {"path": str(path)}}))
    assert isinstance(loaded, str) or loaded.train_hash == own().train_hash
    selection = outcome(lambda: load_selection(path))
    assert isinstance(selection, str) or selection.indices.tolist() == [0, 1, 2]


# --------------------------------------------------------------------------------------- image folders


def write_image(path: Path, value: int = 100, *, mode: str = "RGB", size: tuple[int, int] = (6, 5)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, {"F": value / 255}.get(mode, value if mode != "RGB" else (value,) * 3)).save(path)


def folder(root: Path) -> Path:
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            for number in range(3):
                write_image(root / part / name / f"{number}.png", 100 * label + 40 + number)
    return root


def load(root: Path) -> Dataset:
    return load_dataset({"folder": {"path": str(root), "val_select": 0, "val_stop": 0}})


def many_unreadable(root: Path) -> None:
    for number in range(13):
        (root / "train" / "dog" / f"broken{number:02}.png").write_bytes(b"\x89PNG\r\n\x1a\n no")


def move_up(root: Path) -> None:
    """A file in place of the folder."""
    os.rename(root, root.with_name("elsewhere"))
    root.write_text("not a folder")


def empty_train(root: Path) -> None:
    os.rename(root / "train", root.with_name("elsewhere"))
    write_image(root / "train" / "0.png")


#: By name: what is done to a good folder, and the sentence.
FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file given for a folder": (move_up, "is a file"),
    "a file in place of train": (
        lambda root: (os.rename(root / "train", root / "old"), (root / "train").write_text("")),
        "train: is a file",
    ),
    "no test": (lambda root: os.rename(root / "test", root / "val"), "test: there is no such folder"),
    "images without classes": (empty_train, "train has no class folders"),
    "other classes": (lambda root: write_image(root / "test" / "eel" / "0.png"), "only test has eel"),
    "empty class folders": (
        lambda root: [(root / "train" / name).mkdir() for name in ("eel", "fox")],
        "without any image: eel, fox",
    ),
    "a class of hidden files": (lambda root: write_image(root / "train" / "eel" / ".0.png"), "without any image: eel"),
    "unreadable files": (many_unreadable, "13 of 25 images cannot be read: .*broken00.*broken09.*and 3 more"),
    "mixed sizes": (lambda root: write_image(root / "train" / "cat" / "9.png", size=(7, 5)), "one shape.*5x6.*5x7"),
    "a float image": (lambda root: write_image(root / "test" / "dog" / "f.tif", mode="F"), r"f\.tif \(float pixels"),
    "a 32-bit image": (lambda root: write_image(root / "test" / "dog" / "i.tif", mode="I"), r"i\.tif \(32-bit pixels"),
    "a symlink loop": (lambda root: (root / "train" / "cat" / "up").symlink_to(root / "train"), "endless loop"),
    "a link to its own folder": (lambda root: (root / "train" / "cat" / "me").symlink_to("."), "endless loop"),
    "a link to itself": (lambda root: (root / "train" / "cat" / "a.png").symlink_to("a.png"), r"a\.png \("),
    "a link to nothing": (lambda root: (root / "train" / "cat" / "a.png").symlink_to("gone.png"), r"a\.png \("),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_that_are_refused(case: str, tmp_path: Path) -> None:
    change, message = FOLDERS[case]
    root = folder(tmp_path / "own")
    change(root)
    with pytest.raises(AdvpruneError, match=message):
        load(root)


def test_hidden_entries_are_left_out_and_counted(tmp_path: Path) -> None:
    plain, root = load(folder(tmp_path / "plain")), folder(tmp_path / "own")
    write_image(root / "train" / ".ipynb_checkpoints" / "0.png")
    write_image(root / "train" / "cat" / ".cache" / "0.png")
    (root / "train" / "cat" / "._0.png").write_bytes(b"\x00\x05\x16\x07")
    (root / "test" / "dog" / "Thumbs.db").write_text("")
    with pytest.warns(UserWarning, match="left out 3 hidden files or folders and 1 file that is no image: Thumbs.db"):
        dataset = load(root)
    assert (dataset.train_hash, dataset.test_hash) == (plain.train_hash, plain.test_hash)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], None),
        (["0.png", "1.JPG"], None),
        ([".DS_Store"], "own: left out 1 hidden file or folder"),
        (["a.txt"], "own: left out 1 file that is no image: a.txt (images are: .jpg, .jpeg, "),
        (["a.txt", "b.csv", "c.md"], "own: left out 3 files that are no images: a.txt, b.csv, c.md (images are: "),
        (["a.txt", "b.csv", "c.md", "d"], "own: left out 4 files that are no images: a.txt, b.csv, c.md, ... ("),
        ([".a", ".b", "a.txt"], "own: left out 2 hidden files or folders and 1 file that is no image: a.txt ("),
    ],
)
def test_what_was_left_out_is_named(names: list[str], said: str | None) -> None:
    skipped = Skipped()
    for name in names:
        skipped.takes(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        skipped.warn(Path("own"))
    assert [str(warning.message).startswith(said or "") for warning in caught] == [True] * (said is not None)


def test_16_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    root = folder(tmp_path / "own")
    deep = np.linspace(0, 65535, 30).round().astype(np.uint16).reshape(5, 6)
    Image.fromarray(deep).save(root / "test" / "dog" / "9.png")
    with pytest.warns(UserWarning, match="1 of 13 images have 16 bits"):
        found = load(root).test.images[-1]
    for channel in found.numpy():
        assert np.abs(channel / 255 - deep / 65535).max() <= 0.5 / 255 + 1e-9


def test_grey_and_colour_may_be_mixed(tmp_path: Path) -> None:
    root = folder(tmp_path / "own")
    write_image(root / "train" / "cat" / "9.png", 7, mode="L")
    assert load(root).train.images[3].unique().tolist() == [7]


def test_links_are_followed_and_shared(tmp_path: Path) -> None:
    root = folder(tmp_path / "own")
    os.rename(root / "train" / "cat", tmp_path / "cats")
    (root / "train" / "cat").symlink_to(tmp_path / "cats")
    assert load(root).train_hash == load(folder(tmp_path / "plain")).train_hash


def test_the_order_is_that_of_torchvision(tmp_path: Path) -> None:
    """An independent reader: what was read with it before keeps its hash."""
    from torchvision.datasets import ImageFolder

    root = folder(tmp_path / "own")
    for number, name in enumerate(("b/1.png", "b-c/1.png", "B/2.PNG", "10.jpg", "9.webp", "b/a/0.png")):
        write_image(root / "train" / "cat" / name, 200 + number)
    expected = ImageFolder(str(root / "train"))
    dataset = load(root)
    assert dataset.train.labels.tolist() == expected.targets
    assert np.array_equal(
        dataset.train.images.permute(0, 2, 3, 1).numpy(), np.stack([np.asarray(image) for image, _ in expected])
    )


NAMES = st.sampled_from(["a.png", ".b.png", "._c.png", "d.txt", "e.jpg", "sub", ".hid", "ä.png", "f.tiff", "g.PNG"])
KINDS = st.sampled_from(["RGB", "L", "1", "P", "RGBA", "I;16", "I", "F", "empty", "junk", "folder", "loop", "dangling"])
SPOTS = st.sampled_from(["", "train", "test", "train/cat", "test/dog", "train/new", "test/cat/sub"])


@fuzz
@given(additions=st.lists(st.tuples(SPOTS, NAMES, KINDS), max_size=4))
def test_any_folder(additions: list[tuple[str, str, str]], tmp_path_factory: Any) -> None:
    root = folder(tmp_path_factory.mktemp("fuzz") / "own")
    for spot, name, kind in additions:
        path = root / spot / name
        if os.path.lexists(path):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind in ("loop", "dangling"):
            path.symlink_to(".." if kind == "loop" else "nowhere")
        elif kind in ("empty", "junk"):
            path.write_bytes(b"junk" if kind == "junk" else b"")
        else:
            with path.open("wb") as file:
                Image.new(kind, (6, 5)).save(file, "TIFF" if kind in ("F", "I", "I;16") else "PNG")
    found = outcome(lambda: load(root))
    if isinstance(found, Dataset):
        sound(found)
        assert found.image_shape == (3, 5, 6)
