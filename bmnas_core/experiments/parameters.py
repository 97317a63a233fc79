"""The parameters of a notebook: one ``name = value  # what it is`` to a line.

They stand in the cell tagged ``parameters``. New values are checked against these defaults.
"""

from __future__ import annotations

import ast
import json
import logging
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import BmnasError, near_miss, quoted, shortened


class NotebookError(BmnasError):
    """A file that is not a notebook, or a notebook without readable parameters."""


class ParameterError(BmnasError):
    """A parameter that the notebook does not have, or a value that does not fit it."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's ``parameters`` cell: ``name = default  # help``."""

    name: str
    default: object
    help: str = ""

    @property
    def allowed(self) -> str:
        """The values that it takes, in words."""
        kind = {
            bool: "true or false",
            int: "an integer",
            float: "a finite number",
            str: "a string",
            list: "a list",
            dict: "a dict with string keys",
        }.get(type(self.default), "any plain value")
        return f"{kind}, such as {self.default!r}" if self.default is not None else kind

    def check(self, value: object) -> object:
        """``value`` with the type of the default; an integer also fits a float.

        Raises:
            ParameterError: naming the parameter, what was found and what is allowed.
        """
        with suppress(ValueError, OverflowError):
            value = _plain(value)
            wanted = type(self.default)
            if wanted is float and type(value) is int:
                return float(value)
            if self.default is None or type(value) is wanted:
                return value
        raise self._refused(value)

    def parse(self, text: str) -> object:
        """The value of ``text``, as typed in a shell.

        Raises:
            ParameterError: naming the parameter, what was found and what is allowed.
        """
        if isinstance(self.default, str):
            return self.check(text)
        try:
            if isinstance(self.default, bool):
                return {"true": True, "false": False}[text.lower()]
            if isinstance(self.default, (int, float)):
                return self.check(type(self.default)(text))
            value = _literal(text)
        except (ValueError, KeyError):
            if self.default is not None:
                raise self._refused(text) from None
            value = text
        return self.check(value)

    def _refused(self, value: object) -> ParameterError:
        return ParameterError(
            f"parameter {self.name}: found {quoted(value)}; allowed: {self.allowed}"
        )


def notebook_parameters(notebook: str | os.PathLike) -> dict[str, Parameter]:
    """The parameters of a notebook by name, in the order of its ``parameters`` cell.

    Raises:
        NotebookError: for a file that is missing or not a notebook, a notebook without that cell,
            and a default that is not a plain value (a number, string, list, dict, …).
    """
    path = Path(notebook)
    nb = _read_notebook(path)
    cell = next((c for c in nb.cells if "parameters" in c.metadata.get("tags", ())), None)
    if cell is None:
        raise NotebookError(
            f"{path}: found no cell tagged 'parameters'; allowed: one with 'name = value  # help' "
            "to a line"
        )
    return _read_parameters(path, nb, cell.source)


def parse_parameters(
    notebook: str | os.PathLike, pairs: Iterable[tuple[str, str]]
) -> dict[str, object]:
    """Values for a notebook's parameters from ``(name, text)`` pairs, as typed in a shell.

    Raises:
        NotebookError: as :func:`notebook_parameters`.
        ParameterError: for an unknown or repeated name, and for text that does not fit.
    """
    known = notebook_parameters(notebook)
    values: dict[str, object] = {}
    for name, text in pairs:
        if name in values:
            raise ParameterError(f"parameter {name}: found it twice; allowed: each name once")
        values[name] = parameter_named(name, known, notebook).parse(text)
    return values


def parameter_named(
    name: str, known: Mapping[str, Parameter], notebook: str | os.PathLike
) -> Parameter:
    """The parameter of a notebook that a user may set.

    Raises:
        ParameterError: for an unknown name and for ``out``, which the run sets.
    """
    if name == "out":
        raise ParameterError("parameter out: set by the run itself; allowed: out=…, or --out DIR")
    if name not in known:
        defaults = ", ".join(f"{p.name} = {p.default!r}" for p in known.values() if p.name != "out")
        raise ParameterError(
            f"{notebook}: found no parameter {name!r}{near_miss(name, known)}; allowed: {defaults}"
        )
    return known[name]


def _read_notebook(path: Path):
    if path.suffix != ".ipynb" or not path.is_file():
        found = "a folder" if path.is_dir() else "a file" if path.exists() else "nothing there"
        raise NotebookError(f"{path}: found {found}; allowed: an .ipynb notebook")
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nb = nbformat.convert(nbformat.reader.reads(path.read_text(encoding="utf-8")), 4)
            nbformat.validate(nb)
    except Exception as error:
        if isinstance(error, UnicodeDecodeError):
            why = "no UTF-8"
        elif isinstance(error, OSError):
            why = error.strerror or str(error)
        else:
            why = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        raise NotebookError(
            f"{path}: found no notebook ({shortened(why, 120)}); allowed: an .ipynb notebook"
        ) from None
    return nb


def _read_parameters(path: Path, nb, source: str) -> dict[str, Parameter]:
    """Names and help as papermill reads them, defaults as Python does.

    Papermill reads the cell line by line and skips what it cannot read; here that is an error.
    """
    import papermill

    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nb.metadata.language_info = {"name": "python"}
    with silenced("papermill"):
        seen = papermill.inspect_notebook(nb)
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise NotebookError(
            f"{path}: parameters cell, line {error.lineno}: found {quoted(error.text or '')}; "
            "allowed: Python"
        ) from None
    parameters = {}
    for line in lines:
        if not isinstance(line, (ast.Assign, ast.AnnAssign)) or line.value is None:
            continue
        target = line.targets[0] if isinstance(line, ast.Assign) else line.target
        name = getattr(target, "id", "")
        try:
            default = _plain(ast.literal_eval(line.value))
            if name not in seen or isinstance(line, ast.Assign) and len(line.targets) > 1:
                raise ValueError
        except (ValueError, TypeError):
            raise NotebookError(
                f"{path}: parameters cell, line {line.lineno}: found {quoted(ast.unparse(line))}; "
                "allowed: 'name = value  # help' with a plain value and no other '='"
            ) from None
        parameters[name] = Parameter(name, default, seen[name]["help"])
    return parameters


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


def _plain(value: object) -> object:
    """``value`` if JSON and papermill both keep it as it is, with tuples as lists.

    Raises:
        ValueError: if they do not.
    """
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict) and all(type(name) is str for name in value):
        return {name: _plain(inner) for name, inner in value.items()}
    if type(value) is str:
        value.encode()  # a lone surrogate cannot be written to the notebook
        return value
    if value is None or type(value) in (bool, int) or type(value) is float and math.isfinite(value):
        return value
    raise ValueError("not a plain value")


def _literal(text: str) -> object:
    """The value of ``text`` as JSON or as a Python literal; ValueError if it is neither."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    try:
        return ast.literal_eval(text.strip())
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("not a literal") from None
