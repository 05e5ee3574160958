"""Images a second: batches cropped and mirrored here, and by torchvision's transforms in a DataLoader."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Subset

from advprune_core.datasets import augmentation
from advprune_core.datasets.base import data_folder, load_dataset
from benchmarks.cases import Case, Goal, OtherResults
from benchmarks.timing import Round, alternating

IMAGES, BATCH, PADDING = 12_800, 128, 4


@contextmanager
def contenders() -> Iterator[Round]:
    """One epoch of each; the loader's processes are there already."""
    import torchvision
    from torchvision import transforms

    train = load_dataset({"cifar10": {"val_select": 0, "val_stop": 0}}).train
    drawn = [transforms.RandomCrop(train.images.shape[-1], PADDING), transforms.RandomHorizontalFlip()]

    def loader(*changes: object) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
        images = torchvision.datasets.CIFAR10(
            str(data_folder()), transform=transforms.Compose([*changes, transforms.ToTensor()])
        )
        few = Subset(images, range(IMAGES))
        return DataLoader(few, BATCH, num_workers=2, persistent_workers=True)

    first, labels = next(iter(loader()))
    rows = slice(0, BATCH)
    if not (torch.equal(first, train.pixels(rows)) and torch.equal(labels, train.labels[rows])):
        raise OtherResults("torchvision's images are not ours")
    batches = loader(*drawn)

    def theirs() -> None:
        for _ in batches:
            pass

    def ours() -> None:
        for ids in torch.randperm(IMAGES).split(BATCH):
            crops = augmentation.sample(1, ids, torch.zeros_like(ids), padding=PADDING, flip=True)
            augmentation.apply(augmentation.pad(train.pixels(ids), PADDING), crops)

    yield alternating({"ours": ours, "torchvision, 2 workers": theirs}, time.perf_counter)


CASES = [
    Case(
        "data-path",
        "images with crop and flip",
        f"{IMAGES:,} images of CIFAR-10, batch {BATCH}; seconds of the clock",
        (Goal("ours", "torchvision, 2 workers", 10.0),),
        contenders,
    )
]
