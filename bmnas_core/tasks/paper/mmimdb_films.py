"""MM-IMDB's films: which there are, posters, plots and genres, from any layout of the files."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import check_type, in_line, quoted
from ...progress import progress_bar
from ..files import DAMAGED, open_hdf5, package, refuse_elsewhere, refuse_packed
from ..inputs import DataError, warn_skipped
from .common import read_json
from .mmimdb_posters import SHAPE, Posters, UnreadableError, read_npy
from .samples import posters

HDF5, SPLIT = "multimodal_imdb.hdf5", "split.json"
#: The data set's names of the splits → ours.
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
CLASSES, VECTOR = 23, 300
#: Of the 27 genres, those that the data set's authors and the paper do not use.
DROPPED = ("News", "Adult", "Talk-Show", "Reality-TV")
#: Folder of the raw archive, with a JSON file and a poster for each film.
RAW = "dataset"
LAYOUTS = (
    f"{HDF5}; folders train, dev and test of image_000000.npy and so on; or "
    f"{RAW}/<id>.json and <id>.jpeg with {SPLIT}"
)
#: Words of the plots that are counted, the most frequent ones, if no vectors are given.
VOCABULARY = 3000
#: Most bytes of a film's JSON file.
MOST_BYTES = 4 << 20
NOT_FINITE = "found NaN or infinity; allowed: finite numbers"


@dataclass(frozen=True)
class Films:
    """The films that can be read, in the order train, validation, test."""

    posters: Posters
    plots: Tensor  # (n, 300), mean word vectors; of the raw archive as many numbers as there are
    genres: Tensor  # (n, 23) of 0 and 1
    names: tuple[str, ...]  # of the genres
    sizes: tuple[int, int, int]  # number of films in each split
    left_out: int  # number of films that cannot be read


def read_films(root: Path, texts: str | os.PathLike | None = None) -> Films:
    """The films of a folder; ``texts`` are vectors for the plots of the raw archive.

    Raises DataError for a folder in no known layout, and for damaged files.
    """
    path = root / HDF5
    raw = not path.is_file() and (root / RAW).is_dir() and (root / SPLIT).is_file()
    if texts is not None and not raw:
        raise DataError("texts", quoted(str(texts)), f"None, but with the raw archive, {RAW}/")
    if path.is_file():
        try:
            return _read_hdf5(path)
        except DataError:
            raise
        except DAMAGED as error:
            raise DataError(path, f"no whole HDF5 file ({in_line(error)})", "a whole one") from None
    if raw:
        return _read_raw(root, texts)
    if any((root / split).is_dir() for split in SPLITS):
        return _read_npy_folders(root)
    found = "no known layout" if root.is_dir() else "no such folder"
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
    if not isinstance(plots, Tensor):
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
    with open_hdf5(path) as file:
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
    links, own = file.id.links, name.encode()
    hard = links.exists(own) and links.get_info(own).type == package("h5py").h5l.TYPE_HARD
    found = file[name] if hard else None  # what another link leads to may be in another file
    allowed = "(n, genres)" if shape is None else f"({', '.join(map(str, ('n', *shape)))})"
    if not isinstance(found, package("h5py").Dataset):
        there = ", ".join(sorted(file)) or "none"
        raise DataError(path, f"no data set {name!r} among {there}", f"one of shape {allowed}")
    size, kind = found.shape or (), "names" if name == "imdb_ids" else "numbers"
    fits = len(size) == 2 if shape is None else len(size) and size[1:] == shape
    if not fits or (kind == "numbers" and found.dtype.kind not in "iuf"):
        has = f"shape {found.shape} of {found.dtype}"
        raise DataError(f"{path}: data set {name!r}", has, f"{allowed} of {kind}")
    refuse_elsewhere(path, found)
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
    splits = _ids_by_split(path)
    for name, wanted in splits.items():
        unknown = [one for one in wanted if one not in rows]
        reasons += [f"{path}: {name}: {one!r} is not in {data.name}" for one in unknown]
    return {name: [rows[i] for i in wanted if i in rows] for name, wanted in splits.items()}


def _ids_by_split(path: Path) -> dict[str, list[str]]:
    """Split → ids of its films. Raises DataError for an id that is in two splits."""
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
    _check_apart(str(path), splits, "film")
    return splits


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
            rows = _span(f"{place}: {split!r}", entry, n)
            if "indices" in table.dtype.names and entry["indices"]:
                rows = _indices(path, file, entry["indices"])
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


def _span(place: str, entry, n: int) -> range:
    """The rows of a split from its first to its last, which must be among ``n``."""
    start, stop = int(entry["start"]), int(entry["stop"])
    if not 0 <= start <= stop <= n:
        found = (
            f"rows {start} to {stop - 1}" if stop < start else f"row {min(start, 0) or stop - 1}"
        )
        raise DataError(place, found, f"0 … {n - 1}")
    return range(start, stop)


def _indices(path: Path, file, reference) -> list[int]:
    """The rows that a table in the file names. A reference stays in the file; a name may not."""
    h5py = package("h5py")
    found = file[reference] if isinstance(reference, h5py.Reference) else None
    if not isinstance(found, h5py.Dataset) or found.ndim != 1 or found.dtype.kind not in "iu":
        place = f"{path}: attribute 'split': indices"
        raise DataError(place, quoted(reference), "a reference to a table of rows")
    refuse_elsewhere(path, found)
    return found[:].tolist()


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


# --- the raw archive


def _read_raw(root: Path, texts: str | os.PathLike | None) -> Films:
    splits = _ids_by_split(root / SPLIT)
    vectors = _read_vectors(Path(texts).expanduser()) if texts is not None else None
    kept: dict[str, list[str]] = {split: [] for split in SPLITS}
    pictures, plots, genres, reasons = [], [], [], []
    for split, ids in splits.items():
        for one in progress_bar(ids, f"films of {split}"):
            try:
                picture, plot, labels = _raw_film(root / RAW, one)
                if vectors is not None:
                    if one not in vectors:
                        raise UnreadableError(f"{texts}: found no vector of film {one!r}")
                    plot = vectors[one]
            except UnreadableError as reason:
                reasons.append(str(reason))
                continue
            kept[split].append(one)
            pictures.append(picture)
            plots.append(plot)
            genres.append(labels)
    if vectors is None and kept["train"]:
        plots = _bag_of_words(plots, len(kept["train"]), root / RAW)
    return _films(root, kept, Posters(tuple(pictures)), plots, genres, posters.GENRES, reasons)


def _raw_film(folder: Path, one: str) -> tuple[Path, str, list[int]]:
    """Poster, plot and genres of a film. Raises UnreadableError for one that lacks any of them."""
    path = folder / f"{one}.json"
    if not re.fullmatch(r"\w+", one):
        raise DataError(path.parent.parent / SPLIT, f"id {quoted(one)}", "letters and digits")
    try:
        about = read_json(path, MOST_BYTES)
    except DataError as error:
        raise UnreadableError(str(error)) from None
    about = about if isinstance(about, dict) else {}
    plot, genres = about.get("plot"), about.get("genres")
    plot = max(plot, key=len, default="") if _is_texts(plot) else plot
    if not isinstance(plot, str) or not plot.strip():
        raise UnreadableError(f"{path}: plot", quoted(plot), "text, or a list of texts")
    if not _is_texts(genres):
        raise UnreadableError(f"{path}: genres", quoted(genres), "a list of names")
    found = [folder / f"{one}{ending}" for ending in (".jpeg", ".jpg")]
    picture = next((path for path in found if path.is_file()), None)
    if picture is None:
        raise UnreadableError(f"{found[0]}: missing")
    labels = [int(name in genres) for name in posters.GENRES]
    if not any(labels):
        raise UnreadableError(f"{path}: genres", quoted(genres), f"one at least of the {CLASSES}")
    return picture, plot, labels


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _bag_of_words(plots: Sequence[str], train: int, place: Path) -> Tensor:
    """Weighted counts of the words (tf-idf) that are the most frequent in the training plots.

    Raises DataError, which names the place, for training plots without any.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(max_features=VOCABULARY, stop_words="english", dtype=np.float32)
    try:
        words.fit(plots[:train])
    except ValueError:  # its vocabulary is empty
        raise DataError(place, "no word in the training plots", "at least one") from None
    return torch.from_numpy(words.transform(plots).toarray())


def _read_vectors(path: Path) -> dict[str, np.ndarray]:
    """Film → vector, from an .npz of ``ids`` (n,) and ``vectors`` (n, size)."""
    allowed = "an .npz of ids (n,) and vectors (n, size)"
    try:
        refuse_packed(path)
        with np.load(path, allow_pickle=False) as file:
            ids, vectors = file["ids"], file["vectors"]
    except DAMAGED as error:
        raise DataError(path, f"no vectors ({in_line(error)})", allowed) from None
    if ids.ndim != 1 or vectors.ndim != 2 or len(ids) != len(vectors) or not vectors.size:
        found = f"ids of shape {ids.shape} and vectors of shape {vectors.shape}"
        raise DataError(path, found, allowed)
    if vectors.dtype.kind not in "iuf" or not np.isfinite(vectors := _as_floats(vectors)).all():
        raise DataError(f"{path}: vectors", "others than finite numbers", "finite numbers")
    if ids.dtype.kind not in "US":
        found = f"numbers of type {ids.dtype}, which have lost their zeros"
        raise DataError(f"{path}: ids", found, "text, such as '0017454'")
    names = [_text(one) for one in ids.tolist()]
    if twice := next((one for one, n in Counter(names).items() if n > 1), None):
        raise DataError(f"{path}: ids", f"{quoted(twice)} twice", "each film once")
    return dict(zip(names, vectors, strict=True))
