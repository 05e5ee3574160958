"""The list of what there is, as it is kept and as it is looked up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from advprune_core.base.components import Component
from advprune_core.base.settings import ConfigError
from advprune_core.cli import catalogue as kept_in
from advprune_core.cli.catalogue import KEPT, PACKAGE, catalogue, look_up, registered, registries
from advprune_core.trainers.controls import CONTROLS

REGISTRIES = registries()
OURS: dict[str, dict[str, type[Component]]] = {
    family: {name: member for name, member in registry.classes().items() if member.__module__.startswith("advprune_")}
    for family, registry in REGISTRIES.items()
}


@pytest.fixture(params=["kept", "looked up"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "looked up":
        monkeypatch.setattr(kept_in, "registered", lambda: ["PRUNERS Newer"])


@pytest.mark.usefixtures("way")
def test_everything_has_one_line() -> None:
    lines = catalogue().splitlines()
    for family, members in OURS.items():
        start = lines.index(f"{family}:") + 1
        found = {line.split()[0]: line for line in lines[start : start + len(members)]}
        assert set(found) == set(members)
        assert all(member.summary() in found[name] for name, member in members.items())
    assert [line for line in lines if not line.startswith("  ")] == [f"{name}:" for name in [*REGISTRIES, "controls"]]
    assert [line.split()[0] for line in lines[lines.index("controls:") + 1 :]] == list(CONTROLS)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("family", REGISTRIES)
def test_a_family_shows_its_settings(family: str) -> None:
    text = catalogue(family)
    for name, component in OURS[family].items():
        assert f"  {name} " in text
        assert all(f"      {setting} = " in text for setting in component.model_fields)


@pytest.mark.usefixtures("way")
def test_unknown_families_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pruners'"):
        catalogue("pruner")


def test_what_is_kept_is_what_there_is() -> None:
    """A class that the file does not have yet is no matter: then everything is looked up."""
    kept, found = json.loads(KEPT.read_text()), look_up()
    known = {line.split()[1] for line in kept["registered"]}
    assert known <= {line.split()[1] for line in registered()}, "gone"
    now = {
        family: {name: found[family][name] for name, member in members.items() if member.__name__ in known}
        for family, members in OURS.items()
    }
    renew = "python -m advprune_core.cli.catalogue"
    assert kept["families"] == {**now, "controls": found["controls"]}, f"to write what is listed anew: {renew}"


def test_the_source_shows_every_class_that_is_registered() -> None:
    classes = [member.__name__ for members in OURS.values() for member in members.values()]
    assert sorted(line.split()[1] for line in registered()) == sorted(classes)


NEW = """
from typing import ClassVar

from advprune_core.pruners.base import PRUNERS, Context, Pruner
from advprune_core.pruners.selection import Selection


@PRUNERS.register
class Newest(Pruner):
    \"\"\"The newest images.\"\"\"

    name: ClassVar[str] = "newest"

    def select(self, context: Context) -> Selection:
        raise NotImplementedError
"""


@pytest.mark.slow
def test_a_new_file_is_listed_at_once(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "advprune_core", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "advprune_core" / "pruners" / "newest.py").write_text(NEW)
    command = [sys.executable, "-c", "from advprune_core.cli import main; main()", "list", "pruners"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
    )
    assert "  newest               The newest images.\n" in done.stdout
    assert "  random " in done.stdout
