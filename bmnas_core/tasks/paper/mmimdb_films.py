"""MM-IMDB's films: which there are, posters, plots and genres, from either layout of the files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...backbones.item_training import random_shift
from ...errors import check_type
from ..files import package
from ..inputs import DataError, FileInputs, files_version, warn_skipped
from .common import DEVIATION, MEAN, read_json
from .samples import posters

HDF5, SPLIT = "multimodal_imdb.hdf5", "split.json"
#: The data set's names of the splits → ours.
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
CLASSES, VECTOR = 23, 300
#: Of the 27 genres, those that the data set's authors and the paper do not use.
DROPPED = ("News", "Adult", "Talk-Show", "Reality-TV")
LAYOUTS = (
    f"{HDF5}, with {SPLIT} beside it or the splits in its attribute 'split'; or folders "
    "train, dev and test with image_000000.npy, text_000000.npy, label_000000.npy, and so on"
)
NOT_FINITE = "found NaN or infinity; allowed: finite numbers"
SHAPE = (3, 256, 160)
#: What the data set's authors subtracted from blue, green and red in 0 … 255.
SUBTRACTED = (103.939, 116.779, 123.68)
#: Most pixels by which a poster is shifted in training.
SHIFT = 8
#: What h5py and NumPy raise for damaged files.
DAMAGED = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Films:
    """The films that can be read, in the order train, validation, test."""

    posters: Posters
    plots: Tensor  # (n, 300), mean word vectors
    genres: Tensor  # (n, 23) of 0 and 1
    names: tuple[str, ...]  # of the genres
    sizes: tuple[int, int, int]  # number of films in each split
    left_out: int  # number of films that cannot be read


def read_films(root: Path) -> Films:
    """The films of a folder. Raises DataError for one in neither layout, and for damaged files."""
    path = root / HDF5
    if path.is_file():
        try:
            return _read_hdf5(path)
        except DataError:
            raise
        except DAMAGED as error:
            raise DataError(path, f"no whole HDF5 file ({error})", LAYOUTS) from None
    if any((root / split).is_dir() for split in SPLITS):
        return _read_npy_folders(root)
    found = "neither layout" if root.is_dir() else "no such folder"
    raise DataError(
        f"data of task 'mmimdb': {root}: found {found}; allowed: {LAYOUTS}. Set BMNAS_DATA to the "
        "folder that holds 'mmimdb', or give data_root; sample=True needs no data"
    )


def _films(place, splits: dict[str, list], source, plots, genres, names, reasons) -> Films:
    """The films, at least one of each split; warns of films left out."""
    warn_skipped("films", reasons)
    for split, found in splits.items():
        if not found:
            raise DataError(place, f"no film of {split!r} that can be read", "at least one")
    plots = torch.from_numpy(np.asarray(plots, np.float32))
    genres = torch.from_numpy(np.asarray(genres, np.int64))
    sizes = tuple(map(len, splits.values()))
    return Films(source, plots, genres, tuple(names), sizes, len(reasons))


def _as_floats(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # too large a number becomes infinite, and is left out
        return vectors.astype(np.float32)


def _check_apart(place: str, splits: dict[str, Sequence], what: str) -> None:
    """Refuse a key that is in two splits, or twice in one."""
    seen = {}
    for split, keys in splits.items():
        for key in keys:
            if other := seen.get(key):
                where = f"twice in {split!r}" if other == split else f"in {other!r} and {split!r}"
                raise DataError(place, f"{what} {key!r} {where}", "once in all")
            seen[key] = split


# --- the HDF5 file


def _read_hdf5(path: Path) -> Films:
    with package("h5py").File(path) as file:
        shapes = {"images": SHAPE, "features": (VECTOR,), "genres": None, "imdb_ids": ()}
        sets = {name: _dataset(path, file, name, shape) for name, shape in shapes.items()}
        n = len(sets["images"])
        for name, found in sets.items():
            if len(found) != n:
                rows = f"{n:,} rows of 'images' and {len(found):,} of {name!r}"
                raise DataError(path, rows, "the same number of each")
        names, columns = _genre_columns(path, sets["genres"])
        genres, plots = sets["genres"][:][:, columns], _as_floats(sets["features"][:])
        ids = [_text(i) for i in sets["imdb_ids"][:]]
        reasons: list[str] = []
        if (path.parent / SPLIT).is_file():
            rows = _rows_by_id(path.parent / SPLIT, path, ids, reasons)
        else:
            rows = _rows_by_attribute(path, file, n)
    for row, column in np.argwhere(~np.isin(genres, (0, 1))):
        found = f"{genres[row, column]} for {names[column]}"
        raise DataError(f"{path}: genres[{row}]", found, "0 and 1")
    finite = np.isfinite(plots).all(1)
    reasons += [
        f"{path}: features[{row}] (film {ids[row]}): {NOT_FINITE}"
        for found in rows.values()
        for row in found
        if not finite[row]
    ]
    rows = {split: [row for row in found if finite[row]] for split, found in rows.items()}
    order = [row for found in rows.values() for row in found]
    source = Posters((path,), tuple(order))
    return _films(path, rows, source, plots[order], genres[order], names, reasons)


def _dataset(path: Path, file, name: str, shape: tuple[int, ...] | None):
    """The data set of a name, whose rows must have this shape; None for any number of columns."""
    found = file.get(name)
    allowed = "(n, genres)" if shape is None else f"({', '.join(map(str, ('n', *shape)))})"
    if not isinstance(found, package("h5py").Dataset):
        there = ", ".join(sorted(file)) or "none"
        raise DataError(path, f"no data set {name!r} among {there}", f"one of shape {allowed}")
    size, kind = found.shape or (), "names" if name == "imdb_ids" else "numbers"
    fits = len(size) == 2 if shape is None else len(size) and size[1:] == shape
    if not fits or (kind == "numbers" and found.dtype.kind not in "iuf"):
        has = f"shape {found.shape} of {found.dtype}"
        raise DataError(f"{path}: data set {name!r}", has, f"{allowed} of {kind}")
    return found


def _genre_columns(path: Path, genres) -> tuple[list[str], list[int]]:
    """Names and columns of the 23 genres."""
    place, names = f"{path}: data set 'genres'", list(posters.GENRES)
    if "target_names" in genres.attrs:
        text = _text(genres.attrs["target_names"])
        try:
            names = [str(name) for name in json.loads(text)]
        except (ValueError, TypeError):
            allowed = "a JSON list of names"
            raise DataError(f"{place}: target_names", repr(text[:60]), allowed) from None
    if len(names) != genres.shape[1]:
        both = f"{genres.shape[1]} columns and {len(names)} names"
        raise DataError(place, both, "the same number of both")
    columns = [i for i, name in enumerate(names) if name not in DROPPED]
    if len(columns) != CLASSES:
        raise DataError(place, f"{len(columns)} genres besides {', '.join(DROPPED)}", CLASSES)
    return [names[i] for i in columns], columns


def _rows_by_id(path: Path, data: Path, ids: Sequence[str], reasons: list[str]) -> dict:
    """Split → rows, from a file of ids. Ids that are not in the data are added to ``reasons``."""
    rows: dict[str, int] = {}
    for row, one in enumerate(ids):
        if rows.setdefault(one, row) != row:
            raise DataError(f"{data}: imdb_ids", f"{one!r} in rows {rows[one]} and {row}", "once")
    splits = read_json(path)
    if not isinstance(splits, dict) or not set(SPLITS) <= set(splits):
        found = ", ".join(map(repr, splits)) if isinstance(splits, dict) else type(splits).__name__
        raise DataError(path, found, f"an object with {', '.join(SPLITS)}")
    splits = {name: splits[name] for name in SPLITS}
    for name, wanted in splits.items():
        check_type(wanted, list, f"{path}: {name}", DataError, "a list of ids")
        for i, one in enumerate(wanted):
            if not isinstance(one, str):
                raise DataError(f"{path}: {name}[{i}]", repr(one), "an id as a string")
        unknown = [one for one in wanted if one not in rows]
        reasons += [f"{path}: {name}: {one!r} is not in {data.name}" for one in unknown]
    _check_apart(str(path), splits, "film")
    return {name: [rows[i] for i in wanted if i in rows] for name, wanted in splits.items()}


def _rows_by_attribute(path: Path, file, n: int) -> dict[str, list[int]]:
    """Split → rows, from the file's table of where each split of each data set is (as in Fuel)."""
    place, fields = f"{path}: attribute 'split'", ("split", "source", "start", "stop")
    table = np.atleast_1d(file.attrs["split"]) if "split" in file.attrs else np.empty(0)
    if not set(fields) <= set(table.dtype.names or ()):
        missing = f"no table of {', '.join(fields)}, and no {SPLIT} beside the file"
        raise DataError(place, missing, "one of them")
    found: dict[tuple[str, str], list[int]] = {}
    for entry in table:
        split, source = _text(entry["split"]), _text(entry["source"])
        available = "available" not in table.dtype.names or entry["available"]
        if split in SPLITS and available:
            rows = range(int(entry["start"]), int(entry["stop"]))
            if "indices" in table.dtype.names and entry["indices"]:
                rows = file[entry["indices"]][:].tolist()
            found[split, source] = list(rows)
    for split in SPLITS:
        for source in ("images", "features", "genres"):
            if (split, source) not in found:
                raise DataError(place, f"no {source!r} of {split!r}", "all splits")
            if found[split, source] != found[split, "images"]:
                other = f"other rows of {source!r} than of 'images'"
                raise DataError(f"{place}: {split!r}", other, "the same")
        for row in found[split, "images"]:
            if not 0 <= row < n:
                raise DataError(f"{place}: {split!r}", f"row {row}", f"0 … {n - 1}")
    rows = {split: found[split, "images"] for split in SPLITS}
    _check_apart(place, rows, "row")
    return rows


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# --- folders of single films

PART = re.compile(r"(?:image|text|label)_(\d{6,})\.npy")


def _read_npy_folders(root: Path) -> Films:
    reasons: list[str] = []
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    plots, genres = [], []
    for split in SPLITS:
        folder = root / split
        try:
            names = {path.name for path in folder.iterdir()}
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
            raise DataError(f"{folder}: {why}; allowed: {LAYOUTS}") from None
        for number in sorted({match[1] for match in map(PART.fullmatch, names) if match}):
            files = [folder / f"{part}_{number}.npy" for part in ("image", "text", "label")]
            image, text, label = files
            try:
                for path in files:
                    if path.name not in names:
                        raise UnreadableError(f"{path}: missing")
                plot, genre = _plot(text), _numbers(label, CLASSES)
            except UnreadableError as reason:
                reasons.append(str(reason))
                continue
            for other in genre[~np.isin(genre, (0, 1))]:
                raise DataError(label, other, "0 and 1")
            plots.append(plot)
            genres.append(genre)
            found[split].append(image)
    source = Posters(tuple(path for paths in found.values() for path in paths))
    return _films(root, found, source, plots, genres, posters.GENRES, reasons)


def _plot(path: Path) -> np.ndarray:
    """The vector of a plot, or the mean of its words' vectors: (300,)."""
    mean = _as_floats(_numbers(path, VECTOR, words=True).reshape(-1, VECTOR)).mean(0)
    if not np.isfinite(mean).all():
        raise UnreadableError(f"{path}: {NOT_FINITE}")
    return mean


def _numbers(path: Path, size: int, words: bool = False) -> np.ndarray:
    """An array of numbers: (size,), or with ``words`` also (words, size)."""
    found, dims = read_npy(path), (1, 2) if words else (1,)
    fits = found.ndim in dims and found.shape[-1] == size and len(found)
    if not fits or found.dtype.kind not in "biuf":
        allowed = f"({size},) or (words, {size})" if words else f"({size},)"
        has = f"shape {found.shape} of {found.dtype}"
        raise UnreadableError(path, has, f"{allowed} of numbers")
    return found


# --- posters


class UnreadableError(DataError):
    """A part of one film that is missing or damaged, so that the film is left out."""


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
        """Raises DataError for a poster that cannot be read."""
        if self.rows is None:
            return read_npy(self.paths[item])
        h5py = package("h5py")
        try:
            with h5py.File(self.paths[0]) as file:
                return file["images"][self.rows[item]]
        except DAMAGED as error:
            raise UnreadableError(f"{self.name(item)}: cannot be read ({error})") from None


def read_npy(path: Path) -> np.ndarray:
    """An array from a .npy file.

    Raises UnreadableError for a damaged file, DataError for Python objects, which could run code.
    """
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGED as error:
        if isinstance(error, ValueError) and "pickle" in str(error):
            raise DataError(path, "Python objects", "an array of numbers") from None
        raise UnreadableError(f"{path}: cannot be read ({error})") from None


@dataclass(frozen=True)
class PosterReader:
    """Item → poster ``(3, 256 / shrink, 160 / shrink)``, normalised as ImageNet is.

    Files hold red, green and blue in 0 … 255. If some numbers are negative, they hold what the data
    set's authors wrote: blue, green and red minus 103.939, 116.779 and 123.68. With a generator the
    poster is mirrored half of the time and shifted by up to 8 pixels along each axis, its border
    repeated. This augmentation is ours; the paper names none.
    """

    source: Posters
    subtracted: bool  # whether the numbers are those that the authors wrote
    shrink: int = 1  # side of the square of pixels whose mean becomes one pixel
    raw: bool = False  # whether the numbers stay as they are in the file

    @classmethod
    def from_source(cls, source: Posters, **how) -> PosterReader:
        """The reader of a source. About sixteen of its posters show how the numbers are written."""
        negative = []
        for item in range(0, len(source), -(-len(source) // 16)):
            with suppress(DataError):  # reported when the item itself is read
                negative.append(bool((source.read(item) < 0).any()))
        return cls(source, 2 * sum(negative) > len(negative), **how)

    def inputs(self) -> FileInputs:
        names = tuple(map(self.source.name, range(len(self.source))))
        how = self.source.rows, self.subtracted, self.shrink, self.raw
        return FileInputs(names, self, files_version(self.source.paths, *how))

    def __call__(self, item: int, random: torch.Generator | None = None) -> Tensor:
        """Raises DataError for a poster that cannot be read, or of another shape or range."""
        place, found = self.source.name(item), self.source.read(item)
        if found.shape != SHAPE or found.dtype.kind not in "iuf":
            raise DataError(place, f"shape {found.shape} of {found.dtype}", f"{SHAPE} of numbers")
        offsets = SUBTRACTED if self.subtracted else (0, 0, 0)
        levels = found + np.reshape(offsets, (3, 1, 1))
        low, high = levels.min(), levels.max()
        if not -1 < low <= high < 256:
            raise DataError(place, f"numbers {low:.0f} … {high:.0f}", "0 … 255")
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
