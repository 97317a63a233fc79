"""The parameters of a notebook: one ``name = value  # what it is`` per line.

They stand in the cell tagged ``parameters``. New values are checked against these defaults.
"""

import ast
import hashlib
import io
import json
import logging
import os
import re
import tokenize
import warnings
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import BmnasError, near_miss, quoted, shortened
from ..reading import read_bytes
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

        A float also takes an integer; tuples become lists, NumPy and PyTorch numbers plain ones.
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

    Raises :class:`NotebookError` for a file that is missing or not a notebook in Python, a notebook
    without that cell or with two, a name that stands there twice, and a default that is not a plain
    value (a number, string, list, dict, …).
    """
    return parameters_of(read_notebook(notebook), notebook)


def parameters_of(nb, path: str | os.PathLike) -> dict[str, Parameter]:
    """The parameters of a notebook that :func:`read_notebook` returned."""
    sources = [
        cell.source
        for cell in nb.cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", ())
    ]
    if len(sources) != 1:
        allowed = "one with 'name = value  # help' on each line"
        found = f"{len(sources) or 'no'} cell{'s' * (len(sources) > 1)} tagged 'parameters'"
        raise NotebookError(path, found, allowed)
    source = re.sub("\r\n?", "\n", sources[0])
    comments = _comments(source)
    parameters: dict[str, Parameter] = {}
    for line in _statements(source, path):
        if not isinstance(line, (ast.Assign, ast.AnnAssign)) or line.value is None:
            continue
        place = f"{path}: parameters cell, line {line.lineno}"
        try:
            (target,) = line.targets if isinstance(line, ast.Assign) else [line.target]
            name, default = target.id, as_json(_plain(line.value))
        except (AttributeError, TypeError, ValueError, RecursionError):
            allowed = "'name = value  # help' with a plain value"
            raise NotebookError(place, quoted(_text(line, source)), allowed) from None
        if name in parameters:
            raise NotebookError(place, f"{name} twice", "each name once")
        parameters[name] = Parameter(name, default, _help(line, comments))
    return parameters


def _statements(source: str, path: str | os.PathLike) -> list[ast.stmt]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of an escape such as "\\d"
            return ast.parse(source).body
    except SyntaxError as error:
        place, found = f"{path}: parameters cell, line {error.lineno}", error.text or ""
    except (ValueError, RecursionError, MemoryError) as error:
        place, found = f"{path}: parameters cell", str(error)
    raise NotebookError(place, quoted(found), "Python")


def _text(line: ast.stmt, source: str) -> str:
    return ast.get_source_segment(source, line) or ""


def _plain(node: ast.expr) -> object:
    """The value of a literal. Raises ``ValueError`` for other code and for a key given twice."""
    value = ast.literal_eval(node)
    for part in ast.walk(node):
        if isinstance(part, ast.Dict) and len(ast.literal_eval(part)) < len(part.keys):
            raise ValueError("a key twice")
    return value


#: Most objects of a notebook's JSON, by which the time to check it grows.
MOST_OBJECTS = 300_000
#: A type in a comment: ``# type: list[int]``, before the help itself.
TYPE_COMMENT = re.compile(
    r"^type:\s*{0}(?:\s*\|\s*{0})*(?=[\s#]|$)[\s#]*".format(
        r"(?:ignore|bool|int|float|str|list|dict|tuple|(?:typing\.)?[A-Z]\w*)(?:\[[^#]*\])?"
    )
)


def _comments(source: str) -> dict[int, str]:
    """The comments of a cell, by line."""
    comments: dict[int, str] = {}
    with suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                comments[token.start[0]] = token.string.lstrip("#").strip()
    return comments


def _help(line: ast.stmt, comments: dict[int, str]) -> str:
    """The comment at the end of a statement, or of its first line, without a type comment."""
    text = comments.get(line.end_lineno) or comments.get(line.lineno) or ""
    text = TYPE_COMMENT.sub("", text, count=1)
    return "".join(c if c.isprintable() else " " for c in text).strip()


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


def read_notebook(notebook: str | os.PathLike):
    """A notebook of any format as an nbformat 4 node, with its cells' ids in order.

    Raises :class:`NotebookError` for a file that is missing, no notebook, or not one in Python.
    """
    path, allowed = Path(notebook), "an .ipynb notebook"
    if path.suffix.lower() != ".ipynb" or not path.is_file():
        found = "a folder" if path.is_dir() else "a file" if path.exists() else "nothing there"
        raise NotebookError(path, found, allowed)
    import nbformat

    try:
        with warnings.catch_warnings(action="ignore"), silenced("traitlets"):
            text = read_bytes(path).decode("utf-8-sig")  # a byte order mark may stand first
            if (objects := text.count("{")) > MOST_OBJECTS:
                raise ValueError(f"{objects:,} objects, more than {MOST_OBJECTS:,}")
            language = _other_language(json.loads(text, object_pairs_hook=_unique))
            nb = nbformat.v4.upgrade(nbformat.convert(nbformat.reader.reads(text), 4))
            spec = nb.metadata.get("kernelspec", {})
            spec.setdefault("name", "python3")
            nb.metadata["kernelspec"] = {"display_name": spec["name"], **spec}
            _, nb = nbformat.validator.normalize(nb)  # cell ids that are missing or twice there
            nbformat.validate(nb := nbformat.from_dict(nb))
    except Exception as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {str(error).strip()}"
        why = "no UTF-8" if isinstance(error, UnicodeDecodeError) else why.splitlines()[0]
        raise NotebookError(path, f"no notebook ({shortened(why, 120)})", allowed) from None
    if language:
        raise NotebookError(path, f"a notebook in {quoted(language)}", "one in Python")
    return nb


def notebook_hash(nb) -> str:
    """The SHA-256 of a notebook's cells: their kinds and sources, not what they showed."""
    cells = json.dumps([(cell.cell_type, cell.source) for cell in nb.cells])
    return hashlib.sha256(cells.encode()).hexdigest()


def _other_language(raw: dict) -> str | None:
    """The language of a notebook's JSON if that is not Python; None also if it says nothing."""
    meta = raw.get("metadata", {})
    spec, info = meta.get("kernelspec", {}), meta.get("language_info", {})
    cells = (cell for sheet in raw.get("worksheets", ()) for cell in sheet["cells"])
    named = [spec.get("language"), info.get("name"), *(cell.get("language") for cell in cells)]
    if not any(named[:2]) and re.match(r"ir$|julia", spec.get("name", "")):
        named.append(spec["name"])
    return next((name for name in named if name and not re.match("i?python", name, re.I)), None)


def _unique(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object. Raises ``ValueError`` for a key that stands there twice."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {quoted(key)} twice")
        found[key] = value
    return found


@contextmanager
def silenced(logger: str):
    """Keep a logger's messages off the terminal: what matters is raised as our own error."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _literal(text: str) -> object:
    """The value of ``text`` as JSON or as a Python literal; the text itself if it is neither."""
    readers = partial(json.loads, object_pairs_hook=_unique), _python_literal
    for read in readers:
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return read(text.strip())
    return text


def _python_literal(text: str) -> object:
    with warnings.catch_warnings(action="ignore"):
        return _plain(ast.parse(text, mode="eval").body)
