"""The list of what there is."""

from __future__ import annotations

import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.catalogue import REGISTRIES, catalogue
from advprune_core.trainers.controls import CONTROLS


def test_everything_has_one_line() -> None:
    lines = catalogue().splitlines()
    names = [name for registry in REGISTRIES.values() for name in registry.classes()] + list(CONTROLS)
    assert [line.split()[0] for line in lines if line.startswith("  ")] == names
    assert [line for line in lines if not line.startswith("  ")] == [f"{name}:" for name in [*REGISTRIES, "controls"]]


@pytest.mark.parametrize("family", REGISTRIES)
def test_a_family_shows_its_settings(family: str) -> None:
    text = catalogue(family)
    for name, component in REGISTRIES[family].classes().items():
        assert f"  {name} " in text
        assert all(f"      {setting} = " in text for setting in component.model_fields)


def test_unknown_families_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pruners'"):
        catalogue("pruner")
