"""Notebooks executed with papermill: the study that one stands for, and its executed copy."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from advprune_core.base.files import write_text
from advprune_core.base.settings import ConfigError, check_names
from advprune_core.study.grid import check_arms
from advprune_core.study.options import check_options
from advprune_core.study.study import OF_THE_GRID, StudyConfig, study_config
from advprune_core.trainers.config import flat_fields


def study_of(notebook: Path, parameters: dict[str, Any]) -> StudyConfig:
    """The study of a notebook: its own defaults, with `parameters` over them.

    Raises
    ------
    ConfigError
        A notebook without parameters; a parameter that it does not have; values out of range; the name of an arm
        or way of training that the study does not have.
    """
    known = parameters_of(notebook)
    if not known:
        raise ConfigError(f"{notebook} is no experiment: none of its cells is tagged 'parameters' and sets any")
    of_runs = {
        name: f"settings.{path}"
        for name, path in flat_fields().items()
        if "settings" in known and name not in {*known, *OF_THE_GRID}
    }
    check_names(set(parameters) - {"results"}, known, what=f"parameter of {notebook.name}", inner=of_runs)
    values = known | parameters
    config = study_config({name: value for name, value in values.items() if name in StudyConfig.model_fields})
    arms = {name: values[name] for name in _arms_of(notebook) if name in values}
    check_arms(config, arms)
    check_options(config, values, given=set(parameters) - set(arms))
    return config


def _arms_of(notebook: Path) -> list[str]:
    """The parameters that name arms: what the notebook gives to `config_of_notebook` as `arms`, word for word."""
    found: list[str] = []
    for cell in _cells(notebook):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "arms=" not in source:
            continue
        with suppress(SyntaxError, ValueError):  # magics, or names that are computed: the notebook itself refuses
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "config_of_notebook":
                    given = [word.value for word in node.keywords if word.arg == "arms"]
                    found += [name for value in given for name in ast.literal_eval(value)]
    return found


def parameters_of(notebook: Path, *, tag: str = "parameters") -> dict[str, Any]:
    """Names and defaults of a notebook's parameters, as papermill finds them, whose import takes seconds.

    With the tag ``injected-parameters``: what an executed one was given.
    """
    tagged = [cell for cell in _cells(notebook) if tag in cell["metadata"].get("tags", [])]
    defaults = {}
    for line in ast.parse("".join(tagged[0]["source"])).body if tagged else []:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and line.value is not None:
            defaults[target.id] = ast.literal_eval(line.value)
    return defaults


def _cells(notebook: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return cells


def execute(notebooks: Sequence[Path], parameters: dict[str, Any], config: StudyConfig) -> list[Path]:
    """Execute notebooks into ``results/<study>/``; their runs are there already, or are run."""
    import papermill

    outputs = []
    # By the environment, not as a parameter: executed copies should not name folders of a machine.
    given = {name: value for name, value in parameters.items() if name != "results"}
    before = os.environ.get("ADVPRUNE_RESULTS")
    os.environ["ADVPRUNE_RESULTS"] = str(config.execution.root.resolve())
    try:
        for notebook in notebooks:
            output = config.folder / notebook.name
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=given,
                progress_bar=False,
                cwd=os.getcwd(),  # relative paths and modules mean the same there as here
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
            _forget_paths(output, config.execution.root)
            outputs.append(output)
    finally:
        os.environ.pop("ADVPRUNE_RESULTS")
        if before is not None:
            os.environ["ADVPRUNE_RESULTS"] = before
    return outputs


def _forget_paths(notebook: Path, root: Path) -> None:
    """Leave only names in what papermill notes of its paths, and of the results folder in what cells have printed."""
    content = json.loads(notebook.read_text())
    for name in ("input_path", "output_path"):
        content["metadata"]["papermill"][name] = notebook.name
    for output in (output for cell in content["cells"] for output in cell.get("outputs", []) if "text" in output):
        output["text"] = [line.replace(f"{root.resolve()}{os.sep}", f"{root.name}/") for line in output["text"]]
    write_text(notebook, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
