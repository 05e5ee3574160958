"""What is wrong with an executed notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

#: Folders of somebody's machine, which nobody else has.
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:tmp|home|root|work|mnt|data|Users|var)/")


def cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    """The cells of a kind of a notebook, executed or not."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def undrawn(executed: dict[str, Any]) -> list[str]:
    """Cells that have written a figure, and show none."""
    return [
        source
        for source, outputs in _cells(executed)
        if "save_figure(" in source
        and ".png" in _said(outputs)
        and not any("image/png" in output.get("data", {}) for output in outputs)
    ]


def told(path: Path) -> str:
    """All that an executed notebook says as Markdown."""
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    return "\n".join("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)


def machine_paths(executed: dict[str, Any]) -> list[str]:
    """Lines of outputs that name a folder of the machine that executed it."""
    lines = [line for _, outputs in _cells(executed) for line in _said(outputs).splitlines()]
    return [line for line in lines if _FOLDERS.search(line)]


def _cells(executed: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [("".join(cell["source"]), cell.get("outputs", [])) for cell in executed["cells"]]


def _said(outputs: list[dict[str, Any]]) -> str:
    return "".join("".join(output.get("text", "")) for output in outputs)
