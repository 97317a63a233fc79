"""MM-IMDB's posters: read from any layout of the files, on any scale that people use."""

import io
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...backbones.item_training import random_shift
from ...errors import in_line
from ...reading import require_file
from ..files import DAMAGED, ends_of, open_hdf5
from ..inputs import DataError, FileInputs, files_version
from .common import DEVIATION, MEAN, look_at_jpeg, read_picture

SHAPE = (3, 256, 160)
#: Most bytes of one film's array: a poster has 1 MB in float64, a plot of a thousand words 2 MB.
MOST_BYTES = 64 << 20
#: Most pixels by which a poster is shifted in training.
SHIFT = 8


class UnreadableError(DataError):
    """A part of one film that is missing or damaged, so that the film is left out."""


@dataclass(frozen=True)
class Posters:
    """Posters in a .npy or JPEG file each, or with ``rows`` in the data set ``images`` of HDF5.

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

    def look(self, item: int) -> None:
        """Raises DataError for a file of its own that is no poster by its ends."""
        path = self.paths[item]
        _look_at_npy(path) if path.suffix == ".npy" else look_at_jpeg(path)

    def read(self, item: int) -> np.ndarray:
        """Raises DataError for a poster that cannot be read."""
        if self.rows is None:
            path = self.paths[item]
            return read_npy(path) if path.suffix == ".npy" else _read_jpeg(path)
        try:
            with open_hdf5(self.paths[0]) as file:
                return file["images"][self.rows[item]]
        except DAMAGED as error:
            why = in_line(error)
            raise UnreadableError(f"{self.name(item)}: cannot be read ({why})") from None


def read_npy(path: Path) -> np.ndarray:
    """An array from a .npy file.

    Raises UnreadableError for a damaged file, DataError for Python objects, which could run code.
    """
    try:
        require_file(path)
        found = np.lib.format.open_memmap(path, mode="r")
        if found.nbytes > MOST_BYTES:
            raise ValueError(f"{found.nbytes:,} bytes of values, more than {MOST_BYTES:,}")
        return np.array(found)
    except DAMAGED as error:
        if isinstance(error, ValueError) and "Python objects" in str(error):
            raise DataError(path, "Python objects", "an array of numbers") from None
        raise UnreadableError(f"{path}: cannot be read ({in_line(error)})") from None


def _look_at_npy(path: Path) -> None:
    """Raise UnreadableError for a file whose size is not that of the poster it claims."""
    size, first, _ = ends_of(path)
    try:
        start = io.BytesIO(first)
        version = np.lib.format.read_magic(start)
        read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, _, dtype = read(start)
    except (*DAMAGED, AttributeError) as error:
        raise UnreadableError(f"{path}: found no array ({in_line(error)})") from None
    claimed = start.tell() + math.prod(shape) * dtype.itemsize
    if shape != SHAPE or size != claimed:
        found = f"{size:,} bytes for shape {shape} of {dtype}"
        raise UnreadableError(path, found, f"{claimed:,} for shape {SHAPE}")


def _read_jpeg(path: Path) -> np.ndarray:
    """A poster of any size as (3, 256, 160) bytes."""
    pixels = read_picture(path, "RGB", SHAPE[:0:-1])
    return pixels.transpose(2, 0, 1)


@dataclass(frozen=True)
class Scale:
    """How a file's numbers become levels in 0 … 255: number · factor + offset, colour by colour."""

    name: str
    factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blue_first: bool = False

    def levels(self, numbers: np.ndarray) -> np.ndarray:
        """``numbers``: (…, 3)."""
        return numbers * np.array(self.factor) + np.array(self.offset)

    def range_of(self, numbers: np.ndarray) -> tuple[float, float] | None:
        """The lowest and the highest level; None for numbers that are not on this scale."""
        levels = self.levels(numbers)
        low, high = levels.min((0, 1)), levels.max((0, 1))
        flat = (high - low).max() < FLAT and not _are_whole(levels)
        fits = low.min() > -OVER and high.max() < 255 + OVER and not flat
        return (low.min(), high.max()) if fits else None


#: ImageNet's mean of red, green and blue in 0 … 255, as the data set's authors subtracted it.
SUBTRACTED = (123.68, 116.779, 103.939)
SCALES = {
    scale.name: scale
    for scale in (
        Scale("0 to 255"),
        Scale("BGR less mean", offset=SUBTRACTED[::-1], blue_first=True),
        Scale("RGB less mean", offset=SUBTRACTED),
        Scale("0 to 1", factor=(255.0,) * 3),
        Scale("-1 to 1", factor=(127.5,) * 3, offset=(127.5,) * 3),
        Scale(
            "ImageNet",
            factor=tuple(255 * d for d in DEVIATION),
            offset=tuple(255 * m for m in MEAN),
        ),
        Scale("0 to 1 less mean", factor=(255.0,) * 3, offset=tuple(255 * m for m in MEAN)),
    )
}
#: So many posters show the scale, and so many of these must fit.
SEEN, MOST = 16, 0.75
#: On the right scale, posters have darker and brighter levels than this, and their darkest or
#: their brightest is as near as that to black or white.
MIDDLE, END = 96.0, 12.0
#: Levels by which resizing may overshoot black and white; they become these.
OVER = 8.0
#: Of posters in whole numbers from 0, the brightest has more levels than this.
LEAST_BRIGHT = 32
#: A poster with fewer levels between its darkest and brightest, none whole, is on another scale.
FLAT = 6.0


@dataclass(frozen=True)
class PosterReader:
    """Item → poster ``(3, 256 / shrink, 160 / shrink)``, normalised as ImageNet is.

    Files hold red, green and blue on one of :data:`SCALES`, or blue, green and red as the data
    set's authors wrote them: less 103.939, 116.779 and 123.68. With a generator the poster is
    mirrored half of the time and shifted by up to 8 pixels along each axis, its border repeated.
    This augmentation is ours; the paper names none.
    """

    source: Posters
    scale: Scale
    shrink: int = 1  # side of the square of pixels whose mean becomes one pixel
    raw: bool = False  # whether the numbers stay as they are in the file

    def inputs(self) -> FileInputs:
        names = tuple(map(self.source.name, range(len(self.source))))
        how = self.source.rows, self.scale, self.shrink, self.raw
        look = self.source.look if self.source.rows is None else None
        return FileInputs(names, self, files_version(self.source.paths, *how), look)

    def __call__(self, item: int, random: torch.Generator | None = None) -> Tensor:
        """Raises DataError for a poster that cannot be read, or of another shape or scale."""
        place, found = self.source.name(item), self.source.read(item)
        if found.shape != SHAPE or found.dtype.kind not in "iuf":
            raise DataError(place, f"shape {found.shape} of {found.dtype}", f"{SHAPE} of numbers")
        if not self.scale.range_of(np.moveaxis(found, 0, -1)):
            numbers = f"numbers {found.min():.3g} … {found.max():.3g}"
            raise DataError(place, numbers, f"a poster on the scale {self.scale.name!r}")
        poster = torch.from_numpy(found.astype(np.float32))
        if self.shrink > 1:
            poster = torch.nn.functional.avg_pool2d(poster, self.shrink)
        if not self.raw:
            poster = poster * _by_colour(self.scale.factor) + _by_colour(self.scale.offset)
            poster = poster.clamp(0, 255) / 255
            poster = poster.flip(0) if self.scale.blue_first else poster
            poster = (poster - _by_colour(MEAN)) / _by_colour(DEVIATION)
        if random is None:
            return poster
        if torch.rand((), generator=random) < 0.5:
            poster = poster.flip(2)
        return random_shift(poster, SHIFT // self.shrink, random)


def scale_of(source: Posters) -> Scale:
    """The scale that about sixteen posters are on.

    It is the one that spreads them most between black and white, of those on which nearly all fit.
    Whole numbers are levels, perhaps less a mean. Raises DataError if there is none, or if two fit
    alike.
    """
    seen = []
    for item in range(0, len(source), -(-len(source) // SEEN)):
        with suppress(DataError):  # reported when the item itself is read
            found = source.read(item)
            if found.shape == SHAPE and found.dtype.kind in "iuf":
                seen.append(np.moveaxis(found, 0, -1))
    if not seen:  # all are reported when they are read
        return SCALES["0 to 255"]
    whole, high = all(found.dtype.kind in "iu" for found in seen), max(f.max() for f in seen)
    if whole and min(f.min() for f in seen) >= 0 and LEAST_BRIGHT < high < 256:
        return SCALES["0 to 255"]
    scales = [scale for scale in SCALES.values() if not whole or scale.factor[0] == 1]
    fitting = {scale: spread for scale in scales if (spread := _spread(scale, seen))}
    best = [scale for scale, spread in fitting.items() if spread > 0.95 * max(fitting.values())]
    if len(best) > 1:  # less one colour's mean or another's; the authors' numbers were cut off
        levels = [scale for scale in best if all(_are_whole(scale.levels(f)) for f in seen)]
        best = best[:1] if whole else levels
    if len(best) != 1:
        low = min(f.min() for f in seen)
        place = f"{source.name(0)} and {len(seen) - 1} other posters"
        scales = ", ".join(map(repr, SCALES))
        raise DataError(place, f"numbers {low:.3g} … {high:.3g}", f"scale=, one of {scales}")
    return best[0]


def _spread(scale: Scale, seen: Sequence[np.ndarray]) -> float:
    """Levels between the darkest and the brightest, or 0 if the posters are not on this scale."""
    ends = [ends for found in seen if (ends := scale.range_of(found))]
    if len(ends) < MOST * len(seen):
        return 0.0
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    reaches = low < END or high > 255 - END
    return high - low if low < MIDDLE < high and reaches else 0.0


def _are_whole(levels: np.ndarray) -> bool:
    """Whether levels are whole numbers, as in pictures, but for rounding."""
    return bool((np.abs(levels - levels.round()) < 0.02).mean() > 0.9)


def _by_colour(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)
