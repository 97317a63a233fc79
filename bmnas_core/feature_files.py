"""Features on disk: extracted into memory-mapped files in half precision, one folder a modality.

A folder is named by the cache key of everything that produced its features, so features of other
backbones, data, L or pooling stay where they are. Extraction is flushed every few hundred items,
and an extraction that was killed goes on from there.
"""

import hashlib
import json
import math
import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from .networks import FeatureError
from .storage import atomic_write
from .tasks.inputs import DataError
from .tasks.task import Modality

FORMAT = "bmnas-features/4"

#: Items after which an extraction is flushed to disk.
FLUSH_EVERY = 512

#: At most this many batches are prefetched, for all readers of a bank together.
MAX_PREFETCH = 4

#: Give up after this many unreadable items in a row.
MAX_UNREADABLE_RUN = 100

#: What reading a damaged file can raise.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


class Part(NamedTuple):
    """Features of a modality's items ``start`` to ``end`` - 1; zero if they cannot be read."""

    start: int
    end: int
    features: dict[str, Tensor]  # name → (end - start, C_i, L), or (end - start, C_i, 1)
    skipped: dict[int, str]  # item → why it cannot be read


#: Called with a modality and an item, it yields the features from that item on, in order.
Extract = Callable[[Modality, int], Iterator[Part]]


def cache_key(modalities: Sequence[Modality], L: int) -> str:
    """Hash of everything that determines the modalities' features of length L."""
    parts = [f"{FORMAT} {L}", *(modality.fingerprint() for modality in modalities)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


class DiskFeatures:
    """Features of all modalities in files, extracted into them if they are not there yet.

    ``features``, in half precision, and ``skipped`` are as in a FeatureBank; batches are served on
    ``device``. Raises FeatureError for a folder or features that cannot be written or read, and
    DataError if ``MAX_UNREADABLE_RUN`` items in a row cannot be read.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        modalities: Sequence[Modality],
        L: int,
        device: torch.device,
        extract: Extract,
    ):
        allowed = "the path of a folder that can be written"
        if not isinstance(folder, (str, os.PathLike)):
            raise FeatureError("folder", repr(folder), allowed)
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._tables = [MemmapFeatures(Path(folder), m, L, extract) for m in modalities]
        except OSError as error:
            found = f"{str(folder)!r} ({error.strerror or error})"
            raise FeatureError("folder", found, allowed) from None
        self.features = {k: v for table in self._tables for k, v in table.features.items()}
        self.skipped = {table.modality.name: table.skipped for table in self._tables}
        self._device = device
        self._reader = ThreadPoolExecutor(1, "features")
        self._prefetched: dict[tuple, Future] = {}

    def read(self, index: Tensor, rows: Tensor, next_rows: Tensor | None) -> dict[str, Tensor]:
        """Features of samples ``rows`` (…,), in float32, each (…, C_i, L_i); prefetches next_rows.

        ``index`` (n, modalities) says which items the samples consist of.
        """
        _, reading = self._start(index[rows])
        if next_rows is not None:
            key, prefetched = self._start(index[next_rows.to(index.device)])
            self._prefetched[key] = prefetched
            while len(self._prefetched) > MAX_PREFETCH:
                self._prefetched.pop(next(iter(self._prefetched))).cancel()
        return reading.result()

    def _start(self, items: Tensor) -> tuple[tuple, Future]:
        items = items.cpu()
        key = tuple(items.shape), items.numpy().tobytes()
        return key, self._prefetched.pop(key, None) or self._reader.submit(self._read, items)

    def _read(self, items: Tensor) -> dict[str, Tensor]:
        columns, features = list(zip(self._tables, items.unbind(-1), strict=True)), {}
        for table, column in columns:
            table.prefetch(column)
        for table, column in columns:
            features |= table.read(column, self._device)
        return features


class MemmapFeatures:
    """Features of one modality in a memory-mapped file, which is written if there is none yet.

    A row of the file has all features of an item, one after the other.
    """

    def __init__(self, root: Path, modality: Modality, L: int, extract: Extract):
        key = cache_key([modality], L)
        self.modality, self.folder, self.skipped = modality, root / key, {}
        self._items, self._shapes = len(modality.inputs), {}
        self._meta = {"format": FORMAT, "cache_key": key, "modality": modality.name}
        finished, lock = self.folder / "bank.json", root / f".{key}.lock"
        if not finished.is_file():
            with FileLock(lock):
                if not finished.is_file():
                    self._make(extract)
                lock.unlink(missing_ok=True)  # a process that waits for it finds the features
        meta, self._values = self._open(self.folder, finished.name)
        again = f"(to have it tried again, delete {self.folder})"
        self.skipped = {item: f"{why} {again}" for item, why in meta["skipped"].items()}
        self._rows = torch.from_numpy(self._values)
        self.features = self._by_name(self._rows)

    def prefetch(self, items: Tensor) -> None:
        """Have the system fetch all these rows at once, not each when it is touched."""
        if hasattr(mmap, "MADV_WILLNEED"):
            size, start = self._values[0].nbytes, self._values.offset % mmap.ALLOCATIONGRANULARITY
            for item in items.unique().tolist():
                place = start + item * size
                page = place // mmap.PAGESIZE * mmap.PAGESIZE
                self._values._mmap.madvise(mmap.MADV_WILLNEED, page, place + size - page)

    def read(self, items: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Features of ``items`` (…,) by name, in float32, each (…, C_i, L_i)."""
        picked = self._rows.index_select(0, items.flatten()).to(device)
        parts = self._by_name(picked.reshape(*items.shape, -1))
        kind = {"dtype": torch.float32, "memory_format": torch.contiguous_format}
        return {name: part.to(**kind) for name, part in parts.items()}

    def _by_name(self, rows: Tensor) -> dict[str, Tensor]:
        parts = rows.split([math.prod(shape) for shape in self._shapes.values()], dim=-1)
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: part.unflatten(-1, shape) for (name, shape), part in named}

    def _make(self, extract: Extract) -> None:
        """Write the folder beside its place, from where an earlier extraction stopped."""
        beside = self.folder.parent / f".{self.folder.name}.part"
        try:
            beside.mkdir(exist_ok=True)
            self._write(beside, extract)
            self._write_meta(beside / "bank.json")
            (beside / "progress.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            beside.rename(self.folder)
        except FeatureError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        except OSError as error:
            what = f"{error.filename or beside}: {error.strerror or error}"
            kept = "what was extracted before is kept, and the next call goes on from there"
            raise FeatureError(f"{what}; {kept}") from None

    def _write(self, beside: Path, extract: Extract) -> None:
        done = self._resume(beside)
        path, items = beside / "features.npy", self._items
        rows = np.lib.format.open_memmap(path, "r+") if done else None
        for start, end, features, skipped in extract(self.modality, done) if done < items else ():
            if rows is None:
                self._shapes = {name: tuple(part.shape[1:]) for name, part in features.items()}
                _create(path, self._file_shape)
                rows = np.lib.format.open_memmap(path, "r+")
            flat = [part.flatten(1) for part in features.values()]
            rows[start:end] = torch.cat(flat, dim=1).half().cpu().numpy()
            self.skipped |= skipped
            if end - done >= FLUSH_EVERY or end == items:
                reasons = [self.skipped.get(item) for item in range(done, end)]
                if len(reasons) >= MAX_UNREADABLE_RUN and all(reasons):  # the disk is gone
                    place = f"{self.modality.name}: items {done} … {end - 1}"
                    none = f"none can be read, the first of them: {reasons[0]}"
                    raise DataError(f"{place}: {none}; what was extracted before is kept")
                rows.flush()
                done = end
                self._write_meta(beside / "progress.json", done=done)

    def _resume(self, beside: Path) -> int:
        """Items that an earlier extraction has written; if that is damaged, it is deleted."""
        try:
            meta, _ = self._open(beside, "progress.json")
            done = min(int(meta["done"]), self._items)
        except _DAMAGE:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            return 0
        self.skipped |= meta["skipped"]
        return done

    @property
    def _file_shape(self) -> tuple[int, int]:
        return self._items, sum(map(math.prod, self._shapes.values()))

    def _write_meta(self, path: Path, **more: object) -> None:
        found = {"shapes": self._shapes, "skipped": self.skipped}
        with atomic_write(path) as part:
            part.write_text(json.dumps(self._meta | found | more, indent=1))

    def _open(self, folder: Path, name: str) -> tuple[dict, np.memmap]:
        """What a file says of the features beside it, and those. FeatureError if one is damaged."""
        path = folder / name
        try:
            meta = json.loads(path.read_text())
            for field, allowed in self._meta.items():
                if meta[field] != allowed:
                    raise ValueError(f"found {field} {meta[field]!r}; allowed: {allowed!r}")
            meta["skipped"] = {int(item): str(why) for item, why in meta["skipped"].items()}
            self._shapes = {name: (c, L) for name, (c, L) in meta["shapes"].items()}
            if {name: c for name, (c, _) in self._shapes.items()} != self.modality.channels:
                allowed = self.modality.channels
                raise ValueError(f"found shapes {meta['shapes']}; allowed: channels {allowed}")
            path = folder / "features.npy"
            # Private pages, since PyTorch has no read-only arrays; none is written to.
            values = np.lib.format.open_memmap(path, "c")
            if (values.shape, values.dtype) != (self._file_shape, np.float16):
                found = f"shape {list(values.shape)} of {values.dtype}"
                raise ValueError(f"found {found}; allowed: {list(self._file_shape)} of float16")
        except _DAMAGE as error:
            found = f"found no features of {self.modality.name!r} ({error})"
            again = f"delete {self.folder} to have it made again"
            raise FeatureError(f"{path}: {found}; {again}") from None
        return meta, values


def _create(path: Path, shape: tuple[int, int]) -> None:
    """Create a file of features with all its blocks.

    Writing to a memory map cannot fail with an error: where a file has holes and the disk is full,
    it kills the process (SIGBUS).
    """
    needed, free = 2 * math.prod(shape) / 1e9, shutil.disk_usage(path.parent).free / 1e9
    if needed > free:
        place = path.parent.parent
        raise FeatureError(f"{place}: the features need {needed:.2f} GB; found {free:.2f} GB")
    try:
        values = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        with open(path, "r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, values.offset + values.nbytes)
            else:
                file.seek(values.offset)
                file.writelines(bytes(values[0].nbytes) for _ in values)
    except OSError:
        path.unlink(missing_ok=True)
        raise
