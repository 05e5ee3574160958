"""What holds for every pruner that there is, own ones aside."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset, largest_remainder
from advprune_core.pruners import PRUNERS, Context, Selection
from advprune_core.pruners.base import Pruner
from tests.contexts import blobs, context, network, watched

NAMES = [name for name, cls in PRUNERS.classes().items() if cls.__module__.startswith("advprune_core.")]
SELECTING = [name for name in NAMES if PRUNERS.parse(name).uses_model]
VARIANTS: list[Any] = [
    *SELECTING,
    {"score": {"keep": "stratified", "balanced": True}},
    {"score": {"score": "steps_to_break", "keep": "lowest"}},
    {"grad_match": {"per_class": False}},
    {"glister": {"greedy": "naive"}},
    {"glister": {"per_class": False}},
    {"herding": {"steps": None}},
]
#: Those that look at no model, but for the one that keeps all and the one that has to know wrong labels.
WITHOUT_MODEL = [name for name in NAMES if name not in (*SELECTING, "full", "oracle")]
EXACT = [spec for spec in [*VARIANTS, *WITHOUT_MODEL] if PRUNERS.parse(spec).exact]
every_pruner = pytest.mark.parametrize("spec", [*VARIANTS, *WITHOUT_MODEL], ids=str)
every_variant = pytest.mark.parametrize("spec", VARIANTS, ids=str)


@lru_cache(maxsize=64)
def state_of(spec: str, n: int, classes: int) -> dict[str, torch.Tensor]:
    return watched(PRUNERS.parse(json.loads(spec)), n, classes)


def prepared(spec: Any, made: Context) -> Context:
    """The context after the epochs that the pruner has watched."""
    return replace(made, state=state_of(json.dumps(spec), made.n, made.dataset.classes))


@every_pruner
def test_same_seed_same_selection_whatever_else_draws(spec: Any) -> None:
    made, pruner = prepared(spec, context()), PRUNERS.parse(spec)
    first = pruner.select(made)
    torch.rand(3)
    np.random.random(3)  # noqa: NPY002 (global generators must neither matter nor move)
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    again = pruner.select(made)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == str(np.random.get_state())  # noqa: NPY002
    assert first.indices.tolist() == again.indices.tolist()
    assert first.weights.tolist() == again.weights.tolist()


@every_pruner
def test_nothing_is_left_in_the_model_or_in_what_is_shared(spec: Any) -> None:
    made, pruner = prepared(spec, context()), PRUNERS.parse(spec)
    made = replace(made, policy={"carried": torch.zeros(made.n, 1, 6, 6)})
    model = made.network.train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    shared = {name: value.clone() for name, value in {**made.state, **made.policy}.items()}
    pruner.select(made)
    assert all(m.training for m in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, shared[name]) for name, value in {**made.state, **made.policy}.items())


@every_variant
def test_scoring_stays_within_its_budget(spec: Any) -> None:
    """Forward-equivalents: at most 2k + 2 an image, of val_select as well where it is used.

    Steps to break take 7 steps here, DeepFool 10 at three other classes, of which a
    broken image takes no more.
    """
    made, pruner, ledger = prepared(spec, context()), PRUNERS.parse(spec), Ledger()
    with ledger.watch(made.network), ledger.phase("select"):
        pruner.select(made)
    images = made.n + (len(made.dataset.val_select) if pruner.name in ("glister", "rcs") else 0)
    steps = 20 if pruner.name == "puma" else 7 if "fragile" in str(spec) or "steps_to_break" in str(spec) else 2
    assert ledger.passes["select"] <= (2 * steps + 2) * images
    assert ledger._in_graph == 0


@every_variant
def test_without_a_model_or_a_history_the_message_says_so(spec: Any) -> None:
    with pytest.raises(ConfigError, match=r"and there is none|need a context|observed nothing"):
        PRUNERS.parse(spec).select(Context(dataset=blobs(), fraction=0.5, seed=0))


def data(counts: list[int], *, duplicates: bool) -> Dataset:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    x = np.random.default_rng(1).random((len(labels), 6, 6), dtype=np.float32)
    if duplicates:
        x[:] = x[0]
    held_out = min(2, len(labels) - len(set(labels.tolist())))
    return dataset_from_arrays(x, labels, x, labels, val_select=held_out, val_stop=0)


def check_and_select(pruner: Pruner, made: Context) -> Selection:
    pruner.check(made)
    return pruner.select(made)


@pytest.mark.parametrize("spec", EXACT, ids=str)
@settings(max_examples=25)
@given(
    counts=st.lists(st.sampled_from([0, 1, 2, 9, 30]), min_size=2, max_size=4).filter(
        lambda c: sum(c) > 3 and c[0] and c[-1]
    ),
    fraction=st.floats(0.05, 1),
    duplicates=st.booleans(),
)
def test_exactly_k_distinct_images(spec: Any, counts: list[int], fraction: float, duplicates: bool) -> None:
    """With one image in a class, classes that are absent, and images that are all the same."""
    dataset, pruner = data(counts, duplicates=duplicates), PRUNERS.parse(spec)
    made = prepared(spec, context(fraction, dataset=dataset, model=network(dataset.classes)))
    had = np.bincount(made.labels)
    by_class = pruner.name in ("craig", "herding") or any(getattr(pruner, n, False) for n in ("balanced", "per_class"))
    refusals = []
    if pruner.name in ("glister", "rcs") and len(dataset.val_select) == 0:  # as of classes with one image each
        refusals.append("needs held-out images")
    if made.k == 0:
        refusals.append("keeps none|at least one index")
    if by_class and (largest_remainder(made.k, had)[had > 0] == 0).any():
        refusals.append("would leave class")
    if refusals:
        with pytest.raises(ConfigError, match="|".join(refusals)):
            check_and_select(pruner, made)
        return
    selection = check_and_select(pruner, made)
    assert len(selection) == made.k == int(fraction * made.n + 0.5)
    assert len(set(selection.indices.tolist())) == made.k
    assert selection.indices.max() < made.n
    if pruner.uses_model:  # a random subset may miss a class, which a run then refuses
        assert len(set(made.labels[selection.indices].tolist())) == min(np.count_nonzero(had), made.k)
    assert 0 <= selection.n_filled <= made.k
