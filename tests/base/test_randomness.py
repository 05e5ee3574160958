"""Noise by counter against SplitMix64 in NumPy's uint64, its distribution, and the named streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from advprune_core.base.randomness import generator, normal, random_bits, stream, torch_stream, uniform

LAW = settings(derandomize=True)
KEYS = st.integers(0, 2**63 - 1)
IDS = st.lists(st.integers(0, 2**40), min_size=1, max_size=8)
GAMMA = np.uint64(0x9E3779B97F4A7C15)


def scramble(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def splitmix64(seed: int, count: int) -> np.ndarray:
    """One state that is advanced, as in the paper."""
    state, numbers = np.array([seed], dtype=np.uint64), []
    for _ in range(count):
        state = state + GAMMA
        numbers.append(scramble(state))
    return np.concatenate(numbers)


def drawn(key: int, ids: list[int], epochs: list[int], shape: tuple[int, ...], function=uniform) -> Tensor:
    return function(key, torch.tensor(ids), torch.tensor(epochs), shape)


def test_the_oracle_gives_published_numbers() -> None:
    # First outputs for the seed 1234567, as published with the reference implementations.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567, 4).tolist() == known


@LAW
@given(KEYS, IDS, st.integers(0, 1000), st.integers(1, 9))
def test_bits_are_splitmix64(key: int, ids: list[int], epoch: int, count: int) -> None:
    ours = random_bits(key, torch.tensor(ids), torch.full((len(ids),), epoch), count)
    assert ours.shape == (len(ids), count)
    assert ours.dtype == torch.int64
    for row, identity in zip(ours.numpy().view(np.uint64), ids, strict=True):
        first = scramble(np.array([(key + epoch) % 2**64], dtype=np.uint64))
        seed = scramble(first + np.array([identity], dtype=np.uint64) * GAMMA)
        assert row.tolist() == splitmix64(int(seed[0]), count).tolist()


@LAW
@given(KEYS, IDS)
def test_uniform_is_the_upper_24_bits(key: int, ids: list[int]) -> None:
    epochs = torch.zeros(len(ids), dtype=torch.int64)
    bits = random_bits(key, torch.tensor(ids), epochs, 6).numpy().view(np.uint64)
    ours = uniform(key, torch.tensor(ids), epochs, (2, 3))
    assert ours.shape == (len(ids), 2, 3)
    assert ours.dtype == torch.float32
    assert ours.min() >= 0
    assert ours.max() < 1
    expected = [[int(number) // 2**40 / 2**24 for number in row] for row in bits]
    assert ours.flatten(1).double().tolist() == expected


AXES = {
    "pixels of one image": ([5], [2], (20_000,)),
    "images": (list(range(20_000)), [0] * 20_000, (1,)),
    "epochs": ([3] * 20_000, list(range(20_000)), (1,)),
    "images and pixels": (list(range(200)), [7] * 200, (1, 10, 10)),
}


@pytest.mark.parametrize("key", [0, 1, stream(0, "attack"), 2**63 - 1])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("function", "distribution"), [(uniform, "uniform"), (normal, "norm")])
def test_distribution(function, distribution: str, axis: str, key: int) -> None:
    ids, epochs, shape = AXES[axis]
    sample = drawn(key, ids, epochs, shape, function).flatten().numpy().astype(np.float64)
    assert np.isfinite(sample).all()
    assert kstest(sample, distribution).pvalue > 1e-3
    neighbours = np.corrcoef(sample[:-1], sample[1:])[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(len(sample))


def test_neighbouring_images_epochs_and_keys_are_uncorrelated() -> None:
    size = (10_000,)
    draws = [drawn(key, [i], [e], size)[0] for key in (0, 1) for i in (0, 1) for e in (0, 1)]
    # (key 1, epoch 0) is (key 0, epoch 1): keys come from `stream`, so that they are never neighbours.
    distinct = [draws[0], draws[1], draws[2], draws[3], draws[5], draws[7]]
    correlations = np.corrcoef(torch.stack(distinct).numpy()) - np.eye(6)
    assert np.abs(correlations).max() < 5 / np.sqrt(10_000)


@LAW
@given(KEYS, st.permutations(range(6)), st.integers(1, 6), st.sampled_from([uniform, normal]))
def test_an_image_does_not_depend_on_its_batch(key: int, order: list[int], size: int, function) -> None:
    ids, epochs = [9, 4, 4, 0, 7, 100], [0, 0, 1, 3, 3, 2]
    whole = drawn(key, ids, epochs, (2, 5), function)
    chosen = order[:size]
    part = drawn(key, [ids[i] for i in chosen], [epochs[i] for i in chosen], (2, 5), function)
    if function is uniform:
        assert torch.equal(part, whole[chosen])
    else:
        torch.testing.assert_close(part, whole[chosen], atol=1e-6, rtol=1e-6)


def test_a_larger_image_begins_with_the_smaller_one() -> None:
    assert torch.equal(drawn(3, [1], [2], (4,))[0], drawn(3, [1], [2], (9,))[0, :4])


def test_normal_is_box_muller() -> None:
    noise = drawn(11, [1, 2], [0, 5], (2, 6)).double().numpy()
    expected = np.sqrt(-2 * np.log(1 - noise[:, 0])) * np.cos(2 * np.pi * noise[:, 1])
    np.testing.assert_allclose(drawn(11, [1, 2], [0, 5], (2, 3), normal).flatten(1).numpy(), expected, atol=1e-5)


NAMES = [(), ("init",), ("training",), ("attack",), ("order", 0), ("order", 1), ("order", 10), ("restart", 1), (1, "a")]


def test_streams_are_distinct_and_fit_every_seed() -> None:
    seeds = [stream(seed, *names) for seed in range(200) for names in NAMES]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream(3, "order", 1) == stream(3, "order", 1)
    # Every bit of a 63-bit seed is used.
    assert np.bitwise_or.reduce(seeds) == 2**63 - 1
    assert kstest(np.array(seeds) / 2**63, "uniform").pvalue > 1e-3


def test_generator_is_of_its_stream() -> None:
    first = generator(1, "order", 2).integers(0, 2**62, 5)
    assert first.tolist() == generator(1, "order", 2).integers(0, 2**62, 5).tolist()
    assert first.tolist() != generator(1, "order", 3).integers(0, 2**62, 5).tolist()
    assert first.tolist() != generator(2, "order", 2).integers(0, 2**62, 5).tolist()


@pytest.mark.parametrize("fails", [False, True])
def test_torch_stream_restores_the_global_generator(fails: bool) -> None:
    torch.manual_seed(99)
    undisturbed = torch.rand(4)
    torch.manual_seed(99)
    try:
        with torch_stream(0, "init"):
            torch.rand(17)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert torch.equal(torch.rand(4), undisturbed)


def test_torch_stream_depends_on_its_name_only() -> None:
    draws = []
    for before, names in [(1, ("init",)), (2, ("init",)), (1, ("training",))]:
        torch.manual_seed(before)
        with torch_stream(0, *names):
            draws.append(torch.rand(3))
            with torch_stream(0, "inner"):
                torch.rand(before)
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[2])
    assert torch.equal(draws[1], draws[3])
    assert not torch.equal(draws[0], draws[4])
