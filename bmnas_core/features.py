"""FeatureBank: features of the frozen backbones, computed once.

During search and training the backbones do not change, so neither do their features. The bank
runs every item of every modality through its backbone once, pools to length L and serves batches.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import warnings
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .autosave import QUICK, is_kept, kept
from .backbones.backbone import INITIAL
from .backbones.tap import evaluating
from .errors import quoted
from .feature_cluster import on_cluster
from .feature_files import DiskFeatures, Extract, Part, cache_key
from .networks import FeatureError, pool
from .progress import progress_bar
from .runtime import resolve_device
from .tasks.inputs import AT_HAND, DataError, Inputs, first_readable, load, move, warn_skipped
from .tasks.task import SPLITS, Modality, Task, TaskError, as_task, tensor_hash
from .tensor_files import read_tensors

if TYPE_CHECKING:
    from distributed import Client

#: Features or inputs of N samples by name, each (N, …), and the labels (N, …).
Batch = tuple[dict[str, Tensor], Tensor]

KEPT_FORMAT = "bmnas-kept-features/1"

#: Raw inputs from files go through a backbone in batches of at most this many values.
MAX_VALUES_PER_FORWARD = 1 << 24


def extract(
    modality: Modality, backbone: nn.Module, inputs: Tensor | list[Tensor], L: int
) -> dict[str, Tensor]:
    """Features of one modality as ``backbone`` sees it: name → (N, C_i, L), or (N, C_i, 1).

    ``inputs`` of a modality without a backbone are a list of its features, each (N, C_i, …).
    Raises FeatureError if the backbone's output is not what the modality declares.
    """
    n = (inputs if isinstance(inputs, Tensor) else inputs[0]).shape[0]  # of any size in an export
    features = {}
    for name, output in modality.named(backbone(inputs)).items():
        shape, channels = tuple(output.shape), modality.channels[name]
        if shape[:2] != (n, channels) or 0 in shape:
            raise FeatureError(f"feature {name!r}", f"shape {shape}", f"({n}, {channels}, …)")
        features[name] = pool(output.float(), L, modality.pooling)
    return features


def extract_items(
    modality: Modality,
    ranges: Sequence[range],
    *,
    L: int,
    device: torch.device | str,
    precision: torch.dtype,
    workers: int | None,
    progress: bool,
) -> Iterator[Part]:
    """Features of ranges of a modality's items, range by range, each in batches.

    Raises FeatureError also for values that are not finite in ``precision``.
    """
    inputs, backbone, device = modality.inputs, modality.backbone, resolve_device(device)
    each = _file_values([inputs])
    size = min(512, max(1, MAX_VALUES_PER_FORWARD // each)) if each else 512
    split = [part for items in ranges for part in torch.arange(items.start, items.stop).split(size)]
    batches = [(items, items[:, None]) for items in split]
    loaded = load([inputs], batches, workers=workers, values=size * each)
    parts, name = zip(split, loaded, strict=True), f"{modality.name} features"
    shown = progress_bar(parts, name, len(split), show=bool(each) and progress)
    before = next(iter(backbone.parameters()), torch.empty(0)).device
    backbone.to(device)

    def extracted(batch: Tensor | list[Tensor]) -> dict[str, Tensor]:
        with torch.no_grad(), evaluating(backbone):
            return extract(modality, backbone, move(batch, device), L)

    empty: dict[str, Tensor] = {}  # (1, C_i, L) each
    try:
        for items, batch in shown:
            found = extracted(batch.inputs[0]) if batch.inputs else {}
            if not empty:
                one = found or extracted(first_readable(inputs)[None])
                empty = {name: torch.zeros_like(values[:1]) for name, values in one.items()}
            features = {k: zero.repeat(len(items), 1, 1) for k, zero in empty.items()}
            for name, values in found.items():
                _check_range(name, values, items[batch.kept], precision)
                features[name][batch.kept.to(device)] = values
            start, skipped = int(items[0]), {k: why for (_, k), why in batch.failures.items()}
            yield Part(start, start + len(items), features, skipped)
    finally:
        backbone.to(before)


class Source:
    """What a network reads samples of a task from: its splits with their labels."""

    #: Batch size of evaluation.
    eval_batch_size = 512

    def __init__(self, task: Task, device: torch.device | str):
        self.device = resolve_device(device)
        splits = {name: (split.index, split.labels) for name, split in task.splits.items()}
        self.splits = {k: tuple(x.to(self.device) for x in pair) for k, pair in splits.items()}
        self.gaps = task.gaps

    def size(self, split: str) -> int:
        """Number of samples of a split. Raises TaskError for one that does not exist."""
        return len(self._split(split)[1])

    def _split(self, name: str) -> tuple[Tensor, Tensor]:
        if not isinstance(name, str) or name not in self.splits:
            names = name.split("+") if isinstance(name, str) else []
            if not names or not set(names) <= set(self.splits):
                raise TaskError("split", quoted(name), ", ".join(SPLITS))
            parts = [self.splits[part] for part in names]
            self.splits[name] = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        return self.splits[name]


class FeatureBank(Source):
    """Pooled features of all items of a task, with the task's splits.

    Items whose files cannot be read are left out with a warning, and their samples with them.

    Args:
        task: the task; its backbones are run in evaluation mode, without gradients.
        L: length to pool to; defaults to the task's.
        device: where the features are kept in memory and served.
        folder: keep them on disk here instead, in half precision and memory-mapped, beside those
            of other backbones, data, L or pooling; see :mod:`~bmnas_core.feature_files`.
        workers: processes that read files, see :func:`~bmnas_core.tasks.inputs.load`.
        progress: show a progress bar while files are read.
        client: a ``distributed.Client``; with ``folder``, the workers of its dask cluster extract
            the features, each on the device that ``device`` names there. They read the data from
            the same paths.

    Attributes:
        shapes: feature name → (C_i, L), or (C_i, 1) for one without positions.
        skipped: modality name → item → why it cannot be read.
        source_hash: of all that produced the features, their precision, the splits and labels.
        content_hash: of that and of which items are left out.

    Raises:
        FeatureError: for features of the wrong shape or with values that are not finite, and for
            a bank on disk that is damaged or does not fit there.
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
        client: Client | None = None,
    ):
        self.L = as_task(task).config.L if L is None else L
        if type(self.L) is not int or self.L < 1:
            raise FeatureError("L", repr(self.L), "an integer of 1 or more")
        super().__init__(task, device)
        self.precision = torch.float32 if folder is None else torch.float16
        self._features_hash = cache_key(task.modalities, self.L)
        for modality in task.modalities:
            if getattr(modality.backbone, "_origin", None) == INITIAL:
                text = "features say more after train_backbone or load_checkpoint"
                place = f"backbone of {modality.name!r}"
                warnings.warn(f"{place}: found {INITIAL}; {text}", stacklevel=3)
        how = {"L": self.L, "precision": self.precision, "progress": progress}
        extractor = partial(extract_items, **how, device=self.device, workers=workers)
        if client is not None:
            if folder is None:
                raise FeatureError("client", "no folder", "a folder for features from a cluster")
            there = partial(extract_items, **how, device=str(device), workers=0)
            extractor = on_cluster(client, there, progress)
        columns = enumerate(task.modalities)
        self._column = {name: m for m, modality in columns for name in modality.channels}
        if folder is None:
            self._store = _MemoryFeatures(task.modalities, self.L, self.device, extractor)
        else:
            self._store = DiskFeatures(folder, task.modalities, self.L, self.device, extractor)
        self.shapes, self.skipped = self._store.shapes, self._store.skipped
        self._take_splits(task)

    @property
    def features(self) -> dict[str, Tensor]:
        """Feature name → (items, C_i, L), all items; those of a bank on disk are checked first."""
        return self._store.features

    @classmethod
    def shared(
        cls, task: Task, L: int | None, device: torch.device | str, bank: FeatureBank | None = None
    ) -> FeatureBank:
        """``bank``, or by default the task's in memory, which all callers share.

        That is computed at the first call, and anew once the weights of a backbone have changed.
        Raises FeatureError if ``bank`` was made of another task, data, backbones or L.
        """
        L = task.config.L if L is None else L
        device = resolve_device(device)
        if bank is not None:
            if not (hasattr(bank, "source_hash") and hasattr(bank, "batch")):
                raise FeatureError("bank", type(bank).__name__, "a FeatureBank")
            features_hash = cache_key(task.modalities, L)
            if bank.source_hash != _source_hash(task, features_hash, bank.precision):
                found = "one made of other data, splits, backbones or L than those of task"
                raise FeatureError("bank", f"{found} {task.name!r}", f"FeatureBank(task, {L})")
            if bank.device != device:
                there = repr(str(device))
                allowed = f"on {there}, as FeatureBank(task, {L}, device={there})"
                raise FeatureError("bank", f"one on {str(bank.device)!r}", allowed)
            return bank
        source_hash = _source_hash(task, cache_key(task.modalities, L), torch.float32)
        banks, key = _BANKS.setdefault(task, {}), (L, str(device))
        if key not in banks or banks[key].source_hash != source_hash:
            banks.pop(key, None)  # otherwise two would be in memory
            banks[key] = cls(task, L, device=device)
        return banks[key]

    def with_splits(self, task: Task) -> FeatureBank:
        """A bank of the same features, not copied, with the splits of ``task``, such as a fold's.

        Raises FeatureError if the task's modalities, data or backbones are not those of the bank.
        """
        if cache_key(as_task(task).modalities, self.L) != self._features_hash:
            found = f"{task.name!r}, of other modalities, data or backbones"
            raise FeatureError("task", found, "one with those of the bank")
        bank = copy.copy(self)
        bank.__dict__.pop("means", None)
        super(FeatureBank, bank).__init__(task, self.device)
        bank._take_splits(task)
        return bank

    def batch(self, split: str, rows: Tensor, next_rows: Tensor | None = None) -> Batch:
        """Samples ``rows`` of a split: features by name, each (N, C_i, L), and their labels.

        A feature without positions is (N, C_i, 1), and one that a sample lacks is NaN. For rows of
        shape (…, N) there are more axes in front. ``"train+validation"`` joins two splits; raises
        TaskError for one that does not exist. A bank on disk prefetches ``next_rows``, those of the
        next call.
        """
        (index, labels), rows = self._split(split), rows.to(self.device)
        if not self.gaps:
            return self._store.read(index, rows, next_rows), labels[rows]
        features = self._store.read(index.clamp(min=0), rows, next_rows)
        for name, m in self._column.items():
            features[name][index[rows][..., m] < 0] = torch.nan
        return features, labels[rows]

    def batches(self, split: str, batches: Sequence[Tensor], random=None) -> Iterator[Batch]:
        """:meth:`batch` of one after the other. Features are never augmented."""
        for rows, next_rows in zip(batches, [*batches[1:], None], strict=True):
            yield self.batch(split, rows, next_rows)

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """Each feature's mean over the samples of train that have it, (C_i, L_i)."""
        rows = torch.arange(self.size("train")).split(self.eval_batch_size)
        sums = {name: 0.0 for name in self._column}
        counts = dict(sums)
        for features, _ in self.batches("train", rows):
            for name, values in features.items():
                there = ~values.isnan()
                sums[name] = sums[name] + values.nan_to_num(0.0).sum(0)
                counts[name] = counts[name] + there.sum(0)
        return {name: total / counts[name] for name, total in sums.items()}

    def _take_splits(self, task: Task) -> None:
        """Leave out samples that cannot be read, and set the hashes."""
        self.source_hash = _source_hash(task, self._features_hash, self.precision)
        self._leave_out()
        left_out = repr({name: sorted(items) for name, items in self.skipped.items() if items})
        digest = hashlib.sha256(f"{self.source_hash} {left_out}".encode()).hexdigest()[:32]
        self.content_hash = digest if any(self.skipped.values()) else self.source_hash

    def _leave_out(self) -> None:
        """Remove samples with items that could not be read from the splits."""
        reasons, given = [], [name for name in self.splits if self.size(name)]
        for m, (modality, skipped) in enumerate(self.skipped.items()):
            reasons += [f"{modality} {reason}" for reason in skipped.values()]
            bad = torch.tensor(sorted(skipped), dtype=torch.long, device=self.device)
            for name, (index, labels) in self.splits.items():
                kept = ~torch.isin(index[:, m], bad) if skipped else ...
                self.splits[name] = index[kept], labels[kept]
        warn_skipped("items that cannot be read", reasons)
        for name in given:
            if not self.size(name):
                raise DataError(f"split {name!r}: none of its samples can be read")


_BANKS: weakref.WeakKeyDictionary[Task, dict[tuple, FeatureBank]] = weakref.WeakKeyDictionary()


class _MemoryFeatures:
    """Features of all modalities in memory, in float32, with the interface of DiskFeatures.

    Those of a modality lie side by side, position by position, so that a batch of them is one
    gather, whose rows a product reads as they are.

    A run keeps those of a modality that took long (:mod:`~bmnas_core.autosave`).
    """

    def __init__(
        self, modalities: Sequence[Modality], L: int, device: torch.device, extract: Extract
    ):
        self.features, self.skipped, self._tables = {}, {}, []
        for m, modality in enumerate(modalities):
            autosave, found = None, None
            if is_kept():
                autosave = kept("features", modality.fingerprint(), L, device.type)
                found = autosave.read(partial(_read_features, modality))
            items = range(len(modality.inputs))
            for part in [found] if found else extract(modality, [items]):
                self._take(m, modality, part, device)
            if autosave and not found and autosave.seconds >= QUICK:
                skipped = self.skipped[modality.name]
                skips = {str(item): why for item, why in skipped.items()}
                header = {"format": KEPT_FORMAT, "skipped": skips}
                features = {name: self.features[name] for name in modality.channels}
                autosave.save(lambda saved=(features, header): saved)
        order = (name for modality in modalities for name in modality.channels)
        self.features = {name: self.features[name] for name in order}
        self.shapes = {name: tuple(values.shape[1:]) for name, values in self.features.items()}

    def _take(self, m: int, modality: Modality, part: Part, device: torch.device) -> None:
        """Copy a part of modality m's features into its tables, which the first part makes."""
        if modality.name not in self.skipped:
            self.skipped[modality.name] = {}
            sizes = {name: part.features[name].shape[1:] for name in modality.channels}
            for L in sorted({length for _, length in sizes.values()}):
                channels = {name: C for name, (C, length) in sizes.items() if length == L}
                shape = len(modality.inputs), L, sum(channels.values())
                table = torch.empty(shape, device=device)
                parts = table.split(list(channels.values()), dim=2)
                self.features |= {k: own.mT for k, own in zip(channels, parts, strict=True)}
                self._tables.append((m, channels, table))
        self.skipped[modality.name] |= part.skipped
        for name, values in part.features.items():
            self.features[name][part.start : part.end] = values

    def read(self, index: Tensor, rows: Tensor, next_rows: Tensor | None) -> dict[str, Tensor]:
        items, found = index[rows], {}
        for m, channels, table in self._tables:
            taken = table.index_select(0, items[..., m].flatten())
            parts = taken.view(*rows.shape, *table.shape[1:]).split(list(channels.values()), dim=-1)
            found |= {name: part.mT for name, part in zip(channels, parts, strict=True)}
        return {name: found[name] for name in self.features}


def _read_features(modality: Modality, path: Path) -> Part:
    """All of a modality's features as a run kept them, or FeatureError."""
    items = len(modality.inputs)

    def check(header: dict, described: dict[str, Tensor]) -> dict[int, str]:
        found = {name: tuple(values.shape[:2]) for name, values in described.items()}
        allowed = {name: (items, channels) for name, channels in modality.channels.items()}
        if found != allowed:
            raise FeatureError("features", quoted(found), quoted(allowed))
        return {int(item): str(why) for item, why in header["skipped"].items()}

    skipped, tensors = read_tensors(path, KEPT_FORMAT, FeatureError, "features", check)
    return Part(0, items, {name: tensors[name] for name in modality.channels}, skipped)


class RawInputs(Source):
    """The raw inputs of the named modalities, by default all, served like a bank.

    Samples that lack one of them are left out. Backbones are trained on them. ``workers`` read
    files, see :func:`~bmnas_core.tasks.inputs.load`.
    """

    def __init__(
        self,
        task: Task,
        *,
        device: torch.device | str = "cpu",
        modalities: Sequence[str] | None = None,
        workers: int | None = None,
    ):
        super().__init__(task, device)
        self._workers = workers
        names = [modality.name for modality in task.modalities]
        served = names if modalities is None else modalities
        self._columns = {name: m for m, name in enumerate(names) if name in served}
        for name, (index, own) in self.splits.items() if self.gaps else ():
            whole = (index[:, list(self._columns.values())] >= 0).all(1)
            self.splits[name] = index[whole], own[whole]
        self._inputs = [task.modalities[m].inputs for m in self._columns.values()]
        self._reported: set[str] = set()
        self._each = _file_values(self._inputs)
        if self._each:
            self.eval_batch_size = max(1, MAX_VALUES_PER_FORWARD // self._each)
        self._modalities = [task.modalities[m] for m in self._columns.values()]

    @cached_property
    def content_hash(self) -> str:
        """Hash of the inputs, the splits and the labels."""
        parts = [(modality.name, modality.inputs_hash) for modality in self._modalities]
        parts += [(name, *map(tensor_hash, pair)) for name, pair in self.splits.items()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def batch(self, split: str, rows: Tensor) -> Batch:
        """Samples ``rows`` of a split: inputs by modality name, and labels (N, …)."""
        return next(self.batches(split, [rows]))

    def batches(
        self, split: str, batches: Sequence[Tensor], random: tuple | None = None
    ) -> Iterator[Batch]:
        """Batches in order, prefetched by worker processes, without samples that cannot be read.

        ``random`` is the seed and stream of augmentation, which is off by default.
        """
        index, labels = self._split(split)
        index = index[:, list(self._columns.values())].cpu()
        wanted = [(rows.cpu(), index[rows.cpu()]) for rows in batches]
        values = self._each * max((len(rows) for rows in batches), default=0)
        loaded = load(self._inputs, wanted, random=random, workers=self._workers, values=values)
        found = []
        for (rows, _), batch in zip(wanted, loaded, strict=True):
            reasons = [why for why in batch.failures.values() if why not in self._reported]
            self._reported.update(reasons)
            found += reasons
            inputs = batch.inputs or [torch.empty(0) for _ in self._inputs]
            named = zip(self._columns, inputs, strict=True)
            kept = labels[rows[batch.kept].to(self.device)]
            yield {name: move(part, self.device) for name, part in named}, kept
        warn_skipped("items that cannot be read", found)


def _file_values(columns: Sequence[Inputs]) -> int:
    """Values of one sample, if some of its inputs are in files; else 0."""
    if all(isinstance(inputs, AT_HAND) for inputs in columns):
        return 0
    firsts = [first_readable(inputs) for inputs in columns]
    parts = [first if isinstance(first, list) else [first] for first in firsts]
    return sum(part.numel() for first in parts for part in first)


def _check_range(name: str, values: Tensor, items: Tensor, precision: torch.dtype) -> None:
    """Refuse values that are not finite, or would not be in this precision."""
    limit, largest = torch.finfo(precision).max, values.abs().flatten(1).amax(1)
    fits = largest <= limit  # NaN does not
    if not fits.all():
        row = int((~fits).nonzero()[0])
        value, allowed = float(largest[row]), "finite numbers"
        found = "NaN" if math.isnan(value) else "infinity"
        if math.isfinite(value):
            found, allowed = f"{value:.0f}", f"on disk, in half precision, at most {limit:.0f}"
        raise FeatureError(f"feature {name!r} of item {int(items[row])}", found, allowed)


def _source_hash(task: Task, features_hash: str, precision: torch.dtype) -> str:
    parts = [features_hash, "" if precision == torch.float32 else str(precision)]
    for split in task.splits.values():
        parts.append(f"{split.name} {(tensor_hash(split.index), tensor_hash(split.labels))}")
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:32]
