"""The alignment of a single step against a plain loop; and that looking at it changes nothing but what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from advprune_core.base.ledger import Ledger
from advprune_core.datasets.base import load_dataset
from advprune_core.models.mode import no_trace
from advprune_core.objectives.base import TRAINERS
from advprune_core.trainers.alignment import has_one_step, perturbation_alignment
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from advprune_core.trainers.result import TrainResult
from tests.contexts import blobs, network
from tests.objectives.test_carried import batch
from tests.tiny import tiny_run

#: Trainers whose single step the attack policy describes.
ONE_STEP = {"fgsm", "fast", "n_fgsm", "atta", "grad_align"}


def test_which_trainers_have_one_step_that_is_known() -> None:
    runs = {name: RunConfig.flat(trainer=name) for name in TRAINERS.classes()}
    assert {name for name, run in runs.items() if has_one_step(run.objective, run.attack)} == ONE_STEP
    standard = RunConfig.flat(objective="standard", steps=1)
    assert not has_one_step(standard.objective, standard.attack)
    one, several = (RunConfig.flat(trainer="trades", steps=steps) for steps in (1, 2))
    assert has_one_step(one.objective, one.attack)
    assert not has_one_step(several.objective, several.attack)


@pytest.mark.parametrize(
    "options", [*({"trainer": name} for name in sorted(ONE_STEP)), {"trainer": "fast", "norm": "l2"}]
)
def test_alignment_against_a_plain_loop(options: dict[str, Any]) -> None:
    """At the end of the very step that training takes, image by image."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 24), nn.Tanh(), nn.Linear(24, 4)).eval()
    config = RunConfig.flat(**options, eps=0.2)
    given, state = batch([4, 1, 7, 0], 2), config.attack.initial_state(10)
    attack = config.attack.bind(model, seed=3, state=state, remembers=False)
    x_adv, start = attack(given, given.y, "cross_entropy"), attack.start(given)
    cosines = []
    with no_trace(model):
        for rows in range(4):
            one = slice(rows, rows + 1)
            first, second = (
                torch.autograd.grad(nn.functional.cross_entropy(model(leaf), given.y[one]), leaf)[0].double().flatten()
                for leaf in (x[one].clone().requires_grad_() for x in (start, x_adv))
            )
            cosines.append(float(first @ second / first.norm() / second.norm()))
    found = perturbation_alignment(model, given, attack, config.objective)
    assert found == pytest.approx(np.mean(cosines), abs=1e-5)
    assert abs(found) <= 1


def test_a_linear_loss_is_aligned_and_a_bent_one_is_not() -> None:
    class Steep(nn.Module):
        """The logits turn round within a step of 0.2: the gradient at its end points back."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            light = (10 * x.mean((1, 2, 3))).sin()
            return torch.stack([light, -light], 1)

    config, given = RunConfig.flat(trainer="fgsm", eps=0.2), batch([0, 1, 2, 3], 0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(given.x[0].numel(), 2))
    for model, expected in ((linear, 1.0), (Steep(), -1.0)):
        level = torch.full_like(given.x, 0.1)  # rising: the step of label 1 goes beyond the top
        one = type(given)(level, torch.ones(4).long(), given.ids, given.epochs)
        attack = config.attack.bind(model, seed=0, state={})
        assert perturbation_alignment(model, one, attack, config.objective) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("options", "cost"), [({"trainer": "fast"}, 4), ({"trainer": "trades", "steps": 1}, 5)])
def test_what_it_costs_and_that_it_leaves_no_trace(options: dict[str, Any], cost: int) -> None:
    model, config, given = network(4), RunConfig.flat(**options, eps=0.2), blobs().train
    one = type(batch([0], 0))(given.pixels(slice(0, 8)), given.labels[:8], torch.arange(8), torch.zeros(8).long())
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ledger, attack = Ledger(), config.attack.bind(model, seed=0, state={}, remembers=False)
    with ledger.watch(model), ledger.phase("validate"):
        perturbation_alignment(model, one, attack, config.objective)
    assert ledger.passes == {"validate": cost * 8}
    assert ledger._in_graph == 0
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def same(one: TrainResult, other: TrainResult) -> None:
    """But for what is only looked at."""
    assert one.last.keys() == other.last.keys()
    assert all(torch.equal(value, other.last[name]) for name, value in one.last.items())
    rows = [[{k: v for k, v in row.items() if k != "pert_align"} for row in r.metrics] for r in (one, other)]
    assert rows[0] == rows[1]
    assert one.status == other.status


LOOKED_AT: list[dict[str, Any]] = [
    {"trainer": "fast"},
    {"trainer": "n_fgsm", "ema": 0.9, "plain_epochs": 1},
    {"trainer": "atta", "crop_padding": 1, "flip": True, "pruner": {"glister": {"warmup_epochs": 1}}, "fraction": 0.5},
    {"trainer": "grad_align", "pruner": "loss_top", "fraction": 0.5},
]


@pytest.mark.parametrize("options", LOOKED_AT, ids=lambda options: options["trainer"])
def test_a_run_that_is_looked_at_ends_with_the_same_bits(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed and gone on with as well; only checks are charged, 4 forward-equivalents an image of one batch."""
    config = tiny_run(eps=0.1, **options, best_every=1, epochs=3)
    dataset = load_dataset(config.dataset)
    watched = train(config, dataset)
    values = [row.get("pert_align") for row in watched.metrics]
    assert [value is None for value in values] == [epoch < options.get("plain_epochs", 0) for epoch in range(3)]
    assert all(-1 <= value <= 1 for value in values if value is not None)

    class Stop(Exception):
        """Stands for a killed process."""

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise Stop

    with pytest.raises(Stop):
        train(config, dataset, work=tmp_path, checkpoint_seconds=0, on_epoch=stop)
    again = train(config, dataset, work=tmp_path)
    assert [row.get("pert_align") for row in again.metrics] == values
    same(again, watched)

    monkeypatch.setattr("advprune_core.trainers.validation.has_one_step", lambda *_: False)
    alone = train(config, dataset)
    assert not any("pert_align" in row for row in alone.metrics)
    same(watched, alone)
    spent = {name: passes - alone.ledger["passes"][name] for name, passes in watched.ledger["passes"].items()}
    looks = sum(value is not None for value in values)
    assert spent == {**dict.fromkeys(spent, 0), "validate": 4 * 16 * looks}


@pytest.mark.parametrize("options", [{"trainer": "pgd_at", "steps": 2}, {"objective": "standard"}, {"trainer": "sora"}])
def test_other_runs_are_not_looked_at(options: dict[str, Any]) -> None:
    config = tiny_run(**options, best_every=1, epochs=1)
    assert "pert_align" not in train(config, load_dataset(config.dataset)).metrics[0]
