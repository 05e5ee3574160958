"""Images by score, kept or dropped, and one under attack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from advprune_core.attacks.base import FGSM, PGD
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.explore.attacked import ATTACKS, STEPS, attack_figure, attack_image
from advprune_core.explore.images import PAGE, SCORES, sheet, sort_images
from advprune_core.explore.networks import CHOOSERS, Network, network_of_run, tiny_network
from advprune_core.models.base import build_model
from advprune_core.pruners.scores import split_scores
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def network() -> Network:
    """A network after a moment's training."""
    from advprune_core.datasets.base import load_dataset

    config: RunConfig = tiny_run(epochs=20)
    dataset: Dataset = load_dataset(config.dataset)
    model = build_model(config.model, dataset, seed=0)
    train(config, dataset, model=model)
    return Network(model.eval(), dataset, config, "trained in a test")


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_those_of_the_pruners(network: Network, score: str) -> None:
    torch.testing.assert_close(network.scores(score), split_scores(network.context(1.0), score))  # type: ignore[arg-type]


@pytest.mark.parametrize("pruner", CHOOSERS)
def test_every_pruner_that_is_offered_can_choose(network: Network, pruner: str) -> None:
    assert len(network.selection(pruner, 0.2)) == network.context(0.2).k


class Doubled(torch.nn.Module):
    """A network whose logits are not its last layer's."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x)


def test_what_looks_at_logits_alone_needs_no_last_layer(network: Network) -> None:
    other = replace(network, model=Doubled(network.model), _scores={}, _selections={})
    for score in ("loss", "el2n", "margin"):
        assert other.scores(score).tolist() == split_scores(other.context(1.0), score).tolist()
    assert len(other.selection("keep_hard", 0.2)) == other.context(0.2).k
    with pytest.raises(ConfigError, match="logits are not the output of its last"):
        other.scores("grand")


def test_a_pruner_that_watches_training_is_refused(network: Network) -> None:
    with pytest.raises(ConfigError):
        network.selection("aum", 0.5)
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        network.selection("randm", 0.5)


@pytest.mark.parametrize("label", [None, 3])
@pytest.mark.parametrize("highest_first", [True, False])
def test_kept_and_dropped_are_all_in_order(network: Network, label: int | None, highest_first: bool) -> None:
    parts = {
        shown: sort_images(
            network, pruner="keep_easy", fraction=0.5, shown=shown, label=label, highest_first=highest_first
        )
        for shown in ("all", "kept", "dropped")
    }
    everything, kept, dropped = parts.values()
    selection = set(network.selection("keep_easy", 0.5).indices.tolist())
    assert set(kept.ids.tolist()) <= selection
    assert not set(dropped.ids.tolist()) & selection
    assert sorted([*kept.ids, *dropped.ids]) == sorted(everything.ids)
    assert everything.counts == (len(kept.ids), len(everything.ids))
    assert everything.kept.sum() == len(kept.ids)
    for part in parts.values():
        steps = np.diff(part.scores)
        assert (steps <= 0 if highest_first else steps >= 0).all()
        assert np.array_equal(part.scores, network.scores("loss")[part.ids])
    labels = network.dataset.train.labels.numpy()
    assert len(everything.ids) == (len(labels) if label is None else (labels == label).sum())


def test_pages_hold_every_image_once(network: Network) -> None:
    found = sort_images(network, pruner="random", fraction=0.3)
    pages = [found.page(number) for number in range(found.pages)]
    assert np.array_equal(np.concatenate([page.ids for page in pages]), found.ids)
    assert all(len(page.ids) == PAGE for page in pages[:-1])
    assert sheet(network, pages[-1]).axes[0].images, "a page that is not full can be drawn"
    none = sort_images(network, pruner="random", fraction=1.0, shown="dropped")
    assert (len(none.ids), none.pages) == (0, 1)
    assert not sheet(network, none.page(0)).axes[0].images


@pytest.mark.parametrize("name", [name for name in ATTACKS if "Square" not in name])
def test_an_attack_stays_in_its_ball(network: Network, name: str) -> None:
    found = attack_image(network, 5, attack=ATTACKS[name], eps=0.1)
    assert float((found.after - found.before).abs().max()) <= 0.1 + 1e-6
    assert 0 <= float(found.after.min()) <= float(found.after.max()) <= 1
    with torch.no_grad():
        torch.testing.assert_close(found.logits_after, network.model(found.after[None])[0])
        torch.testing.assert_close(found.logits_before, network.model(found.before[None])[0])


def test_what_an_image_withstands_is_told(network: Network) -> None:
    model, split = network.model, network.dataset.train
    with torch.no_grad():
        right = (model(split.pixels(slice(None))).argmax(1) == split.labels).nonzero().ravel()
        wrong = (model(split.pixels(slice(None))).argmax(1) != split.labels).nonzero().ravel()
    clean = attack_image(network, int(right[0]), attack=PGD(), eps=0)
    assert torch.equal(clean.before, clean.after)
    assert clean.text().endswith("still recognised.")
    tried = [attack_image(network, int(place), attack=PGD(), eps=0.5) for place in right[:20]]
    broken = next(found for found in tried if found.steps_to_break <= STEPS)
    assert 1 <= broken.steps_to_break <= STEPS
    assert f"Breaks after {broken.steps_to_break} step" in broken.text()
    held = attack_image(network, int(right[0]), attack=FGSM(), eps=1e-6)
    assert held.steps_to_break == STEPS + 1
    assert f"Withstands {STEPS} steps of PGD." in held.text()
    lost = attack_image(network, int(wrong[0]), attack=FGSM(), eps=0.1)
    assert lost.text().endswith("without any attack.")
    assert len(attack_figure(broken).axes) == 4


def test_what_is_added_is_enlarged_as_far_as_it_can_be_shown(network: Network) -> None:
    small, large = (attack_image(network, 5, attack=PGD(), eps=eps) for eps in (0.01, 0.2))
    drawn = [attack_figure(found).axes[1] for found in (small, large)]
    assert drawn[0].get_title() == "what is added (x10)"
    for axis, found in zip(drawn, (small, large), strict=True):
        pixels, change = axis.images[0].get_array(), (found.after - found.before)[0].numpy()
        times = 10 if found is small else 0.5 / np.abs(change).max()
        assert np.allclose(pixels, 0.5 + times * change)
        assert 0 <= pixels.min() <= pixels.max() <= 1


@pytest.mark.parametrize("place", [-1, 10_000])
def test_there_is_no_such_image(network: Network, place: int) -> None:
    with pytest.raises(ConfigError, match="there is no training image"):
        attack_image(network, place, attack=PGD(), eps=0.1)


@pytest.mark.slow(seconds=15)
def test_the_network_that_is_trained_for_it_is_worth_a_look() -> None:
    network = tiny_network()
    split = network.dataset.test
    with torch.no_grad():
        right = network.model(split.pixels(slice(None))).argmax(1) == split.labels
    assert float(right.float().mean()) > 0.7
    assert not network.model.training


def test_the_network_of_a_run(tmp_path: Path) -> None:
    from advprune_core.study.runner import run_study
    from tests.tiny import tiny_study

    result = run_study(tiny_study(tmp_path, seeds=[0], fractions=[1.0], controls=[], epochs=1), progress=False)
    (key,) = result.table["key"]
    network = network_of_run(key[:6], tmp_path)
    assert network.origin == f"of the run {key}"
    split = network.dataset.test
    with torch.no_grad():
        right = network.model(split.pixels(slice(None))).argmax(1) == split.labels
    assert float(right.float().mean()) == pytest.approx(float(result.table["clean"].iloc[0]))
