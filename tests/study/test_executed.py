"""Notebooks as studies, and executed, against papermill."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.study.executed import execute, parameters_of, study_of
from advprune_core.study.notebooks import DEFAULT_NOTEBOOKS, find_notebook
from advprune_core.study.study import StudyConfig, study_config

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def write_notebook(path: Path, parameters: dict[str, Any], code: str = "") -> Path:
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cells = [nbformat.v4.new_code_cell(lines, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(code)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("name", DEFAULT_NOTEBOOKS)
def test_the_default_notebooks_have_the_default_grid(name: str) -> None:
    assert study_of(NOTEBOOKS / name, {}) == StudyConfig()
    assert study_of(NOTEBOOKS / name, {"epochs": 2, "results": "r"}) == StudyConfig(epochs=2, results="r")


def test_a_notebook_brings_its_own_grid(tmp_path: Path) -> None:
    ways = {"a": {"trainer": "fast"}}
    some = write_notebook(tmp_path / "some.ipynb", {"epochs": 1, "variants": ways, "colour": "red"})
    assert study_of(some, {"epochs": 2, "colour": "blue"}) == StudyConfig(epochs=2, variants=ways)
    assert study_of(some, {"variants": {}}) == StudyConfig(epochs=1)


def test_parameters_that_a_notebook_lacks_are_refused(tmp_path: Path) -> None:
    some = write_notebook(tmp_path / "some.ipynb", {"epochs": 1, "colour": "red"})
    for name, message in (("epocs", "did you mean 'epochs'"), ("batch_size", "allowed: colour, epochs")):
        with pytest.raises(ConfigError, match=rf"parameter of some.ipynb '{name}'.*{message}"):
            study_of(some, {name: 2})


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("gradient_matching", {"reference": "MART: random"}),
        ("gradient_matching", {"variants": {"MART": {"trainer": "mart"}}, "parts": []}),  # the default is of TRADES
        ("trainers", {"compare": [["TRADES: random", "TRADES: rndom"]]}),
        ("speedrun", {"textbook": ["standard"]}),
    ],
)
def test_arms_that_a_notebook_names_are_looked_for_before_any_work(name: str, given: dict[str, Any]) -> None:
    assert study_of(NOTEBOOKS / f"{name}.ipynb", {})
    with pytest.raises(ConfigError, match=r"^(reference|compare|textbook): no arm of this study is called '.*'"):
        study_of(NOTEBOOKS / f"{name}.ipynb", given)


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ('config_of_notebook(globals(), arms=["colour"])', True),
        ("config_of_notebook(globals(), arms=names)", False),
        ('%matplotlib inline\nconfig_of_notebook(globals(), arms=["colour"])', False),
        ('print("arms=")', False),
    ],
)
def test_arms_are_read_where_a_notebook_says_them_word_for_word(tmp_path: Path, source: str, refused: bool) -> None:
    some = write_notebook(tmp_path / "some.ipynb", {"epochs": 1, "colour": "red"}, source)
    if refused:
        with pytest.raises(ConfigError, match=r"colour: no arm of this study is called 'red'.*allowed: random"):
            study_of(some, {})
    else:
        assert study_of(some, {}) == StudyConfig(epochs=1)


@pytest.mark.parametrize(
    ("name", "path"), [("precision", "settings.precision"), ("weight_decy", "settings.optimisation.weight_decay")]
)
def test_a_setting_of_the_runs_is_told_apart(name: str, path: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' \(did you mean '{path}'\?\); allowed: "):
        study_of(NOTEBOOKS / DEFAULT_NOTEBOOKS[0], {name: "bfloat16"})


@pytest.mark.parametrize("name", [path.name for path in sorted(NOTEBOOKS.glob("*.ipynb"))])
def test_parameters_are_those_that_papermill_finds(name: str) -> None:
    theirs = papermill.inspect_notebook(str(NOTEBOOKS / name))
    assert parameters_of(NOTEBOOKS / name) == {key: ast.literal_eval(each["default"]) for key, each in theirs.items()}


@pytest.mark.parametrize("name", ["README", "explore"])
def test_what_is_no_experiment_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.ipynb is no experiment"):
        study_of(NOTEBOOKS / f"{name}.ipynb", {})
    with pytest.raises(ConfigError, match=f"unknown notebook '{name}'.*allowed: accuracy_vs_fraction, "):
        find_notebook(name)


def test_a_notebook_without_parameters_has_none(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell("epochs = 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "n.ipynb")
    assert parameters_of(tmp_path / "n.ipynb") == {}


def test_execute_gives_the_kernel_its_parameters_and_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVPRUNE_RESULTS", "as before")
    code = (
        "import os\nassert os.environ['ADVPRUNE_RESULTS'].endswith('kept')\n"
        "print(study, epochs, results, os.listdir())\n"
        "print(os.environ['ADVPRUNE_RESULTS'] + '/mine/a.png')"
    )
    notebook = write_notebook(tmp_path / "nb" / "a.ipynb", {"study": "x", "epochs": 1, "results": None}, code)
    config = study_config({"study": "mine", "epochs": 3, "results": str(tmp_path / "kept")})
    config.folder.mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.npz").touch()
    given = {"study": "mine", "epochs": 3, "results": str(tmp_path / "kept")}
    monkeypatch.chdir(tmp_path / "here")
    (output,) = execute([notebook], given, config)
    assert output == tmp_path / "kept" / "mine" / "a.ipynb"
    assert os.environ["ADVPRUNE_RESULTS"] == "as before"
    printed = [
        cell.outputs[0].text for cell in nbformat.read(output, 4).cells if cell.cell_type == "code" and cell.outputs
    ]
    assert printed == ["mine 3 None ['mine.npz']\nkept/mine/a.png\n"], "the kernel works where the command does"
    assert str(tmp_path) not in output.read_text()
    assert nbformat.read(notebook, 4).cells[1].outputs == []
