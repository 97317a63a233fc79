"""FeatureBank: what the frozen backbones see, computed once.

During search and training the backbones do not change, so neither do their features. The bank
runs every item of every modality through its backbone once, pools to length L and serves batches
from memory, or in half precision from memory-mapped files, in a folder named after everything that
produced them. What is written is written shard by shard: an extraction that was killed goes on
where it stood.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from .backbones.backbone import INITIAL
from .feature_files import MemmapFeatures, TableWriter
from .networks import FeatureError, pool
from .progress import progress_bar
from .runtime import resolve_device
from .storage import atomic_write
from .tasks.inputs import DataError, load, warn_skipped
from .tasks.task import SPLITS, Modality, Task, TaskError, as_task, tensor_hash

FORMAT = "bmnas-features/3"

#: Items after which an extraction to disk is safe up to there.
FLUSH_EVERY = 512

#: Most batches that are read ahead, for all who read.
MAX_PREFETCH = 4

#: So many items in a row that cannot be read are no bad luck.
MAX_UNREADABLE_RUN = 100

#: Most values of raw inputs that go through a backbone at once, where they are not in memory.
MAX_VALUES_PER_FORWARD = 1 << 24


def extract(modality: Modality, backbone: nn.Module, inputs: Tensor, L: int) -> dict[str, Tensor]:
    """Features of one modality as ``backbone`` sees it: name → (N, C_i, L).

    Raises:
        FeatureError: if the backbone's output is not what the modality declares.
    """
    outputs = backbone(inputs)
    kinds = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    wrong = [type(o).__name__ for o in kinds if not isinstance(o, Tensor)]
    if kinds is not outputs or wrong:
        raise FeatureError(
            f"backbone of {modality.name!r}: found {', '.join(wrong) or 'a single tensor'}; "
            "allowed: a list of tensors"
        )
    if len(outputs) != len(modality.channels):
        raise FeatureError(
            f"backbone of {modality.name!r}: found {len(outputs)} features; allowed: "
            f"{len(modality.channels)} ({', '.join(modality.channels)})"
        )
    features = {}
    for (name, channels), output in zip(modality.channels.items(), outputs, strict=True):
        fits = output.dim() >= 2 and output.shape[:2] == (len(inputs), channels)
        if not fits or 0 in output.shape:
            raise FeatureError(
                f"feature {name!r}: found shape {tuple(output.shape)}; allowed: "
                f"({len(inputs)}, {channels}, …)"
            )
        features[name] = pool(output.float(), L, modality.pooling)
    return features


_BANKS: weakref.WeakKeyDictionary[Task, dict] = weakref.WeakKeyDictionary()


class _Source:
    """Splits of a task with their labels, for what serves batches of them."""

    #: Samples at a time where nothing is learned.
    eval_batch_size = 512

    def __init__(self, task: Task, device: torch.device | str):
        self.device = resolve_device(device)
        self.splits = {
            name: (split.index.to(self.device), split.labels.to(self.device))
            for name, split in task.splits.items()
        }

    def size(self, split: str) -> int:
        """Number of samples of a split. Raises TaskError for one that does not exist."""
        return len(self._split(split)[1])

    def _split(self, name: str) -> tuple[Tensor, Tensor]:
        if name not in self.splits:
            names = name.split("+")
            if not set(names) <= set(self.splits):
                raise TaskError(f"split: found {name!r}; allowed: {', '.join(SPLITS)}")
            parts = [self.splits[part] for part in names]
            self.splits[name] = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        return self.splits[name]


class FeatureBank(_Source):
    """Pooled features of all items of a task, with the task's splits.

    Items whose files cannot be read are left out with a warning, and the samples with them.

    Args:
        task: the task; its backbones are run in evaluation mode, without gradients.
        L: length to pool to; the task's own where None.
        device: where the features are kept in memory and served.
        folder: keep them on disk here, in half precision, and read them memory-mapped instead:
            one table a modality, under a key of everything that produced it. Those of other
            backbones, data, L or pooling are left alone.
        workers: processes that read files, see :func:`~bmnas_core.tasks.inputs.load`.
        progress: show how far the reading of files is.

    Attributes:
        features: feature name → (items, C_i, L).
        skipped: modality name → item → why it cannot be read.
        cache_key: hash of everything that produced the features.
        source_hash: hash of that, of the precision, and of the task's splits and labels.
        content_hash: that, and which items are left out.

    Raises:
        FeatureError: for features of the wrong shape or with values that are not finite, named
            with the item, and for a bank on disk that is not whole or does not fit there.
        DataError: if no sample of a split can be read.
    """

    def __init__(
        self,
        task: Task,
        L: int | None = None,
        *,
        device: torch.device | str = "auto",
        folder: str | os.PathLike | None = None,
        workers: int | None = None,
        progress: bool = True,
    ):
        self.L = as_task(task).config.L if L is None else L
        if type(self.L) is not int or self.L < 1:
            raise FeatureError(f"L: found {self.L!r}; allowed: an int, at least 1")
        super().__init__(task, device)
        self.modalities, self.cache_key = task.modalities, _cache_key(task.modalities, self.L)
        self.precision = torch.float32 if folder is None else torch.float16
        self.source_hash = _source_hash(task, self.L, self.precision)
        self.skipped: dict[str, dict[int, str]] = {m.name: {} for m in task.modalities}
        self._workers, self._progress = workers, progress
        self._prefetched: dict[tuple, Future] = {}
        self._warn_untrained()
        if folder is None:
            self._tables = None
            self.features = self._in_memory()
        else:
            self._reader = ThreadPoolExecutor(1, "features")
            self._tables = self._on_disk(folder)
            self.features = {
                name: table.rows[:, start:end]
                for modality, table in zip(self.modalities, self._tables, strict=True)
                for name, (start, end) in _columns(modality).items()
            }
        self._leave_out()
        left_out = repr({name: sorted(items) for name, items in self.skipped.items() if items})
        digest = hashlib.sha256(f"{self.source_hash} {left_out}".encode()).hexdigest()[:32]
        self.content_hash = digest if any(self.skipped.values()) else self.source_hash

    @classmethod
    def shared(
        cls,
        task: Task,
        L: int | None,
        device: torch.device | str,
        bank: FeatureBank | None = None,
    ) -> FeatureBank:
        """The task's bank in memory: computed at the first call, then shared.

        It is computed anew once the weights of a backbone have changed. A ``bank`` that is given
        is taken instead, if it is this task's.

        Raises:
            FeatureError: for the bank of another task, data, backbones or L.
        """
        L = task.config.L if L is None else L
        device = resolve_device(device)
        if bank is not None:
            if not (hasattr(bank, "source_hash") and hasattr(bank, "batch")):
                raise FeatureError(f"bank: found {type(bank).__name__}; allowed: a FeatureBank")
            if bank.source_hash != _source_hash(task, L, bank.precision):
                raise FeatureError(
                    f"bank: found one made of other data, splits, backbones or L than those of "
                    f"task {task.name!r}; allowed: FeatureBank(task, {L})"
                )
            if bank.device != device:
                raise FeatureError(
                    f"bank: found one on {str(bank.device)!r}; allowed: on {str(device)!r}, as "
                    f"FeatureBank(task, {L}, device={str(device)!r})"
                )
            return bank
        source_hash = _source_hash(task, L, torch.float32)
        banks, place = _BANKS.setdefault(task, {}), (L, str(device))
        if place not in banks or banks[place].source_hash != source_hash:
            banks.pop(place, None)  # or two would be in memory
            banks[place] = cls(task, L, device=device)
        return banks[place]

    def batch(
        self, split: str, rows: Tensor, next_rows: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Samples ``rows`` of a split: features by name, each (N, C_i, L), and their labels.

        For rows of shape (…, N) features are (…, N, C_i, L).

        Args:
            next_rows: the rows that will be asked for next; a bank on disk prefetches them.

        Raises:
            TaskError: for a split that does not exist; ``"train+validation"`` joins two.
        """
        index, labels = self._split(split)
        rows = rows.to(self.device)
        if self._tables is None:
            index, columns = index[rows], self._column.items()
            features = {name: self.features[name][index[..., m]] for name, m in columns}
            return features, labels[rows]
        reading = self._prefetched.pop(_place(split, rows), None) or self._read(index, rows)
        if next_rows is not None:
            next_rows = next_rows.to(self.device)
            self._prefetched[_place(split, next_rows)] = self._read(index, next_rows)
            while len(self._prefetched) > MAX_PREFETCH:
                self._prefetched.pop(next(iter(self._prefetched))).cancel()
        return reading.result(), labels[rows]

    def batches(
        self, split: str, batches: Sequence[Tensor], random: tuple | None = None
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """:meth:`batch` of one after the other; features are never augmented."""
        for rows, next_rows in zip(batches, [*batches[1:], None], strict=True):
            yield self.batch(split, rows, next_rows)

    @property
    def _column(self) -> dict[str, int]:
        return {name: m for m, modality in enumerate(self.modalities) for name in modality.channels}

    def _read(self, index: Tensor, rows: Tensor) -> Future:
        def read() -> dict[str, Tensor]:
            items, features = index[rows].cpu(), {}
            for m, table in enumerate(self._tables):
                table.prefetch(items[..., m])
            for m, (modality, table) in enumerate(zip(self.modalities, self._tables, strict=True)):
                wanted = items[..., m]
                picked = table.rows.index_select(0, wanted.flatten()).to(self.device)
                for name, (start, end) in _columns(modality).items():
                    part = picked[:, start:end].to(
                        torch.float32, memory_format=torch.contiguous_format
                    )
                    features[name] = part.reshape(*wanted.shape, end - start, self.L)
            return features

        return self._reader.submit(read)

    def _warn_untrained(self) -> None:
        for modality in self.modalities:
            if getattr(modality.backbone, "_origin", None) == INITIAL:
                warnings.warn(
                    f"backbone of {modality.name!r}: found {INITIAL}; features say more after "
                    "train_backbone or load_checkpoint",
                    stacklevel=4,
                )

    def _leave_out(self) -> None:
        """Take the samples with items that could not be read out of the splits."""
        reasons = []
        for m, modality in enumerate(self.modalities):
            skipped = self.skipped[modality.name]
            reasons += [f"{modality.name} {reason}" for reason in skipped.values()]
            bad = torch.tensor(sorted(skipped), dtype=torch.long, device=self.device)
            for name, (index, labels) in self.splits.items():
                kept = ~torch.isin(index[:, m], bad) if skipped else ...
                self.splits[name] = index[kept], labels[kept]
        warn_skipped("items that cannot be read", reasons)
        for name in self.splits:
            if not self.size(name):
                raise DataError(f"split {name!r}: none of its samples can be read")

    def _parts(
        self, modality: Modality, first: int = 0
    ) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """Features of items ``first`` up, some at a time: where they start and end, by name.

        What could not be read is zero there, and noted in ``skipped``.
        """
        inputs, size, in_files = modality.inputs, 512, not isinstance(modality.inputs, Tensor)
        each = _numel(inputs) if in_files else 0
        if in_files:
            size = min(size, max(1, MAX_VALUES_PER_FORWARD // each))
        starts = range(first, len(inputs), size)
        ranges = [torch.arange(s, min(s + size, len(inputs))) for s in starts]
        batches = [(items, items[:, None]) for items in ranges]
        loaded = load([inputs], batches, workers=self._workers, values=size * each)
        shown = progress_bar(
            zip(starts, ranges, loaded, strict=True),
            f"{modality.name} features",
            len(ranges),
            show=in_files and self._progress,
        )
        backbone = modality.backbone
        before = next(iter(backbone.parameters()), torch.empty(0)).device
        backbone.to(self.device).eval()
        try:
            for start, items, batch in shown:
                features = {
                    name: torch.zeros(len(items), channels, self.L, device=self.device)
                    for name, channels in modality.channels.items()
                }
                for (_, item), why in batch.failures.items():
                    self.skipped[modality.name][item] = why
                if len(batch.kept):
                    with torch.no_grad():
                        whole = batch.inputs[0].to(self.device)
                        found = extract(modality, backbone, whole, self.L)
                    for name, part in found.items():
                        _check_finite(name, part, items[batch.kept])
                        features[name][batch.kept.to(self.device)] = part
                yield start, start + len(items), features
        finally:
            backbone.to(before)

    def _in_memory(self) -> dict[str, Tensor]:
        features = {}
        for modality in self.modalities:
            parts = [part for _, _, part in self._parts(modality)]
            for name in modality.channels:
                features[name] = torch.cat([part.pop(name) for part in parts])
        return features

    def _on_disk(self, folder: str | os.PathLike) -> list[MemmapFeatures]:
        def refused(error: Exception) -> FeatureError:
            return FeatureError(
                f"folder: found {str(folder)!r} ({getattr(error, 'strerror', None) or error}); "
                "allowed: the path of a folder that can be written"
            )

        try:
            root = Path(folder)
        except TypeError as error:
            raise refused(error) from None
        try:
            root.mkdir(parents=True, exist_ok=True)
            return [self._table(m, root / _cache_key([m], self.L)) for m in self.modalities]
        except OSError as error:
            raise refused(error) from None

    def _table(self, modality: Modality, folder: Path) -> MemmapFeatures:
        if not (folder / "bank.json").is_file():
            lock = folder.parent / f".{folder.name}.lock"
            with FileLock(lock):
                if not (folder / "bank.json").is_file():
                    self._extract(modality, folder)
                lock.unlink(missing_ok=True)  # who still waits for it finds the table
        return self._mapped(modality, folder)

    def _extract(self, modality: Modality, folder: Path) -> None:
        """Write a table beside its place, going on where an earlier extraction stopped."""
        beside, skipped = folder.parent / f".{folder.name}.part", self.skipped[modality.name]
        shape, n = _shape(modality, self.L), len(modality.inputs)
        try:
            beside.mkdir(exist_ok=True)
            done = self._progress_of(modality, beside)
            _check_space(beside, shape, done)
            with TableWriter(beside / "features.npy", shape) as rows:
                for start, end, features in self._parts(modality, done) if done < n else ():
                    rows.write(start, _as_half(features, start))
                    if end - done >= FLUSH_EVERY or end == n:
                        _check_readable(modality, done, end, skipped)
                        rows.flush()
                        done = end
                        _write_json(beside / "progress.json", self._meta(modality, done=done))
            _write_json(beside / "bank.json", self._meta(modality))
            (beside / "progress.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        except FeatureError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        except OSError as error:
            raise FeatureError(
                f"{error.filename or beside}: {error.strerror or error}; what was extracted up to "
                "there is kept, and the next call goes on from it"
            ) from None

    def _meta(self, modality: Modality, **more) -> dict:
        known = {
            "format": FORMAT,
            "cache_key": _cache_key([modality], self.L),
            "modality": modality.name,
        }
        shape = list(_shape(modality, self.L))
        return known | {"shape": shape, "skipped": self.skipped[modality.name]} | more

    def _read_meta(self, modality: Modality, path: Path) -> dict:
        """What a file says of a table. Raises ValueError where it is of another one."""
        meta = json.loads(path.read_text())
        wanted = self._meta(modality)
        for name in ("format", "cache_key", "modality", "shape"):
            if meta[name] != wanted[name]:
                raise ValueError(f"found {name} {meta[name]!r}; allowed: {wanted[name]!r}")
        meta["skipped"] = {int(item): str(why) for item, why in meta["skipped"].items()}
        return meta

    def _progress_of(self, modality: Modality, beside: Path) -> int:
        """Items that an earlier extraction has written."""
        try:
            meta = self._read_meta(modality, beside / "progress.json")
            whole = TableWriter.nbytes(_shape(modality, self.L))
            if (beside / "features.npy").stat().st_size != whole:
                raise ValueError
            done = min(int(meta["done"]), len(modality.inputs))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            return 0
        self.skipped[modality.name] |= meta["skipped"]
        return done

    def _mapped(self, modality: Modality, folder: Path) -> MemmapFeatures:
        remedy, shape = f"delete {folder} to have it made again", _shape(modality, self.L)
        try:
            meta = self._read_meta(modality, folder / "bank.json")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FeatureError(
                f"{folder / 'bank.json'}: found no features of {modality.name!r} ({error}); "
                f"{remedy}"
            ) from None
        self.skipped[modality.name] |= {
            item: f"{why} (to have it tried again, delete {folder})"
            for item, why in meta["skipped"].items()
        }
        path = folder / "features.npy"
        try:
            # Private pages, since PyTorch has no arrays that are read-only; none is written to.
            values = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise FeatureError(
                f"{path}: features of {modality.name!r}: {error}; {remedy}"
            ) from None
        if values.shape != shape or values.dtype != np.float16:
            raise FeatureError(
                f"{path}: features of {modality.name!r}: found shape {list(values.shape)} of "
                f"{values.dtype}; allowed: {list(shape)} of float16; {remedy}"
            )
        return MemmapFeatures(values)


class RawInputs(_Source):
    """The modalities' raw inputs, served like a bank: what live backbones train on.

    Args:
        modalities: names of those that are served; all where None.
        workers: processes that read files, see :func:`~bmnas_core.tasks.inputs.load`.
    """

    def __init__(
        self,
        task: Task,
        *,
        device: torch.device | str = "cpu",
        modalities: tuple[str, ...] | None = None,
        workers: int | None = None,
    ):
        super().__init__(task, device)
        self._workers = workers
        self._columns = {
            modality.name: m
            for m, modality in enumerate(task.modalities)
            if modalities is None or modality.name in modalities
        }
        self._inputs = [task.modalities[m].inputs for m in self._columns.values()]
        self.skipped: set[str] = set()
        self._each = 0
        if not all(isinstance(inputs, Tensor) for inputs in self._inputs):
            self._each = sum(_numel(inputs) for inputs in self._inputs)
            self.eval_batch_size = max(1, MAX_VALUES_PER_FORWARD // self._each)

    def batch(self, split: str, rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Samples ``rows`` of a split: inputs by modality name, and labels (N, …)."""
        return next(self.batches(split, [rows]))

    def batches(
        self, split: str, batches: Sequence[Tensor], random: tuple | None = None
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Batches in order, read ahead in worker processes, without samples that cannot be read.

        Args:
            random: seed and stream of augmentation; None for none.
        """
        index, labels = self._split(split)
        index = index[:, list(self._columns.values())].cpu()
        wanted = [(rows.cpu(), index[rows.cpu()]) for rows in batches]
        values = self._each * max((len(rows) for rows in batches), default=0)
        how = {"random": random, "workers": self._workers, "values": values}
        loaded = load(self._inputs, wanted, **how)
        found = []
        for (rows, _), batch in zip(wanted, loaded, strict=True):
            reasons = [why for why in batch.failures.values() if why not in self.skipped]
            self.skipped.update(reasons)
            found += reasons
            inputs = batch.inputs or [torch.empty(0) for _ in self._inputs]
            named = zip(self._columns, inputs, strict=True)
            kept = labels[rows[batch.kept].to(self.device)]
            yield {name: values.to(self.device) for name, values in named}, kept
        warn_skipped("items that cannot be read", found)


def _shape(modality: Modality, L: int) -> tuple[int, int, int]:
    return len(modality.inputs), sum(modality.channels.values()), L


def _check_space(beside: Path, shape: tuple[int, int, int], done: int) -> None:
    needed, free = TableWriter.nbytes(shape), shutil.disk_usage(beside).free
    if not done and needed > free:
        raise FeatureError(
            f"{beside.parent}: the features need {needed / 1e9:.2f} GB; found {free / 1e9:.2f} GB"
        )


def _check_readable(modality: Modality, start: int, end: int, skipped: dict[int, str]) -> None:
    """Refuse a stretch of files none of which can be read: a disk that is gone, not a bad file."""
    if end - start >= MAX_UNREADABLE_RUN and all(item in skipped for item in range(start, end)):
        raise DataError(
            f"{modality.name}: items {start} … {end - 1}: none can be read, the first of them: "
            f"{skipped[start]}; what was extracted before is kept"
        )


def _numel(inputs) -> int:
    """Values of one input, by the first that can be read."""
    if isinstance(inputs, Tensor):
        return inputs[0].numel()
    why = None
    for item in range(len(inputs)):
        try:
            return inputs[item].numel()
        except DataError as error:
            why = why or error
    raise DataError(f"none of {len(inputs):,} items can be read, the first of them: {why}")


def _place(split: str, rows: Tensor) -> tuple:
    return split, tuple(rows.shape), rows.cpu().numpy().tobytes()


def _columns(modality: Modality) -> dict[str, tuple[int, int]]:
    """Where each feature's channels are in the rows of its modality."""
    ends = list(accumulate(modality.channels.values()))
    starts = [0, *ends[:-1]]
    return dict(zip(modality.channels, zip(starts, ends, strict=True), strict=True))


def _as_half(features: dict[str, Tensor], start: int) -> Tensor:
    for name, values in features.items():
        large = (values.abs() > torch.finfo(torch.float16).max).flatten(1).any(1).nonzero()
        if len(large):
            item = int(large[0])
            raise FeatureError(
                f"feature {name!r} of item {start + item}: found "
                f"{float(values[item].abs().max()):.0f}; allowed on disk, in half precision: "
                "at most 65504"
            )
    return torch.cat(list(features.values()), dim=1).half().cpu()


def _write_json(path: Path, data: dict) -> None:
    with atomic_write(path) as beside:
        Path(beside).write_text(json.dumps(data, indent=1))


def _check_finite(name: str, values: Tensor, items: Tensor) -> None:
    bad = (~values.isfinite()).flatten(1).any(1).nonzero()
    if len(bad):
        row = int(bad[0])
        kind = "NaN" if values[row].isnan().any() else "infinity"
        raise FeatureError(
            f"feature {name!r} of item {int(items[row])}: found {kind}; allowed: finite numbers"
        )


def _source_hash(task: Task, L: int, precision: torch.dtype) -> str:
    digest = hashlib.sha256(_cache_key(task.modalities, L).encode())
    if precision != torch.float32:
        digest.update(str(precision).encode())
    for split in task.splits.values():
        hashes = tensor_hash(split.index), tensor_hash(split.labels)
        digest.update(f"{split.name} {hashes}".encode())
    return digest.hexdigest()[:32]


def _cache_key(modalities: Sequence[Modality], L: int) -> str:
    digest = hashlib.sha256(f"{FORMAT} {L}".encode())
    for modality in modalities:
        digest.update(modality.fingerprint().encode())
    return digest.hexdigest()[:32]
