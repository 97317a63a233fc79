"""``mmimdb``: MM-IMDB, 23 genres of films by poster and plot, from the data set's own files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...backbones.paper.maxout import MaxoutMLP
from ...backbones.paper.vgg import VGG19
from ...config import SearchSettings, Settings
from ...runtime import seeded
from .. import files
from ..inputs import DataError, FileInputs, files_version, warn_skipped
from ..task import Split, Task, register_task
from .common import folder_of, modalities_of
from .samples import posters

HDF5, SPLIT = "multimodal_imdb.hdf5", "split.json"
#: The data set's names of the splits → ours.
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
CLASSES, VECTOR, POSTER = 23, 300, (3, 256, 160)
#: Of the 27 genres, those that the data set's authors and the paper leave aside.
DROPPED = ("News", "Adult", "Talk-Show", "Reality-TV")
LAYOUTS = (
    f"allowed: {HDF5}, with {SPLIT} beside it or the splits in its attribute 'split'; or folders "
    "train, dev and test with image_000000.npy, text_000000.npy, label_000000.npy, and so on"
)

#: ImageNet's mean and deviation of red, green and blue in 0 … 1.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: What the data set's authors subtracted from blue, green and red in 0 … 255.
SUBTRACTED = (103.939, 116.779, 123.68)
#: Most pixels by which a poster is shifted in training.
SHIFT = 8

PAPER = Settings(
    C=192, L=16, N=2, M=1, epochs=12, batch_size=96, dropout=0.1, max_lr=1e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip
SAMPLE = Settings(
    C=32, L=16, N=2, M=1, epochs=15, batch_size=32, dropout=0.1, max_lr=3e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip
SAMPLE_SEARCH = SearchSettings(epochs=3, selection="successive_halving")
#: How the sample's backbones are trained alone.
SAMPLE_ALONE = {
    "Image": Settings(epochs=12, batch_size=16, max_lr=7e-4, restart=12),
    "Text": Settings(epochs=40, batch_size=32, max_lr=5e-3, restart=40),
}
#: Pixels that become one in each direction, and width of VGG-19, for the sample.
SAMPLE_SHRINK, SAMPLE_WIDTH = 4, 8

DATA = files.DataSet(
    name="mmimdb",
    title="MM-IMDB: posters and plots of 25,959 films",
    license="its authors' terms",
    source="Arevalo et al., multimodal_imdb.hdf5 at lisi.fing.unal.edu.co/~jearevalo/mmimdb",
    folder="mmimdb",
    read=lambda: mmimdb(),
)
files.DATA_SETS.add(DATA.name, DATA)


@register_task("mmimdb")
def mmimdb(
    data_root: str | os.PathLike | None = None,
    sample: bool = False,
    weights: dict[str, str | os.PathLike] | None = None,
    raw: bool = False,
) -> Task:
    """Genres of films by poster and plot (Arevalo et al. 2017): 23 classes, any number of a film.

    The whole data set has 15,552 training, 2,608 validation and 7,799 test films.
    Inputs are ``Image: (3, 256, 160)``, see :class:`PosterReader`, and ``Text: (300,)``, the mean
    word2vec vector of a plot. The data set's *dev* is our validation. Films whose plot has no
    finite vector, that are not in the file, or of which a file is missing are left out with a
    warning.

    Args:
        data_root: folder with ``multimodal_imdb.hdf5``, and ``split.json`` if there is one, or with
            the folders ``train``, ``dev`` and ``test`` of single films; ``mmimdb`` in the folder
            of data sets where None.
        sample: posters are read at 64×40, for a small VGG-19 that trains on a laptop; and without
            ``data_root`` they are those of about 1,100 films that the kit draws in this format.
        weights: modality → file of weights for its backbone; random ones for what is not named.
        raw: posters as their numbers are in the file instead of normalised: the published
            checkpoint of their backbone was trained so.

    Raises:
        DataError: for files that are missing or are not what they should be.
        TaskError: for weights of a modality that does not exist.
    """
    root = folder_of("mmimdb", data_root, sample, posters.make)
    films = read_films(root)
    reader = PosterReader.from_source(films.posters, shrink=SAMPLE_SHRINK if sample else 1, raw=raw)
    inputs = {"Image": reader.inputs(), "Text": films.plots}
    starts, splits = torch.arange(len(films.plots)), {}
    for name, items in zip(SPLITS.values(), starts.split(list(films.sizes)), strict=True):
        splits[name] = Split(name, items[:, None].expand(-1, len(inputs)), films.genres[items])
    return Task(
        "mmimdb",
        None,
        CLASSES,
        "weighted_f1",
        modalities_of(_backbones(sample), inputs, weights, pooling="grid"),
        splits,
        SAMPLE if sample else PAPER,
        SAMPLE_SEARCH if sample else SearchSettings(selection="successive_halving"),
        {
            "root": str(root),
            "sample": sample,
            "genres": films.names,
            "left out": films.left_out,
            "raw": raw,
        },
        SAMPLE_ALONE if sample else {},
    )


def _backbones(sample: bool) -> dict[str, torch.nn.Module]:
    with seeded(0, "mmimdb backbones"):
        image = VGG19(CLASSES, width=SAMPLE_WIDTH) if sample else VGG19(CLASSES)
        return {"Image": image, "Text": MaxoutMLP(CLASSES)}


# --- posters


@dataclass(frozen=True)
class Hdf5Posters:
    """Posters as rows of a data set in an HDF5 file, which is opened anew for each of them.

    So it works in any process: an HDF5 file that is open must not be carried into another.
    """

    path: Path
    rows: tuple[int, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path,)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, item: int) -> str:
        return f"{self.path}: images[{self.rows[item]}]"

    def read(self, item: int) -> np.ndarray:
        """Raises OSError and what else a damaged HDF5 file leads to."""
        with files.package("h5py").File(self.path) as file:
            return file["images"][self.rows[item]]


@dataclass(frozen=True)
class NpyPosters:
    """Posters as files of their own."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, item: int) -> str:
        return str(self.paths[item])

    def read(self, item: int) -> np.ndarray:
        """Raises what :func:`read_npy` does."""
        return read_npy(self.paths[item])


@dataclass(frozen=True)
class PosterReader:
    """Item → poster ``(3, 256 / shrink, 160 / shrink)``, with ImageNet's mean and deviation.

    Numbers in the files are red, green and blue in 0 … 255; or, where some are negative, blue,
    green and red less 103.939, 116.779 and 123.68, which is what the data set's authors wrote.
    With a generator the poster is mirrored half of the time and shifted by up to 8 pixels along
    either axis, its border repeated. The augmentation is ours: the paper names none.

    Attributes:
        source: where posters are read from.
        subtracted: the numbers are those that the authors wrote.
        shrink: so many pixels in each direction become their mean.
        raw: the numbers as they are in the file.
    """

    source: Hdf5Posters | NpyPosters
    subtracted: bool
    shrink: int = 1
    raw: bool = False

    @classmethod
    def from_source(cls, source: Hdf5Posters | NpyPosters, **how) -> PosterReader:
        """The reader of a source, after a look at sixteen posters for what most of them are."""
        negative = []
        for item in range(0, len(source), -(-len(source) // 16)):
            with suppress(*UNREADABLE):  # who reads it again will say so
                negative.append(bool((source.read(item) < 0).any()))
        return cls(source, 2 * sum(negative) > len(negative), **how)

    def inputs(self) -> FileInputs:
        names = tuple(map(self.source.name, range(len(self.source))))
        how = getattr(self.source, "rows", ()), self.subtracted, self.shrink, self.raw
        return FileInputs(names, self, files_version(self.source.paths, *how))

    def __call__(self, item: int, random: torch.Generator | None = None) -> Tensor:
        place = self.source.name(item)
        try:
            found = self.source.read(item)
        except DataError:
            raise
        except UNREADABLE as error:
            raise DataError(f"{place}: cannot be read ({error})") from None
        if found.shape != POSTER or found.dtype.kind not in "iuf":
            raise DataError(
                f"{place}: found shape {found.shape} of {found.dtype}; allowed: {POSTER} of numbers"
            )
        less = SUBTRACTED if self.subtracted else (0, 0, 0)
        low = min(c.min() + s for c, s in zip(found, less, strict=True))
        high = max(c.max() + s for c, s in zip(found, less, strict=True))
        if not -1 < low <= high < 256:
            raise DataError(f"{place}: found numbers {low:.0f} … {high:.0f}; allowed: 0 … 255")
        poster = torch.from_numpy(found.astype(np.float32))
        if self.shrink > 1:
            poster = torch.nn.functional.avg_pool2d(poster, self.shrink)
        if not self.raw:
            poster = (poster + _by_colour(less)) / 255
            poster = poster.flip(0) if self.subtracted else poster
            poster = (poster - _by_colour(MEAN)) / _by_colour(DEVIATION)
        return poster if random is None else _augmented(poster, SHIFT // self.shrink, random)


def _by_colour(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _augmented(poster: Tensor, most: int, random: torch.Generator) -> Tensor:
    if torch.rand((), generator=random) < 0.5:
        poster = poster.flip(2)
    down, right = torch.randint(2 * most + 1, (2,), generator=random).tolist()
    height, width = poster.shape[1:]
    padded = torch.nn.functional.pad(poster, (most,) * 4, mode="replicate")
    return padded[:, down : down + height, right : right + width]


# --- the two layouts


@dataclass(frozen=True)
class Films:
    """What of a data set can be read, films in the order train, validation, test.

    Attributes:
        posters: where each film's poster is.
        plots: (n, 300); genres: (n, 23), 0 and 1; names: of the genres.
        sizes: number of films in each split.
        left_out: number of those that cannot be read.
    """

    posters: Hdf5Posters | NpyPosters
    plots: Tensor
    genres: Tensor
    names: tuple[str, ...]
    sizes: tuple[int, int, int]
    left_out: int


#: What damaged files lead to in h5py and NumPy.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError)


def read_films(root: Path) -> Films:
    """The films of a folder in either layout.

    Raises:
        DataError: for a folder with neither, and for files that are not what they should be.
    """
    if (root / HDF5).is_file():
        return _read_hdf5(root / HDF5)
    if any((root / split).is_dir() for split in SPLITS):
        return _read_npy_folders(root)
    found = "neither layout" if root.is_dir() else "no such folder"
    raise DataError(
        f"data of task 'mmimdb': {root}: found {found}; {LAYOUTS}. Set BMNAS_DATA to the folder "
        "that holds 'mmimdb', or give data_root; sample=True needs no data"
    )


def _films(
    root: Path,
    films: dict[str, list],
    source: Callable[[tuple], Hdf5Posters | NpyPosters],
    plots: np.ndarray,
    genres: np.ndarray,
    names: Sequence[str],
    reasons: Sequence[str],
) -> Films:
    """``films`` are split → rows or files, of which ``source`` makes where the posters are."""
    warn_skipped("films", reasons)
    for split, found in films.items():
        if not found:
            raise DataError(f"{root}: found no film of {split!r} to be read; allowed: one up")
    return Films(
        source(tuple(one for found in films.values() for one in found)),
        torch.from_numpy(plots),
        torch.from_numpy(genres.astype(np.int64)),
        tuple(names),
        tuple(map(len, films.values())),
        len(reasons),
    )


def _as_floats(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit is infinite, and left out
        return vectors.astype(np.float32)


def _check_apart(place: str, splits: dict[str, Sequence], what: str) -> None:
    """Refuse what is in two splits, or twice in one."""
    seen = {}
    for split, keys in splits.items():
        for key in keys:
            if other := seen.get(key):
                where = f"twice in {split!r}" if other == split else f"in {other!r} and {split!r}"
                raise DataError(f"{place}: found {what} {key!r} {where}; allowed: once in all")
            seen[key] = split


# --- the HDF5 file


def _read_hdf5(path: Path) -> Films:
    with _opened(path) as file:
        shapes = {"images": POSTER, "features": (VECTOR,), "genres": None, "imdb_ids": ()}
        sets = {name: _dataset(path, file, name, shape) for name, shape in shapes.items()}
        sizes = {name: len(found) for name, found in sets.items()}
        for name, size in sizes.items():
            if size != sizes["images"]:
                raise DataError(
                    f"{path}: found {sizes['images']:,} rows of 'images' and {size:,} of {name!r}; "
                    "allowed: as many of each"
                )
        names, columns = _genre_columns(path, sets["genres"])
        genres, plots = sets["genres"][:][:, columns], _as_floats(sets["features"][:])
        ids = [_text(i) for i in sets["imdb_ids"][:]]
        reasons: list[str] = []
        if (path.parent / SPLIT).is_file():
            rows = _rows_by_id(path.parent / SPLIT, path, ids, reasons)
        else:
            rows = _rows_by_attribute(path, file, len(ids))
    if not np.isin(genres, (0, 1)).all():
        row, column = np.argwhere(~np.isin(genres, (0, 1)))[0]
        raise DataError(
            f"{path}: genres[{row}]: found {genres[row, column]} for {names[column]}; "
            "allowed: 0 and 1"
        )
    finite = np.isfinite(plots).all(1)
    for split in rows.values():
        reasons += [
            f"{path}: features[{row}] (film {ids[row]}): found NaN or infinity; allowed: finite "
            "numbers"
            for row in split
            if not finite[row]
        ]
    rows = {split: [row for row in found if finite[row]] for split, found in rows.items()}
    order = [row for found in rows.values() for row in found]
    source = partial(Hdf5Posters, path)
    return _films(path, rows, source, plots[order], genres[order], names, reasons)


@contextmanager
def _opened(path: Path) -> Iterator:
    """The file, open; what h5py raises on damaged contents becomes a DataError."""
    h5py = files.package("h5py")
    try:
        with h5py.File(path) as file:
            yield file
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path}: found no whole HDF5 file ({error}); {LAYOUTS}") from None


def _dataset(path: Path, file, name: str, shape: tuple[int, ...] | None):
    """A data set of rows of this shape; None for any number of columns."""
    found = file.get(name)
    allowed = "(n, genres)" if shape is None else f"({', '.join(map(str, ('n', *shape)))})"
    if not isinstance(found, files.package("h5py").Dataset):
        there = ", ".join(sorted(file)) or "none"
        raise DataError(
            f"{path}: found no data set {name!r} among {there}; allowed: one of shape {allowed}"
        )
    size = found.shape or ()
    fits = len(size) == 2 if shape is None else len(size) and size[1:] == shape
    if not fits or (name != "imdb_ids" and found.dtype.kind not in "iuf"):
        raise DataError(
            f"{path}: data set {name!r}: found shape {found.shape} of {found.dtype}; allowed: "
            f"{allowed} of {'names' if name == 'imdb_ids' else 'numbers'}"
        )
    return found


def _genre_columns(path: Path, genres) -> tuple[list[str], list[int]]:
    """Names and columns of the 23 genres."""
    place, names = f"{path}: data set 'genres'", list(posters.GENRES)
    if "target_names" in genres.attrs:
        text = _text(genres.attrs["target_names"])
        try:
            names = [str(name) for name in json.loads(text)]
        except (ValueError, TypeError):
            raise DataError(
                f"{place}: target_names: found {text[:60]!r}; allowed: a JSON list of names"
            ) from None
    if len(names) != genres.shape[1]:
        raise DataError(
            f"{place}: found {genres.shape[1]} columns and {len(names)} names; allowed: as many"
        )
    columns = [i for i, name in enumerate(names) if name not in DROPPED]
    if len(columns) != CLASSES:
        raise DataError(
            f"{place}: found {len(columns)} genres beside {', '.join(DROPPED)}; allowed: {CLASSES}"
        )
    return [names[i] for i in columns], columns


def _rows_by_id(path: Path, data: Path, ids: Sequence[str], reasons: list[str]) -> dict:
    """Split → rows, from a file of ids; adds to ``reasons`` what is not in the data."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: found no JSON ({error})") from None
    if not isinstance(splits, dict) or not set(SPLITS) <= set(splits):
        found = ", ".join(map(repr, splits)) if isinstance(splits, dict) else type(splits).__name__
        raise DataError(f"{path}: found {found}; allowed: an object with {', '.join(SPLITS)}")
    splits = {name: splits[name] for name in SPLITS}
    for name, wanted in splits.items():
        if not isinstance(wanted, list):
            found = type(wanted).__name__
            raise DataError(f"{path}: {name}: found {found}; allowed: a list of ids")
        for i, one in enumerate(wanted):
            if not isinstance(one, str):
                raise DataError(f"{path}: {name}[{i}]: found {one!r}; allowed: an id as a string")
    _check_apart(str(path), splits, "film")
    rows: dict[str, int] = {}
    for row, one in enumerate(ids):
        if rows.setdefault(one, row) != row:
            raise DataError(
                f"{data}: imdb_ids: found {one!r} in rows {rows[one]} and {row}; allowed: once"
            )
    for name, wanted in splits.items():
        reasons += [
            f"{path}: {name}: {one!r} is not in {data.name}" for one in wanted if one not in rows
        ]
    return {name: [rows[i] for i in wanted if i in rows] for name, wanted in splits.items()}


def _rows_by_attribute(path: Path, file, n: int) -> dict[str, list[int]]:
    """Split → rows, from the file's own table of where each split of each data set lies (Fuel)."""
    place, fields = f"{path}: attribute 'split'", ("split", "source", "start", "stop")
    table = np.atleast_1d(file.attrs["split"]) if "split" in file.attrs else np.empty(0)
    if not set(fields) <= set(table.dtype.names or ()):
        raise DataError(
            f"{place}: found no table of {', '.join(fields)}, and no {SPLIT} beside the file; "
            "allowed: either"
        )
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
                raise DataError(f"{place}: found no {source!r} of {split!r}; allowed: all splits")
            if sources[source] != sources["images"]:
                raise DataError(
                    f"{place}: {split!r}: found other rows of {source!r} than of 'images'; "
                    "allowed: the same"
                )
        for row in sources["images"]:
            if not 0 <= row < n:
                raise DataError(f"{place}: {split!r}: found row {row}; allowed: 0 … {n - 1}")
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
                        name = f"{part}_{number}.npy"
                        raise _LeftOut(f"{root / split / name}: missing")
                plot, genre = _plot(there["text"]), _genres(there["label"])
            except _LeftOut as reason:
                reasons.append(str(reason))
                continue
            plots.append(plot)
            genres.append(genre)
            found[split].append(there["image"])
    plots = np.array(plots, np.float32).reshape(-1, VECTOR)
    genres = np.array(genres, np.int64).reshape(-1, CLASSES)
    return _films(root, found, NpyPosters, plots, genres, posters.GENRES, reasons)


class _LeftOut(Exception):
    """Why a film is left out."""


def _films_in(folder: Path) -> dict[str, dict[str, Path]]:
    """Number → part → file."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); {LAYOUTS}") from None
    films: dict[str, dict[str, Path]] = {}
    for path in paths:
        if match := PART.fullmatch(path.name):
            films.setdefault(match[2], {})[match[1]] = path
    return dict(sorted(films.items()))


def read_npy(path: Path) -> np.ndarray:
    """An array from a .npy file.

    Raises:
        DataError: for one of Python objects, which to read would run code.
        OSError, ValueError, EOFError, MemoryError: for a file that is damaged.
    """
    with path.open("rb") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            if "pickle" not in str(error):
                raise
    raise DataError(f"{path}: found Python objects; allowed: an array of numbers")


def _numbers(path: Path, *shapes: tuple) -> np.ndarray:
    """Finite numbers of one of these shapes, in which None is any size."""
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
        raise _LeftOut(
            f"{path}: found shape {found.shape} of {found.dtype}; allowed: {allowed} of numbers"
        )
    return found


def _plot(path: Path) -> np.ndarray:
    """The vector of a plot, or the mean of its words' vectors: (300,)."""
    mean = _as_floats(_numbers(path, (VECTOR,), (None, VECTOR)).reshape(-1, VECTOR)).mean(0)
    if not np.isfinite(mean).all():
        raise _LeftOut(f"{path}: found NaN or infinity; allowed: finite numbers")
    return mean


def _genres(path: Path) -> np.ndarray:
    genres = _numbers(path, (CLASSES,))
    wrong = genres[~np.isin(genres, (0, 1))]
    if len(wrong):
        raise DataError(f"{path}: found {wrong[0]}; allowed: 0 and 1")
    return genres
