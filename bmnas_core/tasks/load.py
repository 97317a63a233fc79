"""Features, labels and splits as people have them on disk, for :meth:`Task.from_features`."""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .. import reading
from ..errors import in_line, quoted
from ..reading import read_csv, read_parquet, require_file
from .files import DAMAGED, check_claims, open_hdf5, refuse_elsewhere, refuse_packed
from .inputs import DataError, DataWarning

#: What a key, file or column without features may be called → the argument that it becomes.
SPECIAL = {name + s: name + "s" for name in ("label", "split", "group") for s in ("", "s")}

#: A key, or the path of a file, and its array.
Entries = Iterator[tuple[str, object]]


def load_features(path: str | os.PathLike) -> dict[str, object]:
    """Arrays on disk as arguments of :meth:`Task.from_features`: ``features``, ``labels``, ….

    ``path`` is a folder of ``.npy`` files, an ``.npz``, an HDF5 or a safetensors file, or a folder
    of such files; beside them a ``.csv``, ``.tsv`` or ``.parquet`` with columns ``label``,
    ``split`` and ``group``, of which the last two may be missing; a DataWarning names other
    columns. These may be arrays, too. Each other array is a feature: ``Video/early`` belongs to the
    modality Video, so does ``Video_2``, and ``Text`` is the one feature of its modality. Columns
    ``label_sad``, ``label_old`` of 0 and 1 make a multi-hot matrix.

    ``.npy`` files, safetensors and plain datasets of HDF5 are mapped, not read, so that they may be
    larger than memory. Nothing is unpickled. Raises DataError for a file that is missing, damaged
    or of another kind, and for two arrays of one name.
    """
    try:
        path = Path(path)
    except TypeError:
        raise DataError("path", quoted(path), "the path of a folder or file") from None
    files = sorted(path.rglob("*"), key=_numbers_in_order) if path.is_dir() else [path]
    if not path.exists():
        raise DataError(path, "nothing there", "a folder or file of arrays")
    if not path.is_dir() and path.suffix.lower() not in READERS:
        raise DataError(path, f"a file {path.suffix or 'without ending'}", ", ".join(READERS))
    found: dict[str, object] = {}
    features: dict[str, dict[str, object]] = {}
    for file in files:
        read = READERS.get(file.suffix.lower())
        if read is None or file.is_dir() or file.name.startswith("."):
            continue
        if not file.is_file():
            raise DataError(file, "no file, but a pipe or a link to nothing", "a file")
        own = file.relative_to(path).with_suffix("").as_posix() if file != path else file.stem
        for key, values in read(file, own):
            argument = SPECIAL.get(key.lower(), "class_names" if key == "class_names" else None)
            modality, name = _named(key)
            place = found if argument else features.setdefault(modality, {})
            if (argument or name) in place:
                raise DataError(f"{file}: {key}", "a second array of this name", "each once")
            place[argument or name] = values
    if not features:
        raise DataError(path, "no array of features", f"files {', '.join(READERS)}")
    return {"features": features, **found}


def _named(key: str) -> tuple[str, str]:
    """Modality and feature of a key: ``Video/early``, ``Video_2`` or ``Text``."""
    if "/" in key:
        return key.split("/")[0], key.replace("/", "_")
    numbered = re.fullmatch(r"(.+)_\d+", key)
    return (numbered[1], key) if numbered else (key, f"{key}_1")


def _numbers_in_order(file: Path) -> list[tuple[int, int | str]]:
    """Sorts ``Video_2`` before ``Video_10``."""
    parts = re.split(r"(\d{1,18})", str(file))
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def _npy(file: Path, own: str) -> Entries:
    try:
        require_file(file)
        yield own, np.lib.format.open_memmap(file, mode="r")
    except DAMAGED as error:
        why = in_line(error)
        raise DataError(f"{file}: found no array of numbers or texts ({why})") from None


def _npz(file: Path, own: str) -> Entries:
    try:
        refuse_packed(file)
        with np.load(file, allow_pickle=False) as archive:
            for key in sorted(archive.files, key=lambda key: _numbers_in_order(Path(key))):
                unnamed = re.fullmatch(r"arr_(\d{1,9})", key)  # by np.savez of arrays without names
                values = archive[key]
                if not isinstance(values, np.ndarray):
                    raise DataError(f"{file}: {quoted(key)}", "no array", "arrays alone")
                yield f"{own}_{int(unnamed[1]) + 1}" if unnamed else key, values
    except DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: found no archive of arrays ({in_line(error)})") from None


def _safetensors(file: Path, own: str) -> Entries:
    from safetensors import SafetensorError, safe_open

    try:
        require_file(file)
        with safe_open(file, framework="pt") as opened:
            for key in sorted(opened.keys(), key=lambda key: _numbers_in_order(Path(key))):
                yield key, opened.get_tensor(key)
    except (SafetensorError, *DAMAGED) as error:
        raise DataError(f"{file}: found no tensors ({in_line(error)})") from None


def _hdf5(file: Path, own: str) -> Entries:
    try:
        import h5py
    except ImportError:
        raise DataError(file, "no package h5py", "pip install 'bmnas[tasks]'") from None
    try:
        with open_hdf5(file) as opened:
            keys: list[str] = []
            opened.visititems(
                lambda key, node: keys.append(key) if isinstance(node, h5py.Dataset) else None
            )
            for key in keys:
                refuse_elsewhere(file, opened[key])
            claimed = sum(opened[key].nbytes for key in keys)
            stored = sum(opened[key].id.get_storage_size() for key in keys)
            check_claims(claimed, max(stored, 1))
            for key in sorted(keys, key=lambda key: _numbers_in_order(Path(key))):
                data = opened[key]
                start = data.id.get_offset() if data.dtype.kind in "biuf" and data.size else None
                if h5py.check_string_dtype(data.dtype):
                    yield key, _texts(data, file.stat().st_size)
                elif start is None:  # compressed, or in chunks
                    yield key, np.asarray(data[()])
                else:
                    yield key, np.memmap(file, data.dtype, "r", start, data.shape)
    except DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: found no HDF5 that can be read ({in_line(error)})") from None


def _texts(data, size: int) -> np.ndarray:
    """A data set of texts, in a file of ``size`` bytes, in which all may be one and the same.

    So they are read in parts, none of which can be longer than a quarter of MOST_BYTES.
    """
    if not data.ndim or not len(data):
        return np.asarray(data.asstr()[()])
    rows, parts, length = max(1, reading.MOST_BYTES // (4 * size) * len(data) // data.size), [], 0
    for start in range(0, len(data), rows):
        parts.append(data.asstr()[start : start + rows])
        length += sum(map(len, parts[-1].flat))
        if length > reading.MOST_BYTES:
            raise OSError(f"more than {reading.MOST_BYTES:,} characters")
    return np.concatenate(parts)


def _table(file: Path, own: str) -> Entries:
    import pandas as pd

    try:
        if file.suffix.lower() == ".parquet":
            table = read_parquet(file).to_pandas()
            table = table.drop(columns=[c for c in table if str(c).startswith("__index_level_")])
        else:
            table = read_csv(file, "\t" if file.suffix.lower() == ".tsv" else ",")
    except (ValueError, OSError, ImportError) as error:  # pandas' and pyarrow's are ValueErrors
        raise DataError(f"{file}: found no table ({in_line(error)})") from None
    names = pd.Index(map(str, table.columns))
    if len(twice := names[names.duplicated()]):
        raise DataError(f"{file}: columns", f"{quoted(twice[0])} twice", "each once")
    columns = {str(name): table[name] for name in table.columns}
    known = {name: values for name, values in columns.items() if name.lower() in SPECIAL}
    several = {k: v for k, v in columns.items() if k.lower().startswith("label_")}
    if not known and not several:
        allowed = "one at least of label, split, group, or label_… of 0 and 1"
        raise DataError(file, f"columns {quoted(list(columns))}", allowed)
    others = [name for name in columns if name not in known and name not in several]
    others = [name for name in others if not name.startswith("Unnamed: ")]  # pandas' row numbers
    if others:
        text = f"{file}: columns {quoted(others)} are not used; label, split and group would be"
        warnings.warn(text, DataWarning, stacklevel=2)
    for name, values in known.items():
        yield name, values.to_numpy()
    if several:
        yield "labels", np.stack([values.to_numpy() for values in several.values()], axis=1)
        yield "class_names", tuple(name[len("label_") :] for name in several)


READERS = {
    ".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".h5": _hdf5, ".hdf5": _hdf5,
    ".csv": _table, ".tsv": _table, ".parquet": _table,
}  # fmt: skip
