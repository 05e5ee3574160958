"""What a trainer by its name says of a run: objective, start and steps, beside what else is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advprune_core.objectives.base import TRAINERS
from advprune_core.objectives.policy import AttackPolicy


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run, ``trainer`` among them, with what that stands for instead; what is given is over it."""
    values = dict(values)
    trainer = TRAINERS.parse(values.pop("trainer"))
    if isinstance(attack := _said(values.get("attack", {})), dict):
        values["attack"] = trainer.attack_with(attack)
    values.setdefault("objective", trainer.objective)
    return values


def with_preset_paths(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same for settings by dotted paths, which change a run: a whole ``attack`` among them adds to the preset."""
    changes = dict(changes)
    trainer = TRAINERS.parse(changes.pop("trainer"))
    steps = changes.pop("attack.steps", changes.get("attack.steps.count"))
    given = {} if steps is None else {"steps": steps}
    if isinstance(attack := _said(changes.get("attack")), dict):
        presets: dict[str, Any] = {"attack": trainer.attack_with(attack | given)}
        del changes["attack"]
    else:
        presets = {f"attack.{name}": value for name, value in trainer.attack_with(given).items()}
    return {"objective": trainer.objective} | presets | changes


def _said(attack: Any) -> Any:
    """Of an attack policy what was said of it, as of one that is given in words."""
    if not isinstance(attack, AttackPolicy):
        return attack
    return {name: getattr(attack, name) for name in attack.model_fields_set}
