"""Accuracies of networks whose robustness is known exactly, Wilson's formula, packed outcomes."""

from __future__ import annotations

import re
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm as gaussian
from torch import Tensor, nn

from advprune_core.attacks import FGSM, PGD, Attack, ThreatModel
from advprune_core.attacks.evaluate import (
    Outcome,
    accuracy_under,
    evaluate,
    pack_bits,
    predictions,
    unpack_bits,
    wilson,
)
from advprune_core.attacks.guards import doubts_of_images
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset, Split
from advprune_core.models.base import build_model
from advprune_core.models.cnns import SmallCNN
from advprune_core.pruners import Selection
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from tests.networks import Around

LAW = settings(derandomize=True)
BITS = arrays(np.bool_, st.integers(0, 70))


@LAW
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson(case: tuple[int, int], confidence: float) -> None:
    correct, total = case
    z, p = gaussian.ppf((1 + confidence) / 2), correct / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    low, high = wilson(correct, total, confidence)
    np.testing.assert_allclose([low, high], [middle - half, middle + half], atol=1e-9)
    assert 0 <= low <= p <= high <= 1
    mirrored = wilson(total - correct, total, confidence)
    np.testing.assert_allclose([1 - mirrored[1], 1 - mirrored[0]], [low, high], atol=1e-9)


def test_wilson_at_95_per_cent() -> None:
    # With nothing right the upper end is z^2 / (n + z^2).
    assert wilson(0, 10) == pytest.approx((0, 1.959964**2 / (10 + 1.959964**2)), abs=1e-6)


@LAW
@given(BITS)
def test_packed_bits_come_back(values: np.ndarray) -> None:
    text = pack_bits(values)
    back = unpack_bits(text, len(values))
    assert back.dtype == np.bool_
    assert back.tolist() == values.tolist()
    assert len(text) <= len(values) / 6 + 4
    assert text.isascii()


@LAW
@given(st.integers(1, 30).flatmap(lambda n: st.lists(arrays(np.bool_, n), min_size=1, max_size=4)))
def test_robust_is_right_under_everything(columns: list[np.ndarray]) -> None:
    outcome = Outcome(columns[0], {str(number): column for number, column in enumerate(columns[1:])})
    assert outcome.robust.tolist() == [all(row) for row in zip(*columns, strict=True)]


class Constant(nn.Module):
    """Always says class 2."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0, 0.0]).expand(len(x), 4) + 0 * x.sum()


class Perfect(nn.Module):
    """Reads the label off the picture: pixel number y is 1, the others are 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def labelled(n: int = 22) -> Split:
    y = torch.arange(n) % 4
    return Split(nn.functional.one_hot(y, 4).float().view(n, 1, 2, 2), y)


QUICK: list[Attack] = [FGSM(), PGD(steps=5), PGD(steps=5, loss="margin", restarts=2)]


@pytest.mark.parametrize("batch_size", [1, 5, 22, 500])
@pytest.mark.parametrize(
    ("model", "eps", "clean", "robust"),
    [
        (Constant(), 0.5, [False, False, True, False], [False, False, True, False]),
        (Perfect(), 0.49, [True] * 4, [True] * 4),
        (Perfect(), 0.51, [True] * 4, [False] * 4),
    ],
)
def test_known_answers(model: nn.Module, eps: float, clean: list, robust: list, batch_size: int) -> None:
    split = labelled()
    outcome = evaluate(model, split, QUICK, threat=ThreatModel(eps=eps), batch_size=batch_size)
    expected = {"clean": np.array(clean)[split.labels], "robust": np.array(robust)[split.labels]}
    assert outcome.clean.tolist() == expected["clean"].tolist()
    assert outcome.robust.tolist() == expected["robust"].tolist()
    assert list(outcome.attacks) == ["fgsm", "pgd5", "pgd5_margin_x2"]
    assert accuracy_under(model, split, PGD(steps=5), threat=ThreatModel(eps=eps)) == expected["robust"].mean()


def linear_case(seed: int, norm: str, eps: float) -> tuple[nn.Module, Split, np.ndarray]:
    """A two-class linear network, images of which some touch the box, and who withstands."""
    rng = np.random.default_rng(seed)
    weights, x = rng.normal(size=(2, 16)), rng.uniform(0.3, 0.7, (150, 16))
    if norm == "linf":
        x = np.clip(rng.uniform(-0.3, 1.3, (150, 16)), 0, 1)  # pixels at exactly 0 and 1
    x = x.astype(np.float32).astype(np.float64)
    bias = np.array([0.0, -np.median(x @ (weights[1] - weights[0]))])
    y = rng.integers(0, 2, 150)
    gap = (x @ weights.T + bias) @ np.array([-1.0, 1.0]) * (2 * y - 1)
    direction = -(weights[1] - weights[0]) * (2 * y - 1)[:, None]  # where the gap shrinks fastest
    if norm == "linf":
        corner = np.clip(x + eps * np.sign(direction), 0, 1)
        worst = gap - ((corner - x) * direction).sum(1)
    else:
        worst = gap - eps * np.linalg.norm(direction, axis=1)
    # Few steps from a random start of a round ball end a little off its farthest point.
    sure = (np.abs(worst) > (0.02 if norm == "l2" else 1e-3)) & (np.abs(gap) > 1e-3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(weights))
        model[1].bias.copy_(torch.tensor(bias))
    images = torch.tensor(x[sure], dtype=torch.float32).view(-1, 1, 4, 4)
    return model, Split(images, torch.tensor(y[sure])), worst[sure] > 0


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("linf", 0.1), ("l2", 0.02), ("l2", 0.05)])
@pytest.mark.parametrize("seed", range(3))
def test_a_linear_network_is_as_robust_as_theory_says(seed: int, norm: Any, eps: float, loss: Any) -> None:
    model, split, standing = linear_case(seed, norm, eps)
    assert 0.05 < standing.mean() < 0.6
    assert (np.logical_not(standing) & (predictions(model, split.images) == split.labels).numpy()).mean() > 0.01
    threat = ThreatModel(norm=norm, eps=eps)
    for attack in (PGD(steps=30, loss=loss), PGD(steps=30, loss=loss, random_start=False), FGSM(loss=loss)):
        outcome = evaluate(model, split, [attack], threat=threat, batch_size=64)
        assert outcome.attacks[attack.label()].tolist() == standing.tolist()


class Recorder(Attack):
    """Breaks the images whose first pixel is in `breaks`; notes what it was given."""

    name = "recorder"
    calls: ClassVar[list[tuple[str, list[int], int]]] = []
    title: str
    breaks: tuple[int, ...] = ()

    def label(self) -> str:
        return self.title

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        places = ids
        ids = (x[:, 0, 0, 0] * 100).round().long()
        assert places is not None
        assert torch.equal(ids, places), "noise is keyed by the image's place in the data set"
        self.calls.append((self.title, ids.tolist(), seed))
        assert torch.equal(y, ids % 2)
        x_adv = x.clone()
        x_adv[torch.isin(ids, torch.tensor(self.breaks, dtype=torch.int64)), 0, 0, 1] += 1
        return x_adv


class Parity(nn.Module):
    """The parity of the number in the first pixel; wrong where the second pixel is set."""

    def forward(self, x: Tensor) -> Tensor:
        ids = (x[:, 0, 0, 0] * 100).round().long()
        return nn.functional.one_hot((ids + (x[:, 0, 0, 1] > 0.5)) % 2, 2).float()


def numbered(n: int) -> Split:
    x = torch.zeros(n, 1, 1, 2)
    x[:, 0, 0, 0] = torch.arange(n) / 100
    return Split(x, torch.arange(n) % 2)


def test_attacks_meet_what_withstood_all_before() -> None:
    Recorder.calls.clear()
    split = numbered(7)
    split.images[3, 0, 0, 1] = 1  # wrong from the start
    attacks = [Recorder(title="a", breaks=(0, 5)), Recorder(title="b", breaks=(0, 1)), Recorder(title="c")]
    outcome = evaluate(Parity(), split, attacks, threat=ThreatModel(eps=1), batch_size=4)
    assert [(title, ids) for title, ids, _ in Recorder.calls] == [
        ("a", [0, 1, 2]), ("b", [1, 2]), ("c", [2]), ("a", [4, 5, 6]), ("b", [4, 6]), ("c", [4, 6]),
    ]  # fmt: skip
    standing = {name: np.flatnonzero(right).tolist() for name, right in outcome.attacks.items()}
    assert standing == {"a": [1, 2, 4, 6], "b": [2, 4, 6], "c": [2, 4, 6]}
    assert np.flatnonzero(outcome.clean).tolist() == [0, 1, 2, 4, 5, 6]
    assert np.flatnonzero(outcome.robust).tolist() == [2, 4, 6]


def test_an_attack_without_images_is_not_called() -> None:
    Recorder.calls.clear()
    attacks = [Recorder(title="a", breaks=tuple(range(7))), Recorder(title="b")]
    outcome = evaluate(Parity(), numbered(7), attacks, threat=ThreatModel(eps=1))
    assert [title for title, _, _ in Recorder.calls] == ["a"]
    assert not outcome.robust.any()


def test_every_attack_has_a_stream_of_its_own_and_batches_share_it() -> None:
    Recorder.calls.clear()
    for seed in (0, 4):
        attacks = [Recorder(title="a"), Recorder(title="b")]
        evaluate(Parity(), numbered(12), attacks, threat=ThreatModel(eps=1), seed=seed, batch_size=4)
    seeds = [seed for _, _, seed in Recorder.calls]
    assert len(seeds) == 12
    assert len(set(seeds)) == 4


def test_noise_does_not_depend_on_the_batches_nor_on_the_other_images(digits: Dataset) -> None:
    """One step from the random start shows the start; a broken image must not shift its neighbours' noise."""
    model = build_model(SmallCNN(width=4), digits)
    x, y = digits.test.pixels(slice(0, 40)), digits.test.labels[:40]
    ids, threat = torch.arange(40), ThreatModel(eps=0.1)
    kwargs = {"threat": threat, "seed": 3}
    whole = PGD(steps=1, step_size=1e-6).perturb(model, x, y, ids=ids, **kwargs)
    some = torch.tensor([1, 5, 6, 39])
    part = PGD(steps=1, step_size=1e-6).perturb(model, x[some], y[some], ids=ids[some], **kwargs)
    assert torch.allclose(whole[some], part, atol=1e-5)


def test_a_real_network(digits: Dataset) -> None:
    model, threat = build_model(SmallCNN(width=4), digits).train(), ThreatModel(eps=0.05)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attacks = [FGSM(), PGD(steps=3)]
    outcome, again = (evaluate(model, digits.test, attacks, threat=threat, seed=1, batch_size=100) for _ in range(2))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert outcome.robust.tolist() == again.robust.tolist()
    with torch.no_grad():
        right = model.eval()(digits.test.images).argmax(1) == digits.test.labels
    assert outcome.clean.tolist() == right.tolist()
    assert torch.equal(predictions(model, digits.test.images) == digits.test.labels, right)
    assert not (outcome.attacks["fgsm"] & ~outcome.clean).any()
    assert not (outcome.attacks["pgd3"] & ~outcome.attacks["fgsm"]).any()


@pytest.fixture
def split(digits: Dataset) -> Split:
    return Split(digits.test.pixels(slice(0, 60)), digits.test.labels[:60])


PGDS = [PGD(steps=10), PGD(steps=10, loss="margin")]
THREAT = ThreatModel(eps=0.125)


def test_a_sound_model_leaves_no_doubt(trained: nn.Module, split: Split) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = evaluate(trained, split, PGDS, threat=THREAT)
    assert outcome.warnings == ()


DOUBTS: dict[str, tuple[Any, str]] = {
    "huge logits": (lambda net: Around(net, after=lambda z: 1e4 * z), "cross-entropy has no gradient.*on the margin"),
    "rounded images": (lambda net: Around(net, before=lambda x: (16 * x).round() / 16), "no gradient at all.*square"),
    "dropout left on": (
        lambda net: Around(net, after=lambda z: F.dropout(z, 0.3, training=True)),
        "outputs are random.*dropout that is always on.*fix the randomness",
    ),
    "train mode": (lambda net: nn.Sequential(net, nn.Dropout(0.3)).train(), "in train mode.*call model.eval"),
    "softmax": (lambda net: nn.Sequential(net, nn.Softmax(1)), "look like probabilities.*leave the softmax out"),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_doubts_stand_in_the_outcome(case: str, trained: nn.Module, split: Split) -> None:
    wrap, message = DOUBTS[case]
    with pytest.warns(UserWarning, match=message):
        outcome = evaluate(wrap(trained), split, PGDS[:1], threat=THREAT)
    assert [text for text in outcome.warnings if re.search(message, text)]
    trained.eval()


def test_masked_gradients_flatter_and_the_doubt_is_right(trained: nn.Module, split: Split) -> None:
    """Logits x 10^4 are the same classifier: cross-entropy does not see that, the margin does."""
    huge = Around(trained, after=lambda z: 1e4 * z)
    plain = evaluate(trained, split, PGDS, threat=THREAT)
    with pytest.warns(UserWarning, match="believe those on the margin"):
        masked = evaluate(huge, split, PGDS, threat=THREAT)
    assert masked.attacks["pgd10"].mean() > plain.attacks["pgd10"].mean() + 0.1
    assert abs(masked.robust.mean() - plain.robust.mean()) < 0.05


@pytest.mark.parametrize(
    ("levels", "eps", "message"),
    [
        (16, 0.125, r"nearly black \(brightest pixel 0.063\): grey levels of 0 to 16 that were divided by 255"),
        (1, 0.125, "nearly black.*grey levels of 0 to 1 that"),
        (255, 0.5, "eps = 0.5 turns any image of 64 pixels into plain grey .linf, from 0.5.: no model can be robust"),
    ],
)
def test_doubts_of_images(levels: int, eps: float, message: str, trained: nn.Module, digits: Dataset) -> None:
    images = (digits.test.images[:20].float() / digits.test.images.max() * levels).round().to(torch.uint8)
    with pytest.warns(UserWarning, match=message):
        evaluate(trained, Split(images, digits.test.labels[:20]), FGSM(), eps=eps)


def test_a_round_eps_of_8(trained: nn.Module, split: Split) -> None:
    with pytest.raises(ConfigError, match=r"more than the whole range of a pixel.*'8/255'"):
        evaluate(trained, split, "fgsm", eps=8)
    with pytest.warns(UserWarning, match="plain grey .l2, from 4"):
        evaluate(trained, split, "fgsm", norm="L2", eps=8)


@pytest.mark.parametrize(
    ("shape", "norm", "eps", "doubted"),
    [
        ((3, 32, 32), "l2", "8/255", True),
        ((3, 32, 32), "l2", "16/255", True),
        ((1, 28, 28), "l2", "8/255", True),
        ((3, 8, 8), "l2", "8/255", True),
        ((3, 64, 64), "l2", "4/255", True),
        ((3, 32, 32), "linf", "1/255", False),
        # Radii of the field: of empirical and of certified robustness, of training for transfer, of the digits here.
        *(((3, 32, 32), "l2", eps, False) for eps in (0.1, "36/255", 0.25, 0.5, "128/255", 1.0)),
        *(((1, 28, 28), "l2", eps, False) for eps in (0.1, 0.5, 1.0, 1.5, 2.0)),
        *(((1, 8, 8), "l2", eps, False) for eps in ("8/255", "1/16", 0.125, 0.5)),
        *(((3, 64, 64), "l2", eps, False) for eps in ("36/255", 0.5)),
        *(((3, 224, 224), "l2", eps, False) for eps in (0.1, 0.25, 0.5, 3.0)),
    ],
)
def test_an_l2_radius_in_units_of_l_inf_is_doubted(shape: Any, norm: Any, eps: Any, doubted: bool) -> None:
    threat = ThreatModel.create(norm=norm, eps=eps)
    doubts = list(doubts_of_images(torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)), threat))
    assert len(doubts) == doubted
    assert all(re.search("next to no attack.*was an L-inf radius meant", doubt) for doubt in doubts)


def test_a_small_l2_radius_stands_in_the_outcome(trained: nn.Module, split: Split) -> None:
    with pytest.warns(UserWarning, match="eps = 0.0235294 in L2 .* over 64 pixels it moves each by 0.75 of 255 grey"):
        assert len(evaluate(trained, split, "fgsm", norm="l2", eps="6/255").warnings) == 1


def test_numbers_that_are_none(trained: nn.Module, split: Split) -> None:
    """NaN has no class, and `argmax` would call it the first."""
    nothing = Around(trained, after=lambda z: z * float("nan"))
    with pytest.raises(ConfigError, match="NaN or infinite for 32 of 32 images"):
        evaluate(nothing, Split(split.images, torch.zeros(60, dtype=torch.int64)), "fgsm", threat=THREAT)
    some = Around(trained, after=lambda z: torch.where(torch.arange(len(z))[:, None] == 40, float("nan"), z))
    with pytest.raises(ConfigError, match="NaN or infinite for 1 of 60 images"):
        evaluate(some, split, "fgsm", threat=THREAT)


def _adds(x: Tensor) -> Tensor:
    x += 0.1
    return x


def _adds_behind_autograd(x: Tensor) -> Tensor:
    x.data += 0.1
    return x


@pytest.mark.parametrize("before", [_adds, _adds_behind_autograd])
def test_a_model_that_changes_its_input(before: Any, trained: nn.Module, split: Split) -> None:
    kept = split.images.clone()
    with pytest.raises(ConfigError, match=r"changes its input in place.*use x = x \+ 1"):
        evaluate(Around(trained, before=before), split, "fgsm", threat=THREAT)
    assert torch.equal(split.images, kept)


def test_attacks_by_name(trained: nn.Module, split: Split) -> None:
    expected = evaluate(trained, split, [PGD(steps=3)], threat=THREAT)
    for attacks in (PGD(steps=3), {"pgd": {"steps": 3}}, [{"pgd": {"steps": 3}}]):
        assert evaluate(trained, split, attacks, eps="2/16").robust.tolist() == expected.robust.tolist()
    for attacks, message in (
        ("pdg", "did you mean 'pgd'"),
        ([], "no attack is given"),
        (3, "an attack is a name or .*, not 3"),
        (predictions, "an attack is a name or .*, not <function predictions .*an object of a subclass of Attack"),
        (PGD, r"PGD is a class, where an attack is an object of one: PGD\(...\), or its name"),
        ([FGSM], r"FGSM is a class"),
        (Selection(np.arange(3)), "is a name or"),
        (SmallCNN(), r"SmallCNN\(.*\) is not an attack"),
        ([3], "is a name or"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(trained, split, attacks, threat=THREAT)
    with pytest.raises(ConfigError, match="the split is empty"):
        evaluate(trained, split.take(torch.arange(0)), "fgsm", threat=THREAT)


def test_what_is_no_split_is_named(trained: nn.Module, digits: Dataset, split: Split) -> None:
    for other, name in ((digits, "Dataset"), ((split.images, split.labels), "tuple"), (split.images, "Tensor")):
        with pytest.raises(ConfigError, match=rf"are a Split, as dataset\.test is, not a {name}"):
            evaluate(trained, other, "fgsm", threat=THREAT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 3}, r"steps is a setting of the attack pgd: give PGD\(steps=...\) as the attack"),
        ({"restarts": 3}, r"restarts is a setting of the attack pgd"),
        ({"bach_size": 3}, "unknown parameter 'bach_size' .did you mean 'batch_size'"),
    ],
)
def test_settings_of_an_attack_are_given_with_it(given: dict, message: str, trained: nn.Module, split: Split) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(trained, split, ["fgsm", "pgd"], threat=THREAT, **given)


@pytest.mark.parametrize("place", [0, 40])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 1.5}, r"must lie in \[0, 1\], these are in \[0, 1.5\]"),
        ({"images": float("nan")}, r"must lie in \[0, 1\]"),
        ({"labels": -1}, "labels are classes from 0, but the least is -1"),
        ({"labels": 10}, "a label is 10, but the model has 10 classes"),
    ],
)
def test_every_image_is_looked_at(
    place: int, change: dict[str, float], message: str, trained: nn.Module, split: Split
) -> None:
    ((name, value),) = change.items()
    split = Split(split.images.clone(), split.labels.clone())
    getattr(split, name).view(len(split), -1)[place, -1] = value
    with pytest.raises(ConfigError, match=message):
        evaluate(trained, split, "fgsm", threat=THREAT)


def test_short_texts(digits: Dataset, split: Split) -> None:
    outcome = Outcome(np.array([True, False]), {"pgd": np.array([False, False])}, ("beware",))
    assert repr(outcome) == "Outcome(images=2, clean=0.500, pgd=0.000, warnings=1)"
    result = train(RunConfig.flat(epochs=0.2, steps=1), digits)
    assert repr(result) == f"TrainResult(ok, epochs=1, steps=3, passes={sum(result.ledger['passes'].values())})"
    for thing in (outcome, result, split, digits, Selection(np.arange(1000))):
        assert len(repr(thing)) < 150
        assert "tensor(" not in repr(thing)
        assert "array(" not in repr(thing)


@pytest.mark.parametrize(("right", "doubted"), [(6, True), (8, True), (9, False), (20, False)])
def test_clean_accuracy_at_chance_is_said(right: int, doubted: bool) -> None:
    """Of 20 images in four classes: Wilson's interval of 9 right begins at 25.8 %, a little above a quarter."""
    low = wilson(right, 20)[0]
    logits = torch.eye(4)[torch.arange(20) % 4] * 3
    labels = torch.where(torch.arange(20) < right, torch.arange(20) % 4, (torch.arange(20) + 1) % 4)

    class Fixed(nn.Module):
        """Knows each image by its one pixel."""

        def forward(self, x: Tensor) -> Tensor:
            place = (x.flatten(1)[:, 0] * 19).round().long().clamp(0, 19)
            return logits[place] + 0 * x.sum()

    images = (torch.arange(20) / 19).view(20, 1, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = evaluate(Fixed(), Split(images, labels), [FGSM()], eps=1e-4)
    assert outcome.clean.sum() == right
    said = [text for text in outcome.warnings if "clean accuracy is at chance" in text]
    assert bool(said) == doubted == (low <= 0.25)
    assert all(
        f"{5 * right:.1f} % of 20 images, where guessing one of 4 classes is right for 25.0 %" in s for s in said
    )


class Noisy(Attack):
    """One of one's own that draws from torch's generator, and notes what it drew."""

    name = "noisy"
    drawn: ClassVar[list[float]] = []

    def label(self) -> str:
        return "noisy"

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        self.drawn.append(float(torch.rand(1)))
        return x


def test_noise_that_an_attack_draws_itself_is_other_in_each_batch_and_the_same_again() -> None:
    Noisy.drawn.clear()
    state = torch.get_rng_state()
    for _ in range(2):
        evaluate(Parity(), numbered(6), [Noisy()], threat=ThreatModel(eps=0.1), batch_size=2)
        torch.rand(3)
    first, again = Noisy.drawn[:3], Noisy.drawn[3:]
    assert first == again
    assert len(set(first)) == 3
    torch.set_rng_state(state)
