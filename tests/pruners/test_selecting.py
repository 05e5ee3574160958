"""Pruning one's own data: from arrays and a model, from saved outputs, from a training of one's own."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advprune_core.base.settings import ConfigError
from advprune_core.objectives.pgd_at import PGDAT
from advprune_core.pruners import PRUNERS, Selection
from advprune_core.pruners.base import Context, ModelPruner
from advprune_core.pruners.branches import SplitOutputs
from advprune_core.pruners.outputs import split_outputs
from advprune_core.pruners.selecting import select
from advprune_core.pruners.selection_files import load_selection, save_selection
from tests.contexts import EPS, blobs, context, network
from tests.made_up import entry_point, refused

WORLD = blobs()
X, Y = WORLD.train.images.numpy(), WORLD.train.labels.numpy()
HELD_OUT = WORLD.val_select.images.numpy(), WORLD.val_select.labels.numpy()


@pytest.mark.parametrize("name", ["random", "score", "keep_fragile", "grad_match", "glister", "k_center", "aign"])
def test_arrays_and_a_model_give_what_a_run_would_select(name: str) -> None:
    made = context(0.3, objective="trades", epoch=0)
    expected = PRUNERS.parse(name).select(made)
    found = select(
        Y,
        x=X,
        model=made.network,
        pruner=name,
        fraction=0.3,
        held_out=HELD_OUT,
        objective="trades",
        eps=EPS,
        steps=2,
    )
    assert found.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-5)


@pytest.mark.parametrize("spec", ["score", {"score": {"score": "grand", "steps": 0}}, "herding", "grad_match", "craig"])
def test_saved_outputs_stand_for_the_model(spec: Any) -> None:
    made = context(0.3, objective="pgd_at")
    branch = split_outputs(made, made.dataset.train, clean=True).clean
    saved = {"logits": branch.logits.numpy(), "features": branch.features.numpy()}
    found = select(Y, pruner=spec, fraction=0.3, **saved)
    outputs = SplitOutputs(made.dataset.train.labels, branch, branch)
    expected = PRUNERS.parse(spec).select(replace(made, epoch=0, model=None, outputs=outputs))
    assert found.indices.tolist() == expected.indices.tolist()
    assert len(found) == made.k


@pytest.mark.parametrize("spec", ["herding", "k_center", "d2", {"grad_match": {"block": 20}}, "craig"], ids=str)
def test_features_of_float16_are_what_they_are_in_float32(spec: Any) -> None:
    rng = np.random.default_rng(0)
    logits, features = rng.standard_normal((len(Y), 4)), rng.standard_normal((len(Y), 9)).astype(np.float16)
    half, full = (
        select(Y, pruner=spec, fraction=0.2, logits=logits, features=features.astype(dtype), min_per_class=1)
        for dtype in (np.float16, np.float32)
    )
    assert half.indices.tolist() == full.indices.tolist()
    assert half.weights.tolist() == full.weights.tolist()


def test_a_trajectory_gives_the_scores_of_a_whole_training() -> None:
    """AUM by hand: the mean margin over all epochs."""
    logits = np.random.default_rng(0).standard_normal((6, len(Y), 4)).astype(np.float32)
    label = np.take_along_axis(logits, Y[None, :, None], 2)[..., 0]
    others = np.where(np.arange(4) == Y[:, None], -np.inf, logits).max(2)
    expected = np.argsort((label - others).mean(0))[: round(0.3 * len(Y))]
    found = select(Y, pruner="aum", fraction=0.3, trajectory=logits)
    assert found.indices.tolist() == sorted(expected.tolist())


LOGITS = np.zeros((len(Y), 4), np.float32)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"pruner": "score"}, "and there is none"),
    "no images": ({"pruner": "score", "model": torch.nn.Flatten()}, "needs the images"),
    "no features": ({"pruner": "herding", "logits": LOGITS}, "only logits"),
    "steps of saved outputs": ({"pruner": "keep_fragile", "logits": LOGITS}, "and there is none"),
    "no history": ({"pruner": "aum"}, "observed nothing"),
    "short history": ({"pruner": "tdds", "trajectory": LOGITS[None]}, "too few epochs"),
    "no held-out images": ({"pruner": "glister", "x": X, "model": torch.nn.Flatten()}, "held-out"),
    "rows that lack": ({"pruner": "score", "logits": LOGITS[1:]}, "one row for each"),
    "not finite": ({"pruner": "score", "logits": LOGITS * np.nan}, "finite"),
    "one not finite": (
        {"pruner": "herding", "logits": LOGITS, "features": np.array([[0.0]] * (len(Y) - 1) + [[np.nan]], np.float16)},
        r"features must be finite, and 1 of 160 are not \(the first at \[159, 0\]\)",
    ),
    "not epochs": ({"pruner": "aum", "trajectory": LOGITS}, r"\(epochs, 160, classes\)"),
    "nothing": ({"pruner": "random", "fraction": 0.0}, "fraction"),
    "unknown": ({"pruner": "rondom"}, "did you mean 'random'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_missing_is_named(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        select(Y, **{"fraction": 0.3, **given})


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrays and weights on disk give what the function gives; a picture is drawn."""
    command, made = entry_point(monkeypatch, capsys), context(0.3)
    np.savez(tmp_path / "mine.npz", x_train=X, y_train=Y)
    torch.save(made.network.state_dict(), tmp_path / "w.pt")
    monkeypatch.setattr("tests.contexts.my_factory", lambda: copy.deepcopy(made.network), raising=False)
    out, picture = tmp_path / "kept.npz", tmp_path / "kept.png"
    options = ["--pruner", "{score: {score: el2n}}", "--fraction", "0.3", "--eps", str(EPS), "--steps", "2"]
    known = ["--model", "tests.contexts:my_factory", "--weights", str(tmp_path / "w.pt")]
    code, text, _ = command(
        "select", str(tmp_path / "mine.npz"), *options, *known, "--out", str(out), "--picture", str(picture)
    )
    assert code == 0
    expected = select(Y, x=X, model=made.network, pruner={"score": {"score": "el2n"}}, fraction=0.3, eps=EPS, steps=2)
    assert f"keeps {len(expected)} of {len(Y)} images" in text
    assert load_selection(out).indices.tolist() == expected.indices.tolist()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no shell has seen a path, as in ``--out=~/kept.npz``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    selection = select(Y, pruner="random", fraction=0.3)
    assert save_selection(selection, "~/kept.npz") == tmp_path / "kept.npz"
    assert load_selection("~/kept.npz").indices.tolist() == selection.indices.tolist()
    assert not (tmp_path / "~").exists()


COMMANDS: list[tuple[dict[str, Any], list[str], str]] = [
    ({"x": X}, [], "has no labels: it needs y or y_train, and has x"),
    ({"y": Y, "x": X}, ["--model", "small_cnn"], "give both or neither"),
    ({"y": Y}, ["--model", "small_cnn", "--weights", "w.pt"], "has no images for the model"),
    ({"y": Y}, ["--out", "kept.csv"], "--out must end in .npz"),
    ({"y": Y}, ["--fraction", "1.5"], "fraction must be above 0"),
    ({"y": Y}, ["--eps", "8/x"], "8/x"),
    ({"y": Y}, ["--device", "tpu"], "device must be one of auto, cpu, cuda"),
    ({"y": Y, "x": np.repeat(X, 2, 1)}, [], "--layout|layout='NHWC'"),
    ({"y": Y, "logits": np.zeros((len(Y), 4))}, ["--pruner", "score", "--objective", "trades"], "adversarial_logits"),
]


@pytest.mark.parametrize(("arrays", "options", "message"), COMMANDS)
def test_the_command_refuses(
    arrays: dict[str, Any],
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", **arrays)
    given = ["select", "mine.npz", "--pruner", "random", "--fraction", "0.3", *options]
    refused(*entry_point(monkeypatch, capsys)(*given), message)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def test_a_selection_on_disk_needs_no_pickle(tmp_path: Path) -> None:
    selection = Selection(np.array([4, 1, 9]), np.array([1.5, 0.5, 1.0], np.float32), n_filled=1)
    path = save_selection(selection, tmp_path / "kept.npz")
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["indices"].tolist() == [1, 4, 9]
        assert arrays["weights"].tolist() == [0.5, 1.5, 1.0]
    found = load_selection(path)
    assert (found.indices.tolist(), found.weights.tolist(), found.n_filled) == ([1, 4, 9], [0.5, 1.5, 1.0], 1)
    with pytest.raises(ConfigError, match=r"\.npz"):
        save_selection(selection, tmp_path / "kept.txt")


def test_a_class_that_would_be_emptied_is_refused() -> None:
    """As in training, unless some of each are asked for."""
    labels = np.repeat([0, 1, 2], [500, 498, 2])
    with pytest.raises(ConfigError, match=r"class 2"):
        select(labels, pruner="random", fraction=0.05, seed=1)
    found = select(labels, pruner="random", fraction=0.05, seed=1, min_per_class=1)
    assert (labels[found.indices] == 2).sum() == 1
    with pytest.raises(ConfigError, match=r"min_per_class = 20 needs 42 images, and fraction 0\.04 keeps 40"):
        select(labels, pruner="random", fraction=0.04, seed=1, min_per_class=20)


class Raw(ModelPruner):
    """Asks the network as it is given, without a thought of its modes."""

    name = "raw"

    def choose(self, context: Context) -> Selection:
        logits = context.network(context.dataset.train.pixels(slice(None)))
        return Selection(logits.detach().amax(1).argsort().numpy()[-context.k :])


def test_a_network_in_training_mode_is_left_as_it_was() -> None:
    model = network(4).train()
    before = copy.deepcopy(model.state_dict())
    kept = select(Y, x=X, model=model, pruner=Raw(), fraction=0.5, eps=EPS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert (
        kept.indices.tolist()
        == select(Y, x=X, model=model.eval(), pruner=Raw(), fraction=0.5, eps=EPS).indices.tolist()
    )


@pytest.mark.parametrize(
    ("pruner", "given", "radius"),
    [
        ("grad_match", {}, "8/255"),
        ("grad_match", {"norm": "l2"}, "128/255"),
        ("grad_match", {"eps": EPS}, None),
        ("grad_match", {"objective": "standard"}, None),
        ({"score": {"score": "el2n", "steps": 0}}, {}, None),
        ("random", {}, None),
    ],
)
def test_a_radius_that_nobody_gave_is_told(pruner: Any, given: dict[str, Any], radius: str | None) -> None:
    made = {"x": X, "model": context().network, "pruner": pruner, "fraction": 0.4, "steps": 1}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = select(Y, **made, **given)
    texts = [str(warning.message) for warning in caught]
    assert [f"within {radius}," in text for text in texts] == [True] * (radius is not None)
    if radius is not None:
        assert found.indices.tolist() == select(Y, **made, **given, eps=radius).indices.tolist()


def test_losses_of_ones_own_objective_are_one_for_each_image() -> None:
    class Column(PGDAT):
        """Losses of shape (n, 1)."""

        name = "column"

        def per_sample(self, clean: Any, adversarial: Any, y: Any) -> Any:
            return super().per_sample(clean, adversarial, y)[:, None]

    with pytest.raises(ConfigError, match=r"of shape \(160, 1\): one loss per image"):
        select(Y, pruner="grad_match", fraction=0.4, logits=LOGITS, features=LOGITS, objective=Column())
