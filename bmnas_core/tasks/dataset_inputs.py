"""Inputs from a map-style data set, such as a ``torch.utils.data.Dataset``."""

import copy
import hashlib
import traceback
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from ..errors import TaskError, in_line, quoted
from .inputs import MAX_CHUNK, DataError, OnDemandInputs, load


class DatasetInputs(OnDemandInputs):
    """Inputs of one modality from a map-style data set, such as a ``torch.utils.data.Dataset``.

    An item is a tensor or a NumPy array, or a tuple that begins with one, such as an image and its
    label, of which the rest is ignored. All items have one shape and type. Floats become float32,
    integers, such as token numbers, stay as they are. Worker processes read the items, with the
    data set's own preprocessing, which must give the same values whenever an item is read. If
    reading raises :class:`DataError`, the item is left out.

    Args:
        dataset: has ``__len__`` and ``__getitem__``.
        version: text that stands for the values, and that you change when they change. By default
            all items are read once more in each process, to hash them.
        name: what errors call the inputs; a modality puts its own name here.

    Raises TaskError for another data set or item, DataError if no item can be read.
    """

    def __init__(self, dataset: Dataset, version: str | None = None, name: str = "inputs"):
        self.dataset, self.name, self._given = dataset, name, version
        place, allowed = f"{name}: data set", "a map-style data set, with __len__ and __getitem__"
        kind = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise TaskError(place, f"{kind} without item numbers", allowed)
        if version is not None and (not isinstance(version, str) or not version):
            raise TaskError(f"{name}: version", quoted(version), "text, or None")
        try:
            self._len = len(dataset)
        except (TypeError, ValueError):
            raise TaskError(place, f"{kind} without length", allowed) from None
        self._first, self._like = self._first_readable()

    def __len__(self) -> int:
        return self._len

    def read(self, item: int, random: torch.Generator | None = None) -> Tensor:
        """One input; it is never augmented. Raises DataError if it cannot be read, else TaskError.

        TaskError is for what makes the data set unfit: another shape or type than the first
        item's, values that are not finite, an exception.
        """
        values = self._values(item)
        found, allowed = ((tuple(x.shape), x.dtype) for x in (values, self._like))
        if found != allowed:
            found, allowed = (f"shape {shape} of {dtype}" for shape, dtype in (found, allowed))
            allowed = f"{allowed}, as item {self._first} has"
            raise TaskError(f"{self.name}, item {item}", found, allowed)
        return values

    def named(self, name: str) -> "DatasetInputs":
        """The same inputs under another name."""
        other = copy.copy(self)
        other.name = name
        return other

    @cached_property
    def version(self) -> str:
        """Hash of the given version, or of all values, which must not change."""
        kind = type(self.dataset).__qualname__
        like = f"{kind} {len(self)} {tuple(self._like.shape)} {self._like.dtype}"
        digest = hashlib.sha256(f"{like} {self._given!r}".encode())
        if self._given is None:
            size = max(1, min(512, MAX_CHUNK // max(1, self._like.numel())))
            ranges = torch.arange(len(self)).split(size)
            batches = [(items, items[:, None]) for items in ranges]
            values = size * self._like.numel()
            for batch in load([self], batches, values=values):
                digest.update(batch.inputs[0].numpy().tobytes() if batch.inputs else b"")
                digest.update(repr([item for _, item in batch.failures]).encode())
        return digest.hexdigest()[:32]

    def _first_readable(self) -> tuple[int, Tensor]:
        """The first item that can be read, and its shape and type as a tensor without values."""
        why = None
        for item in range(len(self)):
            try:
                values = self._values(item)
                again = self._values(item)
            except DataError as error:
                why = why or error
                continue
            if not torch.equal(values, again):
                found, allowed = "other values each time it is read", "the same: no augmentation"
                raise TaskError(f"{self.name}, item {item}", found, allowed)
            return item, values.to("meta")
        if why:
            raise DataError(f"{self.name}: none of {len(self):,} items can be read: {why}")
        raise TaskError(f"{self.name}: data set", "no items", "at least one")

    def _values(self, item: int) -> Tensor:
        """The tensor of an item, whatever its shape."""
        place = f"{self.name}, item {item}"
        try:
            given = self.dataset[item]
        except DataError as error:
            raise DataError(f"item {item}: {error}") from error
        except Exception as error:  # whatever a foreign data set raises
            found = f"{type(error).__name__}: {in_line(error)}{_where(error)}"
            allowed = "a tensor; bm.DataError leaves an item out"
            raise TaskError(place, found, allowed) from error
        if isinstance(given, (tuple, list)) and len(given):
            given = given[0]
        return _plain_values(place, given)


def _plain_values(place: str, given: object) -> Tensor:
    """A tensor or array as a tensor in memory: integers, or finite numbers in float32."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        values = torch.from_numpy(np.array(given, given.dtype.newbyteorder("="), order="C"))
    elif isinstance(given, Tensor) and not given.is_nested and given.layout is torch.strided:
        values = given.detach().cpu()
    else:
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else quoted(given)
        raise TaskError(
            place, kind, "a tensor or array of numbers, or a tuple that begins with one"
        )
    if values.is_complex():
        raise TaskError(place, f"values of {values.dtype}", "real numbers")
    if not values.is_floating_point():
        return values
    values = values.float()
    if not values.isfinite().all():
        found = "NaN" if values.isnan().any() else "infinity"
        raise TaskError(place, found, "finite numbers in float32")
    return values


def _where(error: Exception) -> str:
    """The last line of the user's own code that an exception went through."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
