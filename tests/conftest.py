"""What all tests share: the embedded data set, tiny networks, a folder for results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from advprune_core.data import Dataset, load_dataset


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the user's results or data."""
    monkeypatch.setenv("ADVPRUNE_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("ADVPRUNE_DATA", raising=False)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The embedded digits."""
    return load_dataset("digits")
