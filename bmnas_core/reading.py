"""Files read with a bound: whoever wrote them, none hangs its reader or fills the memory."""

import errno
import json
import os
import stat

from .errors import BmnasError, in_line

#: Most bytes of a file that is read as a whole, unless its kind allows fewer.
MOST_BYTES = 256 << 20


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


def text_of(path: str | os.PathLike, most: int | None = None) -> str:
    """The text of a file in UTF-8. Raises OSError as :func:`read_bytes`, or UnicodeDecodeError."""
    return read_bytes(path, most).decode()


def read_parquet(path: str | os.PathLike):
    """A Parquet file as a pyarrow table.

    It is read a few rows at a time, since a small file can hold a long text a million times. Raises
    OSError or ValueError for one that is damaged, is none, or holds more than MOST_BYTES.
    """
    import pyarrow
    from pyarrow import parquet

    require_file(path)
    batches, size = [], 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            batches.append(batch)
            size += batch.nbytes
            if size > MOST_BYTES:
                raise OSError(f"more than {MOST_BYTES:,} bytes of values")
        return pyarrow.Table.from_batches(batches, file.schema_arrow).combine_chunks()


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
        if len(made) < len(pairs):
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            repeated.append((made, twice))
        return made

    try:
        data = json.loads(text, object_pairs_hook=fields)
        where = [_place_in(data, made) or "" for made, _ in repeated]
    except (ValueError, RecursionError) as error:
        raise refused(f"{place}: found no JSON ({in_line(error)})") from None
    for within, (_, name) in zip(where, repeated, strict=True):
        raise refused(place, f"field {within}{name} twice", "each field once")
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
