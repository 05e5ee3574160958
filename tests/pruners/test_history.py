"""Scores that training gives for free, by hand and against other implementations."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.base import Outputs
from advprune_core.objectives.batch import Batch
from advprune_core.pruners import PRUNERS
from advprune_core.pruners.aum import AUM, aum, note_margin
from advprune_core.pruners.base import ModelPruner
from advprune_core.pruners.dual import DUAL, beta_shapes, drawn, dual, note_difficulty
from advprune_core.pruners.dynamic_uncertainty import DynamicUncertainty, dynamic_uncertainty, note_probability
from advprune_core.pruners.forgetting import forgetting, note_forgetting
from advprune_core.pruners.history import completed
from advprune_core.pruners.tdds import TDDS, note_change, tdds
from tests.contexts import context, told, watched

EPOCHS, N, CLASSES = 9, 40, 5


def trajectory(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (epochs, n, classes) and labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(EPOCHS, N, CLASSES, generator=generator), torch.randint(0, CLASSES, (N,), generator=generator)


def note_all(note: Any, logits: Tensor, **settings: Any) -> dict[str, Tensor]:
    """Each epoch in batches of another order."""
    state: dict[str, Tensor] = {}
    for epoch, values in enumerate(logits):
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(epoch))
        for ids in order.split(7):
            given = {name: value[ids] if name == "y" else value for name, value in settings.items()}
            note(state, ids=ids, logits=values[ids], **given)
    return state


def test_forgetting_by_hand() -> None:
    """Right (1) or wrong (0) by epoch: forgotten twice, once, never, and never learnt."""
    rights = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).T
    logits = torch.stack([rights.float(), torch.full_like(rights.float(), 0.5)], 2)
    state = note_all(note_forgetting, logits, y=torch.zeros(4).long())
    assert forgetting(state, 4).tolist() == [2, 1, 0, 4]


def test_aum_by_hand() -> None:
    logits = torch.tensor([[[3.0, 1.0, 2.0]], [[1.0, 4.0, 0.0]]])
    assert aum(note_all(note_margin, logits, y=torch.tensor([0])), 1).tolist() == [(1 - 3) / 2]


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_ccs_on_aum_drops_the_lowest_margins(of: str) -> None:
    """Its recipe, of ten images: the three of the lowest margins are cut as the hardest, and seven are kept."""
    margins = torch.tensor([4.0, -3, 6, -1, 0, 1, -2, 3, 5, 2])
    labels = torch.arange(10) % 2
    pruner = AUM.create(of=of, keep={"stratified": {"hard_cutoff": 0.3}})
    state: dict[str, Tensor] = {}
    for shift in (0.5, -0.5):  # the mean of both epochs is what is said above
        lead = margins + shift
        logits = torch.stack([torch.where(labels == 0, lead, 0.0), torch.where(labels == 1, lead, 0.0)], 1)
        for ids in torch.tensor([7, 0, 4, 9, 2, 1, 5, 3, 8, 6]).split(4):
            batch = Batch(torch.zeros(len(ids), 1, 1, 1), labels[ids], ids, ids * 0, ids * 0 + 1.0)
            pruner.observe(batch, Outputs(torch.zeros(len(ids)), logits[ids]), state)
    made = told(0.7, labels.numpy(), state=state)
    assert pruner.select(made).indices.tolist() == [0, 2, 4, 5, 7, 8, 9]


class Recorded:
    """What datacull's scores read: outputs by epoch."""

    def __init__(self, cls: Any, logits: Tensor, **given: Any) -> None:
        self.cls, self.logits = cls, logits
        self.__dict__.update(sample_importance=None, trajectory_length=len(logits), **given)

    def extract_trajectory_segment(self, start: int) -> list[Any]:
        return self.logits[start : start + self.window_size].tolist()

    def compute_importance(self) -> np.ndarray:
        return self.cls.compute_importance(self)


def test_aum_of_probabilities_is_another_implementations() -> None:
    peer = import_module("datacull.methods.CCS").AUMImportance
    logits, y = trajectory()
    theirs = Recorded(peer, logits, window_size=1, targets=y.numpy(), logsoftmax=torch.nn.LogSoftmax(dim=1))
    ours = aum(note_all(note_margin, logits, y=y, of="probabilities"), N)
    np.testing.assert_allclose(ours, theirs.compute_importance(), rtol=1e-4, atol=1e-6)


def test_tdds_is_another_implementations_up_to_the_root() -> None:
    """datacull sums squares without the root, so they agree window by window, squared."""
    peer = import_module("datacull.methods.TDDS").TDDSImportance
    logits, _ = trajectory()
    for window in (3, 5, EPOCHS):
        one = logits[:window]
        theirs = Recorded(peer, one, window_size=window, decay=1.0, logsoftmax=torch.nn.LogSoftmax(dim=2))
        ours = tdds(note_all(note_change, one, window=window, decay=1.0), N, window=window)
        np.testing.assert_allclose(ours**2, theirs.compute_importance(), rtol=1e-3, atol=1e-7)


def test_tdds_averages_its_windows() -> None:
    """Each window's depth from another run over that window alone."""
    logits, _ = trajectory()
    window, decay, expected = 4, 0.7, np.zeros(N)
    for start in range(EPOCHS - window + 1):
        part = note_all(note_change, logits[start : start + window], window=window, decay=1.0)
        expected = decay * tdds(part, N, window=window) + (1 - decay) * expected
    found = tdds(note_all(note_change, logits, window=window, decay=decay), N, window=window)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("window", [2, 4, EPOCHS])
def test_dynamic_uncertainty_is_the_mean_spread_of_windows(window: int) -> None:
    logits, y = trajectory()
    p = torch.softmax(logits, 2).numpy()[:, np.arange(N), y.numpy()]
    expected = np.mean([p[t : t + window].std(0, ddof=1) for t in range(EPOCHS - window + 1)], 0)
    found = dynamic_uncertainty(note_all(note_probability, logits, y=y, window=window), N, window=window)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("window", [2, 4, EPOCHS])
def test_dual_is_the_mean_of_spread_times_difficulty_of_windows(window: int) -> None:
    logits, y = trajectory()
    p = torch.softmax(logits, 2).numpy()[:, np.arange(N), y.numpy()]
    windows = [p[t : t + window] for t in range(EPOCHS - window + 1)]
    expected = np.mean([part.std(0, ddof=1) * (1 - part.mean(0)) for part in windows], 0)
    state = note_all(note_difficulty, logits, y=y, window=window)
    np.testing.assert_allclose(dual(state, N, window=window), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state["total"] / state["visits"], p.mean(0), rtol=1e-5)


@pytest.mark.parametrize(("mode", "pruned"), [(0.2, 0.3), (0.2, 0.9), (0.6, 0.5)])
def test_the_density_has_its_mode_at_the_hardest_and_moves_to_the_easy_ones(mode: float, pruned: float) -> None:
    a, b = beta_shapes(mode, pruned, exponent=4)
    assert b == pytest.approx(15 * (1 - mode) * (1 - pruned**4))
    assert a + b == 16
    nothing = beta_shapes(mode, 1e-9, exponent=4)
    assert nothing == pytest.approx((16 - 15 * (1 - mode), 15 * (1 - mode)))
    assert stats.beta.mean(a, b) >= stats.beta.mean(*nothing)


def test_images_are_drawn_in_proportion_to_what_is_left() -> None:
    """Against the probabilities of every ordered draw of two from four."""
    weights, counts = np.array([0.5, 0.3, 0.2, 0.0]), np.zeros(4)
    for seed in range(4000):
        counts[drawn(weights, 2, rng=np.random.default_rng(seed))] += 1
    pairs = list(permutations(range(3), 2))
    chances = {pair: weights[pair[0]] * weights[pair[1]] / (1 - weights[pair[0]]) for pair in pairs}
    expected = [sum(p for pair, p in chances.items() if image in pair) for image in range(3)]
    np.testing.assert_allclose(counts[:3] / 4000, expected, atol=0.025)
    assert counts[3] == 0
    assert sorted(drawn(weights, 4, rng=np.random.default_rng(0))) == [0, 1, 2, 3], "what weighs nothing comes last"


def test_dual_lets_easy_images_in_as_more_is_dropped() -> None:
    spec, made = {"dual": {"exponent": 4}}, context(0.5)
    pruner = PRUNERS.parse(spec)
    state = watched(pruner, made.n, 4)
    means = (state["total"] / state["visits"]).numpy()
    kept = {f: [means[pruner.select(replace(context(f), state=state, seed=s)).indices].mean() for s in range(20)]
            for f in (0.7, 0.1)}  # fmt: skip
    highest = PRUNERS.parse("dual").select(replace(context(0.1), state=state)).indices
    assert np.mean(kept[0.1]) > means[highest].mean()
    with pytest.raises(ConfigError, match="give one of the two"):
        PRUNERS.parse({"dual": {"exponent": 4, "keep": "lowest"}})


def test_a_missed_visit_is_not_a_failure_but_half_of_them_is() -> None:
    values, known = torch.tensor([1.0, 5.0, 0.0, 3.0]), torch.tensor([True, True, False, True])
    assert completed(values, known, 5).tolist() == [1, 5, 3, 3, 3]
    with pytest.raises(ConfigError, match="raise warmup_epochs"):
        completed(values, known, 7)


@pytest.mark.parametrize("name", ["forgetting", "aum", "dynamic_uncertainty", "tdds", "dual"])
def test_what_is_kept_is_what_was_observed(name: str) -> None:
    """On outputs that settle, hard images are those whose outputs settle least: kept more than by chance."""
    made, pruner = context(0.3), PRUNERS.parse(name)
    state = watched(pruner, made.n, 4)
    first = pruner.select(replace(made, state=state))
    again = pruner.select(replace(made, state=watched(pruner, made.n, 4)))
    assert first.indices.tolist() == again.indices.tolist()
    scores = pruner.scores(replace(made, state=state))
    kept, dropped = scores[first.indices], np.delete(scores, first.indices)
    better = kept.mean() < dropped.mean() if name == "aum" else kept.mean() > dropped.mean()
    assert better


@pytest.mark.parametrize("cls", [DynamicUncertainty, TDDS, DUAL])
def test_a_window_must_fit_into_the_warm_up(cls: Any) -> None:
    with pytest.raises(ConfigError, match="4 warmup_epochs have no window of 5"):
        cls.create(warmup_epochs=4)
    with pytest.raises(ConfigError, match="4 score_epochs have no window of 5"):
        cls.create(score_epochs=4)
    assert cls.create(score_epochs=5).observed_epochs() == 5


def test_free_scores_need_an_epoch() -> None:
    with pytest.raises(ConfigError, match="warmup_epochs = 0"):
        AUM.create(warmup_epochs=0)


CONTRADICTIONS: list[tuple[Any, str]] = [
    ({"score": {"score_epochs": 3, "every": 2}}, "every = 2 would have no effect"),
    ({"score": {"score_epochs": 3, "warmup_epochs": 5}}, "warmup_epochs = 5 would have no effect"),
    ({"keep_easy": {"score_epochs": 1, "warmup_epochs": 0}}, "warmup_epochs = 0 would"),
    ({"grad_match": {"score_epochs": 3, "warmup_epochs": 2, "every": 4}}, "warmup_epochs = 2 and every = 4 would"),
    ({"forgetting": {"score_epochs": 3, "every": 1}}, "every = 1 would"),
    ({"tdds": {"score_epochs": 9, "window": 12, "warmup_epochs": 12}}, "warmup_epochs = 12 would"),
    ({"dynamic_uncertainty": {"score_epochs": 9, "window": 10}}, "9 score_epochs have no window of 10"),
]


@pytest.mark.parametrize(("spec", "message"), CONTRADICTIONS, ids=lambda value: str(value))
def test_score_epochs_that_contradict_a_schedule_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PRUNERS.parse(spec)


@pytest.mark.parametrize("name", [n for n, cls in PRUNERS.classes().items() if issubclass(cls, ModelPruner)])
def test_score_epochs_alone_select_once_before_the_run(name: str) -> None:
    """As written, through a record, and set later; the defaults of a schedule are no contradiction."""
    pruner = PRUNERS.parse({name: {"score_epochs": 12}})
    assert [epoch for epoch in range(40) if pruner.due(epoch)] == [0]
    assert PRUNERS.parse({name: pruner.model_dump(mode="json")}) == pruner
    assert PRUNERS.parse(pruner.spec()) == pruner
    assert PRUNERS.parse(name).replace(score_epochs=12) == pruner
