"""AutoAttack as a whole: what counts, what is kept, how it goes on, and what it refuses or warns of."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advprune_core.attacks import ATTACKS, Attack, AutoAttack, Square, ThreatModel, autoattack, square
from advprune_core.attacks.ensemble import attack_batch, turns
from advprune_core.attacks.evaluate import evaluate
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset, Split

Pair = tuple[Tensor, Tensor]
#: The four parts with small budgets.
BRIEF: list[Any] = [
    {"apgd": {"steps": 10}},
    {"apgd_t": {"steps": 10, "targets": 3}},
    {"fab_t": {"steps": 5, "targets": 3}},
    {"square": {"queries": 60}},
]
NAMES = ["apgd", "apgd_t", "fab_t", "square"]


def test_the_budgets_of_the_standard_version_are_those_of_the_papers() -> None:
    apgd, apgd_t, fab_t, last = AutoAttack().parts()
    assert apgd.model_dump() == {"loss": "cross_entropy", "steps": 100, "restarts": 1, "precision": "float32"}
    assert apgd_t.model_dump(include={"steps", "targets"}) == {"steps": 100, "targets": 9}
    assert fab_t.model_dump(include={"steps", "targets"}) == {"steps": 100, "targets": 9}
    assert last.model_dump(include={"queries"}) == {"queries": 5000}
    assert [part.name for part in ATTACKS.parse({"autoattack": {"version": "apgd"}}).parts()] == ["apgd", "apgd_t"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.125), ("l2", 0.5)])
def test_reported_accuracy_is_that_of_the_images(
    norm: Any, eps: float, precision: Any, trained: nn.Module, right: Pair
) -> None:
    x, y = right[0], right[1].clone()
    y[:5] = (y[:5] + 1) % 10  # misclassified from the start
    options: dict[str, Any] = {"version": BRIEF if precision == "float32" else "apgd", "precision": precision}
    stand = autoattack(trained, x, y, norm=norm, eps=eps, batch_size=40, **options)
    with torch.no_grad():
        kept = torch.cat([trained(part).argmax(1) for part in stand.x_adv.split(40)]) == y
    assert kept.tolist() == stand.robust.tolist()
    assert stand.accuracy == pytest.approx(float(kept.float().mean()))
    assert 0 < stand.accuracy < 0.9
    assert not stand.clean[:5].any()
    stays = kept | ~torch.from_numpy(stand.clean)
    assert torch.equal(stand.x_adv[stays], x[stays])
    moved = (stand.x_adv - x).flatten(1)
    assert (moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)).max() <= eps + 1e-6
    assert 0 <= stand.x_adv.min() <= stand.x_adv.max() <= 1
    assert sum(stand.broken().values()) == int((stand.clean & ~stand.robust).sum())


class Shifted(nn.Module):
    """A network with something about it that its state dict does not show."""

    def __init__(self, network: nn.Module, shift: float, *, buffer: bool) -> None:
        super().__init__()
        self.network, self.shift = network, shift
        self.register_buffer("other", torch.tensor(shift if buffer else 0.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return logits + (self.shift + self.other) * torch.eye(10)[0]

    def get_extra_state(self) -> dict[str, float]:
        return {"not a tensor": 1.0}

    def set_extra_state(self, state: dict[str, float]) -> None:
        pass


@pytest.mark.parametrize("buffer", [False, True])
def test_what_is_kept_is_of_this_very_model(trained: nn.Module, right: Pair, tmp_path: Path, buffer: bool) -> None:
    x, y = right[0][:20], right[1][:20]
    options: dict[str, Any] = {"version": [{"apgd": {"steps": 2}}], "eps": 0.05}
    for shift in (0.0, 100.0):
        model = Shifted(trained, shift, buffer=buffer).eval()
        kept = autoattack(model, x, y, work=tmp_path, **options)
        alone = autoattack(model, x, y, **options)
        assert kept.robust.tolist() == alone.robust.tolist()
        assert alone.accuracy < 0.5 or shift == 0


def test_float32_judges_inside_anyones_autocast(trained: nn.Module, right: Pair) -> None:
    kinds: set[torch.dtype] = set()
    hook = trained.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    options: dict[str, Any] = {"version": [{"apgd": {"steps": 2}}], "eps": 0.05}
    try:
        with torch.autocast("cpu", torch.bfloat16):
            inside = autoattack(trained, *right, **options)
    finally:
        hook.remove()
    assert kinds == {torch.float32}
    assert torch.equal(inside.x_adv, autoattack(trained, *right, **options).x_adv)


def test_an_evaluation_keeps_every_part(trained: nn.Module, digits: Dataset) -> None:
    split = Split(digits.test.images[:60], digits.test.labels[:60])
    attack = AutoAttack.create(version=BRIEF)
    outcome = evaluate(trained, split, [attack], threat=ThreatModel(eps=0.125), seed=2, batch_size=25)
    label = attack.label()
    assert list(outcome.attacks) == [*(f"{label}/{name}" for name in NAMES), label]
    assert outcome.robust.tolist() == outcome.attacks[label].tolist() == outcome.attacks[f"{label}/square"].tolist()
    for before, after in itertools.pairwise(NAMES):
        assert not (outcome.attacks[f"{label}/{after}"] & ~outcome.attacks[f"{label}/{before}"]).any()
    ours = autoattack(
        trained, split.pixels(slice(0, 60)), split.labels, eps=0.125, version=BRIEF, seed=2, batch_size=60
    )
    assert ours.robust.tolist() == outcome.robust.tolist()  # other batches, same noise
    assert ours.broken() == outcome.broken()
    assert sum(outcome.broken().values()) == outcome.clean.sum() - outcome.robust.sum()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("calls", [3, 15, 40, 70])
def test_a_killed_evaluation_goes_on_to_the_same_result(
    calls: int, trained: nn.Module, right: Pair, tmp_path: Path
) -> None:
    x, y = (tensor[:50] for tensor in right)
    options: dict[str, Any] = {"eps": 0.125, "version": BRIEF, "batch_size": 20}
    expected, counts = autoattack(trained, x, y, **options), []

    def counted(limit: float) -> Any:
        made = iter(range(1000))

        def count(*_: Any) -> None:
            counts[-1] = next(made)
            if counts[-1] >= limit:
                raise Killed

        counts.append(0)
        return count

    hook = trained.register_forward_pre_hook(counted(np.inf))
    autoattack(trained, x, y, **options)
    hook.remove()
    hook = trained.register_forward_pre_hook(counted(counts[0] * calls / 100))
    with pytest.raises(Killed):
        autoattack(trained, x, y, work=tmp_path, **options)
    hook.remove()
    hook = trained.register_forward_pre_hook(counted(np.inf))
    stand = autoattack(trained, x, y, work=tmp_path, **options)
    hook.remove()
    assert torch.equal(stand.x_adv, expected.x_adv)
    assert {name: column.tolist() for name, column in stand.attacks.items()} == {
        name: column.tolist() for name, column in expected.attacks.items()
    }
    assert calls < 15 or counts[2] < counts[0]
    # What is finished is read, and another setting is not taken for it.
    again = autoattack(trained, x, y, work=tmp_path, **options)
    assert torch.equal(again.x_adv, expected.x_adv)
    other = autoattack(trained, x, y, work=tmp_path, **options, seed=1)
    assert not torch.equal(other.x_adv, expected.x_adv)


class Claims(Attack):
    """Returns what it is told to."""

    name = "claims"
    shift: float

    def perturb(
        self, model: nn.Module, x: Tensor, y: Tensor, *, threat: ThreatModel, seed: int, ids: Tensor | None = None
    ) -> Tensor:
        return x + self.shift


class Threshold(nn.Module):
    """Class 1 above 0.55."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1) - 0.55
        return torch.stack([-mean, mean, 0 * mean - 9, 0 * mean - 9], 1)


@pytest.mark.parametrize(("shift", "eps", "counts"), [(0.1, 0.1, True), (0.1, 0.09, False), (0.04, 0.1, False)])
def test_only_verified_images_in_the_ball_count(shift: float, eps: float, counts: bool) -> None:
    x, y, ids = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64), torch.arange(3)
    order = turns([Claims(shift=shift)], seed=0)
    stand = attack_batch(Threshold(), x, y, order, threat=ThreatModel(eps=eps), ids=ids)
    assert bool(stand.robust.any()) != counts
    assert torch.equal(stand.x_adv, x + shift if counts else x)
    assert stand.outside == ({order[0].label: 3} if shift > eps else {})


class Rounded(nn.Module):
    """Right in float32, wrong in bfloat16: a search that is not checked would call it broken."""

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.tensor([[0.0, 0.001], [0.0, -0.001], [-9.0, 0.0], [-9.0, 0.0]])
        logits = nn.functional.linear(torch.cat([1 + 0 * x.flatten(1)[:, :1], 1 + 0 * x.flatten(1)[:, :1]], 1), weight)
        return logits if logits.dtype == torch.float32 else -logits


def test_bfloat16_searches_but_never_judges() -> None:
    x, y = torch.full((4, 1, 4, 4), 0.5), torch.zeros(4, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        assert (Rounded()(x).argmax(1) != y).all()
    assert (Rounded()(square(Rounded(), x, y, eps=0.1, queries=20, precision="bfloat16")).argmax(1) == y).all()
    with pytest.warns(UserWarning, match="no gradient"):
        assert autoattack(Rounded(), x, y, eps=0.1, version=[Square(queries=20, precision="bfloat16")]).accuracy == 1


def _linear(classes: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()


class Noisy(nn.Module):
    """Noise that eval mode does not switch off."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _linear(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + torch.rand(len(x), 4)


class Masked(nn.Module):
    """Rounds its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _linear(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.round())


IMAGES = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
WARNED = {
    "train mode": (
        lambda: nn.Sequential(_linear(4), nn.Dropout(0.5)).train(),
        r"in train mode \(.*\): it is attacked in eval mode and put back",
    ),
    "random": (Noisy, "outputs are random.*fix the randomness"),
    "masked": (Masked, "12 of 12 images have no gradient.*masked"),
    "softmax": (lambda: nn.Sequential(_linear(4), nn.Softmax(1)).eval(), "look like probabilities.*leave the softmax"),
    "three classes": (lambda: _linear(3), "3 classes.*needs 4.*that of the untargeted"),
    "two classes": (lambda: _linear(2), "2 classes.*needs 4.*the loss is the margin"),
}


@pytest.mark.parametrize("case", WARNED)
def test_warnings_say_what_to_do(case: str) -> None:
    build, message = WARNED[case]
    model = build()
    training, state = model.training, torch.get_rng_state()
    y = model(IMAGES).argmax(1)
    torch.set_rng_state(state)
    with pytest.warns(UserWarning, match=message):
        stand = autoattack(model, IMAGES, y, eps=0.9 if "classes" in case else 0.3, version=BRIEF)
    assert model.training == training
    assert torch.equal(torch.get_rng_state(), state)
    if "classes" in case:
        assert stand.accuracy < 0.5


def test_a_sound_model_is_not_warned_of(trained: nn.Module, right: Pair) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoattack(trained, right[0][:5], right[1][:5], eps=0.01, version=BRIEF)


def test_all_misclassified() -> None:
    model = _linear(4)
    y = (model(IMAGES).argmax(1) + 1) % 4
    with pytest.warns(UserWarning, match="every image is misclassified without an attack"):
        stand = autoattack(model, IMAGES, y, eps=0.1)
    assert stand.accuracy == 0
    assert torch.equal(stand.x_adv, IMAGES)
    assert set(stand.broken().values()) == {0}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": IMAGES[:0], "y": torch.zeros(0).long()}, ValueError, "the batch is empty"),
        ({"x": IMAGES * 2}, ValueError, r"must lie in \[0, 1\].*unnormalised"),
        ({"y": torch.full((12,), 4)}, ValueError, "a label is 4, but the model has 4 classes, whose labels are 0 to 3"),
        ({"y": torch.arange(12) - 9}, ValueError, "labels are classes from 0, but the least is -9"),
        ({"eps": -1}, ValueError, "eps must be a number above 0"),
        ({"version": "plus"}, ConfigError, "'standard' or 'apgd', or a list of attacks"),
        ({"version": 3}, ConfigError, "3 is no version"),
        ({"version": []}, ConfigError, "or a list of attacks"),
        ({"version": ["apgd", "fab"]}, ConfigError, "unknown attack 'fab' .did you mean 'fab_t'"),
        (
            {"version": ["apgd", "square"], "precision": "bfloat16"},
            ConfigError,
            "a list have a precision .* of their own",
        ),
        ({"version": ["apgd"], "give_up": False}, ConfigError, "a list have a precision and give_up of their own"),
    ],
)
def test_what_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"x": IMAGES, "y": torch.zeros(12, dtype=torch.int64), "eps": 0.1}
    with pytest.raises(error, match=message):
        autoattack(_linear(4), **(given | change))


def test_keys_tell_settings_apart() -> None:
    specs: list[Any] = ["standard", "apgd", ["apgd"], [{"apgd": {"steps": 5}}], ["apgd", "square"]]
    made = [AutoAttack.create(version=spec) for spec in specs]
    assert len({str(attack.canonical()) for attack in made}) == len({attack.label() for attack in made}) == len(specs)
    assert AutoAttack.create(version="standard").canonical() == {"name": "autoattack", "version": AutoAttack.version}
