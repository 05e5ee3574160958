"""Batches of one size: nothing lost, nothing twice in a batch, orders that pair."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advprune_core.pruners import Selection
from advprune_core.trainers.batches import BatchQueue, epoch_order

Visit = tuple[int, int, float]


def visits(ids: Any, epochs: Any, weights: Any) -> list[Visit]:
    return [(int(i), int(e), round(float(w), 4)) for i, e, w in zip(ids, epochs, weights, strict=True)]


def draw(n: int, k: int, *, seed: int, epoch: int) -> Selection:
    """`k` of `n` images; the weight tells image and epoch apart."""
    indices = np.sort(np.random.default_rng([seed, epoch]).permutation(n)[:k])
    return Selection(indices, 1 + epoch + indices / 1000)


@settings(max_examples=150)
@given(
    size=st.integers(1, 12),
    extra=st.integers(0, 15),
    spare=st.integers(0, 20),
    epochs=st.integers(1, 7),
    share=st.floats(0.01, 1),
    redraw=st.booleans(),
    seed=st.integers(0, 99),
)
def test_nothing_is_lost_repeated_or_twice_in_a_batch(
    size: int, extra: int, spare: int, epochs: int, share: float, redraw: bool, seed: int
) -> None:
    k, n = size + extra, size + extra + spare
    queue, added, served = BatchQueue(size), [], []
    for epoch in range(epochs):
        selection = draw(n, k, seed=seed, epoch=epoch if redraw else 0)
        last = epoch == epochs - 1
        ids = epoch_order(seed, epoch, n, selection, share if last else 1.0)
        assert len(ids) == (round(share * k) if last else k)
        weight = dict(zip(selection.indices, selection.weights, strict=True))
        added += visits(ids, [epoch] * len(ids), [weight[i] for i in ids])
        queue.add(ids, epoch, selection)
        for batch in queue.batches():
            assert len(batch[0]) == size
            assert len(set(batch[0].tolist())) == size
            served += visits(*batch)
        # What waits is not enough for one more batch, and never piles up.
        assert len(set(queue.ids.tolist())) < size
        assert len(queue) < 2 * size
    waiting = visits(queue.ids, queue.epochs, queue.weights)
    assert len(waiting) == len(queue)
    assert Counter(served) + Counter(waiting) == Counter(added)


@given(
    size=st.integers(1, 10),
    extra=st.integers(0, 12),
    stop=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_a_saved_queue_goes_on_alike(size: int, extra: int, stop: int, seed: int) -> None:
    n = size + extra + 3

    def run(saved_at: int | None) -> list[Visit]:
        queue, served = BatchQueue(size), []
        for epoch in range(5):
            selection = draw(n, size + extra, seed=seed, epoch=epoch)
            queue.add(epoch_order(seed, epoch, n, selection), epoch, selection)
            for batch in queue.batches():
                served += visits(*batch)
            if epoch == saved_at:
                file = io.BytesIO()
                torch.save(queue.state(), file)
                file.seek(0)
                queue = BatchQueue(size)
                queue.load(torch.load(file, weights_only=True))
        return [*served, *visits(queue.ids, queue.epochs, queue.weights)]

    assert run(saved_at=stop) == run(saved_at=None)


def fill(queue: BatchQueue, ids: list[int], epoch: int = 0) -> None:
    queue.add(np.array(ids), epoch, Selection(sorted(ids)))


def test_batches_by_hand() -> None:
    queue = BatchQueue(3)
    fill(queue, [4, 1, 3, 2])
    assert [batch[0].tolist() for batch in queue.batches()] == [[4, 1, 3]]
    # Image 2 waits, and comes again as the second of the next epoch: that visit is put off, not dropped.
    fill(queue, [1, 2, 4, 3], epoch=1)
    assert [visits(*batch) for batch in queue.batches()] == [[(2, 0, 1), (1, 1, 1), (4, 1, 1)]]
    assert visits(queue.ids, queue.epochs, queue.weights) == [(2, 1, 1), (3, 1, 1)]
    fill(queue, [3, 4, 2, 1], epoch=2)
    assert [visits(*batch) for batch in queue.batches()] == [
        [(2, 1, 1), (3, 1, 1), (4, 2, 1)],
        [(3, 2, 1), (2, 2, 1), (1, 2, 1)],
    ]
    assert len(queue) == 0


def test_without_distinct_images_the_queue_waits() -> None:
    queue = BatchQueue(3)
    fill(queue, [0, 1])
    fill(queue, [1, 0], epoch=1)
    assert [*queue.batches()] == []
    fill(queue, [2], epoch=2)
    assert [batch[0].tolist() for batch in queue.batches()] == [[0, 1, 2]]
    assert visits(queue.ids, queue.epochs, queue.weights) == [(1, 1, 1), (0, 1, 1)]


@pytest.mark.parametrize("epoch", [0, 3])
def test_two_selections_of_one_seed_pair(epoch: int) -> None:
    n, rng = 200, np.random.default_rng(0)
    first, second = (Selection(np.sort(rng.permutation(n)[:k])) for k in (120, 70))
    common = set(first.indices) & set(second.indices)
    assert len(common) > 20
    orders = [[i for i in epoch_order(5, epoch, n, s) if i in common] for s in (first, second)]
    assert orders[0] == orders[1]
    full = epoch_order(5, epoch, n, Selection(np.arange(n)))
    assert [i for i in full if i in common] == orders[0]


def test_orders_differ_by_seed_and_epoch_and_are_permutations() -> None:
    everything = Selection(np.arange(50))
    orders = [epoch_order(seed, epoch, 50, everything).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert all(sorted(order) == list(range(50)) for order in orders)
    before = torch.get_rng_state()
    assert epoch_order(0, 0, 50, everything).tolist() == orders[0]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("share", "count"), [(1.0, 40), (0.5, 20), (0.26, 10), (0.0, 0)])
def test_a_fraction_of_an_epoch_is_its_beginning(share: float, count: int) -> None:
    selection = Selection(np.arange(0, 80, 2))
    whole = epoch_order(1, 2, 80, selection)
    assert epoch_order(1, 2, 80, selection, share).tolist() == whole[:count].tolist()
