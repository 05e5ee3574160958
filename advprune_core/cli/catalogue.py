"""What there is: every family of components, as `advprune list` prints it.

Looking it up imports every room and PyTorch, which takes seconds. So what is found is kept in `catalogue.json` beside
this file, and looked up only where a class is registered that the file does not have: a new one is listed at once.
``python -m advprune_core.cli.catalogue`` writes the file anew; a test holds it against what there is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from advprune_core.base.components import Component, Registry
from advprune_core.base.settings import check_names

PACKAGE = Path(__file__).parents[1]
KEPT = Path(__file__).with_name("catalogue.json")

#: Family to name to lines: what it is, and each of its settings.
Catalogue = dict[str, dict[str, list[str]]]


def list_components(
    family: Annotated[str | None, typer.Argument(help="pruners, attacks, trainers, models, datasets, ...")] = None,
) -> None:
    """List what there is, one line each; of one family, with its settings."""
    print(catalogue(family))


def catalogue(family: str | None = None) -> str:
    """One line for each component of each family; of one `family`, with its settings.

    Raises
    ------
    ConfigError
        Unknown family.
    """
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    families = kept["families"] if kept["registered"] == registered() else look_up()
    if family is not None:
        check_names([family], families, what="family")
    lines = []
    for name in [family] if family else families:
        lines.append(f"{name}:")
        for key, (summary, *settings) in families[name].items():
            lines.append(f"  {key:20} {summary}")
            lines += [f"      {setting}" for setting in settings] if family else []
    return "\n".join(lines)


def registered() -> list[str]:
    """Every registry with each of its classes, as the source has them: ``["ATTACKS APGD", ...]``."""
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.glob("*/*.py")]
    found = [re.findall(r"^@(\w+)\.register\n(?:@.*\n)*class (\w+)", text, re.MULTILINE) for text in sources]
    return sorted(" ".join(pair) for pairs in found for pair in pairs)


def registries() -> dict[str, Registry[Any]]:
    """The registry of each family, in the order in which they are listed."""
    from advprune_core.attacks.base import ATTACKS
    from advprune_core.datasets.base import DATASETS
    from advprune_core.models.base import MODELS
    from advprune_core.objectives.base import OBJECTIVES, TRAINERS
    from advprune_core.objectives.starts import STARTS
    from advprune_core.objectives.steps import STEPS
    from advprune_core.pruners.base import PRUNERS
    from advprune_core.pruners.keep_rules import KEEP_RULES
    from advprune_core.trainers.schedules import SCHEDULES

    return {
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


def look_up() -> Catalogue:
    """Every component of each family, and the controls."""
    from advprune_core.trainers.controls import CONTROLS

    found = {
        family: {name: [member.summary(), *_settings(member)] for name, member in registry.classes().items()}
        for family, registry in registries().items()
    }
    return {**found, "controls": {name: [text] for name, text in CONTROLS.items()}}


def _settings(component: type[Component]) -> list[str]:
    lines = []
    for name, setting in component.model_fields.items():
        default = "required" if setting.is_required() else setting.get_default(call_default_factory=True)
        default = default.spec() if isinstance(default, Component) else default
        lines.append(f"{name} = {default}  {setting.description or ''}")
    return lines


if __name__ == "__main__":
    content = {"registered": registered(), "families": look_up()}
    KEPT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
