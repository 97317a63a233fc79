"""Inputs that do not fit in memory: decoded from their files on demand."""

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, DataWarning, TaskError, quoted
from ..runtime import generator
from .workers import read_ahead


class OnDemandInputs:
    """Inputs that ``read(item, random)`` reads one by one; indexed like a tensor."""

    def __getitem__(self, items: int | slice | Tensor) -> Tensor:
        """One input, or several stacked. Raises DataError for one that cannot be read."""
        items = torch.arange(len(self))[items]
        if items.dim():
            return torch.stack([self.read(item, None) for item in items.tolist()])
        return self.read(int(items), None)


@dataclass(frozen=True, eq=False)
class FileInputs(OnDemandInputs):
    """Inputs of one modality, each read from its files on demand; indexed like a tensor.

    Attributes:
        names: what errors and warnings call each item, such as its file.
        read: item number, and a generator to augment it with or None → one input, a float tensor;
            all have one shape. It runs in worker processes too, and raises DataError for an item
            that cannot be read.
        version: hash of what determines the values, see :func:`files_version`.
        look: item number → None, raising DataError if its files cannot be right by their names,
            sizes, first and last bytes; without decoding, for a quick check. None if items have no
            files of their own.
        decode: item number → None, raising DataError if any of its files cannot be decoded; by
            default ``read`` decodes all of them.
    """

    names: tuple[str, ...]
    read: Callable[[int, torch.Generator | None], Tensor]
    version: str
    look: Callable[[int], None] | None = None
    decode: Callable[[int], None] | None = None

    def __len__(self) -> int:
        return len(self.names)


#: Values of an array that are read at a time, where all are read.
MAX_CHUNK = 1 << 24


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """Features that are there already, without a backbone: name → (items, C, …), NumPy or tensor.

    Indexed like a tensor, it gives a list of tensors of float32, one a feature. Memory-mapped
    arrays are read when they are indexed. Items that are not ``present``, (items,) booleans, are
    zeros, whatever the arrays hold there.
    """

    arrays: dict[str, np.ndarray | Tensor]
    present: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, items: int | slice | Tensor) -> list[Tensor]:
        return [self._rows(array, items) for array in self.arrays.values()]

    def _rows(self, array: np.ndarray | Tensor, items: int | slice | Tensor) -> Tensor:
        rows = _rows(array, items)
        if self.present is not None:
            rows[~self.present[items]] = 0.0
        return rows

    def chunks(self) -> Iterator[tuple[str, int, Tensor]]:
        """Feature by feature: its name, a row, and the rows from there on, MAX_CHUNK values."""
        for name, array in self.arrays.items():
            size = max(1, MAX_CHUNK // max(1, math.prod(array.shape[1:])))
            for start in range(0, len(array), size):
                yield name, start, self._rows(array, slice(start, start + size))

    @cached_property
    def version(self) -> str:
        """Hash of the names, shapes and values, which must not change."""
        digest = hashlib.sha256()
        for name, start, rows in self.chunks():
            if not start:
                digest.update(f"{name} {tuple(self.arrays[name].shape)} ".encode())
            digest.update(rows.numpy().tobytes())
        return digest.hexdigest()


def _rows(array: np.ndarray | Tensor, items: int | slice | Tensor) -> Tensor:
    """Rows of an array as a tensor of float32 that shares no memory with it."""
    if isinstance(array, Tensor):
        return array[items].to("cpu", torch.float32, copy=True)
    picked = array[items.numpy() if isinstance(items, Tensor) else items]
    with np.errstate(over="ignore"):  # it becomes infinite, which is refused where it matters
        return torch.from_numpy(np.array(picked, dtype=np.float32, order="C"))


#: Most bytes of batches that workers read ahead, if their number is not given.
MAX_PREFETCH_BYTES = 2 << 30

#: Inputs of a modality: in memory, (items, …), read on demand, or features without a backbone.
Inputs = Tensor | OnDemandInputs | FeatureArrays

#: Inputs that need no worker processes.
AT_HAND = (Tensor, FeatureArrays)


class Loaded(NamedTuple):
    """The part of a batch that could be read."""

    #: (k, …) of each modality, k at most the batch's size, or a list of features; None if k is 0
    inputs: list[Tensor | list[Tensor]] | None
    kept: Tensor  # (k,) positions in the batch
    failures: dict[tuple[int, int], str]  # (modality's position, item) → why it cannot be read
    error: TaskError | None = None  # of an item that no data set should have


def load(
    columns: Sequence[Inputs],
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    random: tuple | None = None,
    workers: int | None = None,
    values: int = 0,
) -> Iterator[Loaded]:
    """Batches of inputs, in order, decoded ahead in worker processes.

    Where there can be no workers, as without shared memory for their locks, this process reads,
    after a DataNotice that says why.

    Args:
        columns: the inputs of each modality.
        batches: for each batch the samples' numbers (n,) and their items, (n, modalities).
        random: seed and stream of augmentation; by default there is none. With a sample's number
            they fix how it is augmented, the same for all its modalities and any ``workers``.
        workers: number of worker processes; 0 reads in this process. By default ``$BMNAS_WORKERS``,
            or else one per core, at most eight, and few enough to read ahead at most
            ``MAX_PREFETCH_BYTES``.
        values: numbers in the largest batch.

    Raises DataError for ``workers`` out of range, inputs that cannot be sent to workers, or a
    worker that the system ended or that blocks; TaskError for an item of a data set that does not
    fit.
    """
    if workers is None and (given := os.environ.get("BMNAS_WORKERS")):
        if not given.isdecimal():
            raise DataError("BMNAS_WORKERS", quoted(given), "an integer of 0 or more")
        workers = int(given)
    if workers is not None and (type(workers) is not int or workers < 0):
        raise DataError("workers", repr(workers), "an integer of 0 or more")
    if all(isinstance(column, AT_HAND) for column in columns):
        for _, items in batches:
            inputs = [column[rows] for column, rows in zip(columns, items.T, strict=True)]
            yield Loaded(inputs, torch.arange(len(items)), {})
        return
    if workers is None:
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1  # that this process may use
        workers = max(1, min(cores, 8, MAX_PREFETCH_BYTES // max(1, 8 * values)))
    samples = [list(zip(*map(Tensor.tolist, batch), strict=True)) for batch in batches]
    read = partial(_read, columns, random)
    parts = read_ahead(read, samples, workers) if workers and samples else map(read, samples)
    unfit = None
    for part in parts:
        if unfit := part.error:
            break
        yield part
    del parts  # ends the workers; an error would keep them alive with this frame
    if unfit:
        raise unfit


def _read(columns: Sequence[Inputs], stream: tuple | None, samples: Sequence[tuple]) -> Loaded:
    """A batch of samples, each its number and its items."""
    found, failures = {}, {}
    for k, (number, items) in enumerate(samples):
        inputs = []
        for m, (column, item) in enumerate(zip(columns, items, strict=True)):
            random = stream and generator(*stream, number)
            try:
                at_hand = isinstance(column, AT_HAND)
                inputs.append(column[item] if at_hand else column.read(item, random))
            except DataError as error:
                failures[m, item] = str(error)
            except TaskError as error:  # raised by load, since a worker would add its stack
                return Loaded(None, torch.empty(0, dtype=torch.long), {}, error)
        if len(inputs) == len(columns):
            found[k] = inputs
    stacked = [_stack(column) for column in zip(*found.values(), strict=True)]
    return Loaded(stacked or None, torch.tensor(list(found), dtype=torch.long), failures)


def _stack(samples: Sequence[Tensor | list[Tensor]]) -> Tensor | list[Tensor]:
    """Inputs of one modality as a batch; those of several features each as one."""
    if isinstance(samples[0], Tensor):
        return torch.stack(samples)
    return [torch.stack(feature) for feature in zip(*samples, strict=True)]


def first_readable(inputs: Inputs) -> Tensor | list[Tensor]:
    """The first input that can be read. Raises DataError if none can."""
    why = None
    for item in range(len(inputs)):
        try:
            return inputs[item]
        except DataError as error:
            why = why or error
    raise DataError(f"none of {len(inputs):,} items can be read, the first of them: {why}")


def move(inputs: Tensor | list[Tensor], device: torch.device | str) -> Tensor | list[Tensor]:
    """A batch of inputs, or of each feature, on a device."""
    if isinstance(inputs, Tensor):
        if torch.device(device).type == "mps" and inputs.dtype == torch.float64:
            inputs = inputs.float()  # Apple's GPUs know no float64
        return inputs.to(device)
    return [feature.to(device) for feature in inputs]


def warn_skipped(what: str, reasons: Sequence[str]) -> None:
    """Warn that some of ``what`` were left out: how many, and the first three reasons."""
    if reasons:
        more = f"; and {len(reasons) - 3:,} more" if len(reasons) > 3 else ""
        text = f"{what}: {len(reasons):,} left out: {'; '.join(reasons[:3])}{more}"
        warnings.warn(DataWarning(text, reasons), stacklevel=3)


def files_version(paths: Sequence[str | os.PathLike], *reading: object) -> str:
    """Hash of the files' names, sizes and times of modification, and of how they are read.

    Raises DataError for a file that is missing.
    """
    digest = hashlib.sha256(repr(reading).encode())
    for path in map(Path, paths):
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
