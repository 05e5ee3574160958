"""Where a cell's output goes: to a person who can move things, or into a file."""

from __future__ import annotations

import sys
from typing import Any


def kernel() -> Any:
    """The kernel of the notebook that this is called from; None in a terminal."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None)


def attended() -> bool:
    """Whether somebody watches the cell that runs.

    JupyterLab, and what is built like it, names the cell that it asks a kernel to execute; papermill and
    nbconvert, whose copies keep neither widgets nor what was drawn on the way, do not.
    """
    here = kernel()
    return here is not None and "cellId" in here.get_parent("shell").get("metadata", {})
