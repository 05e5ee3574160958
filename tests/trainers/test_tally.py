"""An epoch's metrics: against a loop over images."""

from __future__ import annotations

import pytest
import torch

from advprune_core.objectives.base import Outputs
from advprune_core.trainers.tally import Tally


@pytest.mark.parametrize("left_out", [False, True])
def test_sums_over_batches_are_those_over_images(left_out: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tally, losses, right, withstood = Tally.on(torch.device("cpu")), [], [], []
    for size in (7, 7, 4):
        logits, y = torch.randn(size, 3, generator=generator), torch.randint(3, (size,), generator=generator)
        attacked = torch.rand(size, generator=generator) < 0.5
        outputs = Outputs(torch.rand(size, generator=generator), logits, attacked if left_out else None)
        tally.add(outputs, y)
        for loss, row, label, moved in zip(outputs.losses, logits, y, attacked, strict=True):
            losses.append(float(loss))
            right.append(int(row.argmax()) == int(label))
            withstood += [right[-1]] if moved else []
    expected = {"train_loss": sum(losses) / 18, "train_accuracy": sum(right) / 18}
    if left_out:
        expected["attacked_accuracy"] = sum(withstood) / len(withstood)
    assert tally.images == 18
    assert tally.row() == pytest.approx(expected)


def test_of_nothing() -> None:
    assert Tally.on(torch.device("cpu")).row() == {"train_loss": 0.0, "train_accuracy": 0.0}
