"""Repeat a run, and say which of its numbers are the same."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import BmnasError, quoted
from .collect import REPRODUCED, origin_of
from .parameters import NotebookError, parameters_of, read_notebook
from .results import ResultError, load_result, load_run
from .run import ADDED
from .run import run as run_notebook

#: Fields of times and of provenance, which are not compared.
LEFT_OUT = ("seconds", "provenance", "versions")


@dataclass(frozen=True)
class Number:
    """One value in two results, by its place, such as ``baselines.GMU.test``.

    ``relative`` is their difference as a share of the larger one in size; infinite if one of them
    is missing or not a number.
    """

    place: str
    before: object
    after: object

    @property
    def equal(self) -> bool:
        """To the bit."""
        return repr(self.before) == repr(self.after)

    @property
    def difference(self) -> float:
        both = self.before, self.after
        if self.equal:
            return 0.0
        if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in both):
            return math.inf
        return abs(self.after - self.before)

    @property
    def relative(self) -> float:
        if self.difference in (0.0, math.inf):
            return self.difference
        return self.difference / max(abs(self.before), abs(self.after))


@dataclass(frozen=True)
class Reproduction:
    """What :func:`reproduce` found.

    Attributes:
        folder: of the second run.
        numbers: all values of both results, except times and provenance.
        origins: what the results were made with, where that differs: name → (before, after).
        within: the largest relative difference that is allowed.
    """

    folder: Path
    numbers: tuple[Number, ...]
    origins: dict[str, tuple[str, str]]
    within: float = 0.0

    @property
    def equal(self) -> tuple[Number, ...]:
        """Values that are equal to the bit."""
        return tuple(number for number in self.numbers if number.equal)

    @property
    def near(self) -> tuple[Number, ...]:
        """Values that differ, but not by more than :attr:`within`."""
        return tuple(n for n in self.numbers if not n.equal and n.relative <= self.within)

    @property
    def different(self) -> tuple[Number, ...]:
        return tuple(n for n in self.numbers if not n.equal and n.relative > self.within)

    @property
    def succeeded(self) -> bool:
        return not self.different


def reproduce(
    folder: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    within: float = 0.0,
    progress: bool = True,
    timeout: int | None = None,
) -> Reproduction:
    """Run the notebook in a run's folder again, as it was run, and compare the results.

    It is the executed notebook without its outputs, with the same parameters, and with the same
    number of threads unless OMP_NUM_THREADS says otherwise.

    Args:
        folder: of a run with a result.
        out: the folder of the second run; by default that of the first with ``-reproduced``
            appended to its name.
        within: the largest relative difference of two numbers that is allowed.
        progress, timeout: as in :func:`~bmnas_core.experiments.run`.

    Raises:
        ResultError: for a folder without a result, or a run that is not done.
        NotebookError, ParameterError: if the notebook in the folder is missing or was changed.
        RunError: when a cell fails.
    """
    folder = Path(folder)
    if not (isinstance(within, (int, float)) and 0 <= within < math.inf):
        raise BmnasError("within", quoted(within), "a number of at least 0")
    if folder.is_file():
        raise ResultError(folder, "a file", "the folder of a run")
    record = load_run(folder)
    if record is not None and record["status"] != "done":
        raise ResultError(folder, f"a run with status {record['status']!r}", "one that is done")
    before = load_result(folder)
    notebook = _notebook_of(folder, record)
    if out is None:
        out = folder.resolve().with_name(folder.resolve().name + REPRODUCED)
    out = Path(out)
    if out.resolve() == folder.resolve():
        raise BmnasError("out", f"{out}, the run's own folder", "another folder")
    nb = read_notebook(notebook)
    parameters_of(nb, notebook)  # refuses what is no notebook with parameters
    parameters = _parameters(before, record, nb)
    with tempfile.TemporaryDirectory() as beside, _threads_of(before):
        copy = Path(beside) / notebook.name
        _write_clean(nb, copy)
        out = run_notebook(copy, parameters, out, progress=progress, timeout=timeout)
    after = load_result(out)
    origins = origin_of(before, record), origin_of(after, load_run(out))
    names = dict.fromkeys([*origins[0], *origins[1]])
    pairs = {name: tuple(origin.get(name, "–") for origin in origins) for name in names}
    differing = {name: pair for name, pair in pairs.items() if len(set(pair)) > 1}
    return Reproduction(out, compared_results(before, after), differing, float(within))


def compared_results(before: dict, after: dict) -> tuple[Number, ...]:
    """All values of two results side by side, by place; None for a value that one lacks."""
    both = dict(_values(before)), dict(_values(after))
    places = dict.fromkeys([*both[0], *both[1]])
    return tuple(Number(place, *(values.get(place) for values in both)) for place in places)


def _values(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """The plain values in a result, by place."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in inside:
        if isinstance(name, str) and (name in LEFT_OUT or name.endswith("_seconds")):
            continue
        where = f"{place}[{name}]" if isinstance(name, int) else f"{place}.{name}".lstrip(".")
        if isinstance(inner, (dict, list)) and inner:
            yield from _values(inner, where)
        else:
            yield where, inner


def _notebook_of(folder: Path, record: dict | None) -> Path:
    """The executed notebook of a run: the one it names, or the only one there is."""
    if record is not None:
        return folder / Path(record["notebook"]).name
    found = sorted(folder.glob("*.ipynb"))
    if len(found) != 1:
        raise NotebookError(folder, f"{len(found)} notebooks", "the one that was run")
    return found[0]


def _parameters(result: dict, record: dict | None, nb) -> dict:
    """The run's parameters: from its own record, or from papermill's in the notebook."""
    origin = result.get("provenance") or {}
    kept = (record or origin).get("parameters")
    if kept is None:
        kept = nb.metadata.get("papermill", {}).get("parameters", {})
    return {name: value for name, value in kept.items() if name != "out"}


def _write_clean(nb, path: Path) -> None:
    """Write an executed notebook as it was before it ran."""
    import nbformat

    nb.cells = [cell for cell in nb.cells if not ADDED & set(cell.metadata.get("tags", ()))]
    nb.metadata.pop("papermill", None)
    for cell in nb.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(nb, path)


@contextmanager
def _threads_of(result: dict):
    """Let kernels that start in the block use as many threads as a result was made with."""
    name, threads = "OMP_NUM_THREADS", (result.get("provenance") or {}).get("threads")
    if name in os.environ or not isinstance(threads, int):
        yield
        return
    os.environ[name] = str(threads)
    try:
        yield
    finally:
        os.environ.pop(name, None)
