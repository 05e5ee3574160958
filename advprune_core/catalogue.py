"""What there is: every family of components, as `advprune list` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advprune_core.attacks.base import ATTACKS
from advprune_core.base.settings import Component, Registry, check_names
from advprune_core.datasets.base import DATASETS
from advprune_core.models.base import MODELS
from advprune_core.objectives.base import OBJECTIVES, TRAINERS
from advprune_core.objectives.starts import STARTS
from advprune_core.objectives.steps import STEPS
from advprune_core.pruners.base import PRUNERS
from advprune_core.pruners.keep_rules import KEEP_RULES
from advprune_core.trainers.controls import CONTROLS
from advprune_core.trainers.schedules import SCHEDULES

REGISTRIES: dict[str, Registry[Any]] = {
    "pruners": PRUNERS,
    "keep_rules": KEEP_RULES,
    "attacks": ATTACKS,
    "trainers": TRAINERS,
    "objectives": OBJECTIVES,
    "starts": STARTS,
    "steps": STEPS,
    "schedules": SCHEDULES,
    "models": MODELS,
    "datasets": DATASETS,
}


def catalogue(family: str | None = None) -> str:
    """One line for each component of each family; of one `family`, with its settings.

    Raises
    ------
    ConfigError
        Unknown family.
    """
    if family is not None:
        check_names([family], [*REGISTRIES, "controls"], what="family")
    lines = []
    for name in [family] if family else [*REGISTRIES, "controls"]:
        lines.append(f"{name}:")
        members: Mapping[str, type[Component]] = REGISTRIES[name].classes() if name in REGISTRIES else {}
        for key, member in members.items():
            lines.append(f"  {key:20} {member.summary()}")
            lines += _settings(member) if family else []
        if name == "controls":
            lines += [f"  {key:20} {text}" for key, text in CONTROLS.items()]
    return "\n".join(lines)


def _settings(component: type[Component]) -> list[str]:
    lines = []
    for name, setting in component.model_fields.items():
        default = "required" if setting.is_required() else setting.get_default(call_default_factory=True)
        default = default.spec() if isinstance(default, Component) else default
        lines.append(f"      {name} = {default}  {setting.description or ''}")
    return lines
