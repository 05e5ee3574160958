"""What is committed: one place for versions, usable targets, clean notebooks, no machine's paths."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}
#: Declared, but used without an import of ours: what uses it.
UNSEEN = {
    "ipykernel": "papermill, to execute notebooks",
    "jinja2": "pandas, for LaTeX tables",
    "torchvision": "imported in functions, where it is used",
}


@lru_cache
def tracked() -> list[Path]:
    """Files under version control."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of committed files")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_environment_and_pyproject_agree() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert len(pip) == 1, "versions stand in pyproject.toml alone"
    target = re.fullmatch(r"(?:-e|--editable) \.\[([\w,-]+)\]", pip[0])
    assert target is not None
    extras = target[1].split(",")
    assert {"docs", "lab", "test"} <= set(extras)
    assert set(extras) <= set(EXTRAS)
    bounds = {Requirement(entry).name: str(Requirement(entry).specifier) for entry in conda}
    assert bounds.pop("python") == PROJECT["requires-python"]
    assert "pip" in bounds
    assert set(bounds.values()) == {""}, "conda pins nothing but Python"


def test_binder_takes_the_versions_of_pyproject() -> None:
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())
    bounds = {Requirement(entry).name: str(Requirement(entry).specifier) for entry in environment["dependencies"]}
    assert bounds == {"python": PROJECT["requires-python"], "pip": ""}
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK)
    (install,) = [line for line in script.read_text().splitlines() if "pip install" in line]
    assert install.endswith("--editable '.[lab]'")


@pytest.mark.parametrize("requirement", [*RUNTIME, *(r for extra in EXTRAS.values() for r in extra)], ids=str)
def test_ranges_not_pins(requirement: Requirement) -> None:
    assert {specifier.operator for specifier in requirement.specifier} <= {">="}
    assert requirement.url is None


def test_extras_and_their_peers() -> None:
    assert {"test", "cluster", "bench", "lab"} <= set(EXTRAS)
    assert [requirement.name for requirement in EXTRAS["lab"]] == ["jupyterlab"]
    assert "pytest" in {requirement.name for requirement in EXTRAS["test"]}
    assert "ray" in {requirement.name for requirement in EXTRAS["cluster"]}
    runtime = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    forbidden = {"cords", "scrapbook", "torchattacks", "foolbox", "pyautoattack", "autoattack", "datacull"}
    assert not runtime & forbidden
    assert not runtime & {canonicalize_name(r.name) for extra in EXTRAS.values() for r in extra}


def imported(path: Path) -> set[str]:
    """Top-level names of every absolute import of a file, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names}


def test_everything_imported_is_declared_and_the_other_way_round() -> None:
    names = set().union(*(imported(path) for path in (ROOT / "advprune_core").rglob("*.py")))
    names -= sys.stdlib_module_names | {"advprune_core"}
    providers = packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    optional = {canonicalize_name(r.name) for r in EXTRAS["cluster"]}
    used = set()
    for name in names:
        found = {canonicalize_name(distribution) for distribution in providers.get(name, [name])}
        assert found & (declared | optional), f"advprune_core imports {name}, which pyproject.toml does not declare"
        used |= found
    assert declared <= used | set(UNSEEN), "declared, but not used"


def rules() -> dict[str, list[str]]:
    """Target to its recipe."""
    found: dict[str, list[str]] = {}
    recipe: list[str] = []
    for line in (ROOT / "Makefile").read_text().splitlines():
        if line.startswith("\t"):
            recipe.append(line.strip())
        elif match := re.match(r"([\w./$()-]+):(?!=)", line):
            recipe = found[match[1]] = []
    return found


def test_known_good_versions_are_of_everything_and_within_range() -> None:
    lines = [line for line in (ROOT / "tests" / "known_good.txt").read_text().splitlines() if not line.startswith("#")]
    known = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(known) == len(lines)
    for requirement in [*RUNTIME, *EXTRAS["test"], *EXTRAS["cluster"], *EXTRAS["docs"], *EXTRAS["lab"]]:
        assert requirement.specifier.contains(known[canonicalize_name(requirement.name)]), requirement
    assert {"cloudpickle", "papermill", "pydantic-core", "torchattacks"} <= set(known)
    assert not any("nvidia" in name or "cuda" in name for name in known), "that depends on the machine"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("target", ["study", "test", "lint", "docs"])
def test_known_good_versions_are_taken_when_asked_for_and_only_then(target: str) -> None:
    def steps(*options: str) -> str:
        command = ["make", "--dry-run", "--always-make", "-C", str(ROOT), target, *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "known_good" not in steps()
    pinned = [line for line in steps("PIN=1").splitlines() if "pip install" in line]
    assert pinned
    assert all("--constraint tests/known_good.txt" in line and ".venv-pinned/" in line for line in pinned)


@pytest.mark.parametrize(
    "target",
    ["help", "study", "test", "test-fast", "lab", "student", "course", "docs", "lint", "bench", "bench-long", "clean"],
)
def test_make_has_the_target(target: str) -> None:
    recipe = rules()
    assert recipe.get(target), f"make {target} does nothing"
    phony = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert target in phony[1].split()


def test_students_are_not_kept_waiting_for_the_solutions() -> None:
    assert rules()["student"] == ["$(BIN)/python notebooks/course/editions.py lessons --student"]


def test_answers_outlive_make_clean_and_are_not_committed() -> None:
    folders = {line.split("editions.py ")[1].split()[0] for name in ("student", "course") for line in rules()[name]}
    assert folders == {"lessons"}
    assert not any(word.startswith("lessons") for line in rules()["clean"] for word in line.split())
    assert "lessons/" in (ROOT / ".gitignore").read_text().splitlines()
    course = (ROOT / "notebooks" / "course" / "README.md").read_text()
    assert "`lessons/student`" in course
    assert "build/course" not in course


def test_make_lab_opens_the_start_page() -> None:
    assert rules()["lab"][-1].endswith(" notebooks/README.ipynb")


def test_make_clean_keeps_results_and_lab_stays_on_loopback() -> None:
    recipes = rules()
    assert not any("result" in line or line.split()[-1] in (".", "./", "*") for line in recipes["clean"])
    assert not any("git clean" in line for line in recipes["clean"])
    lab = " ".join(recipes["lab"])
    assert "--ip=127.0.0.1" in lab
    assert "token" not in lab.replace("with the token", "")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_help_lists_every_target_and_is_not_what_make_alone_does() -> None:
    command = ["make", "--no-print-directory", "-C", str(ROOT), "help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY:(.*)$", text, re.MULTILINE)
    assert phony is not None
    assert sorted(line.split()[0] for line in told.splitlines()) == sorted(phony[1].split())
    assert all(len(line.split()) > 2 for line in told.splitlines())
    assert "in $ADVPRUNE_DATA" in told
    assert re.findall(r"^([a-z]\w*):", text, re.MULTILINE)[0] == "study"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize(("user", "allowed"), [("0", True), ("1000", False)])
def test_make_lab_starts_for_root_too_and_reaches_all_of_the_checkout(
    user: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, says in {"id": f"echo {user}", "bin/python": "", "bin/jupyter": 'echo "$@"'}.items():
        script = tmp_path / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{says}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / ".package").touch()
    command = ["make", "--silent", "--no-print-directory", "-C", str(ROOT), "lab", f"VENV={tmp_path}"]
    given = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert given[0] == "lab"
    assert ("--allow-root" in given) == allowed
    assert "--ServerApp.root_dir=." in given, "lessons/student lies beside the start page's folder"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_lab_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # without any package
    python.chmod(0o755)
    (tmp_path / ".package").touch()
    assert "--editable '.[lab]'" in " ".join(rules()["$(VENV)/.package"])
    command = ["make", "-C", str(ROOT), "lab", f"VENV={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make lab needs JupyterLab" in done.stderr
    assert "-m pip install --editable .[lab]" in done.stderr


def test_every_room_is_packaged() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "advprune_core").rglob("__init__.py")}
    assert set(setup["packages"]) - set(setup["package-dir"]) == {room.replace("/", ".") for room in rooms}


def test_forks_and_hooks_run_the_gate_and_nothing_else() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == ["make lint", "make test", "make docs"]
    assert all(step["uses"].startswith("actions/") for step in steps if "run" not in step)
    (hooks,) = [repo["hooks"] for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]]
    assert [hook["entry"] for hook in hooks] == ["make lint"]
    assert (hooks[0]["language"], hooks[0]["pass_filenames"]) == ("system", False)


def test_gate_is_executable_and_runs_the_tests() -> None:
    gate = ROOT / ".ci" / "run"
    assert os.access(gate, os.X_OK)
    lines = [line.strip() for line in gate.read_text().splitlines()]
    assert lines[0].startswith("#!")
    assert [line for line in lines if line.startswith("make")] == ["make lint", "make test", "make docs"]
    assert any("set -e" in line for line in lines)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").rglob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert "execution" not in cell["metadata"]
    assert "papermill" not in notebook["metadata"]
    assert "widgets" not in notebook["metadata"]


def test_the_installed_command_is_main() -> None:
    from advprune_core import cli

    module, _, function = PROJECT["scripts"]["advprune"].partition(":")
    assert module == cli.__name__
    assert callable(getattr(cli, function))


def test_no_path_of_a_machine_is_committed() -> None:
    folders = "|".join(("work", "farm", "root", "home"))
    absolute = re.compile(rf"(?<![\w.~$}})>*-])/(?:{folders})/[\w.-]".encode())
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            found = absolute.search(data)
            assert found is None, f"{path.relative_to(ROOT)}: {data[found.start() - 20 : found.end() + 20]!r}"


def test_committed_files_are_small() -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked() if path.stat().st_size > 2_000_000}
    assert large == {}


def test_local_things_are_not_committed() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in tracked()}
    for name in names:
        assert not name.endswith((".pt", ".npz", ".pyc", ".log")), f"{name} is local"
        assert not name.startswith(("results/runs/", "data/", ".venv/")), f"{name} is local"
    assert {"LICENSE", ".gitignore", "pyproject.toml", "Makefile", ".ci/run"} <= names
