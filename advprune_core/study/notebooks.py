"""Notebooks and profiles: those of the current folder, and those that come with the package.

A wheel holds the repository's `notebooks/` inside the package; a checkout has it beside the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

from advprune_core.base.files import write_atomically
from advprune_core.base.settings import ConfigError, near_miss

_PACKAGE = Path(__file__).parents[1]
#: The folder of the notebooks that come with the package.
SHIPPED = (_PACKAGE if (_PACKAGE / "notebooks").is_dir() else _PACKAGE.parent) / "notebooks"
#: What is laid out of it: notebooks, profiles, and how the course is taught and given to students.
_LAID_OUT = ("*.ipynb", "*.yaml", "course/README.md", "course/editions.py")
#: Notebooks of a study where none are named.
DEFAULT_NOTEBOOKS = ("accuracy_vs_fraction.ipynb", "runtime.ipynb")


def places() -> list[Path]:
    """Folders of notebooks, the first one first."""
    return [Path("notebooks"), SHIPPED]


def find_profile(name: str) -> Path:
    """A profile by its path, or by its name: ``digits`` is ``notebooks/profiles/digits.yaml``.

    Raises
    ------
    ConfigError
        An unknown name. What is wrong with a path shows when it is read.
    """
    if Path(name).name != name or Path(name).is_file():
        return Path(name)
    stem = name.removesuffix(".yaml")
    known = _profiles()
    if stem not in known:
        raise ConfigError(f"unknown profile {name!r}{near_miss(stem, known)}; or the path of a .yaml file")
    return known[stem]


def is_profile(name: str, *, first: bool = True) -> bool:
    """Whether a path, or a name alone, is a profile's: ``mine.yaml``, ``digits``.

    What is a notebook's name as well is a profile's if that is the `first` one.
    """
    if Path(name).suffix or Path(name).name != name:
        return Path(name).suffix in (".yaml", ".yml")
    return name not in _notebooks() or (first and name in _profiles())


def _profiles() -> dict[str, Path]:
    return {path.stem: path for place in reversed(places()) for path in (place / "profiles").glob("*.yaml")}


def _notebooks() -> dict[str, Path]:
    """Experiments by name: the notebooks that have a cell of parameters."""
    found = [path for place in reversed(places()) for path in place.glob("*.ipynb")]
    return {path.stem: path for path in found if b'"parameters"' in path.read_bytes()}


def find_notebook(name: str) -> Path:
    """A notebook by its path, or by its name: ``runtime`` is ``notebooks/runtime.ipynb``.

    Raises
    ------
    ConfigError
        No such notebook.
    """
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name)
    if Path(name).name != name or Path(name).suffix not in (".ipynb", ""):
        raise ConfigError(f"{name} is neither a notebook (.ipynb) nor a profile (.yaml) that exists")
    stem, known = name.removesuffix(".ipynb"), _notebooks()
    if stem not in known:
        raise ConfigError(f"unknown notebook {name!r}{near_miss(stem, known)}; or the path of a .ipynb file")
    return known[stem]


def default_notebooks(profiles: Sequence[Path]) -> list[Path]:
    """The default notebooks beside the profile's folder, in ./notebooks, or those that come with the package."""
    for place in [*(path.resolve().parent.parent for path in profiles), *places()]:
        notebooks = [place / name for name in DEFAULT_NOTEBOOKS]
        if all(path.exists() for path in notebooks):
            return notebooks
    raise ConfigError("name the notebooks to execute: the default ones are neither in ./notebooks nor installed")


def lay_out(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy notebooks, profiles and course, as they come with the package, to ``folder/notebooks``; what is there stays.

    Returns
    -------
    written, there : list of Path

    Raises
    ------
    ConfigError
        A folder that cannot be written.
    """
    written, there = [], []
    for source in sorted({path for pattern in _LAID_OUT for path in SHIPPED.rglob(pattern)}):
        inner = source.relative_to(SHIPPED)
        if any(part.startswith(".") for part in inner.parts):
            continue  # JupyterLab's checkpoints
        target = folder / "notebooks" / inner
        if target.exists():
            there.append(target)
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{target.parent} cannot be made ({error.strerror}); name another folder") from None
        write_atomically(target, partial(_copy, source))
        written.append(target)
    return written, there


def _copy(source: Path, file: IO[bytes]) -> None:
    file.write(source.read_bytes())
