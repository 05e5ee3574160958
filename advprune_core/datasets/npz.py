"""Archives of arrays (.npz): read without trusting them, and without unpickling anything."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import psutil

from advprune_core.base.settings import AdvpruneError
from advprune_core.datasets.arrays import Array, DataError

_FOUR = ("x_train", "y_train", "x_test", "y_test")
_NPY = b"\x93NUMPY"


def four_arrays(path: Path) -> Callable[[list[str]], list[str]]:
    """What `read_npz` is to read of a data set; it refuses one that lacks some of it."""

    def wanted(names: list[str]) -> list[str]:
        missing = [name for name in _FOUR if name not in names]
        if missing:
            raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(names) or 'no arrays'}")
        return list(_FOUR)

    return wanted


def read_npz(path: Path, *, wanted: Callable[[list[str]], list[str]]) -> dict[str, Array]:
    """Some arrays of an archive.

    Parameters
    ----------
    path : Path
    wanted : function
        From the names of all arrays in it to those to be read; it may refuse.

    Raises
    ------
    DataError
        No such file, no archive of plain arrays, a damaged one, or one whose arrays are not as large
        as they say, or larger than the memory of this machine.
    """
    if not os.path.isfile(path):
        raise DataError(f"there is no file {path}")
    try:
        with open(path, "rb") as file:
            if file.read(len(_NPY)) == _NPY:
                raise DataError(f"{path} holds one array; an .npz (np.savez) with named arrays is needed")
            with zipfile.ZipFile(file) as archive:
                members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
                twice = [name for name, count in Counter(members).items() if count > 1]
                if twice:
                    raise DataError(f"{path} holds {twice[0]} twice")
                return {name: _read(archive, name, path) for name in wanted(members)}
    except AdvpruneError:
        raise
    except Exception as error:  # whatever a damaged file makes of a decoder
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} cannot be read as an .npz of plain arrays: {reason}") from None


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    """One array, after its header was compared with what there is."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        shape, dtype = _header(member)
        begin = member.tell()
    if dtype.hasobject:
        raise DataError(f"{name} in {path} cannot be read: it is no plain array but pickled objects")
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if begin + size != info.file_size:
        raise DataError(
            f"{name} in {path} is damaged: its shape {shape} of {dtype} takes {size} bytes, and there are "
            f"{info.file_size - begin}"
        )
    memory = psutil.virtual_memory().total
    if size > memory:
        raise DataError(f"{name} in {path} takes {size / 2**30:.1f} GiB, and this machine has {memory / 2**30:.1f}")
    with archive.open(info) as member:
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # the checksum is compared at the end
            raise DataError(f"{name} in {path} is damaged: it is longer than it says")
    return array


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an array says it has."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of format {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype
