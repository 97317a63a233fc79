"""MM-IMDB's films: which there are, their plots and genres, from either layout of the files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import package
from ..inputs import DataError, warn_skipped, wrong
from .common import read_json
from .mmimdb_posters import SHAPE, UNREADABLE, Posters, read_npy
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
    if (root / HDF5).is_file():
        return _read_hdf5(root / HDF5)
    if any((root / split).is_dir() for split in SPLITS):
        return _read_npy_folders(root)
    found = "neither layout" if root.is_dir() else "no such folder"
    raise DataError(
        f"data of task 'mmimdb': {root}: found {found}; allowed: {LAYOUTS}. Set BMNAS_DATA to the "
        "folder that holds 'mmimdb', or give data_root; sample=True needs no data"
    )


def _sizes(place: Path, films: dict[str, list], reasons: Sequence[str]) -> tuple[int, ...]:
    """Number of films in each split, none of which may be empty; warns of films left out."""
    warn_skipped("films", reasons)
    for split, found in films.items():
        if not found:
            raise wrong(place, f"no film of {split!r} that can be read", "at least one")
    return tuple(map(len, films.values()))


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
                raise wrong(place, f"{what} {key!r} {where}", "once in all")
            seen[key] = split


# --- the HDF5 file


def _read_hdf5(path: Path) -> Films:
    with _opened(path) as file:
        shapes = {"images": SHAPE, "features": (VECTOR,), "genres": None, "imdb_ids": ()}
        sets = {name: _dataset(path, file, name, shape) for name, shape in shapes.items()}
        n = len(sets["images"])
        for name, found in sets.items():
            if len(found) != n:
                rows = f"{n:,} rows of 'images' and {len(found):,} of {name!r}"
                raise wrong(path, rows, "the same number of each")
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
        raise wrong(f"{path}: genres[{row}]", found, "0 and 1")
    finite = np.isfinite(plots).all(1)
    reasons += [
        f"{path}: features[{row}] (film {ids[row]}): {NOT_FINITE}"
        for found in rows.values()
        for row in found
        if not finite[row]
    ]
    rows = {split: [row for row in found if finite[row]] for split, found in rows.items()}
    order = [row for found in rows.values() for row in found]
    sizes = _sizes(path, rows, reasons)
    plots, genres = torch.from_numpy(plots[order]), torch.from_numpy(genres[order].astype(np.int64))
    source = Posters((path,), tuple(order))
    return Films(source, plots, genres, tuple(names), sizes, len(reasons))


@contextmanager
def _opened(path: Path) -> Iterator:
    """The open file. What h5py raises for damaged contents becomes a DataError."""
    h5py = package("h5py")
    try:
        with h5py.File(path) as file:
            yield file
    except DataError:
        raise
    except UNREADABLE as error:
        raise wrong(path, f"no whole HDF5 file ({error})", LAYOUTS) from None


def _dataset(path: Path, file, name: str, shape: tuple[int, ...] | None):
    """The data set of a name, whose rows must have this shape; None for any number of columns."""
    found = file.get(name)
    allowed = "(n, genres)" if shape is None else f"({', '.join(map(str, ('n', *shape)))})"
    if not isinstance(found, package("h5py").Dataset):
        there = ", ".join(sorted(file)) or "none"
        raise wrong(path, f"no data set {name!r} among {there}", f"one of shape {allowed}")
    size, kind = found.shape or (), "names" if name == "imdb_ids" else "numbers"
    fits = len(size) == 2 if shape is None else len(size) and size[1:] == shape
    if not fits or (kind == "numbers" and found.dtype.kind not in "iuf"):
        has = f"shape {found.shape} of {found.dtype}"
        raise wrong(f"{path}: data set {name!r}", has, f"{allowed} of {kind}")
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
            raise wrong(f"{place}: target_names", repr(text[:60]), allowed) from None
    if len(names) != genres.shape[1]:
        both = f"{genres.shape[1]} columns and {len(names)} names"
        raise wrong(place, both, "the same number of both")
    columns = [i for i, name in enumerate(names) if name not in DROPPED]
    if len(columns) != CLASSES:
        raise wrong(place, f"{len(columns)} genres besides {', '.join(DROPPED)}", CLASSES)
    return [names[i] for i in columns], columns


def _rows_by_id(path: Path, data: Path, ids: Sequence[str], reasons: list[str]) -> dict:
    """Split → rows, from a file of ids. Ids that are not in the data are added to ``reasons``."""
    splits = read_json(path)
    if not isinstance(splits, dict) or not set(SPLITS) <= set(splits):
        found = ", ".join(map(repr, splits)) if isinstance(splits, dict) else type(splits).__name__
        raise wrong(path, found, f"an object with {', '.join(SPLITS)}")
    splits = {name: splits[name] for name in SPLITS}
    for name, wanted in splits.items():
        if not isinstance(wanted, list):
            raise wrong(f"{path}: {name}", type(wanted).__name__, "a list of ids")
        for i, one in enumerate(wanted):
            if not isinstance(one, str):
                raise wrong(f"{path}: {name}[{i}]", repr(one), "an id as a string")
    _check_apart(str(path), splits, "film")
    rows: dict[str, int] = {}
    for row, one in enumerate(ids):
        if rows.setdefault(one, row) != row:
            raise wrong(f"{data}: imdb_ids", f"{one!r} in rows {rows[one]} and {row}", "once")
    for name, wanted in splits.items():
        reasons += [
            f"{path}: {name}: {one!r} is not in {data.name}" for one in wanted if one not in rows
        ]
    return {name: [rows[i] for i in wanted if i in rows] for name, wanted in splits.items()}


def _rows_by_attribute(path: Path, file, n: int) -> dict[str, list[int]]:
    """Split → rows, from the file's table of where each split of each data set is (as in Fuel)."""
    place, fields = f"{path}: attribute 'split'", ("split", "source", "start", "stop")
    table = np.atleast_1d(file.attrs["split"]) if "split" in file.attrs else np.empty(0)
    if not set(fields) <= set(table.dtype.names or ()):
        missing = f"no table of {', '.join(fields)}, and no {SPLIT} beside the file"
        raise wrong(place, missing, "one of them")
    found: dict[str, dict[str, list[int]]] = {split: {} for split in SPLITS}
    for entry in table:
        split, source = _text(entry["split"]), _text(entry["source"])
        available = "available" not in table.dtype.names or entry["available"]
        if split in found and available:
            rows = range(int(entry["start"]), int(entry["stop"]))
            if "indices" in table.dtype.names and entry["indices"]:
                rows = file[entry["indices"]][:].tolist()
            found[split][source] = list(rows)
    for split, sources in found.items():
        for source in ("images", "features", "genres"):
            if source not in sources:
                raise wrong(place, f"no {source!r} of {split!r}", "all splits")
            if sources[source] != sources["images"]:
                other = f"other rows of {source!r} than of 'images'"
                raise wrong(f"{place}: {split!r}", other, "the same")
        for row in sources["images"]:
            if not 0 <= row < n:
                raise wrong(f"{place}: {split!r}", f"row {row}", f"0 … {n - 1}")
    rows = {split: sources["images"] for split, sources in found.items()}
    _check_apart(place, rows, "row")
    return rows


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# --- folders of single films

PART = re.compile(r"(image|text|label)_(\d{6,})\.npy")


def _read_npy_folders(root: Path) -> Films:
    reasons: list[str] = []
    found: dict[str, list[Path]] = {}
    plots, genres = [], []
    for split in SPLITS:
        found[split] = []
        for number, there in _films_in(root / split).items():
            try:
                for part in ("image", "text", "label"):
                    if part not in there:
                        raise _LeftOut(f"{root / split / part}_{number}.npy: missing")
                plot, genre = _plot(there["text"]), _genres(there["label"])
            except _LeftOut as reason:
                reasons.append(str(reason))
                continue
            plots.append(plot)
            genres.append(genre)
            found[split].append(there["image"])
    sizes = _sizes(root, found, reasons)
    plots = torch.from_numpy(np.array(plots, np.float32))
    genres = torch.from_numpy(np.array(genres, np.int64))
    source = Posters(tuple(path for paths in found.values() for path in paths))
    return Films(source, plots, genres, tuple(posters.GENRES), sizes, len(reasons))


class _LeftOut(Exception):
    """The reason why a film is left out."""


def _films_in(folder: Path) -> dict[str, dict[str, Path]]:
    """Number of a film → part → file."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
        raise DataError(f"{folder}: {why}; allowed: {LAYOUTS}") from None
    films: dict[str, dict[str, Path]] = {}
    for path in paths:
        if match := PART.fullmatch(path.name):
            films.setdefault(match[2], {})[match[1]] = path
    return dict(sorted(films.items()))


def _numbers(path: Path, *shapes: tuple) -> np.ndarray:
    """An array of numbers of one of these shapes, in which None is any size of 1 or more."""
    try:
        found = read_npy(path)
    except DataError:
        raise
    except UNREADABLE as error:
        raise _LeftOut(f"{path}: cannot be read ({error})") from None
    fits = any(
        len(shape) == found.ndim
        and all(size and s in (size, None) for size, s in zip(found.shape, shape, strict=True))
        for shape in shapes
    )
    if not fits or found.dtype.kind not in "biuf":
        allowed = " or ".join(str(shape).replace("None", "words") for shape in shapes)
        has = f"shape {found.shape} of {found.dtype}"
        raise _LeftOut(f"{path}: found {has}; allowed: {allowed} of numbers")
    return found


def _plot(path: Path) -> np.ndarray:
    """The vector of a plot, or the mean of its words' vectors: (300,)."""
    mean = _as_floats(_numbers(path, (VECTOR,), (None, VECTOR)).reshape(-1, VECTOR)).mean(0)
    if not np.isfinite(mean).all():
        raise _LeftOut(f"{path}: {NOT_FINITE}")
    return mean


def _genres(path: Path) -> np.ndarray:
    genres = _numbers(path, (CLASSES,))
    for other in genres[~np.isin(genres, (0, 1))]:
        raise wrong(path, other, "0 and 1")
    return genres
