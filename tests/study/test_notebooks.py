"""Notebooks and profiles by path and by name, here and installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from advprune_core.base.environment import results_root
from advprune_core.base.settings import ConfigError
from advprune_core.study import notebooks
from advprune_core.study.notebooks import (
    DEFAULT_NOTEBOOKS,
    SHIPPED,
    default_notebooks,
    find_notebook,
    find_profile,
    lay_out,
)

ROOT = Path(__file__).resolve().parents[2]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_checkout_has_them_beside_the_package() -> None:
    assert ROOT / "notebooks" == SHIPPED


def test_profiles_by_name_are_the_installed_ones() -> None:
    for path in (ROOT / "notebooks" / "profiles").glob("*.yaml"):
        assert find_profile(path.stem) == find_profile(path.name) == path


def test_those_of_this_folder_come_first_and_a_path_before_all(here: Path) -> None:
    touch(here / "notebooks" / "profiles" / "digits.yaml")
    touch(here / "notebooks" / "profiles" / "mine.yaml")
    assert find_profile("digits").resolve() == here / "notebooks" / "profiles" / "digits.yaml"
    assert find_profile("mine").resolve() == here / "notebooks" / "profiles" / "mine.yaml"
    assert find_profile("pruners") == SHIPPED / "profiles" / "pruners.yaml"
    assert find_profile(str(here / "elsewhere.yaml")) == here / "elsewhere.yaml"
    touch(here / "digits.yaml")
    assert find_profile("digits.yaml") == Path("digits.yaml")


def test_a_folder_of_the_name_is_no_profile(here: Path) -> None:
    (here / "digits").mkdir()
    assert find_profile("digits") == SHIPPED / "profiles" / "digits.yaml"


@pytest.mark.parametrize("name", ["digit", "digit.yaml"])
def test_unknown_profiles_have_their_near_miss_named(here: Path, name: str) -> None:
    touch(here / "notebooks" / "profiles" / "mine.yaml")
    with pytest.raises(ConfigError, match=rf"profile '{name}' \(did you mean 'digits'\?\); allowed: .*mine, .*pruners"):
        find_profile(name)


def test_notebooks_by_path_and_by_name(here: Path) -> None:
    assert find_notebook("pruners.ipynb") == SHIPPED / "pruners.ipynb"
    own = touch(here / "notebooks" / "pruners.ipynb")
    assert find_notebook("pruners.ipynb") == SHIPPED / "pruners.ipynb", "no experiment: it has no parameters"
    own.write_text((SHIPPED / "pruners.ipynb").read_text())
    assert find_notebook("pruners.ipynb") == Path("notebooks/pruners.ipynb")
    touch(here / "pruners.ipynb")
    assert find_notebook("pruners.ipynb") == Path("pruners.ipynb")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runtme.ipynb", r"unknown notebook 'runtme.ipynb' \(did you mean 'runtime'\?\)"),
        ("elsewhere/runtime.ipynb", "elsewhere/runtime.ipynb is neither a notebook"),
        ("notes.txt", "notes.txt is neither a notebook"),
        ("notebooks", "unknown notebook 'notebooks'; allowed: accuracy_vs_fraction, "),
    ],
)
def test_what_is_no_notebook(here: Path, name: str, message: str) -> None:
    touch(here / "notes.txt")
    with pytest.raises(ConfigError, match=message):
        find_notebook(name)


@pytest.mark.parametrize("where", ["beside the profile", "in this folder", "installed"])
def test_default_notebooks(tmp_path: Path, where: str) -> None:
    other, here = tmp_path / "other", tmp_path / "here" / "notebooks"
    folder = {"beside the profile": other, "in this folder": here, "installed": SHIPPED}[where]
    for name in DEFAULT_NOTEBOOKS if where != "installed" else []:
        touch(folder / name)
    found = default_notebooks([other / "profiles" / "p.yaml"])
    assert [path.resolve() for path in found] == [folder / name for name in DEFAULT_NOTEBOOKS]


def test_an_installation_without_notebooks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "SHIPPED", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="name the notebooks"):
        default_notebooks([])


class TestLayOut:
    def test_everything_is_there_and_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written, there = lay_out(tmp_path / "new")
        listed = {path.relative_to(tmp_path / "new").as_posix() for path in written}
        kept = {"editions.py", "README.md"}
        assert listed == {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "notebooks").rglob("*")
            if (path.suffix in (".ipynb", ".yaml") or path.name in kept) and ".ipynb_checkpoints" not in path.parts
        }
        assert there == []
        assert all(path.read_bytes() == (ROOT / path.relative_to(tmp_path / "new")).read_bytes() for path in written)
        monkeypatch.delenv("ADVPRUNE_RESULTS")
        for folder in (tmp_path / "new", tmp_path / "new" / "notebooks"):  # a shell, and a notebook's kernel
            monkeypatch.chdir(folder)
            assert results_root() == tmp_path / "new" / "results"
        monkeypatch.chdir(tmp_path / "new")
        assert find_profile("digits") == Path("notebooks/profiles/digits.yaml")

    def test_what_is_there_stays(self, tmp_path: Path) -> None:
        mine = tmp_path / "notebooks" / "profiles" / "digits.yaml"
        touch(mine).write_text("seeds: [7]\n")
        written, there = lay_out(tmp_path)
        assert there == [mine]
        assert mine.read_text() == "seeds: [7]\n"
        assert lay_out(tmp_path)[0] == []
        assert len(lay_out(tmp_path)[1]) == len(written) + 1

    def test_checkpoints_of_jupyter_stay_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path / "from" / ".ipynb_checkpoints" / "a-checkpoint.ipynb")
        touch(tmp_path / "from" / "a.ipynb")
        monkeypatch.setattr(notebooks, "SHIPPED", tmp_path / "from")
        assert lay_out(tmp_path / "to") == ([tmp_path / "to" / "notebooks" / "a.ipynb"], [])

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        touch(tmp_path / "file")
        with pytest.raises(ConfigError, match="cannot be made"):
            lay_out(tmp_path / "file")
