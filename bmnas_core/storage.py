"""Files that are whole or not there: written beside their place, then renamed."""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import BmnasError, FileError


@contextmanager
def atomic_write(path: str | os.PathLike):
    """Yield a path beside ``path`` to write to; it replaces ``path`` only if all went well.

    The folder of ``path`` is made if need be. Raises :class:`FileError` if the writing fails.
    """
    wrong = ""
    try:
        target = Path(path)
        if target.is_dir():
            wrong = f"the folder {str(path)!r}" if str(path) else "no name, ''"
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.{os.getpid()}.part")
            beside.touch()
    except (OSError, TypeError, ValueError) as error:
        wrong = f"{str(path)!r} ({getattr(error, 'strerror', None) or error})"
    if wrong:
        raise FileError("path", wrong, "the path of a file that can be written")
    try:
        mode = beside.stat().st_mode
        yield beside
        beside.chmod(mode)  # safetensors would leave it to its owner alone
        os.replace(beside, target)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{target}: not written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def write_tensors(path: str | os.PathLike, tensors: dict[str, torch.Tensor], header: str) -> None:
    """Write tensors as safetensors with our header, whole or not at all."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with atomic_write(path) as beside:
        save_file(tensors, beside, {"bmnas": header})


def read_tensors(
    path: str | os.PathLike, format: str, refused: type[BmnasError], what: str
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Header and tensors that :func:`write_tensors` wrote in ``format``.

    Raises ``refused`` for a file that is missing, damaged or no ``what``.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("bmnas", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, ValueError, RecursionError) as error:
        raise refused(f"{path}: found no {what} ({error})") from None
    found = header.get("format") if isinstance(header, dict) else header
    if found != format:
        raise refused(path, f"format {found!r}", repr(format))
    return header, tensors


class TableError(BmnasError):
    """A CSV file that is not a table of results, or has other columns."""


def read_table(path: str | os.PathLike, columns: Sequence[str]):
    """A CSV file as a pandas DataFrame. Raises :class:`TableError` unless it has these columns."""
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: found no table ({error})") from None
    if list(table.columns) != list(columns):
        raise TableError(path, f"columns {', '.join(table.columns)}", ", ".join(columns))
    return table


class ResumableTable:
    """Results in a CSV file; those that it holds already need not be computed again.

    The file is rewritten at each addition, whole or not at all. Raises :class:`TableError` if it
    exists and is not a table with these columns.
    """

    def __init__(self, path: str | os.PathLike, columns: Sequence[str]):
        self.path, self.columns, self.rows = Path(path), columns, []
        if self.path.exists():
            self.rows = read_table(path, self.columns).to_dict("records")

    def holds(self, **cells: object) -> bool:
        """Whether some row has these values in these columns; None is an empty cell."""

        def equal(found: object, value: object) -> bool:
            empty = found is None or found != found
            return empty if value is None else found == value

        return any(all(equal(row[k], value) for k, value in cells.items()) for row in self.rows)

    def add(self, rows: Iterable[dict]) -> None:
        """Append rows and write the file. Columns that a row lacks are empty, others left out."""
        for row in rows:  # with the digits that the file has, so that a second run says the same
            self.rows.append({k: _rounded(row[k]) for k in self.columns if k in row})
        with atomic_write(self.path) as beside:
            self.frame().to_csv(beside, index=False, float_format="%.6g")

    def frame(self):
        """All rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=self.columns)


def _rounded(cell: object) -> object:
    return float(f"{cell:.6g}") if isinstance(cell, float) else cell
