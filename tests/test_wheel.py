"""The wheel: what it carries, and that it is enough, in an environment where nothing of the checkout is seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.made_up import study_options

ROOT = Path(__file__).resolve().parents[1]
LAID_OUT = ("*.ipynb", "*.yaml", "README.md", "editions.py")
PARTS = ("advprune_core", "notebooks", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as from a shell that knows nothing of this checkout."""
    hidden = ("PYTHONPATH", "ADVPRUNE_RESULTS", "ADVPRUNE_DATA", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=clean, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, source / name)
    done = run(sys.executable, "-c", BUILD, out, cwd=source)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_it_carries_the_package_its_notebooks_and_its_types(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {
        path
        for kind in ("*.py", "*.csv", "*.json", "*.html", "py.typed")
        for path in (ROOT / "advprune_core").rglob(kind)
    }
    notebooks = {path for kind in LAID_OUT for path in (ROOT / "notebooks").rglob(kind)}
    wanted = {path.relative_to(ROOT).as_posix() for path in package}
    wanted |= {f"advprune_core/{path.relative_to(ROOT).as_posix()}" for path in notebooks}
    assert names == {name for name in wanted if ".ipynb_checkpoints/" not in name}


@pytest.mark.slow
def test_it_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    said = BytesParser().parsebytes(archive.read(name))
    assert said["License-Expression"] == "MIT"
    assert said["Version"] == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert said["Keywords"]
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert [url.split()[0] for url in said.get_all("Project-URL", [])] == ["Kaufmann", "Li"]
    needed = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("ipykernel") for line in needed)
    assert any(line.startswith("papermill") for line in needed)
    assert not any(line.startswith("jupyterlab") for line in needed)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of an environment with nothing but the wheel; what it needs is lent by this one."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    done = run(scripts / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    where = run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    # Added to the path, this folder's own .pth files are not read: an editable checkout stays unseen.
    lent = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    Path(where.stdout.strip(), "lent.pth").write_text("".join(f"{path}\n" for path in sorted(lent)))
    return scripts


@pytest.mark.slow(seconds=60)
def test_a_study_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import advprune_core; print(advprune_core.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(installed.parent)
    results = tmp_path / "results"
    done = run(installed / "advprune", "study", "digits", *study_options(results), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 runs trained and 3 evaluated now" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    written = {path.name for path in (results / "tiny").iterdir()}
    assert {"accuracy_vs_fraction.png", "accuracy_vs_fraction.ipynb", "runtime.png", "runtime.ipynb"} <= written
    table = pd.read_csv(results / "tiny" / "table.csv")
    assert table["key"].nunique() == 3
    assert table["status"].eq("ok").all()


@pytest.mark.slow(seconds=30)
def test_a_folder_laid_out_is_worked_in(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "advprune", "init", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    here = tmp_path / "mine"
    copied = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    originals = [path for kind in LAID_OUT for path in (ROOT / "notebooks").rglob(kind)]
    assert copied == {path.relative_to(ROOT).as_posix() for path in originals if ".ipynb_checkpoints" not in path.parts}
    (here / "notebooks" / "profiles" / "digits.yaml").write_text("study: changed\nfractions: [1.5]\n")
    done = run(installed / "advprune", "study", "digits", cwd=here)
    assert done.returncode == 2
    assert "fractions.0 = 1.5" in done.stderr
    done = run(installed / "advprune", "study", "digit", cwd=here)
    assert (done.returncode, "did you mean 'digits'?" in done.stderr) == (2, True)
