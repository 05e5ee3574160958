"""Scores by hand, steps to break by a straight line, and the pruners that keep by them."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.objectives.policy import AttackPolicy
from advprune_core.objectives.steps import FixedSteps, Steps
from advprune_core.pruners import PRUNERS
from advprune_core.pruners.aign import input_gradient_norm
from advprune_core.pruners.branches import Branch
from advprune_core.pruners.gradients import last_layer_gradients
from advprune_core.pruners.outputs import scoring_policy, split_outputs
from advprune_core.pruners.scores import KINDS, Score, split_scores
from advprune_core.pruners.steps_to_break import steps_to_break
from advprune_core.trainers.config import RunConfig
from tests.contexts import beside_a_boundary, blobs, context, told

#: Logits with probabilities (1/2, 1/4, 1/4), label 0, and (1/8, 3/4, 1/8), label 2; features (2, 2) and (0, 0).
BRANCH = Branch(torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]).log() + 3, torch.tensor([[2.0, 2], [0, 0]]))
LABELS = torch.tensor([0, 2])
BY_HAND = {
    "loss": [log(2), log(8)],
    "margin": [0.25, -0.625],
    "entropy": [1.5 * log(2), 0.25 * log(8) + 0.75 * log(4 / 3)],
    "el2n": [sqrt(0.25 + 2 / 16), sqrt((1 + 36 + 49) / 64)],
    "grand": [3 * sqrt(0.25 + 2 / 16), sqrt((1 + 36 + 49) / 64)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_by_hand(kind: str) -> None:
    assert KINDS[kind].function(BRANCH, LABELS).tolist() == pytest.approx(BY_HAND[kind], rel=1e-5)


def test_grand_is_the_length_of_the_last_layer_gradient() -> None:
    made = context(objective="pgd_at")
    outputs = split_outputs(made, made.dataset.train, adversarial=True)
    lengths = last_layer_gradients(made.objective, outputs).squared_norms().sqrt()
    np.testing.assert_allclose(split_scores(made, "grand"), lengths.numpy(), rtol=1e-4, atol=1e-6)


class Line(nn.Module):
    """Class 1 where the mean pixel is above 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-light, light], 1)


CUT: Any = {"stratified": {"hard_cutoff": 0.3}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_hardest_that_are_cut_are_the_least_sure_of_their_label(kind: str) -> None:
    """Whether such an image's score is high or low; of one feature each, GraNd is in proportion to EL2N."""
    label = torch.tensor([0.8, 0.55, 0.9, 0.6, 0.65, 0.95, 0.5, 0.7, 0.85, 0.75])
    probabilities = torch.stack([label, 1 - label], 1)
    probabilities[1::2] = probabilities[1::2].flip(1)
    given = {"logits": probabilities.log(), "features": torch.ones(10, 1), "adversarial": True}
    made = told(0.7, np.arange(10) % 2, **given)  # type: ignore[arg-type]
    assert Score.create(score=kind, keep=CUT).select(made).indices.tolist() == [0, 2, 4, 5, 7, 8, 9]
    lowest = sorted({"margin": [6, 1, 3]}.get(kind, [5, 2, 8]))
    made = replace(made, fraction=0.3)
    assert Score.create(score=kind, keep="lowest").select(made).indices.tolist() == lowest


def test_the_hardest_that_are_cut_are_broken_by_the_fewest_steps() -> None:
    """Steps of 0.05 in the mean pixel, from distances of 0.4 to -0.1 on one side of the boundary and the other."""
    attack = AttackPolicy.create(eps=0.5, steps={"fixed": {"count": 10, "step_size": 0.05}})
    made = context(0.7, dataset=beside_a_boundary(), model=Line(), attack=attack)
    kept = Score.create(score="steps_to_break", keep=CUT).select(made)
    assert kept.indices.tolist() == [1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_steps_to_break_by_distance(steps: int) -> None:
    """On a line: ceil of distance / step, wrong images at 0, those out of reach at steps + 1."""
    light, size, eps = [0.45, 0.505, 0.519, 0.535, 0.9], 0.01, 0.1
    x = torch.tensor(light)[:, None, None, None].expand(5, 1, 2, 2)
    found = steps_to_break(Line(), x, torch.ones(5).long(), eps=eps, steps=steps, step_size=size)
    assert found.tolist() == [min(s, steps + 1) for s in (0, 1, 2, 4, 99)]


def test_steps_to_break_stay_in_the_ball() -> None:
    x = torch.full((1, 1, 2, 2), 0.53)
    assert steps_to_break(Line(), x, torch.tensor([1]), eps=0.025, steps=9, step_size=0.01).tolist() == [10]


def test_margins_are_on_the_probabilities_of_the_branch_asked_for() -> None:
    made = context()
    clean, adversarial = (split_scores(made, "margin", steps=steps) for steps in (0, None))
    assert adversarial.mean() < clean.mean()
    assert np.abs(clean).max() <= 1


def test_the_modes_keep_what_their_names_say() -> None:
    """Up to those that a class without any image took the place of."""
    made = context(0.3)
    loss, steps = split_scores(made, "loss", steps=0), split_scores(made, "steps_to_break")
    ranks = {"easy": loss, "hard": -loss, "middle": np.abs(loss - loss.mean()), "fragile": steps}
    for mode, rank in ranks.items():
        selection = PRUNERS.parse(f"keep_{mode}").select(made)
        beyond = rank[selection.indices] > np.sort(rank)[made.k - 1]
        assert beyond.sum() <= selection.n_filled <= 3


COSTS: list[tuple[Any, float]] = [
    ("keep_easy", 1),
    ({"score": {"steps": 0}}, 1),
    ("score", 6),
    ({"score": {"steps": 5}}, 12),
]


@pytest.mark.parametrize(("spec", "cost"), COSTS, ids=str)
def test_what_selections_cost(spec: Any, cost: float) -> None:
    made, ledger = context(), Ledger()
    with ledger.watch(made.network), ledger.phase("select"):
        PRUNERS.parse(spec).select(made)
    assert ledger.passes == {"select": cost * made.n}


def test_steps_to_break_need_steps() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Score.create(score="steps_to_break", steps=0)


def test_no_class_is_left_without_an_image() -> None:
    """A class that scores would drop keeps one image, and the selection says so."""
    made = context(0.2, dataset=blobs((60, 60, 3), val_select=0))
    constant = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with torch.no_grad():
        constant[1].weight.zero_()
        constant[1].bias.copy_(torch.tensor([1.0, 0.5, 0.0]))
    made = context(0.2, dataset=made.dataset, model=constant)
    selection = PRUNERS.parse({"score": {"steps": 0, "keep": "lowest"}}).select(made)
    assert len(selection) == made.k
    assert np.bincount(made.labels[selection.indices], minlength=3).tolist() == [made.k - 2, 1, 1]
    assert selection.n_filled == 2


def test_input_gradient_norms_are_those_of_each_image_alone() -> None:
    made = context()
    model, split = made.network.eval(), made.dataset.train
    x, y = split.pixels(slice(0, 9)), split.labels[:9]
    expected = []
    for i in range(9):
        one = x[i : i + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(one), y[i : i + 1]), one)
        expected.append(float(gradient.norm()))
    assert input_gradient_norm(model, x, y).tolist() == pytest.approx(expected, rel=1e-4)


class NoHead(nn.Module):
    """Its logits are means over the image; a layer of weights is left over from something else."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused = nn.Conv2d(1, 4, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


@pytest.mark.parametrize("model", [NoHead(), Line()], ids=["convolutions", "no weights"])
@pytest.mark.parametrize("steps", [0, 2])
def test_scores_of_logits_alone_need_no_last_layer(model: nn.Module, steps: int) -> None:
    made = context(model=model, dataset=blobs((50, 40)), objective="pgd_at")
    for name in sorted(set(KINDS) - {"grand"}):
        values = split_scores(made, name, steps=steps)  # type: ignore[arg-type]
        assert values.shape == (made.n,)
        assert np.isfinite(values).all()
    with pytest.raises(ConfigError, match=r"no nn\.Linear|not the output of its last"):
        split_scores(made, "grand", steps=steps)


def test_noise_of_the_scoring_attack_is_of_the_epochs_that_the_model_was_trained_for() -> None:
    """A network trained before the run is scored at epoch 0 as it would be at the end of its training."""
    trained, before = context(epoch=12), context(epoch=0)
    expected = split_scores(trained, "loss")
    assert not np.array_equal(split_scores(before, "loss"), expected)
    assert np.array_equal(split_scores(replace(before, model_epoch=12), "loss"), expected)
    assert np.array_equal(split_scores(replace(trained, model_epoch=0), "loss"), split_scores(before, "loss"))


def test_scores_without_features_are_those_beside_features() -> None:
    made = context(objective="pgd_at")
    outputs = split_outputs(made, made.dataset.train, adversarial=True)
    assert outputs.adversarial is not None
    for name in sorted(set(KINDS) - {"grand"}):
        expected = KINDS[name].function(outputs.adversarial, made.dataset.train.labels)
        assert np.array_equal(split_scores(made, name), expected.double().numpy())  # type: ignore[arg-type]


@pytest.mark.parametrize("score", ["loss", "margin", "entropy", "el2n", "steps_to_break"])
def test_a_head_that_no_score_looks_at_is_refused(score: str) -> None:
    """It had no effect but another key."""
    with pytest.raises(ConfigError, match=f"head = 'fc' has no effect on the score '{score}'"):
        Score.create(score=score, head="fc")
    assert Score.create(score="grand", head="fc").head == "fc"


class Own(Steps):
    """A policy of one's own that says no more than it has to."""

    name = "own"

    def expected(self) -> float:
        return 9.3


#: (steps of the training attack, `steps` of the score, steps and length that the score is by); eps 0.14.
EPS = 0.14
SCORING: list[tuple[Any, int | None, int, float]] = [
    # The default length is that of the steps that are taken: 2.5 / k of the radius.
    (7, None, 7, 0.05),
    (10, None, 10, 0.035),
    (3, None, 7, 0.05),
    # A single step is no measure, however long it is: chance would decide among whole, wrong and broken.
    (1, None, 7, 0.05),
    ({"fixed": {"count": 1, "step_factor": 1.25}}, None, 7, 0.05),
    ({"fixed": {"count": 1, "step_size": 0.14}}, None, 7, 0.05),
    # A length that was chosen holds.
    ({"fixed": {"count": 10, "step_size": 0.02}}, None, 10, 0.02),
    ({"fixed": {"count": 2, "step_factor": 0.5}}, None, 7, 0.07),
    # Images that training leaves out, or attacks with fewer steps, take nothing from those of the others.
    ({"bullet": {"boundary": 10}}, None, 10, 0.035),
    ({"bullet": {"boundary": 20, "boundary_step_size": 0.01}}, None, 20, 0.01),
    ({"bullet": {"boundary": 4}}, None, 7, 0.05),
    ({"partial": {"count": 20, "share": 0.5}}, None, 20, 0.0175),
    ({"partial": {"count": 20, "share": 0.1, "step_size": 0.02}}, None, 20, 0.02),
    ({"partial": {"count": 5}}, None, 7, 0.05),
    (Own(), None, 9, 2.5 * EPS / 9),
    # What is told holds.
    (7, 5, 5, 0.07),
    (1, 2, 2, 0.14),
    ({"partial": {"count": 20}}, 5, 5, 0.07),
    ({"fixed": {"count": 10, "step_size": 0.02}}, 3, 3, 0.02),
    ({"fixed": {"count": 1, "step_factor": 0.5}}, 1, 1, 0.07),
]


@pytest.mark.parametrize(("norm", "unit"), [("linf", 1.0), ("l2", 2.0)])
@pytest.mark.parametrize(("training", "asked", "steps", "length"), SCORING)
def test_steps_to_break_by_the_training_attack(
    training: Any, asked: int | None, steps: int, length: float, norm: str, unit: float
) -> None:
    """On a line the count is the distance in steps, so it tells how many there were and how long they were.

    Of four pixels each has to move by the distance of the mean: in L2 twice as far.
    """
    distances = np.array([-0.02, 0.003, 0.033, 0.052, 0.073, 0.101, 0.123, 0.2])
    images = np.broadcast_to((0.5 + np.append(distances, 0) / unit)[:, None, None], (9, 2, 2)).astype(np.float32)
    labels = np.append(np.ones(8, int), 0)  # the last image is there because classes begin at 0
    dataset = dataset_from_arrays(images, labels, images, labels, val_select=0, val_stop=0)
    attack = AttackPolicy.create(norm=norm, eps=EPS, steps=training)
    found = split_scores(context(dataset=dataset, model=Line(), attack=attack), "steps_to_break", steps=asked)
    within = np.ceil(np.round(distances / length, 6)).clip(0)
    expected = np.where((within > steps) | (distances > EPS), steps + 1, within)
    assert found[:8].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("training", "length"),
    [
        (7, 2.5 * EPS / 3),
        ({"fixed": {"count": 7, "step_size": 0.02}}, 0.02),
        ({"fixed": {"count": 7, "step_factor": 0.5}}, EPS / 2),
        ({"fixed": {"count": 1, "step_factor": 1.25}}, 2.5 * EPS / 3),
    ],
    ids=str,
)
def test_another_number_of_steps_has_the_length_that_was_chosen(training: Any, length: float) -> None:
    """And is another run than it was, where that length was forgotten."""
    policy = scoring_policy(AttackPolicy(eps=EPS, steps=training), 3)
    assert isinstance(policy.steps, FixedSteps)
    assert (policy.steps.count, policy.steps.length(EPS)) == (3, pytest.approx(length))
    config = RunConfig.flat(eps=EPS, steps=training, pruner={"score": {"steps": 3}}, fraction=0.5)
    usual = length == pytest.approx(2.5 * EPS / 3)
    assert config.identity("data").get("mended") == (None if usual else ["scoring"])


@pytest.mark.parametrize("training", [1, {"fixed": {"count": 1, "step_factor": 1.25}}])
def test_single_step_training_leaves_little_to_chance(training: Any) -> None:
    """As much as PGD-7 would: with the single step itself, most images shared one of three counts."""
    attacks = {name: AttackPolicy.create(eps=0.15, steps=steps) for name, steps in (("one", training), ("seven", 7))}
    found = {name: split_scores(context(attack=attack), "steps_to_break") for name, attack in attacks.items()}
    assert found["one"].tolist() == found["seven"].tolist()
    single = split_scores(context(attack=attacks["one"]), "steps_to_break", steps=1)
    assert len(np.unique(found["one"])) > len(np.unique(single))


@pytest.mark.parametrize(
    ("spec", "cost"), [("score", 1), ({"score": {"score": "grand"}}, 1), ({"herding": {"steps": None}}, 1)], ids=str
)
def test_standard_training_is_scored_by_clean_images(spec: Any, cost: int) -> None:
    """Not by an attack that it never makes, unless that is asked for."""
    made, pruner, ledger = context(objective="standard", steps=7), PRUNERS.parse(spec), Ledger()
    with ledger.watch(made.network), ledger.phase("select"):
        found = pruner.select(made)
    assert ledger.passes == {"select": cost * made.n}
    assert found.indices.tolist() == pruner.replace(steps=0).select(made).indices.tolist()
    with ledger.watch(made.network), ledger.phase("asked"):
        pruner.replace(steps=3).select(made)
    assert ledger.passes["asked"] == 7 * made.n


@pytest.mark.parametrize("objective", ["standard", "pgd_at", "trades"])
@pytest.mark.parametrize("spec", ["score", "d2", {"herding": {"steps": None}}, "grad_match"], ids=str)
def test_equal_scores_have_equal_keys(spec: Any, objective: str) -> None:
    """A run says which outputs it scores: with standard training, none told and 0 are one run, and a new key."""
    dataset = blobs()
    runs = [RunConfig.flat(pruner=spec, objective=objective, fraction=0.5)]
    pruner = PRUNERS.parse(spec)
    if spec == "grad_match" and objective == "standard":  # whose gradients are of clean images in any case
        with pytest.raises(ConfigError, match="steps = 7 of grad_match have no effect"):
            runs[0].replace(pruner=pruner.replace(steps=7))
        assert runs[0].pruner.canonical() == {"name": "grad_match"}
        return
    runs += [runs[0].replace(pruner=pruner.replace(steps=steps)) for steps in ([0, 7] if spec != "grad_match" else [7])]
    keys = [run.train_key(dataset) for run in runs]
    clean = pruner.name in ("score", "herding") and objective == "standard"
    assert (keys[0] == keys[1]) == (clean or spec == "d2")
    assert keys[0] != keys[-1]
    before = {"name": pruner.name} | ({"settings": {"steps": None}} if pruner.name == "herding" else {})
    assert (runs[0].pruner.canonical() != before) == (clean or spec == "d2"), "only what gives other results"


def test_steps_to_break_attack_standard_training_too() -> None:
    for spec in ("keep_fragile", {"score": {"score": "steps_to_break", "keep": "lowest"}}):
        run = RunConfig.flat(pruner=spec, objective="standard", fraction=0.5)
        assert run.pruner == PRUNERS.parse(spec)
        made = context(objective="standard", steps=1)
        assert split_scores(made, "steps_to_break").max() > 2
        assert len(run.pruner.select(made)) == made.k


def test_steps_to_break_alone_are_of_a_second_version() -> None:
    """The same settings used to give another score; what all other scores gave still holds."""
    versions = {kind: Score(score=kind).canonical().get("version", 1) for kind in (*KINDS, "steps_to_break")}
    assert versions == {**dict.fromkeys(KINDS, 1), "steps_to_break": 2}
    assert PRUNERS.parse("keep_fragile").canonical() == {"name": "keep_fragile", "version": 2}


def test_all_images_are_scored_attacked_where_training_attacks_a_part_of_each_batch() -> None:
    """Which part depends on the batch, and what is scored is none."""
    whole = context(0.5, objective="pgd_at")
    assert whole.attack is not None
    partial = replace(whole, attack=whole.attack.replace(steps={"partial": {"count": 2, "share": 0.3}}))
    expected = split_scores(replace(whole, attack=whole.attack.replace(steps=2)), "loss")
    assert np.array_equal(split_scores(partial, "loss"), expected)
