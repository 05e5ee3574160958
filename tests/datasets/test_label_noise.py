"""Wrong labels: as many as asked for, nowhere but in training, and known to who asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import DataError, dataset_from_arrays, load_dataset
from advprune_core.datasets.label_noise import flip_labels, with_label_noise
from advprune_core.pruners import PRUNERS, Context
from advprune_core.study.runner import run_study
from advprune_core.trainers.checks import check_run
from tests.tiny import tiny_run, tiny_study


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.999])
def test_so_many_labels_are_wrong_and_every_wrong_class_is_as_likely(share: float) -> None:
    labels = np.random.default_rng(1).integers(0, 5, 20_000)
    noisy = flip_labels(labels, share, classes=5, seed=0)
    wrong = noisy != labels
    assert wrong.sum() == round(share * len(labels))
    if share:
        shifts = np.bincount((noisy - labels)[wrong] % 5, minlength=5)
        assert shifts[0] == 0
        assert abs(shifts[1:] / wrong.sum() - 0.25).max() < 4 * np.sqrt(0.1875 / wrong.sum())
    more = flip_labels(labels, min(0.9995, share + 0.2), classes=5, seed=0)
    assert (more[wrong] == noisy[wrong]).all()


def test_only_training_labels_are_wrong_and_the_key_knows_it() -> None:
    clean, noisy = load_dataset("digits"), load_dataset({"digits": {"label_noise": 0.4}})
    assert noisy.wrong_labels().mean() == pytest.approx(0.4, abs=1 / len(clean.train))
    assert noisy.train.images is clean.train.images
    for split in ("val_select", "val_stop", "test"):
        assert (getattr(noisy, split).labels == getattr(clean, split).labels).all()
    assert noisy.test_hash == clean.test_hash
    hashes = {load_dataset({"digits": {"label_noise": share}}).train_hash for share in (0.0, 0.1, 0.4)}
    assert len(hashes) == 3
    assert not clean.wrong_labels().any()


def test_the_oracle_keeps_right_labels_and_fills_up_with_wrong_ones() -> None:
    noisy = load_dataset({"digits": {"label_noise": 0.4}})
    oracle = PRUNERS.parse("oracle")
    for fraction, filled in ((0.5, 0), (0.8, 0.2)):
        selection = oracle.select(Context(dataset=noisy, fraction=fraction, seed=0))
        wrong = noisy.wrong_labels()[selection.indices]
        assert wrong.sum() == selection.n_filled == pytest.approx(filled * len(noisy.train), abs=1)
        assert len(selection) == round(fraction * len(noisy.train))
    other = oracle.select(Context(dataset=noisy, fraction=0.5, seed=1))
    assert len(np.intersect1d(other.indices, oracle.select(Context(noisy, 0.5, 0)).indices)) < len(other)


def test_the_oracle_needs_noise() -> None:
    config = tiny_run(pruner="oracle", fraction=0.5)
    with pytest.raises(ConfigError, match="label_noise"):
        check_run(config, load_dataset(config.dataset))


def test_one_class_has_no_wrong_labels() -> None:
    x, y = np.zeros((30, 8, 8), np.uint8), np.zeros(30, int)
    with pytest.raises(DataError, match="there is but one"):
        with_label_noise(dataset_from_arrays(x, y, x, y), 0.2)


def test_records_say_how_much_of_what_is_kept_is_wrong(tmp_path: Path) -> None:
    data = {"digits": {"limit": 300, "test_limit": 100, "label_noise": 0.3}}
    study = tiny_study(
        tmp_path, dataset=data, pruners=["random", "oracle"], controls=[], fractions=[1.0, 0.5], seeds=[0]
    )
    wrong = run_study(study, progress=False).table.set_index(["arm", "fraction"])["wrong_labels"]
    n = len(load_dataset(data).train)
    assert wrong[("random", 1.0)] == pytest.approx(0.3, abs=0.5 / n)
    assert 0.1 < wrong[("random", 0.5)] < 0.5
    assert wrong[("oracle", 0.5)] == 0
