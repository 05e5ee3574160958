"""A run's threads and floating-point modes are its own, and are put back."""

from __future__ import annotations

import pytest
import torch

from advprune_core.trainers.arithmetic import arithmetic
from tests.tiny import tiny_run


def modes() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return torch.get_num_threads(), cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


def test_modes_are_set_and_restored() -> None:
    torch.set_num_threads(2)
    before = modes()
    with arithmetic(tiny_run(threads=1)):
        assert modes() == (1, False, True, False)
    assert modes() == before
    with pytest.raises(KeyError), arithmetic(tiny_run(threads=1)):
        raise KeyError
    assert modes() == before
