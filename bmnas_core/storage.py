"""Files that are whole or not there: written beside their place, then renamed."""

import hashlib
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path

from .errors import BmnasError, FileError, in_line, printable, quoted, shortened
from .locks import locked, share_work
from .reading import read_csv

#: After this many seconds without a write, a part counts as abandoned.
ABANDONED = 24 * 3600
#: How far rounding may take a score beyond its metric's limits.
ROUNDING = 1e-6
#: How long to wait, in seconds, for another program that has a file open on Windows.
PATIENCE = 5.0
_PART = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-\d+\.part")
_WRITABLE = "the path of a file that can be written"


@contextmanager
def atomic_write(path: str | os.PathLike):
    """Yield a path beside ``path`` to write to; it replaces ``path`` only if all went well.

    The folder of ``path`` is made if need be. A link stays, and the file that it leads to is
    replaced; a file keeps its mode. A stream, such as /dev/stdout, a terminal or a pipe, is not
    replaced: it gets the bytes once all are there. Parts that killed processes left in the folder
    are removed.

    Raises :class:`FileError` for a path that cannot be written to, and if the writing fails.
    """
    target, stream = _target(path)
    try:
        if stream:
            number, name = tempfile.mkstemp(suffix=".part")
            os.close(number)
            beside = Path(name)
        else:
            beside = part_beside(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            sweep_parts(target.parent)
            beside.touch()
        mode = target.stat().st_mode if target.exists() else beside.stat().st_mode
    except (OSError, ValueError) as error:
        raise FileError("path", f"{str(path)!r} ({in_line(error)})", _WRITABLE) from None
    try:
        yield beside
        if stream:
            _copy_to_stream(beside, target)
        else:
            _flush_to_disk(beside)
            beside.chmod(stat.S_IMODE(mode))  # safetensors would leave it to its owner alone
            _replace(target, beside)
    except (FileError, BrokenPipeError):  # nobody reads a pipe any more
        raise
    except OSError as error:
        raise FileError(f"{target}: not written: {in_line(error)}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike) -> None:
    """Raise now what :func:`atomic_write` would raise for this path, before long work."""
    with suppress(_TriedError), atomic_write(path):
        raise _TriedError


class _TriedError(Exception):
    """Ends a write that was only tried."""


def is_stream(path: str | os.PathLike) -> bool:
    """Whether :func:`atomic_write` takes ``path`` for a stream, such as /dev/stdout."""
    with suppress(FileError):
        return _target(path)[1]
    return False


def _target(path: str | os.PathLike) -> tuple[Path, bool]:
    """The file or stream that a path leads to, and whether it is a stream.

    An own open file, such as /dev/stdout leads to, is a stream even if it is a file on a disk.
    """
    try:
        target = Path(path)
        for _ in range(40):  # as many links as Linux follows
            folder = os.path.realpath(target.parent)
            if _is_own_file(own := Path(folder, target.name)):
                return own, True
            if not target.is_symlink():
                break
            target = target.parent / target.readlink()
        mode = target.stat().st_mode if target.exists() else stat.S_IFREG
        stream = stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
        if stat.S_ISDIR(mode):
            wrong = f"the folder {str(path)!r}" if str(path) else "no name, ''"
        elif target.is_symlink() or not (stat.S_ISREG(mode) or stream):
            wrong = f"{str(path)!r}, which is no file"
        else:
            return target, stream
    except (OSError, TypeError, ValueError) as error:
        wrong = f"{str(path)!r} ({in_line(error)})"
    raise FileError("path", wrong, _WRITABLE)


def part_beside(target: Path) -> Path:
    """Where only this process and thread makes a file or folder that will become ``target``.

    Its name is short enough for the system if that of ``target`` is.
    """
    own = f".{_machine()}-{os.getpid()}-{threading.get_ident()}.part"
    name = target.name.encode()
    kept = name if len(name) > 255 else name[: 254 - len(own)]  # one too long is refused as it is
    return target.with_name(f".{kept.decode(errors='ignore')}{own}")


def _machine() -> str:
    """This machine, and its namespace of process numbers, in eight characters."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # containers have their own
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def sweep_parts(folder: Path) -> None:
    """Remove parts whose processes are gone or, if of other machines, that are abandoned."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if part := _PART.fullmatch(entry.name):
                running = _is_running(int(part[2])) if part[1] == _machine() else None
                if running is None:
                    running = time.time() - entry.stat().st_mtime < ABANDONED
                if not running:
                    remove(Path(entry))


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_running(process: int) -> bool | None:
    """Whether a process of this machine runs. None on Windows, where asking would end it."""
    if sys.platform == "win32":
        return None
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def _flush_to_disk(path: Path) -> None:
    """Wait until a file's bytes are on the disk, so that a power cut cannot rename an empty one."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _replace(target: Path, by: Path) -> None:
    """Rename a part; on Windows, where a file that somebody reads cannot be replaced, patiently."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(by, target)
            return
        except PermissionError:
            if sys.platform != "win32" or not target.exists():
                raise
            if time.monotonic() > end:
                raise FileError(f"{target}: not written: another program has it open") from None
            time.sleep(0.05)


def _copy_to_stream(source: Path, stream: Path) -> None:
    for output in filter(None, (sys.stdout, sys.stderr)):
        output.flush()
    to = os.dup(int(stream.name)) if _is_own_file(stream) else stream
    with open(source, "rb") as file, open(to, "wb") as out:
        shutil.copyfileobj(file, out)


def _is_own_file(path: Path) -> bool:
    """Whether ``path`` names an open file of this process by its number."""
    return str(path.parent) in (f"/proc/{os.getpid()}/fd", "/dev/fd") and path.name.isdigit()


class TableError(BmnasError):
    """A CSV file that is not a table of results, or has other columns."""


#: Kind of a column's cells → what they may be. With a question mark after it, a cell may be empty.
KINDS = {
    "name": "printable text of 1 to 200 characters",
    "text": "text",
    "count": "a whole number, 0 or more",
    "seconds": "a number, 0 or more",
    "number": "a finite number",
}


def check_cells(path: str | os.PathLike, table, columns: Mapping[str, str]) -> None:
    """Raise :class:`TableError`, by row, unless all cells are of the kinds of their columns.

    ``table`` is a pandas DataFrame, ``columns`` are names and :data:`KINDS`.
    """
    import numpy as np
    import pandas as pd

    for name, kind in columns.items():
        cells, kind, optional = table[name], kind.removesuffix("?"), kind.endswith("?")
        empty = cells.isna()
        if kind == "name":
            fits = cells.map(_is_name)
        elif kind == "text":
            fits = cells.map(lambda cell: isinstance(cell, str))
        else:
            numbers = pd.to_numeric(cells, errors="coerce")
            fits = np.isfinite(numbers)
            if fits.all() and not pd.api.types.is_numeric_dtype(cells):
                fits[:] = False  # numbers as text
            fits &= ~cells.map(lambda cell: isinstance(cell, (bool, np.bool_)))
            if kind != "number":
                fits &= (numbers >= 0) & (numbers < 2.0**53)
            if kind == "count":
                fits &= numbers == numbers.round()
        wrong = ~(fits | empty) if optional else ~fits
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            cell = cells.iloc[row]
            found = quoted(cell) if isinstance(cell, str) else cell
            found = "nothing" if empty.iloc[row] else found
            raise TableError(f"{path}: row {row + 1}: {name}", found, KINDS[kind])


def _is_name(cell: object) -> bool:
    return isinstance(cell, str) and cell.isprintable() and bool(cell.strip()) and len(cell) <= 200


def check_scores(path: str | os.PathLike, scores, name: str, metrics: str | Iterable[str]) -> None:
    """Raise :class:`TableError`, by row, for scores that a metric cannot have, rounding aside.

    ``metrics`` is that of all rows, or of each.
    """
    from .metrics import METRICS

    limits = {metric: METRICS[metric].limits for metric in METRICS}
    each = repeat(metrics) if isinstance(metrics, str) else metrics
    for row, (score, metric) in enumerate(zip(scores, each, strict=False)):
        least, most = limits.get(metric, (None, None))
        if least is not None and score < least - ROUNDING:
            raise TableError(f"{path}: row {row + 1}: {name}", score, f"at least {least:g}")
        if most is not None and score > most + ROUNDING:
            raise TableError(f"{path}: row {row + 1}: {name}", score, f"at most {most:g}")


def read_table(path: str | os.PathLike, columns: Mapping[str, str]):
    """A CSV file as a pandas DataFrame.

    Raises :class:`TableError` unless it has these columns, with cells of their :data:`KINDS`.
    """

    try:
        table = read_csv(path)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: found no table ({in_line(error)})") from None
    if list(table.columns) != list(columns):
        found = shortened(printable(", ".join(map(str, table.columns))), 90)
        raise TableError(path, f"columns {found}", ", ".join(columns))
    check_cells(path, table, columns)
    return table


class ResumableTable:
    """Results in a CSV file; those that it already holds need not be computed again.

    The file is rewritten at each addition, whole or not at all. Several processes may add to one
    file: rows that others have added are read in between. Raises :class:`TableError` if it exists
    and is not a table with these columns, names and :data:`KINDS`.
    """

    def __init__(self, path: str | os.PathLike, columns: Mapping[str, str]):
        self.path, self.columns, self.rows = Path(path), columns, []
        self._read: tuple | None = None
        self._refresh()

    def fill(
        self,
        runs: Iterable[dict],
        compute: Callable[[dict], Iterable[dict]],
        title: str,
    ) -> None:
        """Add the rows that ``compute(run)`` gives for each run whose cells no row has.

        Processes that fill the same file share the runs (:func:`~bmnas_core.locks.share_work`).
        """
        share_work(
            self.path,
            runs,
            lambda run: not self.holds(**run),
            lambda run: self.add(compute(run)),
            title,
        )

    def holds(self, **cells: object) -> bool:
        """Whether some row has these values in these columns; None is an empty cell."""

        def equal(found: object, value: object) -> bool:
            empty = found is None or found != found
            return empty if value is None else found == value

        self._refresh()
        return any(all(equal(row[k], value) for k, value in cells.items()) for row in self.rows)

    def add(self, rows: Iterable[dict]) -> None:
        """Append rows and write the file. Missing columns stay empty; unknown ones are left out."""
        # With as many digits as in the file, so that a second run reads the same.
        rows = [{k: _rounded(row[k]) for k in self.columns if k in row} for row in rows]
        with locked(self.path, wait=None):
            self._refresh()
            self.rows += rows
            with atomic_write(self.path) as beside:
                self._frame().to_csv(beside, index=False, float_format="%.6g")
            self._read = file_version(self.path)

    def frame(self):
        """All rows as a pandas DataFrame."""
        self._refresh()
        return self._frame()

    def _frame(self):
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.columns))

    def _refresh(self) -> None:
        """Read the file if it is not as it was when it was last read or written."""
        if (version := file_version(self.path)) not in (None, self._read):
            self.rows = read_table(self.path, self.columns).to_dict("records")
            self._read = version


def file_version(path: str | os.PathLike) -> tuple | None:
    """What changes when a file is written anew; None if there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _rounded(cell: object) -> object:
    return float(f"{cell:.6g}") if isinstance(cell, float) else cell
