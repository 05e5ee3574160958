"""Data sets that the worker processes of one machine share: in one file, mapped into the memory of each."""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from loky.backend import resource_tracker

from advprune_core.datasets.splits import Dataset

#: Bytes that arrays begin at a multiple of.
_ALIGNED = 64


@dataclass(frozen=True)
class SharedDataset:
    """A data set in a file.

    Attributes
    ----------
    path : str
        File of its arrays.
    places : tuple of (int, int)
        Where each begins and ends in it.
    rest : bytes
        Everything else, pickled: from this process to its own workers, never from a file.
    """

    path: str
    places: tuple[tuple[int, int], ...]
    rest: bytes


def share(dataset: Dataset) -> SharedDataset:
    """Write a data set to a temporary file; it goes with `forget`, or with this process, however that ends."""
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(dataset, protocol=5, buffer_callback=buffers.append)
    handle, path = tempfile.mkstemp(prefix="advprune-")
    resource_tracker.register(path, "file")  # a process of its own, which outlives this one
    places = []
    with os.fdopen(handle, "wb") as file:
        for buffer in buffers:
            begin = -(-file.tell() // _ALIGNED) * _ALIGNED
            file.seek(begin)
            file.write(buffer.raw())
            places.append((begin, file.tell()))
    return SharedDataset(path, tuple(places), rest)


@lru_cache(maxsize=2)  # as many as a worker keeps
def opened(shared: SharedDataset) -> Dataset:
    """The data set; its arrays are pages of the file, which all that open it have in common."""
    with open(shared.path, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pickle.loads(shared.rest, buffers=[view[begin:end] for begin, end in shared.places])


def forget(shared: SharedDataset) -> None:
    """Remove the file; who has it open keeps the pages."""
    with suppress(OSError):  # some systems keep what is mapped: it goes with this process then
        os.unlink(shared.path)
        resource_tracker.unregister(shared.path, "file")
