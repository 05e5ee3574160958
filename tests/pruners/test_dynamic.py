"""Pruners that choose anew all the time: rounds without replacement, InfoBatch, the hardest of a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.augmentation import Crops
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset, largest_remainder
from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import keep
from advprune_core.pruners.infobatch import InfoBatch, infobatch
from advprune_core.pruners.loss_top import LossTop, loss_top
from advprune_core.pruners.random import Redraw
from tests.contexts import context, told


@settings(max_examples=40)
@given(st.floats(0.03, 0.97), st.booleans(), st.integers(0, 50), st.integers(1, 3))
def test_every_image_once_before_any_twice(fraction: float, balanced: bool, seed: int, every: int) -> None:
    made, pruner = context(fraction, seed=seed), Redraw(in_turn=True, balanced=balanced, every=every, warmup_epochs=2)
    counts = np.zeros(made.n, int)
    if balanced and (largest_remainder(made.k, np.bincount(made.labels)) == 0).any():
        with pytest.raises(ConfigError, match="would leave class"):
            pruner.select(made)
        return
    epochs = [2 + every * turn for turn in range(12)]
    selections = [pruner.select(replace(made, epoch=epoch)).indices for epoch in epochs]
    groups = [made.labels == label for label in range(4)] if balanced else [np.ones(made.n, bool)]
    for selection in selections:
        assert len(selection) == len(set(selection.tolist())) == made.k
        counts[selection] += 1
        assert all(np.ptp(counts[group]) <= 1 for group in groups)


def test_rounds_are_in_another_order_each() -> None:
    made, pruner = context(0.5), Redraw(in_turn=True)
    first, second, third = (set(pruner.select(replace(made, epoch=e)).indices.tolist()) for e in range(3))
    assert not first & second
    assert third not in (first, second)


def test_a_pruned_epoch_is_unbiased() -> None:
    """The weighted sum of any values, over many draws, is that over all images."""
    rng = np.random.default_rng(0)
    losses, values = rng.exponential(size=200), rng.standard_normal(200) + 1
    totals = []
    for seed in range(2000):
        kept, weights = infobatch(losses, 140, rng=np.random.default_rng(seed))
        totals.append(float(weights @ values[kept]))
    assert np.mean(totals) == pytest.approx(values.sum(), abs=5 * np.std(totals) / np.sqrt(len(totals)))


def below_mean(losses: np.ndarray) -> np.ndarray:
    """Which images are below the mean of those that have a loss; summed as those alone are, to the same last bit."""
    known = losses[~np.isnan(losses)]
    return losses < known.mean() if len(known) else np.zeros(len(losses), bool)


def without_floors(losses: np.ndarray, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """InfoBatch as the paper has it, which looks at no classes."""
    below = np.flatnonzero(losses < losses.mean())
    out = rng.permutation(below)[: min(len(losses) - k, int(0.9 * len(below)))]
    weights = np.where(losses < losses.mean(), len(below) / (len(below) - len(out)), 1.0)
    return np.delete(np.arange(len(losses)), out), np.delete(weights, out)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [3, 30, 70])
def test_without_floors_nothing_else_is_drawn(k: int, seed: int) -> None:
    """Nor where each class has enough above the mean."""
    losses, labels = np.random.default_rng(seed).exponential(size=80), np.arange(80) % 2
    assert np.bincount(labels[losses >= losses.mean()]).min() >= 3
    expected = without_floors(losses, k, np.random.default_rng(seed))
    for floors in ({}, {"labels": labels}, {"labels": labels, "least": 3}):
        found = infobatch(losses, k, rng=np.random.default_rng(seed), **floors)
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@given(
    st.lists(st.tuples(st.floats(0, 9) | st.just(float("nan")), st.integers(0, 3)), min_size=2, max_size=60),
    st.floats(0.1, 0.9),
    st.floats(0.1, 0.95),
    st.integers(0, 20),
)
def test_every_class_keeps_as_many_as_it_has_to(
    images: list[tuple[float, int]], fraction: float, most: float, least: int
) -> None:
    losses, labels = (np.array(column) for column in zip(*images, strict=True))
    k = max(1, round(fraction * len(losses)))
    rng = np.random.default_rng(0)
    kept, weights = infobatch(losses, k, max_ratio=most, rng=rng, labels=labels, least=least)
    counts, had = (np.bincount(some, minlength=4) for some in (labels[kept], labels))
    assert (counts >= np.minimum(had, least)).all()
    assert len(kept) >= k
    assert weights.max() <= 1 / (1 - most) + 1e-9
    assert weights.sum() == pytest.approx(len(losses))
    below = below_mean(losses)
    assert np.isin(np.flatnonzero(~below), kept).all()
    assert (weights[~below[kept]] == 1).all()
    for label in range(4):  # as many of weight 1 as the class lacks, and no more
        always = int((~below & (labels == label)).sum())
        protected = int(((weights == 1) & below[kept] & (labels[kept] == label)).sum())
        if len(kept) < len(losses):
            assert protected == max(0, min(least, had[label]) - always)


@pytest.mark.parametrize("least", [0, 5, 12])
def test_a_pruned_epoch_is_unbiased_whatever_every_class_has_to_keep(least: int) -> None:
    """Of each class: to exchange images for those that a class lacks took the lightest of others, for good."""
    made = context(0.7, min_per_class=least)
    well_learned = np.isin(made.labels, [1, 2])  # hardly any image of them is above the mean
    losses = np.random.default_rng(0).exponential(size=made.n) * np.where(well_learned, 0.1, 1.0)
    state, pruner = {"losses": torch.from_numpy(losses).float()}, InfoBatch(full_at_end=0)
    totals = []
    for seed in range(1500):
        one = replace(made, seed=seed, state=state)
        found = keep(pruner, one)
        assert len(found) == made.k
        assert found.n_filled == 0
        assert np.bincount(made.labels[found.indices]).min() >= min(least, np.bincount(made.labels).min())
        weighted = found.weights * losses[found.indices]
        totals.append([weighted.sum(), *np.bincount(made.labels[found.indices], weighted, minlength=4)])
    expected = [losses.sum(), *np.bincount(made.labels, losses)]
    error = np.std(totals, axis=0) / np.sqrt(len(totals))
    assert (np.abs(np.mean(totals, axis=0) - expected) < 5 * error + 1e-5).all()


def test_a_class_that_a_draw_has_left_empty_gets_an_image_and_nothing_else_changes() -> None:
    """Such a draw ended the run in the midst of training, and again after each restart."""
    labels = np.repeat([0, 1, 2], [40, 40, 2])
    made = replace(context(0.3, dataset=dataset_of(labels)), min_per_class=0)
    losses = np.where(labels == 2, 0.01, np.random.default_rng(0).exponential(size=len(labels)))
    state, emptied = {"losses": torch.from_numpy(losses).float()}, 0
    for seed in range(20):
        one = replace(made, seed=seed, state=state)
        known = losses.astype(np.float32).astype(np.float64)
        indices, weights = infobatch(known, one.k, rng=one.rng, labels=labels)
        found = keep(InfoBatch(full_at_end=0), one)
        drawn = np.isin(found.indices, indices)
        assert np.array_equal(found.indices[drawn], indices)
        assert np.array_equal(found.weights[drawn], weights.astype(np.float32))
        added = found.indices[~drawn]
        assert len(added) == found.n_filled == (2 not in labels[indices])
        assert (labels[added] == 2).all()
        assert (found.weights[~drawn] == 1).all()
        emptied += len(added)
    assert 0 < emptied < 20


def dataset_of(labels: np.ndarray) -> Dataset:
    """Grey images of these classes; none is held out."""
    x = np.zeros((len(labels), 4, 4), np.float32)
    return dataset_from_arrays(x, labels, x, labels, val_select=0, val_stop=0)


@given(
    st.lists(st.floats(0, 9) | st.just(float("nan")), min_size=2, max_size=60),
    st.floats(0.1, 0.9),
    st.floats(0.1, 0.95),
)
@example([float("nan")] * 2 + [0.1] * 6, 0.5, 0.5)  # NumPy's nanmean of these has another last bit
def test_only_well_learned_images_are_dropped(losses: list[float], fraction: float, most: float) -> None:
    values = np.array(losses)
    k = max(1, round(fraction * len(values)))
    kept, weights = infobatch(values, k, max_ratio=most, rng=np.random.default_rng(0))
    below = below_mean(values)
    dropped = np.setdiff1d(np.arange(len(values)), kept)
    assert below[dropped].all()
    assert len(kept) >= k
    assert len(kept) == k or len(dropped) == int(most * below.sum())
    assert (weights[~below[kept]] == 1).all()
    assert weights.max() <= 1 / (1 - most) + 1e-9
    assert weights.sum() == pytest.approx(len(values))


def losses_of(made: Any) -> dict[str, torch.Tensor]:
    return {"losses": torch.from_numpy(np.random.default_rng(3).exponential(size=made.n)).float()}


def test_infobatch_drops_images_of_low_loss_in_the_last_epoch() -> None:
    """Six of ten are below the mean of 2.3, three of them are dropped, the others of them count twice."""
    last = torch.tensor([0.1, 5.0, 0.5, 6.0, 0.2, 0.3, 5.5, 0.4, 4.5, 0.5])
    low = (last < 2.3).numpy()
    state, pruner, labels, kept = dict[str, torch.Tensor](), InfoBatch(), np.arange(10) % 2, np.zeros(10, int)
    for losses in (6 - last, last):
        for ids in torch.tensor([7, 0, 4, 9, 2, 1, 5, 3, 8, 6]).split(4):
            batch = Batch(torch.zeros(len(ids), 1, 1, 1), ids % 2, ids, ids * 0, ids * 0 + 1.0)
            pruner.observe(batch, Outputs(losses[ids], torch.zeros(len(ids), 2)), state)
    for seed in range(30):
        found = pruner.select(told(0.7, labels, state=state, seed=seed))
        assert len(found) == 7
        assert found.weights.tolist() == np.where(low, 2.0, 1.0)[found.indices].tolist()
        kept[found.indices] += 1
    assert (kept[~low] == 30).all()
    assert (kept[low] < 30).all()


def test_infobatch_draws_anew_and_ends_on_all_data() -> None:
    made = context(0.7)
    made, pruner = replace(made, state=losses_of(made)), InfoBatch()
    kept = {epoch: pruner.select(replace(made, epoch=epoch)) for epoch in range(1, 30)}
    assert not pruner.due(0)
    assert all(pruner.due(epoch) for epoch in kept)
    full = [epoch for epoch, selection in kept.items() if len(selection) == made.n]
    assert full == [27, 28, 29]  # the last eighth of 30 epochs begins at 26.25
    assert all((kept[epoch].weights == 1).all() for epoch in full)
    assert {len(kept[epoch]) for epoch in range(1, 27)} == {made.k}
    assert len({tuple(kept[epoch].indices.tolist()) for epoch in range(1, 27)}) == 26
    assert kept[1].weights.sum() == pytest.approx(made.n, rel=1e-5)


def test_infobatch_must_know_how_long_the_run_is() -> None:
    made = context(0.7)
    made = replace(made, state=losses_of(made), epochs=0.0)
    with pytest.raises(ConfigError, match="how long the run is"):
        InfoBatch().select(made)
    assert len(InfoBatch(full_at_end=0).select(made)) == made.k


def test_the_hardest_of_a_batch_by_hand() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
    x = torch.tensor([0.1, 0.9, 0.5, 0.3])[:, None, None, None]
    assert loss_top(model, x, torch.ones(4).long(), 2).tolist() == [0, 3]
    assert loss_top(model, x, torch.zeros(4).long(), 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize(("fraction", "candidates"), [(1.0, 64), (0.5, 128), (0.3, 213), (0.4, 160)])
def test_loss_top_says_how_many_it_scores(fraction: float, candidates: int) -> None:
    assert LossTop().candidates(64, fraction) == candidates


def test_narrowing_keeps_rows_together_and_leaves_no_trace() -> None:
    made, ledger = context(), Ledger()
    model = made.network.train()
    split, ids = made.dataset.train, torch.arange(40, 60)
    crops = Crops(ids * 3, ids * 4, ids % 2 == 0, 1)
    batch = Batch(split.pixels(ids), split.labels[ids], ids, ids * 2, ids / 10, crops)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with ledger.watch(model), ledger.phase("select"):
        narrow = LossTop().narrow(model, batch, 8)
    assert ledger.passes == {"select": 20}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert len(narrow.ids) == 8
    assert torch.equal(narrow.epochs, narrow.ids * 2)
    assert torch.equal(narrow.weights, narrow.ids / 10)
    assert torch.equal(narrow.crops.top, narrow.ids * 3)
    assert torch.equal(narrow.crops.left, narrow.ids * 4)
    assert torch.equal(narrow.crops.flip, narrow.ids % 2 == 0)
    assert torch.equal(narrow.y, split.labels[narrow.ids])
    assert torch.equal(narrow.x, split.pixels(narrow.ids))
    assert LossTop().narrow(model, batch, 20) is batch


def test_other_pruners_leave_batches_alone() -> None:
    assert Redraw().candidates(64, 0.2) == 64
