"""Whether somebody watches."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import papermill
import pytest

from advprune_core.base.frontend import attended, kernel


def test_a_terminal_has_no_kernel() -> None:
    assert kernel() is None
    assert not attended()


@pytest.mark.slow
def test_a_kernel_is_attended_by_who_names_the_cell(tmp_path: Path) -> None:
    """Papermill does not; JupyterLab's message is imitated here, and seen in the browser's tests."""
    code = """
from advprune_core.base.frontend import attended, kernel
print(kernel() is get_ipython().kernel, attended())
here = get_ipython().kernel
message = here.get_parent("shell")
message["metadata"] = {"cellId": "some"}
print(attended())
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "n.ipynb")
    papermill.execute_notebook(str(tmp_path / "n.ipynb"), str(tmp_path / "out.ipynb"), progress_bar=False)
    (cell,) = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    assert "".join(cell["outputs"][0]["text"]).split() == ["True", "False", "True"]
