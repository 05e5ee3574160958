"""Every component, generically: no setting is idle, and specifications are honest."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from advprune_core.attacks import Square, ThreatModel
from advprune_core.attacks.geometry import ascend, project
from advprune_core.attacks.losses import cross_entropy
from advprune_core.attacks.pgd import input_gradient
from advprune_core.base.components import Component
from advprune_core.base.ledger import Ledger
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset
from advprune_core.objectives.base import Outputs, Passes
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import AttackPolicy
from tests.alternatives import ALL_FAMILIES, FAMILIES, LISTED, beside, changes, component, components, demand
from tests.contexts import context, watched

EPS = 0.03  # some of the images break, some stand: restarts matter only then


@lru_cache
def world() -> tuple[Dataset, nn.Module, Tensor, Tensor, Batch]:
    """An unbalanced data set, a smooth little network, and some of its images."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), (90, 50, 20, 12)))
    images = rng.random((len(labels), 6, 6)).astype(np.float32)
    dataset = dataset_from_arrays(images, labels, images, labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    x = dataset.train.pixels(slice(0, 32))
    # Labels the model gives are right at first, so that attacks have something to break.
    y = model(x).argmax(1)
    ids = torch.arange(32)
    return dataset, model, x, y, Batch(x, y, ids, torch.zeros_like(ids), torch.ones(32))


def flat(*tensors: Any) -> list[float]:
    return [float(value) for tensor in tensors for value in torch.as_tensor(tensor, dtype=torch.float64).flatten()]


def pruner_effect(pruner: Any) -> Any:
    due = [epoch for epoch in range(30) if pruner.due(epoch)]
    made = context()
    known = replace(made.dataset, true_labels=made.dataset.train.labels.flip(0))  # for the oracle
    made = replace(made, dataset=known)
    state = watched(pruner, made.n, made.dataset.classes, epochs=due[0])
    try:
        selections = [pruner.select(replace(made, epoch=epoch, state=state)) for epoch in (*due[:3], due[-1])]
    except ConfigError as refused:
        return str(refused)
    return due, [(s.indices.tolist(), s.weights.tolist(), s.n_filled, s.step_ratio) for s in selections]


def keep_rule_effect(rule: Any) -> Any:
    scores = np.random.default_rng(0).exponential(size=300)
    return np.sort(rule.keep(scores, 90, hard_is_high=True, rng=np.random.default_rng(1))).tolist()


def attack_effect(attack: Any) -> Any:
    # The images, and what they cost: a search that goes on longer may arrive at the same corner.
    _, model, x, y, _ = world()
    if isinstance(attack, Square):
        attack = attack.replace(queries=min(attack.queries, 1600))  # the rest takes seconds and shows no more
    ledger = Ledger()
    with ledger.watch(model):
        x_adv = attack.perturb(model, x, y, threat=ThreatModel(norm="linf", eps=EPS), seed=0)
        # A few in L2 as well, where no attack can know an answer beforehand.
        round_adv = attack.perturb(model, x[:4], y[:4], threat=ThreatModel(norm="l2", eps=EPS), seed=0)
    return [*flat(x_adv, round_adv), ledger.passes]


def objective_effect(objective: Any) -> Any:
    _, model, x, y, _ = world()
    with torch.no_grad():
        losses = objective.per_sample(model(x), model(x.flip(3)), y)
    # Of methods that are more than their loss: the gradients that a whole step leaves.
    steps = {"steps": 1} if objective.single_step else {}
    policy = AttackPolicy(eps=EPS, start="clean" if objective.own_start else "random", **steps)
    attack = policy.bind(model, seed=0, state=policy.initial_state(32) | objective.state(32, (1, 6, 6)))

    def update(passes: Passes) -> Outputs:
        losses, logits = passes()
        model.zero_grad()
        losses.mean().backward()
        return Outputs(losses, logits)

    objective.step(model, world()[4], attack, update)
    gradients = [parameter.grad for parameter in model.parameters()]
    kept = [value.float() for name, value in attack.state.items() if name.startswith(f"{objective.name}.")]
    return flat(losses, *gradients, *kept, objective.cost(1), objective.cost(5))


def start_effect(start: Any) -> Any:
    batch = world()[4]
    # Two visits in each of three epochs: what is carried shows in where the next visit starts.
    model, state, starts = world()[1], start.state(32), []
    for epoch in range(3):
        visit = replace(batch, epochs=torch.full_like(batch.ids, epoch))
        begun = start.begin(visit, norm="linf", eps=EPS, key=1, state=state)
        gradient, _ = input_gradient(model, begun.roll(epoch, 3), visit.y, cross_entropy)
        x_adv = project(ascend(begun, gradient, norm="linf", step_size=EPS), visit.x, norm="linf", eps=EPS)
        start.end(visit, x_adv, norm="linf", eps=EPS, state=state, step=(begun, gradient))
        starts.append(begun)
    # Once in L2 as well, where there are more ways to be random.
    starts.append(start.begin(batch, norm="l2", eps=EPS, key=1, state=start.state(32)))
    return flat(*starts)


def steps_effect(steps: Any) -> Any:
    # The labels of half the images are made wrong, so that all three kinds of images occur.
    _, model, x, y, batch = world()
    state, batch = steps.state(), replace(batch, y=torch.where(torch.arange(len(y)) % 4 == 0, (y + 1) % 4, y))
    planned: list[Any] = []
    with torch.no_grad():
        for _ in range(3):
            planned += steps.plan(batch, eps=EPS, logits=lambda: model(x), state=state)
            steps.observe(batch, model(x), state)
    return flat(*planned, steps.expected())


def schedule_effect(schedule: Any) -> Any:
    return [schedule.factor(step / 50) for step in range(51)]


def model_effect(settings: Any) -> Any:
    with torch.device("meta"):
        network = settings.network(3, 10, (32, 32))
    return [str(network), [(name, tuple(value.shape)) for name, value in network.state_dict().items()]]


EFFECTS = {
    "keep_rule": keep_rule_effect,
    "pruner": pruner_effect,
    "attack": attack_effect,
    "objective": objective_effect,
    "start": start_effect,
    "steps": steps_effect,
    "schedule": schedule_effect,
    "model": model_effect,
}


def test_every_family_has_an_effect_and_no_entry_is_stale() -> None:
    assert set(EFFECTS) == set(FAMILIES)
    known = {f"{family}/{name}" for family, name in components(FAMILIES)}
    fields = {f"{known_name}/{field}" for known_name in known for field in _fields(known_name)}
    fields |= {f"{path.partition('/')[0]}/{path.rpartition('/')[2]}" for path in fields}
    assert set(LISTED) - fields == set(), "tests/alternatives.py lists fields that no component has"


def _fields(path: str) -> list[str]:
    family, _, name = path.partition("/")
    return list(FAMILIES[family].classes()[name].model_fields)


@pytest.mark.parametrize(("family", "name", "field", "values"), changes(FAMILIES))
def test_every_setting_changes_what_the_component_does(family: str, name: str, field: str, values: list[Any]) -> None:
    demand(family, name, field, values)
    effect = EFFECTS[family]
    before = effect(beside(family, name, field))
    assert any(effect(beside(family, name, field, **{field: value})) != before for value in values), (
        f"{field} is idle: {values} change nothing (if others would, list them in tests/alternatives.py)"
    )


@pytest.mark.parametrize(("family", "name"), components(FAMILIES))
def test_the_effect_is_a_function_of_the_settings(family: str, name: str) -> None:
    effect = EFFECTS[family]
    first = effect(component(family, name))
    torch.rand(3)
    np.random.random(3)  # noqa: NPY002 (draws from global generators must not matter)
    assert effect(component(family, name)) == first


CHANGES = changes(ALL_FAMILIES)


@pytest.mark.parametrize(("family", "name"), components(ALL_FAMILIES))
class TestContract:
    def test_name_and_summary(self, family: str, name: str) -> None:
        cls = ALL_FAMILIES[family].classes()[name]
        assert cls.name == name
        assert "name" in vars(cls), f"{cls.__name__} must have a name of its own"
        assert vars(cls).get("__doc__"), f"{cls.__name__} needs a docstring of its own"
        assert 10 < len(cls.summary()) <= 110
        assert "\n" not in cls.summary()

    def test_fields_are_described(self, family: str, name: str) -> None:
        for field, info in ALL_FAMILIES[family].classes()[name].model_fields.items():
            assert info.description, f"{family} {name}: {field} has no description"

    def test_frozen_and_hashable(self, family: str, name: str) -> None:
        made = component(family, name)
        assert made == component(family, name)
        assert hash(made) == hash(component(family, name))
        for field in type(made).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(made, field, getattr(made, field))

    def test_unknown_settings_are_refused(self, family: str, name: str) -> None:
        with pytest.raises(ConfigError, match="no_such_setting"):
            component(family, name, no_such_setting=1)

    def test_equals_itself_after_spec_and_parse(self, family: str, name: str) -> None:
        mine = [(field, value) for *path, field, values in CHANGES if path == [family, name] for value in values]
        for made in (
            component(family, name),
            *(beside(family, name, field, **{field: value}) for field, value in mine),
        ):
            spec = json.loads(json.dumps(made.spec()))
            assert parse(family, spec) == made
            full = {made.name: made.model_dump(mode="json")}
            assert parse(family, json.loads(json.dumps(full))) == made


def parse(family: str, spec: Any) -> Component:
    """Through the field that takes it, where a short form is only known there."""
    return AttackPolicy(steps=spec).steps if family == "steps" else ALL_FAMILIES[family].parse(spec)
