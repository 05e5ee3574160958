"""The network that images are explored with: one trained in seconds, or a finished run's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.models.mode import device_of
from advprune_core.pruners.base import PRUNERS, Context, keep
from advprune_core.pruners.keep_rules import Scores
from advprune_core.pruners.outputs import split_branch
from advprune_core.pruners.scores import KINDS, OF_FEATURES, Score, ScoreName, split_scores
from advprune_core.pruners.selection import Selection
from advprune_core.study.runs import load_run
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train

#: Pruners that go by the network as it stands, or by nothing; others have to watch training.
CHOOSERS = (
    *("random", "keep_easy", "keep_hard", "keep_middle", "keep_fragile"),
    *("grad_match", "glister", "craig", "herding", "k_center", "moderate"),
)
#: Epochs of the network that is trained to be looked at.
EPOCHS = 6


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network with its data, its settings, and where it comes from in words."""

    model: nn.Module
    dataset: Dataset
    config: RunConfig
    origin: str
    _scores: dict[ScoreName, Scores] = field(default_factory=dict)
    _selections: dict[tuple[str, float], Selection] = field(default_factory=dict)

    def context(self, fraction: float) -> Context:
        """What a pruner sees of it."""
        config = self.config
        return Context(
            self.dataset,
            fraction,
            config.seed,
            model=self.model,
            objective=config.objective,
            attack=config.attack,
            epochs=config.optimisation.epochs,
            min_per_class=1,
        )

    def scores(self, score: ScoreName) -> Scores:
        """The score of every training image, under the training attack; kept for the next time.

        Raises
        ------
        ConfigError
            One that looks at the last layer's inputs, of a network that does not show them.
        """
        if score == "steps_to_break" and score not in self._scores:
            self._scores[score] = split_scores(self.context(1.0), score)
        elif score not in self._scores:
            self._check(score)
            # Outputs under attack give all at once; features of them only a network that shows its last layer.
            names = [name for name in KINDS if name not in OF_FEATURES or self._shows(name)]
            branch = split_branch(self.context(1.0), features=not set(OF_FEATURES).isdisjoint(names))
            labels = self.dataset.train.labels.to(branch.logits.device)
            found = {name: KINDS[name].function(branch, labels) for name in names}
            self._scores.update({name: values.cpu().numpy().astype(np.float64) for name, values in found.items()})  # type: ignore[misc]
        return self._scores[score]

    def _check(self, score: str) -> None:
        """Refuse a score that the network cannot be looked at for, as its pruner does."""
        images = self.dataset.train.pixels(slice(0, 2)).to(device_of(self.model))
        Score.create(score=score).check_model(self.model, images)

    def _shows(self, score: str) -> bool:
        try:
            self._check(score)
        except ConfigError:
            return False
        return True

    def selection(self, pruner: str, fraction: float) -> Selection:
        """What a pruner keeps; kept for the next time.

        Raises
        ------
        ConfigError
            An unknown pruner, or one that has to watch training.
        """
        if (pruner, fraction) not in self._selections:
            chosen = PRUNERS.parse(pruner).for_objective(self.config.objective)
            self._selections[pruner, fraction] = keep(chosen, self.context(fraction))
        return self._selections[pruner, fraction]


def tiny_network(*, seed: int = 0) -> Network:
    """The small network of the digits after a few epochs of adversarial training: seconds."""
    config = RunConfig.flat(epochs=EPOCHS, seed=seed, device="cpu")
    dataset = load_dataset(config.dataset)
    model = build_model(config.model, dataset, seed=seed)
    train(config, dataset, model=model)
    return Network(model.eval(), dataset, config, f"trained now on the digits, {EPOCHS} epochs")


def network_of_run(key: str, results: str | Path | None = None) -> Network:
    """The network of a finished run by its key, or the beginning of it.

    Raises
    ------
    ConfigError
        No such run, or its weights are not here: those of the reference studies do not travel.
    """
    run = load_run(key, results)
    dataset = load_dataset(run.config.dataset)
    return Network(run.model(dataset), dataset, run.config, f"of the run {run.record.key}")
