"""A network that several tests attack."""

from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """For images of (2, 6, 5) and 4 classes; smooth, so that steps add up."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(60, 24), nn.Tanh(), nn.Linear(24, 4)).eval()
