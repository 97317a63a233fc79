"""The parameters of a notebook: one ``name = value  # what it is`` to a line.

They stand in the cell tagged ``parameters``. New values are checked against these defaults.
"""

import ast
import json
import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import BmnasError, near_miss, quoted, shortened
from .results import as_json


class NotebookError(BmnasError):
    """A file that is not a notebook, or a notebook without readable parameters."""


class ParameterError(BmnasError):
    """A parameter that the notebook does not have, or a value that does not fit it."""


#: What a parameter takes, by the type of its default.
ALLOWED = {
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
    str: "a string",
    list: "a list",
    dict: "a dict with string keys",
}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's ``parameters`` cell: ``name = default  # help``."""

    name: str
    default: object
    help: str = ""

    def check(self, value: object) -> object:
        """``value`` with the type of the default, or :class:`ParameterError`.

        An integer also fits a float; tuples become lists, numbers of NumPy and PyTorch Python's.
        """
        wanted = type(self.default)
        with suppress(ValueError, OverflowError):
            value = as_json(value)
            if wanted is float and type(value) is int:
                return float(value)
            if self.default is None or type(value) is wanted:
                return value
        example = "" if self.default is None else f", such as {self.default!r}"
        allowed = ALLOWED.get(wanted, "any plain value") + example
        raise ParameterError(f"parameter {self.name}", quoted(value), allowed)

    def parse(self, text: str) -> object:
        """The value of ``text``, as typed in a shell, or :class:`ParameterError`."""
        kind, value = type(self.default), text
        with suppress(ValueError, KeyError):
            if kind is bool:
                value = {"true": True, "false": False}[text.lower()]
            elif kind is not str:
                value = kind(text) if kind in (int, float) else _literal(text)
        return self.check(value)


def notebook_parameters(notebook: str | os.PathLike) -> dict[str, Parameter]:
    """The parameters of a notebook by name, in the order of its ``parameters`` cell.

    Raises :class:`NotebookError` for a file that is missing or not a notebook, a notebook without
    that cell, and a default that is not a plain value (a number, string, list, dict, …).
    """
    path = Path(notebook)
    nb = _read_notebook(path)
    tagged = (cell.source for cell in nb.cells if "parameters" in cell.metadata.get("tags", ()))
    if (source := next(tagged, None)) is None:
        allowed = "one with 'name = value  # help' to a line"
        raise NotebookError(path, "no cell tagged 'parameters'", allowed)
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        place = f"{path}: parameters cell, line {error.lineno}"
        raise NotebookError(place, quoted(error.text or ""), "Python") from None
    import papermill

    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nb.metadata.language_info = {"name": "python"}
    with silenced("papermill"):
        seen = papermill.inspect_notebook(nb)
    parameters = {}
    for line in lines:
        if not isinstance(line, (ast.Assign, ast.AnnAssign)) or line.value is None:
            continue
        try:  # papermill skips lines that it cannot read; here that is an error
            (target,) = line.targets if isinstance(line, ast.Assign) else [line.target]
            default = as_json(ast.literal_eval(line.value))
            parameters[target.id] = Parameter(target.id, default, seen[target.id]["help"])
        except (AttributeError, KeyError, TypeError, ValueError):
            place = f"{path}: parameters cell, line {line.lineno}"
            allowed = "'name = value  # help' with a plain value and no other '='"
            raise NotebookError(place, quoted(ast.unparse(line)), allowed) from None
    return parameters


def parse_parameters(
    notebook: str | os.PathLike, pairs: Iterable[tuple[str, str]]
) -> dict[str, object]:
    """Values for a notebook's parameters from ``(name, text)`` pairs, as typed in a shell.

    Raises :class:`NotebookError` as :func:`notebook_parameters`, and :class:`ParameterError` for
    an unknown or repeated name and for text that does not fit.
    """
    known = notebook_parameters(notebook)
    values: dict[str, object] = {}
    for name, text in pairs:
        if name in values:
            raise ParameterError(f"parameter {name}", "it twice", "each name once")
        values[name] = parameter_named(name, known, notebook).parse(text)
    return values


def parameter_named(
    name: str, known: Mapping[str, Parameter], notebook: str | os.PathLike
) -> Parameter:
    """A parameter that a user may set, or :class:`ParameterError`: ``out`` is set by the run."""
    if name == "out":
        raise ParameterError("parameter out: set by the run itself; allowed: out=…, or --out DIR")
    if name not in known:
        defaults = ", ".join(f"{p.name} = {p.default!r}" for p in known.values() if p.name != "out")
        raise ParameterError(notebook, f"no parameter {name!r}{near_miss(name, known)}", defaults)
    return known[name]


def _read_notebook(path: Path):
    allowed = "an .ipynb notebook"
    if path.suffix != ".ipynb" or not path.is_file():
        found = "a folder" if path.is_dir() else "a file" if path.exists() else "nothing there"
        raise NotebookError(path, found, allowed)
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nb = nbformat.convert(nbformat.reader.reads(path.read_text(encoding="utf-8")), 4)
            nbformat.validate(nb)
    except Exception as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {str(error).strip()}"
        why = "no UTF-8" if isinstance(error, UnicodeDecodeError) else why.splitlines()[0]
        raise NotebookError(path, f"no notebook ({shortened(why, 120)})", allowed) from None
    return nb


@contextmanager
def silenced(logger: str):
    """Keep a logger's messages from the terminal: those that matter become errors of ours."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _literal(text: str) -> object:
    """The value of ``text`` as JSON or as a Python literal; the text itself if it is neither."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return read(text.strip())
    return text
