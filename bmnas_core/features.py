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
from .config import resolve_device
from .genotype import writing
from .networks import FeatureError, pool
from .progress import progress_bar
from .tables import Table, TableWriter
from .tasks.inputs import DataError, load, warn_skipped
from .tasks.task import SPLITS, Modality, Task, TaskError, as_task, tensor_hash

FORMAT = "bmnas-features/2"

#: Items after which an extraction to disk is safe up to there.
SHARD = 512

#: Most values of raw inputs that go through a backbone at once, where they are not in memory.
AT_ONCE = 1 << 24


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
        features[name] = pool(output.float(), L, modality.over)
    return features


_BANKS: weakref.WeakKeyDictionary[Task, dict] = weakref.WeakKeyDictionary()


class _Source:
    """Splits of a task with their labels, for what serves batches of them."""

    #: Samples at a time where nothing is learned.
    chunk = 512

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
        folder: keep them on disk here, in half precision, and read them memory-mapped instead. A
            bank made by other backbones, data, L or pooling has another key and is left alone.
        workers: processes that read files, see :func:`~bmnas_core.tasks.inputs.load`.
        progress: show how far the reading of files is.

    Attributes:
        features: feature name → (items, C_i, L).
        skipped: modality name → item → why it cannot be read.
        key: hash of everything that produced the features.
        identity: hash of that, of the precision, and of the task's splits and labels.

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
        device: torch.device | str = "cpu",
        folder: str | os.PathLike | None = None,
        workers: int | None = None,
        progress: bool = True,
    ):
        self.L = as_task(task).config.L if L is None else L
        if type(self.L) is not int or self.L < 1:
            raise FeatureError(f"L: found {self.L!r}; allowed: an int, at least 1")
        super().__init__(task, device)
        self.modalities, self.key = task.modalities, _key(task, self.L)
        self.precision = torch.float32 if folder is None else torch.float16
        self.identity = _identity(task, self.L, self.precision)
        self.skipped: dict[str, dict[int, str]] = {m.name: {} for m in task.modalities}
        self._workers, self._progress = workers, progress
        self._ahead: dict[tuple, Future] = {}
        self._warn_untrained()
        if folder is None:
            self._tables = None
            self.features = self._in_memory()
        else:
            self._reader = ThreadPoolExecutor(1, "features")
            self._tables = self._on_disk(Path(folder) / self.key)
            self.features = {
                name: table.rows[:, start:end]
                for modality, table in zip(self.modalities, self._tables, strict=True)
                for name, (start, end) in _columns(modality).items()
            }
        self._leave_out()

    @classmethod
    def of(
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
        if bank is not None:
            if not (hasattr(bank, "identity") and hasattr(bank, "batch")):
                raise FeatureError(f"bank: found {type(bank).__name__}; allowed: a FeatureBank")
            if bank.identity != _identity(task, L, bank.precision):
                raise FeatureError(
                    f"bank: found one made of other data, splits, backbones or L than those of "
                    f"task {task.name!r}; allowed: FeatureBank(task, {L})"
                )
            return bank
        device, identity = resolve_device(device), _identity(task, L, torch.float32)
        banks, place = _BANKS.setdefault(task, {}), (L, str(device))
        if place not in banks or banks[place].identity != identity:
            banks[place] = cls(task, L, device=device)
        return banks[place]

    def batch(
        self, split: str, rows: Tensor, then: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Samples ``rows`` of a split: features by name, each (N, C_i, L), and their labels.

        For rows of shape (…, N) features are (…, N, C_i, L).

        Args:
            then: the rows that will be asked for next; a bank on disk begins to read them.

        Raises:
            TaskError: for a split that does not exist; ``"train+validation"`` joins two.
        """
        index, labels = self._split(split)
        rows = rows.to(self.device)
        if self._tables is None:
            index, columns = index[rows], self._column.items()
            features = {name: self.features[name][index[..., m]] for name, m in columns}
            return features, labels[rows]
        reading = self._ahead.pop(_place(split, rows), None) or self._read(index, rows)
        if then is not None:
            then = then.to(self.device)
            self._ahead[_place(split, then)] = self._read(index, then)
        return reading.result(), labels[rows]

    def batches(
        self, split: str, batches: Sequence[Tensor], random: tuple | None = None
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """:meth:`batch` of one after the other; features are never augmented."""
        for rows, then in zip(batches, [*batches[1:], None], strict=True):
            yield self.batch(split, rows, then)

    @property
    def _column(self) -> dict[str, int]:
        return {name: m for m, modality in enumerate(self.modalities) for name in modality.channels}

    def _read(self, index: Tensor, rows: Tensor) -> Future:
        def read() -> dict[str, Tensor]:
            items, features = index[rows].cpu(), {}
            for m, table in enumerate(self._tables):
                table.call_for(items[..., m])
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
        if in_files:
            size = min(size, max(1, AT_ONCE // _numel(inputs)))
        starts = range(first, len(inputs), size)
        ranges = [torch.arange(s, min(s + size, len(inputs))) for s in starts]
        batches = [(items, items[:, None]) for items in ranges]
        loaded = load([inputs], batches, workers=self._workers)
        shown = progress_bar(
            zip(starts, ranges, loaded, strict=True),
            f"{modality.name} features",
            len(ranges),
            show=in_files and self._progress,
        )
        backbone = modality.backbone.to(self.device).eval()
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
            backbone.cpu()

    def _in_memory(self) -> dict[str, Tensor]:
        features = {}
        for modality in self.modalities:
            parts = [part for _, _, part in self._parts(modality)]
            for name in modality.channels:
                features[name] = torch.cat([part.pop(name) for part in parts])
        return features

    def _on_disk(self, folder: Path) -> list[Table]:
        if not (folder / "bank.json").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = folder.parent / f".{folder.name}.lock"
            with FileLock(lock):
                if not (folder / "bank.json").is_file():
                    self._extract(folder)
                lock.unlink(missing_ok=True)  # who still waits for it finds the bank
        return self._mapped(folder)

    def _extract(self, folder: Path) -> None:
        """Write the bank beside its place, going on where an earlier extraction stopped."""
        beside = folder.parent / f".{folder.name}.part"
        beside.mkdir(exist_ok=True)
        done = self._progress_of(beside)
        self._check_space(beside, sum(done))
        try:
            for m, modality in enumerate(self.modalities):
                if done[m] == len(modality.inputs):
                    continue
                with TableWriter(beside / f"{m}.npy", self._shape(modality)) as rows:
                    for start, end, features in self._parts(modality, done[m]):
                        rows.write(start, _as_half(features, start))
                        if end - done[m] >= SHARD or end == len(modality.inputs):
                            rows.flush()
                            done[m] = end
                            _write_json(beside / "progress.json", self._meta(done=done))
            _write_json(beside / "bank.json", self._meta())
            (beside / "progress.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        except FeatureError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        except OSError as error:
            raise FeatureError(
                f"{error.filename or beside}: {error.strerror}; what was extracted up to there is "
                "kept, and the next call goes on from it"
            ) from None

    def _meta(self, **more) -> dict:
        shapes = {m.name: list(self._shape(m)) for m in self.modalities}
        known = {"format": FORMAT, "key": self.key, "L": self.L, "modalities": shapes}
        return known | {"skipped": self.skipped} | more

    def _shape(self, modality: Modality) -> tuple[int, int, int]:
        return len(modality.inputs), sum(modality.channels.values()), self.L

    def _progress_of(self, beside: Path) -> list[int]:
        """Items of each modality that an earlier extraction has written."""
        try:
            meta = json.loads((beside / "progress.json").read_text())
            if meta["format"] != FORMAT or meta["key"] != self.key:
                raise ValueError
            done = [
                min(int(n), len(m.inputs))
                for n, m in zip(meta["done"], self.modalities, strict=True)
            ]
            for m, modality in enumerate(self.modalities):
                whole = TableWriter.nbytes(self._shape(modality))
                if done[m] and (beside / f"{m}.npy").stat().st_size != whole:
                    raise ValueError
            self._restore_skipped(meta)
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            return [0] * len(self.modalities)
        return done

    def _restore_skipped(self, meta: dict) -> None:
        self.skipped = {
            modality.name: {int(k): str(v) for k, v in meta["skipped"][modality.name].items()}
            for modality in self.modalities
        }

    def _check_space(self, beside: Path, done: int) -> None:
        needed = sum(TableWriter.nbytes(self._shape(modality)) for modality in self.modalities)
        free = shutil.disk_usage(beside).free
        if not done and needed > free:
            raise FeatureError(
                f"{beside.parent}: the bank needs {needed / 1e9:.2f} GB; found {free / 1e9:.2f} GB"
            )

    def _mapped(self, folder: Path) -> list[Table]:
        remedy = f"delete {folder} to have it made again"
        try:
            meta = json.loads((folder / "bank.json").read_text())
            shapes = {name: tuple(shape) for name, shape in meta["modalities"].items()}
            fitting = meta["key"] == self.key and meta["format"] == FORMAT
            self._restore_skipped(meta)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise FeatureError(f"{folder / 'bank.json'}: found no bank; {remedy}") from None
        if not fitting or shapes != {m.name: self._shape(m) for m in self.modalities}:
            raise FeatureError(f"{folder}: found a bank with another key; {remedy}")
        tables = []
        for m, (name, shape) in enumerate(shapes.items()):
            path = folder / f"{m}.npy"
            try:
                # Private pages, since PyTorch has no arrays that are read-only; none is written to.
                values = np.load(path, mmap_mode="c", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise FeatureError(f"{path}: features of {name!r}: {error}; {remedy}") from None
            if values.shape != shape or values.dtype != np.float16:
                raise FeatureError(
                    f"{path}: features of {name!r}: found shape {list(values.shape)} of "
                    f"{values.dtype}; allowed: {list(shape)} of float16; {remedy}"
                )
            tables.append(Table(values))
        return tables


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
        if not all(isinstance(inputs, Tensor) for inputs in self._inputs):
            self.chunk = max(1, AT_ONCE // sum(_numel(inputs) for inputs in self._inputs))

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
        loaded = load(self._inputs, wanted, random=random, workers=self._workers)
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
    with writing(path) as beside:
        Path(beside).write_text(json.dumps(data, indent=1))


def _check_finite(name: str, values: Tensor, items: Tensor) -> None:
    bad = (~values.isfinite()).flatten(1).any(1).nonzero()
    if len(bad):
        row = int(bad[0])
        kind = "NaN" if values[row].isnan().any() else "infinity"
        raise FeatureError(
            f"feature {name!r} of item {int(items[row])}: found {kind}; allowed: finite numbers"
        )


def _identity(task: Task, L: int, precision: torch.dtype) -> str:
    digest = hashlib.sha256(f"{_key(task, L)}".encode())
    if precision != torch.float32:
        digest.update(str(precision).encode())
    for split in task.splits.values():
        hashes = tensor_hash(split.index), tensor_hash(split.labels)
        digest.update(f"{split.name} {hashes}".encode())
    return digest.hexdigest()[:32]


def _key(task: Task, L: int) -> str:
    digest = hashlib.sha256(f"{FORMAT} {L}".encode())
    for modality in task.modalities:
        digest.update(modality.fingerprint().encode())
    return digest.hexdigest()[:32]
