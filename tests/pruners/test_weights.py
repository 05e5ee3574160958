"""Weights of subsets: what is matched, and how long the steps are, against dense gradients in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.pruners import PRUNERS, Context, Selection
from advprune_core.pruners.grad_match import grad_match, grad_match_by_batch, grad_match_by_class
from advprune_core.pruners.gradients import LastLayerGradients
from advprune_core.pruners.selecting import select
from advprune_core.pruners.selection import by_class
from advprune_core.pruners.weights import GradientPruner, step_ratio, weigh
from advprune_core.study.finished import run_record
from advprune_core.trainers.loop import train
from tests.contexts import blobs, context
from tests.tiny import tiny_run

WEIGHTING: list[Any] = [
    "grad_match",
    {"grad_match": {"per_class": False}},
    {"grad_match": {"per_class": False, "lam": 50.0}},
    "grad_match_pb",
    "craig",
]


def dense(gradients: LastLayerGradients) -> np.ndarray:
    """All gradients (n, classes * d), term by term."""
    taken = gradients[:]  # with the ones of the bias
    terms = zip(taken.errors, taken.features, strict=True)
    return sum(np.einsum("nc,nd->ncd", e.double().numpy(), h.double().numpy()) for e, h in terms).reshape(
        len(gradients), -1
    )


def ratio_of(matrix: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> float:
    """Length of a weighted mean over that of the mean of all."""
    return float(np.linalg.norm(weights @ matrix[indices] / len(indices)) / np.linalg.norm(matrix.mean(0)))


def toy(n: int = 300) -> tuple[LastLayerGradients, np.ndarray]:
    """Softmax errors of three classes on features that share a direction, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    noise, prior = torch.randn(n, 3, generator=generator, dtype=torch.float64), torch.tensor([0.5, 0.0, -0.5])
    p = torch.softmax(noise + prior, 1)
    errors = p - torch.nn.functional.one_hot(labels, 3)
    features = torch.randn(n, 20, generator=generator, dtype=torch.float64) + 1
    return LastLayerGradients((errors,), (features,)), labels.numpy()


def test_raw_weights_stand_for_the_sum_and_weights_of_mean_one_lengthen_the_step() -> None:
    """The weights of a pursuit, times k / n, leave the step as it is; their mean is below 1."""
    gradients, labels = toy()
    matrix, n, k, rng = dense(gradients), 300, 60, np.random.default_rng(0)
    found = {
        "jointly": grad_match(gradients, k, lam=0.5, rng=rng),
        "by class": grad_match_by_class(gradients, by_class(labels, np.array([20, 20, 20])), lam=0.5, rng=rng),
        "by batch": grad_match_by_batch(gradients, k, batch_size=4, rng=rng),
    }
    for way, pursuit in found.items():
        assert ratio_of(matrix, pursuit.indices, pursuit.weights * k / n) == pytest.approx(1, abs=0.02), way
        one = Selection(pursuit.indices, (pursuit.weights / pursuit.weights.mean()).astype(np.float32))
        assert ratio_of(matrix, one.indices, one.weights) > 1.3, way
        matched = weigh(one, gradients, "matched")
        assert matched.step_ratio == pytest.approx(1, abs=1e-5)
        raw = pursuit.weights[np.argsort(pursuit.indices)] * k / n
        np.testing.assert_allclose(matched.weights, raw, rtol=0.02)


@pytest.mark.parametrize("objective", ["pgd_at", "trades"])
@pytest.mark.parametrize("spec", WEIGHTING, ids=str)
def test_the_ratio_is_that_of_the_step_and_matched_makes_it_one(spec: Any, objective: str) -> None:
    made = context(0.25, objective=objective)
    pruner = PRUNERS.parse(spec)
    matrix = dense(pruner.gradients(made))
    found = {how: pruner.replace(weights=how).select(made) for how in ("mean_one", "matched", "none")}
    for selection in found.values():
        assert selection.indices.tolist() == found["mean_one"].indices.tolist()
        expected = ratio_of(matrix, selection.indices, selection.weights.astype(float))
        assert selection.step_ratio == pytest.approx(expected, rel=1e-4)
    assert found["matched"].step_ratio == pytest.approx(1, abs=1e-4)
    assert found["mean_one"].weights.mean() == pytest.approx(1, rel=1e-5)
    assert (found["none"].weights == 1).all()
    # All of them point the same way: only the length is another.
    shares = found["matched"].weights / found["mean_one"].weights
    assert shares.max() == pytest.approx(shares.min(), rel=1e-5)


def test_clusters_weighted_by_size_leave_the_step_about_as_long() -> None:
    lengths = [PRUNERS.parse("craig").select(context(f, objective="pgd_at")).step_ratio for f in (0.25, 0.4, 0.6)]
    assert lengths == pytest.approx([1, 1, 1], abs=0.1)


def test_unit_weights_have_a_ratio_as_well() -> None:
    made = context(0.4, objective="pgd_at")
    pruner = PRUNERS.parse("glister")
    selection = pruner.select(made)
    expected = ratio_of(dense(pruner.gradients(made)), selection.indices, np.ones(made.k))
    assert selection.step_ratio == pytest.approx(expected, rel=1e-4)
    assert PRUNERS.parse("score").select(made).step_ratio is None


@pytest.mark.parametrize("ratio", [1.0, 0.4, 2.5])
def test_random_steps_are_as_long_as_asked_for(ratio: float) -> None:
    made = context(0.25, objective="trades")
    pruner = PRUNERS.parse({"random_steps": {"ratio": ratio}})
    selection = pruner.select(made)
    weights = selection.weights.astype(float)
    assert len(set(weights)) == 1  # of chance alone
    assert ratio_of(dense(pruner.gradients(made)), selection.indices, weights) == pytest.approx(ratio, rel=1e-4)
    assert selection.step_ratio == pytest.approx(ratio, rel=1e-4)
    assert selection.indices.tolist() == PRUNERS.parse("random").select(made).indices.tolist()


def test_no_weight_lengthens_steps_of_no_length(monkeypatch: pytest.MonkeyPatch) -> None:
    made = context(0.25, objective="pgd_at")
    nothing = LastLayerGradients((torch.zeros(made.n, 3),), (torch.ones(made.n, 2),))
    monkeypatch.setattr(GradientPruner, "gradients", lambda *_: nothing)
    selection = PRUNERS.parse({"random_steps": {"ratio": 3}}).select(made)
    assert selection.step_ratio is None
    assert (selection.weights == 1).all()


@settings(max_examples=40)
@given(st.integers(2, 30), st.integers(0, 999), st.data())
def test_ratios_of_any_selection(n: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    e, h = (torch.from_numpy(rng.standard_normal((n, d))) for d in (3, 4))
    gradients, k = LastLayerGradients((e, -e), (h, h.flip(0))), data.draw(st.integers(1, n))
    selection = Selection(rng.permutation(n)[:k], rng.random(k) + 0.1)
    found = step_ratio(gradients, selection)
    assert found == pytest.approx(ratio_of(dense(gradients), selection.indices, selection.weights), rel=1e-6)
    everything = Selection(np.arange(n), np.full(n, 3.0))
    assert step_ratio(gradients, everything) == pytest.approx(3)


def test_where_all_gradients_are_zero_nothing_is_scaled() -> None:
    nothing = LastLayerGradients((torch.zeros(6, 3),), (torch.ones(6, 2),))
    selection = weigh(Selection(np.arange(3), np.array([0.5, 1, 1.5])), nothing, "matched")
    assert selection.step_ratio is None
    assert selection.weights.tolist() == [0.5, 1, 1.5]


def test_an_image_for_an_empty_class_is_part_of_the_step() -> None:
    """The exchange comes before the weights, so that the ratio is of what is trained on."""
    made = context(0.06, dataset=blobs((60, 60, 3), val_select=0), objective="pgd_at")
    pruner = PRUNERS.parse({"grad_match": {"per_class": False, "weights": "matched"}})
    for seed in range(8):
        drawn = Context(**{**vars(made), "seed": seed})
        selection = pruner.select(drawn)
        assert selection.step_ratio == pytest.approx(1, abs=1e-4)
        if selection.n_filled:
            return
    pytest.fail("no class was left empty: choose another data set")


def test_a_run_records_the_ratio_of_its_epochs_on_a_selection() -> None:
    """Two warm-up epochs say nothing; then one selection holds for two epochs, another for one."""
    made = tiny_run(pruner={"grad_match": {"warmup_epochs": 2, "every": 2}}, epochs=5, fraction=0.4)
    dataset = load_dataset(made.dataset)
    result = train(made, dataset)
    first, second = (result.selections[epoch].step_ratio for epoch in (2, 4))
    assert [row.get("step_ratio") for row in result.metrics] == [None, None, first, first, second]
    record = run_record(made.train_key(dataset), made, dataset, result)
    assert record.step_ratio == pytest.approx((2 * first + second) / 3)
    other = tiny_run(pruner="random", epochs=2, fraction=0.4)
    assert run_record(other.train_key(dataset), other, dataset, train(other, dataset)).step_ratio is None


def test_those_that_measure_say_so() -> None:
    for name, cls in PRUNERS.classes().items():
        if cls.__module__.startswith("advprune_core."):
            assert cls.measures_steps == issubclass(cls, GradientPruner), name


@pytest.mark.parametrize("pruner", ["grad_match", "grad_match_pb", "craig", "glister", "random_steps"])
def test_steps_of_an_attack_that_nobody_makes_are_refused(pruner: str) -> None:
    """They had no effect but another key."""
    spec = {pruner: {"steps": 5}}
    with pytest.raises(ConfigError, match=f"steps = 5 of {pruner} have no effect: the objective 'standard'"):
        tiny_run(objective="standard", pruner=spec, fraction=0.3)
    with pytest.raises(ConfigError, match="have no effect"):
        select(np.arange(40) % 2, pruner=spec, fraction=0.5, objective="standard", logits=np.eye(2)[np.arange(40) % 2])
    assert tiny_run(objective="standard", pruner=pruner, fraction=0.3).pruner.name == pruner
    assert tiny_run(pruner=spec, fraction=0.3).pruner.name == pruner
    assert tiny_run(objective="standard", pruner={"rcs": {"steps": 5}}, fraction=0.3).pruner.name == "rcs"
