"""Notebooks as experiments: set their parameters, run them unattended, keep what they found.

A notebook states its parameters, one ``name = value  # what it is`` to a line, in the cell tagged
``parameters``. :func:`run` checks new values against those defaults before anything starts, has
papermill execute the notebook, and leaves a folder with the executed notebook, the same as a page
of HTML and, through :func:`save_run`, its result.
"""

from __future__ import annotations

import ast
import difflib
import html
import json
import logging
import math
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..config import __version__
from ..errors import BmnasError
from ..genotype import Genotype
from ..progress import UNATTENDED, is_interactive
from ..storage import atomic_write

#: Fields every ``result.json`` has; ``genotype`` and ``versions`` are added by :func:`save_run`.
RESULT_FIELDS = (
    "task",
    "rule",
    "seed",
    "device",
    "metric",
    "test",
    "params",
    "search_seconds",
    "train_seconds",
    "baselines",
)
BASELINE_FIELDS = ("test", "params", "seconds")
#: What tables call the network that a search found.
LEARNED = "learned by BM-NAS"
NUMBERS = ("test", "params", "seconds", "search_seconds", "train_seconds")

#: What :func:`save_run` writes, the result last: where there is one, the others are whole.
RESULT_FILES = ("genotype.json", "genotype.svg", "result.json")


#: The page of an executed notebook: nbconvert's own, without its scripts for widgets and diagrams,
#: pictures no wider than the page.
PAGE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_css -%}
<style>.jp-RenderedSVG img, .jp-RenderedSVG svg { max-width: 100%; height: auto; }</style>
{%- endblock -%}
"""
#: Code in Markdown, LaTeX between double and between single dollar signs, tags of what folds away.
ASIDE = re.compile(
    r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)"
    r"|(</?(?:details|summary)>)",
    re.DOTALL,
)
WIDGET, TEXT = "application/vnd.jupyter.widget-view+json", "text/plain"


class NotebookError(BmnasError):
    """A file that is not a notebook, or one without readable parameters."""


class ParameterError(BmnasError):
    """A parameter the notebook does not have, or a value that does not fit it."""


class ResultError(BmnasError):
    """A result with missing fields, or with values that are not plain JSON."""


class RunError(BmnasError):
    """A notebook that failed on the way: says in which cell, why, and where it stopped."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's ``parameters`` cell: ``name = default  # help``."""

    name: str
    default: object
    help: str = ""

    @property
    def allowed(self) -> str:
        """What values it takes, in words."""
        kind = {
            bool: "true or false",
            int: "an int",
            float: "a finite number",
            str: "a string",
            list: "a list",
            dict: "a dict with string keys",
        }.get(type(self.default), "any plain value")
        return f"{kind}, such as {self.default!r}" if self.default is not None else kind

    def check(self, value: object) -> object:
        """``value`` as this parameter takes it: of its default's type, an int where a float is.

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
        """The value that ``text``, as typed in a shell, stands for.

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
            f"parameter {self.name}: found {_shown(value)}; allowed: {self.allowed}"
        )


def notebook_parameters(notebook: str | os.PathLike) -> dict[str, Parameter]:
    """The parameters of a notebook by name, in the order of its ``parameters`` cell.

    Raises:
        NotebookError: for a file that is missing or no notebook, one without that cell, and a
            default that is not a plain value (a number, string, list, dict, …).
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
        ParameterError: for unknown and repeated names, and text that does not fit.
    """
    known = notebook_parameters(notebook)
    values: dict[str, object] = {}
    for name, text in pairs:
        if name in values:
            raise ParameterError(f"parameter {name}: found it twice; allowed: each name once")
        values[name] = _known(notebook, name, known).parse(text)
    return values


def run(
    notebook: str | os.PathLike,
    parameters: Mapping[str, object] | None = None,
    out: str | os.PathLike | None = None,
    *,
    progress: bool = True,
    timeout: int | None = None,
) -> Path:
    """Execute a notebook with other parameters; returns the folder with what it leaves behind.

    The kernel is this environment's Python, in the current working directory. A notebook that
    has a parameter ``out`` is told the folder, and saves its result there (:func:`save_run`).
    The result of an earlier run in the same folder is removed first.

    Args:
        notebook: an ``.ipynb`` file.
        parameters: values by name; what is left out keeps the notebook's default.
        out: the folder, made if need be; ``runs/NAME`` unless given.
        progress: show a bar of cells, where a terminal or a notebook is watching.
        timeout: the most seconds one cell may take; unlimited unless given.

    Raises:
        NotebookError: as :func:`notebook_parameters`, before anything starts.
        ParameterError: for unknown parameters and values of the wrong type, likewise.
        BmnasError: for a folder that cannot be made or is the notebook's own, likewise.
        RunError: when a cell fails. The notebook up to that cell stays in the folder.
    """
    notebook = Path(notebook)
    known = notebook_parameters(notebook)
    values = {
        name: _known(notebook, name, known).check(value)
        for name, value in (parameters or {}).items()
    }
    out = _prepared(notebook, Path(out) if out is not None else Path("runs") / notebook.stem)
    if "out" in known:
        values["out"] = str(out)

    import papermill

    executed = out / notebook.name
    try:
        with _silent("papermill"):
            papermill.execute_notebook(
                _unformatted(notebook),
                _unformatted(executed),
                values,
                kernel_name="python3",
                language="python",
                progress_bar={"desc": notebook.stem} if progress and is_interactive() else False,
                execution_timeout=timeout,
                store_widget_state=False,
                kernel_manager_class=_kernel_of_this_environment(),
            )
    except (papermill.PapermillExecutionError, RuntimeError, TimeoutError) as error:
        _write_page(executed, notebook.parent)
        raise _run_error(notebook, executed, error, timeout) from None
    _write_page(executed, notebook.parent)
    return out


def save_run(out: str | os.PathLike, *, result: Mapping, genotype: Genotype) -> Path:
    """Write a run's ``result.json``, ``genotype.json`` and ``genotype.svg`` into ``out``.

    Adds ``genotype`` and ``versions`` to the result; floats are kept to six significant digits.
    Nothing is written unless all of it can be.

    Args:
        out: the folder, made if need be.
        result: at least :data:`RESULT_FIELDS`; ``baselines`` is ``{name: {test, params,
            seconds}}``.
        genotype: the learned one.

    Returns:
        The path of ``result.json``.

    Raises:
        ResultError: for a missing field, by name, and for NaN, infinity and values that are not
            JSON, by place.
    """
    from ..draw import draw

    _check_result("result", result)
    if not isinstance(genotype, Genotype):
        raise ResultError(f"genotype: found {_shown(genotype)}; allowed: a Genotype")
    whole = {
        **_jsonable("result", result),
        "genotype": json.loads(genotype.to_json()),
        "versions": _versions(),
    }
    texts = (
        genotype.to_json(),
        draw(genotype).svg,
        json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    )
    out = _folder(Path(out))
    for name, text in zip(RESULT_FILES, texts, strict=True):
        with atomic_write(out / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return out / "result.json"


def load_result(path: str | os.PathLike) -> dict:
    """Read a ``result.json``, or the one in a run's folder.

    Raises:
        ResultError: for a file that is missing, is not JSON, or lacks a field.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path}: found {_reason(error)}; allowed: a result.json") from None
    _check_result(str(path), result)
    return result


def collect(folders: Iterable[str | os.PathLike]):
    """Runs side by side: for every task, rule and network the mean and spread over their seeds.

    Args:
        folders: of runs, each with a ``result.json``.

    Returns:
        A pandas DataFrame, best first within a task and rule, with the columns ``task``, ``rule``,
        ``network``, ``runs`` (how many), ``test`` (mean), ``std`` (over runs, NaN for one),
        ``params`` and ``seconds`` (means; a search and the training after it count together).

    Raises:
        ResultError: for a folder without a result, and for two runs with the same task, rule and
            seed, which would count one seed twice.
    """
    import pandas as pd

    rows, seen = [], {}
    for folder in folders:
        result = load_result(folder)
        run_of = {name: result[name] for name in ("task", "rule", "seed")}
        which = tuple(run_of.values())
        if which in seen:
            raise ResultError(
                f"{folder}: found {run_of}, as in {seen[which]}; allowed: each seed once"
            )
        seen[which] = folder
        for network, entry in networks(result).items():
            numbers = {name: entry[name] for name in BASELINE_FIELDS}
            rows.append({**run_of, "network": network, **numbers})
    if not rows:
        raise ResultError("found no runs; allowed: one folder up with a result.json")
    groups = pd.DataFrame(rows).groupby(["task", "rule", "network"], dropna=False)
    table = groups.agg(
        runs=("test", "size"),
        std=("test", "std"),
        **{name: (name, "mean") for name in BASELINE_FIELDS},
    )
    table = table[["runs", "test", "std", "params", "seconds"]].reset_index()
    table["params"] = table["params"].round().astype(int)
    return table.sort_values(["task", "rule", "test"], ascending=[True, True, False])


def networks(result: Mapping) -> dict[str, dict]:
    """All networks of a result as its ``baselines`` are, the learned one first."""
    learned = {
        "test": result["test"],
        "params": result["params"],
        "seconds": result["search_seconds"] + result["train_seconds"],
    }
    return {LEARNED: learned, **result["baselines"]}


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
        raise NotebookError(
            f"{path}: found no notebook ({_reason(error)}); allowed: an .ipynb notebook"
        ) from None
    return nb


def _read_parameters(path: Path, nb, source: str) -> dict[str, Parameter]:
    """Names and help as papermill sees them, defaults as Python does.

    Papermill reads the cell by lines and skips what it cannot read; here that is an error.
    """
    import papermill

    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nb.metadata.language_info = {"name": "python"}
    with _silent("papermill"):
        seen = papermill.inspect_notebook(nb)
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise NotebookError(
            f"{path}: parameters cell, line {error.lineno}: found {_shown(error.text or '')}; "
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
                f"{path}: parameters cell, line {line.lineno}: found {_shown(ast.unparse(line))}; "
                "allowed: 'name = value  # help' with a plain value and no other '='"
            ) from None
        parameters[name] = Parameter(name, default, seen[name]["help"])
    return parameters


def _known(notebook: str | os.PathLike, name: str, known: dict[str, Parameter]) -> Parameter:
    if name == "out":
        raise ParameterError("parameter out: set by the run itself; allowed: out=…, or --out DIR")
    if name in known:
        return known[name]
    close = difflib.get_close_matches(str(name), known, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    choices = ", ".join(f"{p.name} = {p.default!r}" for p in known.values() if p.name != "out")
    raise ParameterError(f"{notebook}: found no parameter {name!r}{hint}; allowed: {choices}")


def _prepared(notebook: Path, out: Path) -> Path:
    """The folder ``out``, without what an earlier run of this notebook left in it."""
    taken = (out / notebook.name).exists() and (out / notebook.name).samefile(notebook)
    if taken or out.resolve() == notebook.resolve().parent:
        raise BmnasError(f"out: found {out}, the notebook's own folder; allowed: another folder")
    _folder(out)
    for name in (*RESULT_FILES, notebook.name, f"{notebook.stem}.html"):
        (out / name).unlink(missing_ok=True)
    return out


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BmnasError(
            f"out: found {out} ({error.strerror}); allowed: a folder, made if need be"
        ) from None
    if not os.access(out, os.W_OK):
        raise BmnasError(f"out: found {out}, which is read-only; allowed: a folder to write to")
    return out


def _unformatted(path: Path) -> str:
    """``path`` as papermill takes it, which fills braces in paths with parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kernel_of_this_environment() -> type:
    """A kernel manager that starts this very Python, encrypts, and leaves Ctrl-C to us.

    A user's own kernel named ``python3`` would come first otherwise, and nbclient would answer
    Ctrl-C by ending the kernel and reporting that it died.
    """
    import asyncio
    import signal

    import zmq
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from traitlets import default

    class Kernel(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _only_this_environment(self):
            return KernelSpecManager(kernel_dirs=[])

        @default("transport_encryption")
        def _encrypted_where_possible(self):
            return "auto" if zmq.has("curve") else "disabled"

        async def _async_interrupt_kernel(self):
            # jupyter_client interrupts before each shutdown, and an idle kernel complains of it.
            if not self.shutting_down:
                await super()._async_interrupt_kernel()

        async def start_kernel(self, **options):
            with suppress(NotImplementedError, RuntimeError):
                asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            options["env"] = {**options.get("env", os.environ), UNATTENDED: "1"}
            await super().start_kernel(**options)

        async def shutdown_kernel(self, now=False, restart=False):
            if sys.exc_info()[0] is not None:  # broken off inside a cell: do not wait for it
                now = True
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.add_done_callback(lambda task: task.cancelled() or task.exception())
            await super().shutdown_kernel(now, restart)

    return Kernel


def _run_error(notebook: Path, executed: Path, error: Exception, timeout) -> RunError:
    """``error`` in one line, with the cell it comes from as the notebook's author counts them."""
    import nbformat

    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [
        cell
        for cell in nbformat.read(executed, as_version=4).cells
        if not added & set(cell.metadata.get("tags", ()))
    ]
    started = [
        (i, cell)
        for i, cell in enumerate(cells, 1)
        if cell.metadata.get("papermill", {}).get("start_time")
    ]
    if hasattr(error, "ename"):
        what = ": ".join(part for part in (error.ename, error.evalue) if part)
    elif isinstance(error, TimeoutError):
        what = f"took longer than {timeout} s"
    else:
        what = f"{type(error).__name__}: {error}"
    where = "before its first cell"
    if started:
        number, cell = started[-1]
        where = f"in cell {number} ({_shown((cell.source.strip().splitlines() or [''])[0])})"
    return RunError(
        f"{notebook} failed {where}: {_shortened(' '.join(what.split()), 500)}; "
        f"as far as it came: {executed}"
    )


def _write_page(executed: Path, beside: Path) -> None:
    """Write a notebook as one HTML file next to it, that needs no kernel and no network.

    Pictures are inside, code is visible and equations are MathML. Widgets that left no picture
    are left out.
    """
    import nbformat
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    nb = nbformat.read(executed, as_version=4)
    nb.metadata.pop("widgets", None)
    kept: list[str] = []

    def set_aside(found: re.Match) -> str:
        """Keep tags from Markdown and from nbconvert, which would both mangle them."""
        if found[1]:
            return found[1]
        kept.append(found[4] or _mathml(found))
        return f"\ue000{len(kept) - 1}\ue001"

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = ASIDE.sub(set_aside, cell.source)
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("data", {}).pop(WIDGET, None) is None or set(output.data) - {TEXT}
            ]
    exporter = HTMLExporter(
        embed_images=True,
        extra_loaders=[DictLoader({"page.html.j2": PAGE})],
        template_file="page.html.j2",
    )
    exporter.log = logging.getLogger("bmnas.page")
    with _silent("bmnas.page"):
        page, _ = exporter.from_notebook_node(
            nb, {"metadata": {"name": executed.stem, "path": str(beside)}}
        )
    page = re.sub("\ue000(\\d+)\ue001", lambda found: kept[int(found[1])], page)
    with atomic_write(executed.with_suffix(".html")) as part:
        part.write_text(page, encoding="utf-8")


def _mathml(found: re.Match) -> str:
    """An equation of :data:`ASIDE` as MathML; what is no LaTeX after all, as it is."""
    from latex2mathml.converter import convert

    _, block, inline, _ = found.groups()
    try:
        return convert(block or inline, display="block" if block else "inline")
    except Exception:  # whatever it stumbles over, the reader still has the source
        return html.escape(found.group())


@contextmanager
def _silent(name: str):
    """Keep a logger from the terminal: what matters of it becomes an error of ours."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _check_result(place: str, result: object) -> None:
    _check_fields(place, result, RESULT_FIELDS)
    for name, kinds, allowed in (
        ("task", (str,), "a string"),
        ("rule", (str, type(None)), "a string or null"),
        ("metric", (str,), "a string"),
        ("seed", (int,), "an int"),
    ):
        if type(_scalar(result[name])) not in kinds:
            raise ResultError(f"{place}.{name}: found {_shown(result[name])}; allowed: {allowed}")
    if LEARNED in result["baselines"]:
        raise ResultError(f"{place}.baselines: found {LEARNED!r}; allowed: names of baselines")
    if not isinstance(result["baselines"], Mapping):
        raise ResultError(
            f"{place}.baselines: found {_shown(result['baselines'])}; "
            f"allowed: a dict name → {{{', '.join(BASELINE_FIELDS)}}}"
        )
    for name, entry in result["baselines"].items():
        _check_fields(f"{place}.baselines[{name!r}]", entry, BASELINE_FIELDS)


def _check_fields(place: str, entry: object, names: tuple[str, ...]) -> None:
    if not isinstance(entry, Mapping):
        raise ResultError(f"{place}: found {_shown(entry)}; allowed: a dict")
    missing = [name for name in names if name not in entry]
    if missing:
        raise ResultError(
            f"{place}: found no field {', '.join(missing)}; allowed: at least {', '.join(names)}"
        )
    for name in set(names) & set(NUMBERS):
        value = _scalar(entry[name])
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ResultError(f"{place}.{name}: found {_shown(value)}; allowed: a finite number")


def _jsonable(place: str, value: object) -> object:
    """``value`` as JSON takes it, floats rounded to six significant digits."""
    value = _scalar(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ResultError(f"{place}: found key {_shown(name)}; allowed: strings")
        return {name: _jsonable(f"{place}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(f"{place}[{i}]", inner) for i, inner in enumerate(value)]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str) and value.encode(errors="ignore").decode() == value:
        return value
    raise ResultError(
        f"{place}: found {_shown(value)}; allowed: finite numbers, strings, true, false, null, "
        "lists and dicts of them"
    )


def _scalar(value: object) -> object:
    """A number out of NumPy or PyTorch as Python's own."""
    is_scalar = getattr(value, "ndim", None) == 0 and hasattr(value, "item")
    return value.item() if is_scalar else value


def _versions() -> dict[str, str]:
    import numpy
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "bmnas": __version__,
    }


def _plain(value: object) -> object:
    """``value`` if JSON and papermill both keep it as it is, tuples as lists.

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
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"not a literal: {_shown(text)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError):
        return "no UTF-8"
    first = str(error).strip().splitlines() or [""]
    return _shortened(f"{type(error).__name__}: {first[0]}", 120)


def _shown(value: object) -> str:
    return _shortened(repr(value), 80)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
