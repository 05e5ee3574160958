"""Splits, formats, checks and hashes of data sets."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import DataError, DatasetSource, data_folder, dataset_from_arrays, load_dataset
from advprune_core.datasets.label_noise import with_label_noise
from advprune_core.datasets.splits import Dataset, Split, channel_statistics, in_proportion, largest_remainder
from advprune_core.trainers.config import RunConfig
from tests.memory import Largest

SPLITS = ("train", "val_select", "val_stop", "test")


def arrays(n: int = 120, classes: int = 3, seed: int = 0) -> dict[str, Any]:
    """Distinct uint8 images, so that each can be found again, and labels in turn."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, 6, 5, 3), dtype=np.uint8)
    y = np.arange(n) % classes
    return {"x_train": x, "y_train": y, "x_test": x[:20, ::-1], "y_test": y[:20]}


IMAGES, LABELS = torch.zeros(4, 1, 6, 5), torch.arange(4)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS[:3], r"labels have shape \(3,\), for 4 images it must be \(4,\)"),
        (IMAGES[:3], LABELS, r"labels have shape \(4,\), for 3 images it must be \(3,\)"),
        (IMAGES, torch.eye(4).long(), r"labels have shape \(4, 4\), for 4 images"),
        (IMAGES[:, 0], LABELS, r"images must have the shape \(n, C, H, W\), not \(4, 6, 5\)"),
        (IMAGES, LABELS.float(), "labels must be a tensor of whole numbers .int64., not one of float32"),
        (IMAGES.numpy(), LABELS, "images of a split must be a tensor, not ndarray"),
        (IMAGES, [0, 1, 2, 3], "labels of a split must be a tensor, not list"),
    ],
)
def test_what_is_no_split(images: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Split(images, labels)


def test_a_split_is_made_without_a_look_at_its_values() -> None:
    """Tensors on the meta device have none: to look, as to wait for a GPU, would be an error."""
    split = Split(IMAGES.to("meta"), LABELS.to("meta"))
    assert len(split.take(torch.tensor([0, 2], device="meta"))) == 2
    assert len(Split(IMAGES, LABELS).take(torch.arange(0))) == 0


def test_digits_have_the_promised_sizes_and_end_with_other_writers(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    assert [len(getattr(digits, name)) for name in SPLITS] == [1100, 100, 100, 497]
    assert digits.image_shape == (1, 8, 8)
    assert digits.classes == 10
    assert np.array_equal(digits.test.pixels(slice(None))[:, 0].numpy(), raw.images[-497:].astype(np.float32) / 16)
    assert np.array_equal(digits.test.labels.numpy(), raw.target[-497:])


def test_splits_are_disjoint_cover_everything_and_are_stratified(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    expected = sorted((raw.images[:1300].astype(np.float32) / 16).reshape(1300, -1).tolist())
    parts = [digits.train, digits.val_select, digits.val_stop]
    assert sorted(torch.cat([p.images for p in parts]).flatten(1).tolist()) == expected
    share = np.bincount(raw.target[:1300]) / 1300
    for part in parts:
        assert np.abs(np.bincount(part.labels.numpy(), minlength=10) - share * len(part)).max() <= 1.5


@pytest.mark.parametrize("options", [{}, {"limit": 50, "test_limit": 7}, {"val_select": 0, "val_stop": 30}], ids=str)
def test_every_image_says_where_it_stands_in_the_arrays(options: dict[str, Any]) -> None:
    """Of a split, of a part of it, of one with wrong labels, on another device, in another process."""
    given = arrays()
    dataset = dataset_from_arrays(**given, **options)
    noisy = with_label_noise(dataset, 0.5)
    on_stop = replace(dataset, val_stop=dataset.train).tested_on_val_stop()
    some = torch.tensor([1, 0])
    for name in SPLITS:
        split = getattr(dataset, name)
        made = [split, split.to("cpu"), getattr(noisy, name), pickle.loads(pickle.dumps(split))]
        made += [split.take(some)] if len(split) else []
        made += [on_stop.test] if name == "train" else []
        x = given["x_test" if name == "test" else "x_train"]
        for one in made:
            assert np.array_equal(one.images.numpy().transpose(0, 2, 3, 1), x[one.rows.numpy()])
            assert one.rows.dtype == torch.int64
    assert Split(dataset.test.images, dataset.test.labels).rows.tolist() == [*range(len(dataset.test))]


def test_the_split_is_the_same_whatever_was_drawn_before() -> None:
    first = dataset_from_arrays(**arrays())
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 (a global generator must not matter)
    before = torch.get_rng_state()
    second = dataset_from_arrays(**arrays())
    assert torch.equal(before, torch.get_rng_state())
    for name in SPLITS:
        assert torch.equal(getattr(first, name).images, getattr(second, name).images)
    assert (first.train_hash, first.test_hash) == (second.train_hash, second.test_hash)


@pytest.mark.parametrize(
    ("n", "given_sizes", "sizes"),
    [
        (120, {}, (102, 9, 9)),
        (26000, {}, (24000, 1000, 1000)),
        (120, {"val_select": 0, "val_stop": 0}, (120, 0, 0)),
        (120, {"val_select": 7, "val_stop": 0}, (113, 7, 0)),
        (120, {"val_select": 0, "val_stop": 30}, (90, 0, 30)),
        (120, {"limit": 60}, (52, 4, 4)),
        (120, {"limit": 500}, (102, 9, 9)),
        (120, {"limit": 3}, (3, 0, 0)),
    ],
)
def test_sizes_of_the_splits(n: int, given_sizes: dict[str, int], sizes: tuple[int, ...]) -> None:
    x = np.arange(n, dtype=np.float32).reshape(n, 1, 1) / n
    y = np.arange(n) % 3
    dataset = dataset_from_arrays(x, y, x, y, **given_sizes)
    parts = [getattr(dataset, name) for name in SPLITS[:3]]
    assert tuple(len(part) for part in parts) == sizes
    assert len(torch.cat([part.images for part in parts]).unique()) == sum(sizes)
    assert len(dataset.test) == n


def test_settings_can_be_chosen_without_a_look_at_the_test_images() -> None:
    """The same training under another key: no test of such a run, and no table, can take it for a tested one."""
    own = {"limit": 300, "label_noise": 0.2}
    tested, chosen = (load_dataset({"digits": {**own, "tested_on": on}}) for on in ("test", "val_stop"))
    assert torch.equal(chosen.test.images, tested.val_stop.images)
    assert torch.equal(chosen.test.labels, tested.val_stop.labels)
    assert chosen.train_hash == tested.train_hash
    assert chosen.test_hash not in ("", tested.test_hash)
    assert torch.equal(chosen.train.labels, tested.train.labels)
    keys = {RunConfig(dataset={"digits": {**own, "tested_on": on}}).train_key(tested) for on in ("test", "val_stop")}
    assert len(keys) == 2
    assert load_dataset({"digits": own}).test_hash == tested.test_hash


def test_where_nothing_is_held_out_there_is_nothing_to_choose_by() -> None:
    with pytest.raises(DataError, match=r"val_stop has no images; give it some \(val_stop = 100\)"):
        load_dataset({"digits": {"val_stop": 0, "tested_on": "val_stop"}})


@example(counts=[1, 10, 1], share=0.625, seed=0)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda c: sum(c) > 0),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_stratified_subsets_follow_the_largest_remainder(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    size = round(share * len(labels))
    chosen = in_proportion(labels, size, seed)
    assert len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    kept = np.bincount(labels[chosen], minlength=len(counts))
    assert np.array_equal(kept, hamilton(size, counts))
    assert np.array_equal(chosen, in_proportion(labels, size, seed))


def hamilton(total: int, counts: list[int]) -> np.ndarray:
    """Largest remainder in whole numbers: one seat at a time to the largest remainder left."""
    whole = sum(counts)
    seats = [count * total // whole for count in counts]
    remainders = [count * total % whole for count in counts]
    while sum(seats) < total:
        winner = remainders.index(max(remainders))
        seats[winner] += 1
        remainders[winner] = -1
    return np.array(seats)


def test_limits_keep_the_class_proportions(digits: Dataset) -> None:
    labels = [torch.cat([getattr(digits, name).labels for name in SPLITS[:3]]), digits.test.labels]
    limited = load_dataset({"digits": {"limit": 333, "test_limit": 101}})
    kept = [torch.cat([getattr(limited, name).labels for name in SPLITS[:3]]), limited.test.labels]
    for before, after, size in zip(labels, kept, (333, 101), strict=True):
        assert np.array_equal(after.bincount(minlength=10).numpy(), hamilton(size, before.bincount().tolist()))


@pytest.mark.parametrize(
    ("total", "counts", "expected"),
    [
        (3, [1, 1, 1], [1, 1, 1]),
        (2, [1, 1, 1], [1, 1, 0]),
        (10, [600, 300, 100], [6, 3, 1]),
        (7, [6, 1], [6, 1]),
        (4, [0, 5, 0, 5], [0, 2, 0, 2]),
        (0, [4, 4], [0, 0]),
        (5, [47, 16, 15, 14, 8], [2, 1, 1, 1, 0]),
        (9, [9, 9, 9], [3, 3, 3]),
        (8, [1, 10, 1], [1, 7, 0]),
    ],
)
def test_largest_remainder_by_hand(total: int, counts: list[int], expected: list[int]) -> None:
    assert largest_remainder(total, np.array(counts)).tolist() == expected


LAYOUTS = {
    "NHWC": lambda x: x,
    "NCHW": lambda x: x.transpose(0, 3, 1, 2),
    "NHWC, not contiguous": lambda x: np.asfortranarray(x),
}
TYPES = {
    "uint8": lambda x: x,
    "float32": lambda x: x.astype(np.float32) / np.float32(255),
    "float64": lambda x: x / 255,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_format_gives_the_same_images(layout: str, dtype: str) -> None:
    reference = dataset_from_arrays(**arrays())
    data = arrays()
    for name in ("x_train", "x_test"):
        data[name] = TYPES[dtype](LAYOUTS[layout](data[name]))
    dataset = dataset_from_arrays(**data)
    assert dataset.image_shape == (3, 6, 5)
    for name in SPLITS:
        mine, theirs = getattr(dataset, name), getattr(reference, name)
        assert torch.equal(mine.labels, theirs.labels)
        assert mine.pixels(slice(None)).dtype == torch.float32
        torch.testing.assert_close(mine.pixels(slice(None)), theirs.pixels(slice(None)), rtol=0, atol=1e-7)
    assert dataset.mean == pytest.approx(reference.mean)
    assert dataset.std == pytest.approx(reference.std)


def test_grey_images_may_leave_the_channel_out() -> None:
    data = {name: value[..., 0] if name.startswith("x") else value for name, value in arrays().items()}
    flat = dataset_from_arrays(**data)
    assert flat.image_shape == (1, 6, 5)
    for layout in (lambda x: x[:, None], lambda x: x[..., None]):
        other = {name: layout(value) if name.startswith("x") else value for name, value in data.items()}
        assert torch.equal(dataset_from_arrays(**other).train.images, flat.train.images)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("pixels", [300, 1000])
def test_statistics_copy_few_pixels_at_a_time(pixels: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advprune_core.datasets.splits._PIXELS", pixels)
    x = TYPES[dtype](np.random.default_rng(0).integers(0, 256, (203, 3, 6, 5)).astype(np.uint8))
    with Largest() as largest:
        mean, std = channel_statistics(torch.from_numpy(x))
    assert largest.bytes <= 8 * 1000 < x.size
    exact = x.astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, exact.std((0, 2, 3), ddof=1), rtol=1e-13)


def test_training_images_are_the_data_sets_own() -> None:
    data = arrays()
    dataset = dataset_from_arrays(**data, val_select=0, val_stop=0)
    before = dataset.train.images.clone()
    data["x_train"][:] = 0
    assert torch.equal(dataset.train.images, before)


def test_statistics_are_those_of_the_training_pixels() -> None:
    dataset = dataset_from_arrays(**arrays())
    pixels = dataset.train.images.numpy().astype(np.float64) / 255
    assert dataset.mean == pytest.approx(pixels.mean((0, 2, 3)))
    assert dataset.std == pytest.approx(pixels.std((0, 2, 3), ddof=1))
    black = np.zeros((20, 4, 4), np.uint8)
    assert dataset_from_arrays(black, np.arange(20) % 2, black, np.arange(20) % 2).std[0] > 0


def changed(data: dict[str, Any], name: str, where: Any, value: Any, dtype: Any = None) -> dict[str, Any]:
    array = np.array(data[name], dtype=dtype)
    array[where] = value
    return {**data, name: array}


FLOAT = {**arrays(), "x_train": arrays()["x_train"] / 255}
BAD = {
    "pixel above 1": (changed(FLOAT, "x_train", (3, 1, 1, 0), 1.5), r"x_train.*\[0, 1.5\].*\[0, 1\]"),
    "pixel below 0": (changed(FLOAT, "x_train", (3, 1, 1, 0), -0.25), r"\[-0.25, 1\]"),
    "0..255 as float": ({**arrays(), "x_test": arrays()["x_test"] * 1.0}, r"x_test.*255"),
    "NaN": (changed(FLOAT, "x_train", (0, 0, 0, 0), np.nan), "x_train.*not finite"),
    "infinity": (changed(FLOAT, "x_train", (0, 0, 0, 0), np.inf), "x_train.*not finite"),
    "whole-number pixels": ({**arrays(), "x_train": arrays()["x_train"].astype(int)}, "x_train must be uint8 or float"),
    "objects": ({**arrays(), "x_train": arrays()["x_train"].astype(object)}, "x_train must be uint8 or float"),
    "too few labels": ({**arrays(), "y_train": np.arange(119) % 3}, "x_train has 120 images, y_train has 119"),
    "too many test labels": ({**arrays(), "y_test": np.zeros(21, int)}, "x_test has 20 images, y_test has 21"),
    "float labels": ({**arrays(), "y_train": np.arange(120) % 3 + 0.5}, "y_train must be.*float64.*not whole"),
    "text labels": ({**arrays(), "y_train": np.array(["cat"] * 120)}, "y_train must be"),
    "one-hot labels": ({**arrays(), "y_train": np.eye(3, dtype=int)[np.arange(120) % 3]}, "y_train must be"),
    "negative label": (changed(arrays(), "y_train", 5, -1), "y_train must be"),
    "unknown test label": (changed(arrays(), "y_test", 5, 3), r"y_test has the label 3, but y_train has only 0\.\.2"),
    "other shape": ({**arrays(), "x_test": arrays()["x_test"][:, :5]}, "images of shape.*x_test"),
    "no images": ({**arrays(), "x_train": np.zeros((0, 6, 5, 3)), "y_train": np.zeros(0, int)}, "x_train has 0 images"),
    "flat images": ({**arrays(), "x_train": np.zeros((120, 90))}, "x_train must be NHW"),
    "a number": ({**arrays(), "x_train": np.float32(0.5)}, "x_train"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused_with_their_name(case: str) -> None:
    data, message = BAD[case]
    with pytest.raises(DataError, match=message):
        dataset_from_arrays(**data)


@pytest.mark.parametrize(
    "sizes", [{"val_select": 60, "val_stop": 60}, {"val_stop": 200}, {"limit": 10, "val_stop": 10}]
)
def test_something_must_be_left_to_train_on(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="one of each class, must be left to train on"):
        dataset_from_arrays(**arrays(), **sizes)


@pytest.mark.parametrize("sizes", [{}, {"val_select": 20, "val_stop": 20}, {"val_select": 240, "val_stop": 255}])
def test_a_rare_class_keeps_an_image_to_train_on(sizes: dict[str, int]) -> None:
    labels = np.repeat(np.arange(10), [100] * 5 + [1] * 5)
    x = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1).repeat(64, 1).reshape(-1, 8, 8)
    made = dataset_from_arrays(x, labels, x[::50], labels[::50], **sizes)
    assert made.train.labels.bincount(minlength=10).min() == 1
    wanted = [sizes.get(name, 505 // 13) for name in ("val_select", "val_stop")]
    assert [len(made.val_select), len(made.val_stop)] == wanted
    assert len(made.train) == 505 - sum(wanted)


def test_a_limit_that_empties_a_class_says_so() -> None:
    labels = np.repeat(np.arange(3), [100, 100, 1])
    x = np.zeros((201, 8, 8), np.uint8)
    with pytest.warns(UserWarning, match=r"limit = 20 leaves no image of \[2\]"):
        dataset_from_arrays(x, labels, x, labels, limit=20)


def test_images_are_copied() -> None:
    data = arrays()
    x = {name: np.ascontiguousarray(data[name].transpose(0, 3, 1, 2)) for name in ("x_train", "x_test")}
    made = dataset_from_arrays(**data | x, layout="NCHW")
    before = [part.images.clone() for part in (made.train, made.test)]
    for each in x.values():
        each[:] = 7
    assert [torch.equal(part.images, old) for part, old in zip((made.train, made.test), before, strict=True)] == [
        True, True,
    ]  # fmt: skip


class SomeDigits(DatasetSource):
    """Digits of some classes."""

    name = "some_digits"
    digits: list[int] = [3, 5]

    def arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """Images whose pixels are all 20 times the class."""
        labels = np.arange(200) % len(self.digits)
        x = np.uint8(20 * np.array(self.digits)[labels])[:, None, None].repeat(8, 1).repeat(8, 2)
        return {"x_train": x, "y_train": labels, "x_test": x, "y_test": labels}


def test_a_source_of_ones_own_may_have_a_list() -> None:
    one, other = SomeDigits(), SomeDigits(digits=[3, 6])
    assert (one == SomeDigits(digits=[3, 5]), one == other) == (True, False)
    assert hash(one) == hash(SomeDigits(digits=[3, 5]))
    assert int(load_dataset(one).train.images.max()) == 100
    assert int(load_dataset(other).train.images.max()) == 120


HASHED = {
    "nothing": (lambda d: d, (True, True)),
    "a training pixel": (lambda d: changed(d, "x_train", (7, 2, 2, 1), 9), (False, True)),
    "a training label": (lambda d: changed(d, "y_train", 7, 2), (False, True)),
    "a test pixel": (lambda d: changed(d, "x_test", (7, 2, 2, 1), 9), (True, False)),
    "a test label": (lambda d: changed(d, "y_test", 7, 2), (True, False)),
    "the validation split": (lambda d: {**d, "val_stop": 5}, (False, True)),
    "the other validation split": (lambda d: {**d, "val_select": 5}, (False, True)),
    "the limit": (lambda d: {**d, "limit": 100}, (False, True)),
    "the test limit": (lambda d: {**d, "test_limit": 10}, (True, False)),
    "the order": (lambda d: {**d, "x_train": d["x_train"][::-1]}, (False, True)),
    "the name": (lambda d: {**d, "name": "other"}, (True, True)),
}


@pytest.mark.parametrize("case", HASHED)
def test_hashes_see_what_they_should_and_no_more(case: str) -> None:
    change, same = HASHED[case]
    before, after = dataset_from_arrays(**arrays()), dataset_from_arrays(**change(arrays()))
    assert (before.train_hash == after.train_hash, before.test_hash == after.test_hash) == same


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("mnits", "did you mean 'mnist'"),
        ({"digits": {"limits": 5}}, "did you mean 'limit'"),
        ({"digits": {"limit": 0}}, "limit = 0"),
        ({"digits": {"val_stop": -1}}, "val_stop = -1"),
        ({"npz": {}}, "path"),
        (None, "a dataset is a name"),
        (["digits"], "a dataset is a name"),
    ],
)
def test_sources_are_checked(source: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset(source)


def test_the_folder_of_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_folder() == Path.home() / ".cache" / "advprune"
    monkeypatch.setenv("ADVPRUNE_DATA", str(tmp_path / "a"))
    assert data_folder() == tmp_path / "a"
    assert data_folder(tmp_path / "b") == tmp_path / "b"
    assert data_folder("~/c") == Path.home() / "c"
