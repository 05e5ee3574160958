"""How weights are evaluated on the test images: attacks, threat model, images; and doing it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, PlainSerializer
from torch import Tensor

from advprune_core.attacks.base import PGD, Attack, parse_attacks
from advprune_core.attacks.compiled import CompiledPasses, Speed, compiled_passes
from advprune_core.attacks.evaluate import Outcome, inspected
from advprune_core.attacks.geometry import L2_VERSION, ThreatModel
from advprune_core.base.keys import content_key, json_data
from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError, Seed, Settings
from advprune_core.datasets.splits import Dataset, Split
from advprune_core.models.mode import true_float32

#: Optimiser steps, below which a network that has learnt nothing was hardly trained.
_FEW_STEPS = 200
#: Images of a compiled pass of a search on a processor; what is left of a batch is cut and filled up to it.
SEARCH_SIZE = 128


def parsed_attacks(specs: Any) -> tuple[Attack, ...]:
    """The attacks of a test, each listed once: a second finds what the first did.

    Raises
    ------
    ConfigError
        As of `parse_attacks`; an attack that is listed twice.
    """
    attacks = parse_attacks(specs)
    labels = [attack.label() for attack in attacks]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"an attack is listed twice: {', '.join(labels)}")
    return attacks


Attacks = Annotated[
    tuple[Attack, ...],
    BeforeValidator(parsed_attacks),
    PlainSerializer(lambda attacks: [attack.spec() for attack in attacks]),
]

#: PGD-40 with cross-entropy, then with the CW margin on what withstood: the quick standard here.
PGD_40: tuple[Attack, ...] = (PGD(), PGD(loss="margin"))


class EvaluationConfig(Settings):
    """How a checkpoint is evaluated on the test images."""

    attacks: Annotated[Attacks, Field(min_length=1, description="attacks, cheapest first")] = PGD_40
    threat: ThreatModel = ThreatModel()
    checkpoint: Annotated[Literal["last", "best"], Field(description="which weights")] = "last"
    seed: Annotated[Seed, Field(description="seed of the random starts")] = 0
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="images at once")] = 500
    images: Annotated[
        int | None, Field(ge=1, le=1_000_000_000, description="stratified subset: images attacked (default: all)")
    ] = None
    speed: Annotated[Speed, Field(description="passes of the searches; verdicts are always plain")] = "exact"

    def check(self, dataset: Dataset) -> None:
        """Refuse more images than there are.

        Raises
        ------
        ConfigError
        """
        if self.images is not None and self.images > len(dataset.test):
            raise ConfigError(f"images = {self.images}, but there are only {len(dataset.test)} test images")

    def split(self, dataset: Dataset) -> tuple[Split, Tensor | None]:
        """The images that are attacked, and their places among all test images (None: all in order)."""
        if self.images is None:
            return dataset.test, None
        ids = dataset.test.spread(self.images)
        return dataset.test.take(ids), ids

    def identity(self, test_hash: str) -> dict[str, Any]:
        """What determines the outcome, the weights aside, as JSON data."""
        identity = {**self.canonical(), "attacks": [attack.canonical() for attack in self.attacks], "test": test_hash}
        if self.threat.norm == "l2":
            identity["l2"] = L2_VERSION
        return json_data(identity)

    def key(self, test_hash: str) -> str:
        """Hash of what determines the outcome, the weights aside."""
        return content_key(self.identity(test_hash))


def evaluate_model(
    model: torch.nn.Module,
    dataset: Dataset,
    evaluation: EvaluationConfig,
    *,
    device: str = "cpu",
    work: Path | None = None,
    progress: bool = False,
    steps: int | None = None,
) -> tuple[Outcome, dict[str, Any]]:
    """Evaluate any network on a data set's test images: outcomes, and the ledger's state.

    With a folder `work`, an evaluation that was killed goes on where it was, to the same outcome;
    its ledger counts what an undisturbed one would have. `steps` are the optimiser's in the model's training, if they
    are known: doubts about a model that has learnt nothing name them where they are few.

    Raises
    ------
    NotCompiled
        A compiled evaluation that cannot be compiled here.
    """
    ledger = Ledger(device)
    test, ids = evaluation.split(dataset)
    searches: AbstractContextManager[None] = nullcontext()
    if evaluation.speed == "compiled":
        with ledger.phase("compile"):
            searches = compiled_searches(model, test, evaluation, device=device).instead_of(model)
    with searches, ledger.watch(model), ledger.phase("evaluate"):
        outcome = inspected(
            model,
            test,
            evaluation.attacks,
            threat=evaluation.threat,
            seed=evaluation.seed,
            batch_size=evaluation.batch_size,
            ids=ids,
            work=work,
            progress=progress,
            remedy=_remedy(steps),
        )
    return outcome, ledger.state()


def _remedy(steps: int | None) -> str | None:
    """What to do about a network that has learnt nothing, if that is for want of steps of the optimiser."""
    if steps is None or steps >= _FEW_STEPS:
        return None
    return f"only {steps} step{'s' * (steps != 1)}: train for more epochs, or with a smaller --batch-size"


def compiled_searches(
    model: torch.nn.Module, test: Split, evaluation: EvaluationConfig, *, device: str = "cpu"
) -> CompiledPasses:
    """The passes of an evaluation's searches, compiled.

    Raises
    ------
    NotCompiled
        See `compiled_passes`.
    """
    size = min(evaluation.batch_size, len(test))
    if device != "cuda":
        size = min(size, SEARCH_SIZE)
    images = test.pixels(slice(0, size)).to(device)
    with true_float32(images.device):
        return compiled_passes(model, images, training=False)
