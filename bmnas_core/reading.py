"""Files read with a bound: whoever wrote them, none hangs its reader or fills the memory."""

import errno
import io
import json
import os
import stat
import warnings

from .errors import BmnasError, in_line, shortened

#: Most bytes of a file that is read as a whole, unless its kind allows fewer.
MOST_BYTES = 256 << 20
#: Most rows and columns of a table.
MOST_ROWS, MOST_COLUMNS = 10_000_000, 10_000


def read_bytes(path: str | os.PathLike, most: int | None = None) -> bytes:
    """The bytes of a file.

    Raises OSError for one that cannot be read, is none, as a device, or is longer than ``most``, by
    default MOST_BYTES.
    """
    most = most or MOST_BYTES
    require_file(path)
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"more than {most:,} bytes")
    return content


def read_start(path: str | os.PathLike, size: int) -> bytes:
    """The first ``size`` bytes of a file, or all. Raises OSError as :func:`read_bytes`."""
    require_file(path)
    with open(path, "rb") as file:
        return file.read(size)


def text_of(path: str | os.PathLike, most: int | None = None) -> str:
    """The text of a file in UTF-8, without the mark that Windows may put first.

    Raises OSError as :func:`read_bytes`, or UnicodeDecodeError.
    """
    return read_bytes(path, most).decode("utf-8-sig")


def read_parquet(path: str | os.PathLike):
    """A Parquet file as a pyarrow table.

    It is read a few rows at a time, since a small file can hold a long text a million times. What
    pandas noted in it is left out. Raises OSError or ValueError for one that is damaged, is none,
    or holds more than MOST_BYTES or MOST_ROWS.
    """
    import pyarrow
    from pyarrow import parquet

    require_file(path)
    batches, size = [], 0
    with parquet.ParquetFile(path) as file:
        about, groups = file.metadata, range(file.metadata.num_row_groups)
        if about.num_rows > MOST_ROWS:
            raise OSError(f"{about.num_rows:,} rows, more than {MOST_ROWS:,}")
        claimed = [about.row_group(i).total_byte_size for i in groups]
        if min(claimed, default=0) < 0 or sum(claimed) > MOST_BYTES:
            raise OSError(f"more than {MOST_BYTES:,} bytes of values")
        # No cell is longer than all that is stored.
        rows = MOST_BYTES // (max(claimed, default=0) + 1)
        for batch in file.iter_batches(batch_size=min(max(rows, 1), 1024)):
            batches.append(batch)
            size += batch.nbytes
            if size > MOST_BYTES:
                raise OSError(f"more than {MOST_BYTES:,} bytes of values")
        whole = pyarrow.Table.from_batches(batches, file.schema_arrow).combine_chunks()
    notes = whole.schema.metadata or {}
    return whole.replace_schema_metadata({k: v for k, v in notes.items() if k != b"pandas"})


def read_csv(path: str | os.PathLike, separator: str = ","):
    """A CSV file with a head as a pandas DataFrame.

    Raises OSError or ValueError for one that is damaged, longer than MOST_BYTES, has more than
    MOST_COLUMNS, or rows of more cells than its head has.
    """
    import pandas as pd

    content = read_bytes(path)
    columns = 1 + max(line.count(separator.encode()) for line in content.split(b"\n"))
    if columns > MOST_COLUMNS:
        raise ValueError(f"{columns:,} columns, more than {MOST_COLUMNS:,}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(io.BytesIO(content), sep=separator, index_col=False)
        except pd.errors.ParserWarning:
            raise ValueError("rows of more cells than the head has") from None


def require_file(path: str | os.PathLike) -> None:
    """Raise OSError for a folder, and for a device, a pipe or a socket: reading might never end."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError("no file, but a device, a pipe or a socket")


def parse_json(text: str, refused: type[BmnasError], place: object) -> object:
    """JSON text as Python values.

    Raises ``refused``, which names the place, for text that is not JSON or is nested too deeply,
    and for a field that is there twice, of which a reader would see only the last.
    """
    repeated: list[tuple[dict, str]] = []

    def fields(pairs: list[tuple[str, object]]) -> dict:
        made, seen = dict(pairs), set()
        if len(made) < len(pairs) and not repeated:  # the first one is told
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            repeated.append((made, twice))
        return made

    try:
        data = json.loads(text, object_pairs_hook=fields)
        where = [_place_in(data, made) or "" for made, _ in repeated]
    except (ValueError, RecursionError) as error:
        raise refused(f"{place}: found no JSON ({in_line(error)})") from None
    for within, (_, name) in zip(where, repeated, strict=True):
        raise refused(place, f"field {shortened(f'{within}{name}', 90)} twice", "each field once")
    return data


def _place_in(data: object, wanted: dict) -> str | None:
    """Where ``wanted`` is in parsed JSON, such as ``cells[1].``; None if it is not there."""
    if data is wanted:
        return ""
    if isinstance(data, dict):
        parts = [(f"{name}.", item) for name, item in data.items()]
    else:
        parts = [(f"[{i}].", item) for i, item in enumerate(data)] if isinstance(data, list) else []
    for name, item in parts:
        if isinstance(item, (dict, list)) and (found := _place_in(item, wanted)) is not None:
            return f"{name}{found}".replace(".[", "[")
    return None
