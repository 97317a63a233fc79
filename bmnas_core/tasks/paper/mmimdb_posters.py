"""MM-IMDB's posters: how they are stored, and the reader that normalises and augments them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...backbones.item_training import random_shift
from ..files import package
from ..inputs import DataError, FileInputs, files_version, wrong
from .common import DEVIATION, MEAN

SHAPE = (3, 256, 160)
#: What the data set's authors subtracted from blue, green and red in 0 … 255.
SUBTRACTED = (103.939, 116.779, 123.68)
#: Most pixels by which a poster is shifted in training.
SHIFT = 8
#: What h5py and NumPy raise for damaged files.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Posters:
    """Posters in one .npy file each; or, with ``rows``, in the data set ``images`` of an HDF5 file.

    The HDF5 file is opened for each poster, since an open one must not be sent to another process.
    """

    paths: tuple[Path, ...]
    rows: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths if self.rows is None else self.rows)

    def name(self, item: int) -> str:
        if self.rows is None:
            return str(self.paths[item])
        return f"{self.paths[0]}: images[{self.rows[item]}]"

    def read(self, item: int) -> np.ndarray:
        """Raises what is in :data:`UNREADABLE`."""
        if self.rows is None:
            return read_npy(self.paths[item])
        with package("h5py").File(self.paths[0]) as file:
            return file["images"][self.rows[item]]


def read_npy(path: Path) -> np.ndarray:
    """An array from a .npy file.

    Raises DataError for Python objects, since reading them would run code, and what is in
    :data:`UNREADABLE` for a damaged file.
    """
    with path.open("rb") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            if "pickle" not in str(error):
                raise
    raise DataError(f"{path}: found Python objects; allowed: an array of numbers")


@dataclass(frozen=True)
class PosterReader:
    """Item → poster ``(3, 256 / shrink, 160 / shrink)``, normalised as ImageNet is.

    Files hold red, green and blue in 0 … 255. If some numbers are negative, they hold what the data
    set's authors wrote: blue, green and red minus 103.939, 116.779 and 123.68. With a generator the
    poster is mirrored half of the time and shifted by up to 8 pixels along each axis, its border
    repeated. This augmentation is ours; the paper names none.

    Attributes:
        source: where posters are read from.
        subtracted: whether the numbers are those that the authors wrote.
        shrink: side of the square of pixels whose mean becomes one pixel.
        raw: whether the numbers stay as they are in the file.
    """

    source: Posters
    subtracted: bool
    shrink: int = 1
    raw: bool = False

    @classmethod
    def from_source(cls, source: Posters, **how) -> PosterReader:
        """The reader of a source. About sixteen of its posters show how the numbers are written."""
        negative = []
        for item in range(0, len(source), -(-len(source) // 16)):
            with suppress(*UNREADABLE):  # reported when the item itself is read
                negative.append(bool((source.read(item) < 0).any()))
        return cls(source, 2 * sum(negative) > len(negative), **how)

    def inputs(self) -> FileInputs:
        names = tuple(map(self.source.name, range(len(self.source))))
        how = self.source.rows, self.subtracted, self.shrink, self.raw
        return FileInputs(names, self, files_version(self.source.paths, *how))

    def __call__(self, item: int, random: torch.Generator | None = None) -> Tensor:
        """Raises DataError for a poster that cannot be read, or of another shape or range."""
        place = self.source.name(item)
        try:
            found = self.source.read(item)
        except DataError:
            raise
        except UNREADABLE as error:
            raise DataError(f"{place}: cannot be read ({error})") from None
        if found.shape != SHAPE or found.dtype.kind not in "iuf":
            shape = f"shape {found.shape} of {found.dtype}"
            raise wrong(place, shape, f"{SHAPE} of numbers")
        offsets = SUBTRACTED if self.subtracted else (0, 0, 0)
        levels = found + np.reshape(offsets, (3, 1, 1))
        low, high = levels.min(), levels.max()
        if not -1 < low <= high < 256:
            raise wrong(place, f"numbers {low:.0f} … {high:.0f}", "0 … 255")
        poster = torch.from_numpy(found.astype(np.float32))
        if self.shrink > 1:
            poster = torch.nn.functional.avg_pool2d(poster, self.shrink)
        if not self.raw:
            poster = (poster + _by_colour(offsets)) / 255
            poster = poster.flip(0) if self.subtracted else poster
            poster = (poster - _by_colour(MEAN)) / _by_colour(DEVIATION)
        if random is None:
            return poster
        if torch.rand((), generator=random) < 0.5:
            poster = poster.flip(2)
        return random_shift(poster, SHIFT // self.shrink, random)


def _by_colour(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)
