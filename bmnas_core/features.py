"""FeatureBank: what the frozen backbones see, computed once.

During search and training the backbones do not change, so neither do their features. The bank
runs every item of every modality through its backbone once, pools to length L and serves batches
from memory, or from memory-mapped files in a folder named after everything that produced them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .config import resolve_device
from .networks import FeatureError, pool
from .tasks.task import Modality, Task, as_task, tensor_hash

FORMAT = "bmnas-features/1"


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


class FeatureBank:
    """Pooled features of all items of a task, with the task's splits.

    Args:
        task: the task; its backbones are run in evaluation mode, without gradients.
        L: length to pool to; the task's own where None.
        device: where the features are kept in memory and served.
        folder: keep them on disk here and read them memory-mapped instead. A bank made by other
            backbones, data, L or pooling has another key and is left alone.

    Attributes:
        features: feature name → (items, C_i, L).
        key: hash of everything that produced the features.
        identity: hash of that and of the task's splits and labels.

    Raises:
        FeatureError: for features of the wrong shape or with values that are not finite, named
            with the item, and for a bank on disk that is not whole.
    """

    def __init__(
        self,
        task: Task,
        L: int | None = None,
        *,
        device: torch.device | str = "cpu",
        folder: str | os.PathLike | None = None,
    ):
        self.L = as_task(task).config.L if L is None else L
        if type(self.L) is not int or self.L < 1:
            raise FeatureError(f"L: found {self.L!r}; allowed: an int, at least 1")
        self.device = resolve_device(device)
        self.modalities, self.key = task.modalities, _key(task, self.L)
        self.identity = _identity(task, self.L)
        self.splits = {
            name: (task.split(name).index.to(self.device), task.split(name).labels.to(self.device))
            for name in task.splits
        }
        self.column = {f: m for m, mod in enumerate(task.modalities) for f in mod.channels}
        if folder is None:
            self.features = {f: v.to(self.device) for f, v in self._computed()}
        else:
            self.features = self._on_disk(Path(folder) / self.key)

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
        identity = _identity(task, L)
        if bank is not None:
            if not (hasattr(bank, "identity") and hasattr(bank, "batch")):
                raise FeatureError(f"bank: found {type(bank).__name__}; allowed: a FeatureBank")
            if bank.identity != identity:
                raise FeatureError(
                    f"bank: found one made of other data, splits, backbones or L than those of "
                    f"task {task.name!r}; allowed: FeatureBank(task, {L})"
                )
            return bank
        device = resolve_device(device)
        banks, place = _BANKS.setdefault(task, {}), (L, str(device))
        if place not in banks or banks[place].identity != identity:
            banks[place] = cls(task, L, device=device)
        return banks[place]

    def batch(self, split: str, rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Samples ``rows`` of a split: features by name, each (N, C_i, L), and their labels.

        For rows of shape (…, N) features are (…, N, C_i, L).

        Raises:
            FeatureError: for a split that does not exist; ``"train+validation"`` joins two.
        """
        rows = rows.to(self.device)
        if split not in self.splits:
            names = split.split("+")
            if not set(names) <= set(self.splits):
                raise FeatureError(f"split: found {split!r}; allowed: {', '.join(self.splits)}")
            parts = [self.splits[name] for name in names]
            self.splits[split] = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        index, labels = self.splits[split]
        index = index[rows]
        features = {}
        for name, table in self.features.items():
            items = index[..., self.column[name]]
            if isinstance(table, np.ndarray):
                picked = torch.from_numpy(table[items.cpu().numpy()])
                features[name] = picked.to(self.device, torch.float32)
            else:
                features[name] = table[items]
        return features, labels[rows]

    def _computed(self) -> Iterator[tuple[str, Tensor]]:
        for modality in self.modalities:
            backbone = modality.backbone.to(self.device).eval()
            parts: dict[str, list[Tensor]] = {name: [] for name in modality.channels}
            with torch.no_grad():
                for start in range(0, len(modality.inputs), 512):
                    inputs = modality.inputs[start : start + 512].to(self.device)
                    for name, part in extract(modality, backbone, inputs, self.L).items():
                        _check_finite(name, part, start)
                        parts[name].append(part)
            backbone.cpu()
            for name in modality.channels:
                yield name, torch.cat(parts.pop(name))

    def _on_disk(self, folder: Path) -> dict[str, np.ndarray]:
        if not (folder / "bank.json").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(".part", f".{folder.name}.", folder.parent))
            try:
                shapes = {}
                for i, (name, values) in enumerate(self._computed()):
                    np.save(beside / f"{i}.npy", values.cpu().numpy())
                    shapes[name] = list(values.shape)
                meta = {"format": FORMAT, "key": self.key, "L": self.L, "features": shapes}
                (beside / "bank.json").write_text(json.dumps(meta, indent=1))
                beside.chmod(0o755)
                if not (folder / "bank.json").is_file():
                    shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # another process was first
                    beside.rename(folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        return dict(self._mapped(folder))

    def _mapped(self, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
        remedy = f"delete {folder} to have it made again"
        try:
            meta = json.loads((folder / "bank.json").read_text())
            shapes = meta["features"]
            fitting = meta["key"] == self.key and list(shapes) == list(self.column)
        except (OSError, ValueError, KeyError, TypeError):
            raise FeatureError(f"{folder / 'bank.json'}: found no bank; {remedy}") from None
        if not fitting:
            raise FeatureError(f"{folder}: found a bank with another key; {remedy}")
        for i, (name, shape) in enumerate(shapes.items()):
            path = folder / f"{i}.npy"
            try:
                values = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise FeatureError(f"{path}: feature {name!r}: {error}; {remedy}") from None
            if list(values.shape) != shape or values.dtype != np.float32:
                raise FeatureError(
                    f"{path}: feature {name!r}: found shape {list(values.shape)} of "
                    f"{values.dtype}; allowed: {shape} of float32; {remedy}"
                )
            yield name, values


class RawInputs:
    """The modalities' raw inputs, served like a bank: what live backbones train on."""

    def __init__(self, task: Task, *, device: torch.device | str = "cpu"):
        self.task, self.device = task, torch.device(device)

    def batch(self, split: str, rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Samples ``rows`` of a split: inputs by modality name, and labels (N, …)."""
        part = self.task.split(split)
        inputs = {
            modality.name: modality.inputs[part.index[rows, m]].to(self.device)
            for m, modality in enumerate(self.task.modalities)
        }
        return inputs, part.labels[rows].to(self.device)


def _check_finite(name: str, values: Tensor, start: int) -> None:
    bad = (~values.isfinite()).flatten(1).any(1).nonzero()
    if len(bad):
        item = int(bad[0])
        kind = "NaN" if values[item].isnan().any() else "infinity"
        raise FeatureError(
            f"feature {name!r} of item {start + item}: found {kind}; allowed: finite numbers"
        )


def _identity(task: Task, L: int) -> str:
    digest = hashlib.sha256(_key(task, L).encode())
    for split in task.splits.values():
        hashes = tensor_hash(split.index), tensor_hash(split.labels)
        digest.update(f"{split.name} {hashes}".encode())
    return digest.hexdigest()[:32]


def _key(task: Task, L: int) -> str:
    digest = hashlib.sha256(f"{FORMAT} {L}".encode())
    for modality in task.modalities:
        digest.update(modality.fingerprint().encode())
    return digest.hexdigest()[:32]
