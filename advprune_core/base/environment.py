"""Where results go, and what a run was carried out with: versions, hardware, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advprune_core.base.files import own_path


def results_root(results: str | Path | None = None) -> Path:
    """The results folder: the argument, else ``$ADVPRUNE_RESULTS``, else the project's.

    The project, a checkout or what `advprune init` has laid out, is found by walking up from the current
    folder, so that a notebook's kernel and a shell at the top level mean the same place.
    """
    chosen = results or os.environ.get("ADVPRUNE_RESULTS")
    if chosen:
        return own_path(chosen)
    here = Path.cwd()
    for folder in (here, *here.parents):
        notebooks = folder / "notebooks"
        if (notebooks / "profiles").is_dir() or (notebooks.is_dir() and (folder / "pyproject.toml").exists()):
            return folder / "results"
    return here / "results"


def environment(device: str) -> dict[str, Any]:
    """Versions and hardware: what seconds and bits may depend on."""
    name = torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else _processor()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": name,
        "cores": os.cpu_count(),
    }


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def git_state() -> dict[str, Any]:
    """Commit of the package's checkout and whether it has uncommitted changes; {} outside one."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parents[1]
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):
            return {}
        status = git("status", "--porcelain", "--", ".")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(status)}
    except (OSError, subprocess.CalledProcessError):
        return {}
