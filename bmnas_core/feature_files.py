"""Tables of half-precision numbers on disk: written a few rows at a time, read memory-mapped."""

from __future__ import annotations

import io
import mmap
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class MemmapFeatures:
    """A memory-mapped file of features: ``rows`` (items, ΣC_i, L)."""

    def __init__(self, values: np.memmap):
        self.rows = torch.from_numpy(values)
        self.file, self.row = values._mmap, values[0].nbytes
        self.start = values.offset % mmap.ALLOCATIONGRANULARITY

    def prefetch(self, items: Tensor) -> None:
        """Have the system fetch rows all at once; else it waits for each as it is touched."""
        if hasattr(mmap, "MADV_WILLNEED"):
            for item in items.unique().tolist():
                place = self.start + item * self.row
                page = place // mmap.PAGESIZE * mmap.PAGESIZE
                self.file.madvise(mmap.MADV_WILLNEED, page, place + self.row - page)


class TableWriter:
    """A .npy file of half-precision numbers that is written in place, a few rows at a time."""

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self.path, self.shape = path, shape
        self.row = 2 * int(np.prod(shape[1:]))

    @staticmethod
    def _header(shape: tuple[int, ...]) -> bytes:
        stream = io.BytesIO()
        described = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, described)
        return stream.getvalue()

    @classmethod
    def nbytes(cls, shape: tuple[int, ...]) -> int:
        """Size of the whole file."""
        return len(cls._header(shape)) + 2 * int(np.prod(shape))

    def __enter__(self):
        header = self._header(self.shape)
        self.file = open(self.path, "r+b" if self.path.exists() else "w+b")  # noqa: SIM115
        self.file.write(header)
        self.file.truncate(self.nbytes(self.shape))
        self.start = len(header)
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, start: int, values: Tensor) -> None:
        self.file.seek(self.start + start * self.row)
        self.file.write(values.numpy().tobytes())

    def flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
