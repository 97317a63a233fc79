"""Features on disk: extracted into memory-mapped files in half precision, one folder a modality.

A folder is named by the cache key of everything that produced its features, so features of other
backbones, data, L or pooling stay where they are. Extraction is flushed every few hundred items,
and an extraction that was killed goes on from there. Each shard, of a few items, has a checksum
that is compared when the shard is first read.
"""

import hashlib
import json
import math
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import in_line
from .locks import locked
from .networks import FeatureError
from .reading import require_file, text_of
from .storage import atomic_write
from .tasks.files import DAMAGED
from .tasks.inputs import DataError
from .tasks.task import Modality

FORMAT = "bmnas-features/5"

#: Begins the hash of features. Files of results hold such hashes, so it stays while values do.
HASH_FORMAT = "bmnas-features/4"

#: Items after which an extraction is flushed to disk; a power of two.
FLUSH_EVERY = 512

#: At most this many bytes are in a shard of more than one item. A shard is read whole for its
#: checksum, and batches are random: larger ones would have the first batches read all of the file.
SHARD_BYTES = 1 << 16

#: At most this many batches are prefetched, for all readers of a bank together.
MAX_PREFETCH = 4

#: Give up after this many unreadable items in a row.
MAX_UNREADABLE_RUN = 100


class Part(NamedTuple):
    """Features of a modality's items ``start`` to ``end`` - 1; zero if they cannot be read."""

    start: int
    end: int
    features: dict[str, Tensor]  # name → (end - start, C_i, L), or (end - start, C_i, 1)
    skipped: dict[int, str]  # item → why it cannot be read


#: Called with a modality and ranges of items, it yields their features. The parts of a range come
#: in order, the last one ends with it, and ranges may come in any order.
Extract = Callable[[Modality, Sequence[range]], Iterator[Part]]


def cache_key(modalities: Sequence[Modality], L: int) -> str:
    """Hash of everything that determines the modalities' features of length L."""
    parts = [f"{HASH_FORMAT} {L}", *(modality.fingerprint() for modality in modalities)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


class DiskFeatures:
    """Features of all modalities in files, extracted into them if they are not there yet.

    ``shapes``, ``features``, in half precision, and ``skipped`` are as in a FeatureBank; batches
    are served on ``device``. Raises FeatureError for a folder or features that cannot be written or
    read, and DataError if ``MAX_UNREADABLE_RUN`` items in a row cannot be read.
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
        self.shapes = {k: shape for table in self._tables for k, shape in table.shapes.items()}
        self.skipped = {table.modality.name: table.skipped for table in self._tables}
        self._device = device
        self._reader = ThreadPoolExecutor(1, "features")
        self._prefetched: dict[tuple, Future] = {}

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """All features; that all their checksums fit is read from the disk before."""
        return {k: v for table in self._tables for k, v in table.features().items()}

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

    A row of the file has all features of an item, one after the other. ``bank.json`` beside it has
    a checksum of each shard of rows, of the file's header and of itself.
    """

    def __init__(self, root: Path, modality: Modality, L: int, extract: Extract):
        key = cache_key([modality], L)
        name = hashlib.sha256(f"{FORMAT} {key}".encode()).hexdigest()[:32]
        self.modality, self.folder, self.skipped, self.shapes = modality, root / name, {}, {}
        self._items = len(modality.inputs)
        self._meta = {"format": FORMAT, "cache_key": key, "modality": modality.name}
        finished = self.folder / "bank.json"
        if not finished.is_file():
            with locked(root / f"{name}.bank", wait=None):  # who waits finds the features
                if not finished.is_file():
                    self._make(extract)
        self._values = self._open(self.folder, finished.name)
        self._checked = np.zeros(len(self._sums), dtype=bool)
        again = f"(to have it tried again, delete {self.folder})"
        self.skipped = {item: f"{why} {again}" for item, why in self.skipped.items()}
        self._rows = torch.from_numpy(self._values)

    def features(self) -> dict[str, Tensor]:
        """All features by name, each (items, C_i, L_i). Raises FeatureError for a damaged one."""
        self._check(torch.arange(self._items))
        return self._by_name(self._rows)

    def prefetch(self, items: Tensor) -> None:
        """Have the system fetch all these rows at once, not each when it is touched."""
        if hasattr(mmap, "MADV_WILLNEED"):
            size, start = self._values[0].nbytes, self._values.offset % mmap.ALLOCATIONGRANULARITY
            for item in items.unique().tolist():
                first, count = item, 1
                if not self._checked[item // self._shard]:
                    first, count = item // self._shard * self._shard, self._shard
                place = start + first * size
                end = min(place + count * size, start + self._values.nbytes)
                page = place // mmap.PAGESIZE * mmap.PAGESIZE
                self._values._mmap.madvise(mmap.MADV_WILLNEED, page, end - page)

    def read(self, items: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Features of ``items`` (…,) by name, in float32, each (…, C_i, L_i).

        Raises FeatureError if the checksum of a shard that was not read before does not fit.
        """
        self._check(items)
        picked = self._rows.index_select(0, items.flatten()).to(device)
        parts = self._by_name(picked.reshape(*items.shape, -1))
        kind = {"dtype": torch.float32, "memory_format": torch.contiguous_format}
        return {name: part.to(**kind) for name, part in parts.items()}

    def _by_name(self, rows: Tensor) -> dict[str, Tensor]:
        parts = rows.split([math.prod(shape) for shape in self.shapes.values()], dim=-1)
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.unflatten(-1, shape) for (name, shape), part in named}

    def _check(self, items: Tensor) -> None:
        """Compare the checksums of shards with these items that were not read before."""
        shards = items.numpy() // self._shard
        for shard in sorted({*shards[~self._checked[shards]].tolist()}):
            rows = self._shard_rows(shard)
            if self._checksum(self._values, shard) != self._sums[shard]:
                place = f"{self.folder / 'features.npy'}: shard {shard}"
                which = f"items {rows.start} … {rows.stop - 1} of {self.modality.name!r}"
                found = f"found {which} changed since they were written"
                raise FeatureError(f"{place}: {found}; {self._again}")
            self._checked[shard] = True

    def _shard_rows(self, shard: int) -> range:
        return range(shard * self._shard, min((shard + 1) * self._shard, self._items))

    def _checksum(self, values: np.ndarray, shard: int) -> int:
        rows = self._shard_rows(shard)
        return zlib.crc32(values[rows.start : rows.stop])

    @property
    def _again(self) -> str:
        return f"delete {self.folder} to have it made again"

    def _make(self, extract: Extract) -> None:
        """Write the folder beside its place, from where an earlier extraction stopped."""
        beside, refused = self.folder.parent / f".{self.folder.name}.part", None
        try:
            beside.mkdir(exist_ok=True)
            self._write(beside, extract)
            self._write_meta(beside / "bank.json")
            (beside / "progress.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            beside.rename(self.folder)
        except FeatureError as error:
            refused = error.with_traceback(None)
        except OSError as error:
            what = f"{error.filename or beside}: {error.strerror or error}"
            kept = "what was extracted before is kept, and the next call goes on from there"
            raise FeatureError(f"{what}; {kept}") from None
        if refused:  # here nothing maps the file any more, which Windows could not delete
            shutil.rmtree(beside, ignore_errors=True)
            raise refused

    def _write(self, beside: Path, extract: Extract) -> None:
        left, path, rows = self._resume(beside), beside / "features.npy", None
        for start, end, features, skipped in extract(self.modality, left) if left else ():
            if rows is None:
                new = not path.exists()
                if new:
                    self.shapes = {name: tuple(part.shape[1:]) for name, part in features.items()}
                    _create(path, self._file_shape)
                rows = np.lib.format.open_memmap(path, "r+")
                if new:
                    self._divide(path, rows)
            flat = [part.flatten(1) for part in features.values()]
            rows[start:end] = torch.cat(flat, dim=1).half().cpu().numpy()
            self.skipped |= skipped
            items = self._ranges[(end - 1) // FLUSH_EVERY]
            if end == items.stop:
                reasons = [self.skipped.get(item) for item in items]
                if len(reasons) >= MAX_UNREADABLE_RUN and all(reasons):  # the disk is gone
                    place = f"{self.modality.name}: items {items.start} … {end - 1}"
                    none = f"none can be read, the first of them: {reasons[0]}"
                    raise DataError(f"{place}: {none}; what was extracted before is kept")
                rows.flush()
                for shard in self._shards(items):
                    self._sums[shard] = self._checksum(rows, shard)
                self._write_meta(beside / "progress.json")

    def _divide(self, path: Path, rows: np.memmap) -> None:
        """Set the size of a shard of a new file, such that FLUSH_EVERY items are whole shards."""
        self._shard = FLUSH_EVERY
        while self._shard > 1 and self._shard * rows[0].nbytes > SHARD_BYTES:
            self._shard //= 2
        self._sums = [None] * -(-self._items // self._shard)
        self._header = _header_of(path, rows.offset)

    @property
    def _ranges(self) -> list[range]:
        """What is extracted and flushed together, in ranges of items."""
        starts = range(0, self._items, FLUSH_EVERY)
        return [range(start, min(start + FLUSH_EVERY, self._items)) for start in starts]

    def _shards(self, items: range) -> range:
        return range(items.start // self._shard, -(-items.stop // self._shard))

    def _resume(self, beside: Path) -> list[range]:
        """The ranges that an earlier extraction has left; if its files are damaged, all of them.

        A range with a damaged shard is one of them.
        """
        values, left = None, []
        with suppress(*DAMAGED):
            values = self._open(beside, "progress.json")
        if values is None or FLUSH_EVERY % self._shard:
            values, self.skipped = None, {}
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            return self._ranges
        for items in self._ranges:
            shards = self._shards(items)
            if any(self._sums[k] != self._checksum(values, k) for k in shards):
                left.append(items)
                self._sums[shards.start : shards.stop] = [None] * len(shards)
                self.skipped = {k: why for k, why in self.skipped.items() if k not in items}
        return left

    @property
    def _file_shape(self) -> tuple[int, int]:
        return self._items, sum(map(math.prod, self.shapes.values()))

    def _write_meta(self, path: Path) -> None:
        skipped = dict(sorted(self.skipped.items()))
        found = {"shapes": self.shapes, "skipped": skipped, "header": self._header}
        meta = self._meta | found | {"shard": self._shard, "sums": self._sums}
        with atomic_write(path) as part:
            part.write_text(_with_checksum(meta), encoding="utf-8", newline="\n")

    def _open(self, folder: Path, name: str) -> np.memmap:
        """The features in a folder; sets what a file beside them says. FeatureError if damaged."""
        path = folder / name
        try:
            text = text_of(path)
            meta = json.loads(text)
            for field, allowed in self._meta.items():
                if meta[field] != allowed:
                    raise ValueError(f"found {field} {meta[field]!r}; allowed: {allowed!r}")
            if _with_checksum({k: v for k, v in meta.items() if k != "checksum"}) != text:
                raise ValueError("found it changed since it was written")
            self.shapes = {name: (c, L) for name, (c, L) in meta["shapes"].items()}
            if {name: c for name, (c, _) in self.shapes.items()} != self.modality.channels:
                allowed = self.modality.channels
                raise ValueError(f"found shapes {meta['shapes']}; allowed: channels {allowed}")
            self.skipped = {int(item): str(why) for item, why in meta["skipped"].items()}
            self._shard, self._sums, self._header = (meta[k] for k in ("shard", "sums", "header"))
            path = folder / "features.npy"
            require_file(path)
            if self._header != _header_of(path, self._header[0]):
                raise ValueError("found its header changed since it was written")
            # Private pages, since PyTorch has no read-only arrays; none is written to.
            values = np.lib.format.open_memmap(path, "c")
        except DAMAGED as error:
            found = f"found no features of {self.modality.name!r} ({in_line(error)})"
            raise FeatureError(f"{path}: {found}; {self._again}") from None
        return values


def _with_checksum(meta: dict) -> str:
    """A file's text, which nothing else than this function may have written."""
    checksum = hashlib.sha256(json.dumps(meta).encode()).hexdigest()
    return json.dumps(meta | {"checksum": checksum}, indent=1)


def _header_of(path: Path, size: int) -> list[int]:
    """The size of the header of a file of features, and its checksum."""
    with open(path, "rb") as file:
        return [size, zlib.crc32(file.read(size))]


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
        values = None  # Windows deletes no file that is mapped
        path.unlink(missing_ok=True)
        raise
