"""Inputs that are too large to keep: decoded from their files when they are asked for."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BmnasError
from ..runtime import generator


class DataError(BmnasError):
    """Data files that are missing or are not what they should be."""


class DataWarning(UserWarning):
    """Samples that were left out because their files cannot be read."""


@dataclass(frozen=True, eq=False)
class FileInputs:
    """Inputs of one modality that are read from files one at a time; used like a tensor of them.

    Attributes:
        names: what errors and warnings call each item, such as a file.
        read: item number, and a generator or None → one input as a float tensor, all of one
            shape. With a generator it is augmented. It runs in worker processes too, and raises
            DataError for an item that cannot be read.
        version: hash of what determines the values, see :func:`files_version`.
    """

    names: tuple[str, ...]
    read: Callable[[int, torch.Generator | None], Tensor]
    version: str

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, items: int | slice | Tensor) -> Tensor:
        """One input, or several stacked. Raises DataError for one that cannot be read."""
        if isinstance(items, slice):
            items = torch.arange(len(self))[items]
        if isinstance(items, Tensor) and items.dtype == torch.bool:
            items = items.nonzero()[:, 0]
        if isinstance(items, Tensor) and items.dim():
            return torch.stack([self.read(int(item), None) for item in items])
        return self.read(int(items), None)


#: Most bytes of batches that workers read ahead, where their number is not given.
READ_MAX_PREFETCH = 2 << 30

#: Inputs of a modality: in memory, (items, …), or in files.
Inputs = Tensor | FileInputs


@dataclass(frozen=True)
class Loaded:
    """A batch as it was read: what could be read of it.

    Attributes:
        inputs: for each modality (k, …), k at most the size of the batch; None where k is 0.
        kept: (k,) positions in the batch.
        failures: (modality, item) → why it cannot be read.
    """

    inputs: list[Tensor] | None
    kept: Tensor
    failures: dict[tuple[int, int], str]


def load(
    columns: Sequence[Inputs],
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    random: tuple | None = None,
    workers: int | None = None,
    values: int = 0,
) -> Iterator[Loaded]:
    """Batches of inputs, in order, decoded ahead in worker processes.

    Args:
        columns: the inputs of each modality.
        batches: for each batch the samples' numbers (n,) and their items, (n, modalities).
        random: seed and stream of augmentation, which with a sample's number fixes how it is
            augmented, whatever the workers, and all its modalities alike; None for none.
        workers: processes; as many as there are cores, up to eight, where None; 0 for none.
        values: numbers in the largest batch, so that those read ahead take no more than
            ``READ_MAX_PREFETCH`` bytes together.

    Raises:
        DataError: for workers that are no number of processes, or that the system ends.
    """
    if workers is not None and (type(workers) is not int or workers < 0):
        raise DataError(f"workers: found {workers!r}; allowed: an int, at least 0")
    if all(isinstance(column, Tensor) for column in columns):
        for _, items in batches:
            inputs = [column[items[:, m]] for m, column in enumerate(columns)]
            yield Loaded(inputs, torch.arange(len(items)), {})
        return
    if workers is None:
        workers = max(1, min(default_workers(), READ_MAX_PREFETCH // max(1, 8 * values)))
    keys = [list(zip(numbers.tolist(), items.tolist(), strict=True)) for numbers, items in batches]
    loader = torch.utils.data.DataLoader(
        _Samples(columns, random),
        batch_sampler=keys,
        num_workers=min(workers, sum(map(len, keys))),
        collate_fn=_collate,
        generator=torch.Generator(),  # or it would draw from the one that training draws from
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"{workers} worker processes: {error}; allowed: as many as fit in memory and in shared "
            "memory (/dev/shm), such as workers=0"
        ) from None


def default_workers() -> int:
    """Cores that this process may use, up to eight."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(len(affinity(0)) if affinity else os.cpu_count() or 1, 8)


class _Samples(torch.utils.data.Dataset):
    def __init__(self, columns: Sequence[Inputs], random: tuple | None):
        self.columns, self.random = columns, random

    def __getitem__(self, key: tuple[int, list[int]]):
        number, items = key
        inputs, failures = [], {}
        for m, (column, item) in enumerate(zip(self.columns, items, strict=True)):
            try:
                if isinstance(column, Tensor):
                    inputs.append(column[item])
                else:
                    random = self.random and generator(*self.random, number)
                    inputs.append(column.read(item, random))
            except DataError as error:
                failures[m, item] = str(error)
        return inputs, failures


def _collate(samples: list) -> Loaded:
    kept = [k for k, (_, failures) in enumerate(samples) if not failures]
    columns = zip(*(samples[k][0] for k in kept), strict=True)
    failures = {place: why for _, found in samples for place, why in found.items()}
    inputs = [torch.stack(column) for column in columns] if kept else None
    return Loaded(inputs, torch.tensor(kept, dtype=torch.long), failures)


def warn_skipped(what: str, reasons: Sequence[str]) -> None:
    """Warn once that some of ``what`` were left out: how many, and why the first three were."""
    if reasons:
        more = f"; and {len(reasons) - 3:,} more" if len(reasons) > 3 else ""
        warnings.warn(
            f"{what}: {len(reasons):,} left out: {'; '.join(reasons[:3])}{more}",
            DataWarning,
            stacklevel=3,
        )


def files_version(paths: Sequence[Path], *reading: object) -> str:
    """Hash of the files' names, sizes and times of change, and of how they are read.

    Raises:
        DataError: for a file that is missing.
    """
    digest = hashlib.sha256(repr(reading).encode())
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
