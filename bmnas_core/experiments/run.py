"""Run a notebook with other parameters, unattended."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

from ..autosave import STATE
from ..errors import BmnasError, FileError, in_line, quoted, shortened
from ..locks import locked
from ..progress import is_interactive
from ..storage import atomic_write
from .folder import RunFolder
from .kernel import kernel_manager
from .page import write_page
from .parameters import notebook_hash, parameter_named, parameters_of, read_notebook, silenced
from .results import writable_folder

#: Tags of cells that :func:`run` and papermill add.
ADDED = {"injected-parameters", "papermill-error-cell-tag"}
#: The most seconds to wait for a cell's outputs after it has ended.
OUTPUT_TIMEOUT = 600


class RunError(BmnasError):
    """A notebook that failed: in which cell, why, and where the executed part is."""


class RunInterrupted(KeyboardInterrupt):
    """A run that Ctrl-C or a signal ended, with the signal's number and the cell that it was in."""

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.signal = number


class RunWarning(UserWarning):
    """A run that is done, but lacks something inessential, such as its page."""


def run(
    notebook: str | os.PathLike,
    parameters: Mapping[str, object] | None = None,
    out: str | os.PathLike | None = None,
    *,
    progress: bool = True,
    timeout: float | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    pictures: str | os.PathLike | None = None,
) -> Path:
    """Execute a notebook with other parameters, by papermill in this environment's Python.

    Returns the folder. It has the executed notebook, an HTML page of it, and ``run.json``, which
    says what ran and how it ended (see :class:`~bmnas_core.experiments.folder.RunFolder`). If the
    notebook has a parameter ``out``, it is set to the folder, and what the notebook saves there
    (:func:`~bmnas_core.experiments.save_run`) is in it too. The working directory is the current
    one.

    The result of an earlier run in the folder is moved to ``earlier`` there until this run is done.
    Other files that the notebook writes are left as they are. Of a cell that shows more than
    100 MB, the rest is left out.

    Args:
        notebook: an ``.ipynb`` file.
        parameters: values by name; the others keep the notebook's defaults.
        out: the folder, made if need be; ``runs/NAME`` by default.
        progress: show a bar of cells in a terminal or a notebook.
        timeout: the most seconds that one cell may take; unlimited by default.
        resume: continue a run in this folder that failed or was killed. Its cells run again from
            the top; searches, trainings and features find in ``state`` what they kept. A run that
            is done is left as it is; if there is none, one starts.
        time_limit: the most seconds that the whole run may take; unlimited by default.
        pictures: the folder in which the page's pictures are that the notebook's text links to; the
            notebook's own by default.

    Raises:
        NotebookError, ParameterError: for a file that is not a notebook with parameters, unknown
            parameters and values of the wrong type, before anything starts.
        BmnasError: for a folder that cannot be made or is the notebook's own, before anything
            starts.
        BusyError: for a folder that another run is using.
        ResumeError: if notebook, parameters or version of the kit are not those of the run to
            resume.
        RunError: when a cell fails or time is up. The notebook up to that cell stays in the folder.
        RunInterrupted: on Ctrl-C, SIGTERM and SIGHUP. The notebook stays, too.
        FileError: if the folder cannot be written to, or vanishes.

    Warns with :class:`RunWarning` if the page lacks something.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    notebook = Path(notebook)
    pictures = notebook.parent if pictures is None else Path(pictures)
    nb = read_notebook(notebook)
    known = parameters_of(nb, notebook)
    values = {
        name: parameter_named(name, known, notebook).check(value)
        for name, value in (parameters or {}).items()
    }
    every = {name: values.get(name, p.default) for name, p in known.items() if name != "out"}
    out = _writable(notebook, Path(out) if out is not None else Path("runs") / notebook.stem)
    folder = RunFolder(out, notebook.name, notebook_hash(nb), every)
    if "out" in known:
        values["out"] = str(out)
    executed, error, kernel = out / notebook.name, None, None
    with _signals() as signals, locked(out):
        if not folder.begin(resume=resume):
            if executed.exists() and not executed.with_suffix(".html").exists():
                _decorate(read_notebook(executed), executed, pictures)
            return out
        try:
            nb = _with_values(nb, values, notebook, executed)
            with kernel_manager({STATE: str(folder.state.absolute())}) as kernel:
                _execute(nb, executed, kernel, progress, _cell_timeout(timeout, deadline))
            signals.held = True  # what follows is quick
            folder.check()
            _write_notebook(nb, executed)
            folder.end("done")
        except (Exception, KeyboardInterrupt) as caught:
            error = caught
        if error is None:
            signals.held = False
            _decorate(nb, executed, pictures)
            return out
        signals.held = True
        late = deadline is not None and time.monotonic() >= deadline
        limits = timeout, time_limit if late else None
        status, line = _ending(error, notebook, nb, getattr(kernel, "ended", ""), *limits)
        notes = [line, *_kept(folder, nb, executed, status, line)]
        signals.held = False
        with suppress(KeyboardInterrupt):
            notes.append(_page(nb, executed, pictures))
        message = "; ".join(filter(None, notes))
        if isinstance(error, KeyboardInterrupt):
            raise RunInterrupted(getattr(error, "signal", signal.SIGINT), message) from None
        raise RunError(message) from None


def _writable(notebook: Path, out: Path) -> Path:
    """The folder ``out``, which must not be that of the notebook."""
    taken = (out / notebook.name).exists() and (out / notebook.name).samefile(notebook)
    if taken or out.resolve() == notebook.resolve().parent:
        raise BmnasError("out", f"{out}, the notebook's own folder", "another folder")
    return writable_folder(out)


@contextmanager
def _signals():
    """Let SIGTERM and SIGHUP, as Ctrl-C, raise :class:`RunInterrupted`, unless they are ``held``.

    A signal that is ignored (as under nohup) or that the program handles itself stays as it is.
    """
    state = SimpleNamespace(held=False)

    def interrupt(number: int, frame: object) -> None:
        if not state.held:
            raise RunInterrupted(number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) in usual}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_values(nb, values: Mapping[str, object], notebook: Path, executed: Path):
    """A notebook for papermill, with a cell that sets ``values`` after the cell of defaults."""
    import nbformat
    from papermill.iorw import load_notebook_node

    nb.cells = [cell for cell in nb.cells if not ADDED & set(cell.metadata.get("tags", ()))]
    nb.metadata.pop("papermill", None)
    nb = load_notebook_node(nb)
    paths = {"input_path": str(notebook), "output_path": str(executed)}
    nb.metadata.papermill.update(paths, parameters=dict(values))
    if values:
        lines = ["# Parameters", *(f"{name} = {value!r}" for name, value in values.items())]
        cell = nbformat.v4.new_code_cell("\n".join(lines))
        cell.metadata.update(tags=["injected-parameters"], papermill={})
        code = {i: c for i, c in enumerate(nb.cells) if c.cell_type == "code"}
        defaults = next(i for i, c in code.items() if "parameters" in c.metadata.tags)
        nb.cells.insert(defaults + 1, cell)
    return nb


def _cell_timeout(timeout: float | None, deadline: float | None) -> Callable:
    """The most seconds that a cell may take, or None, when it starts."""

    def left(cell: object) -> float | None:
        until = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        return min((s for s in (timeout, until) if s is not None), default=None)

    return left


def _execute(nb, executed: Path, kernel: type, progress: bool, cell_timeout: Callable) -> None:
    """Execute a notebook in place, with a copy of it on disk after each cell.

    Raises what papermill raises for a cell that fails, a cell that takes too long, and a kernel
    that dies.
    """
    from papermill.engines import NBClientEngine
    from papermill.execute import raise_for_execution_errors

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, manager, kernel_name, **options):
            def save(**_):
                with suppress(FileError):  # it only shows others how far the run is
                    if executed.parent.is_dir():
                        _write_notebook(nb, executed)
                manager.last_save_time = manager.now()

            manager.save = save
            super().execute_managed_notebook(manager, kernel_name, **options)

    with silenced("papermill"):
        Engine.execute_notebook(
            nb,
            "python3",
            progress_bar={"desc": executed.stem} if progress and is_interactive() else False,
            timeout_func=cell_timeout,
            iopub_timeout=OUTPUT_TIMEOUT,
            raise_on_iopub_timeout=False,
            store_widget_state=False,
            kernel_manager_class=kernel,
        )
        raise_for_execution_errors(nb, None)


def _write_notebook(nb, path: Path) -> None:
    """Write a notebook, whole or not at all, with ``?`` for what is not valid Unicode."""
    import nbformat

    with silenced("traitlets"):
        text = nbformat.writes(nb) + "\n"
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="replace")


def _kept(folder: RunFolder, nb, executed: Path, status: str, line: str) -> Iterator[str]:
    """Keep what there is of a run that did not end well, and say where."""
    try:
        folder.end(status, line)
        _write_notebook(nb, executed)
        yield f"executed notebook: {executed}"
    except FileError as error:
        if str(error) != line:
            yield str(error)
    if folder.earlier.exists():
        yield f"the result of the run before: {folder.earlier}"


def _decorate(nb, executed: Path, pictures: Path) -> None:
    """Write the page of a run that is done. Warns with :class:`RunWarning` of what it lacks."""
    try:
        missing = _page(nb, executed, pictures)
    except RunInterrupted as error:
        line = f"{executed} is done, but its run was interrupted while its page was written"
        raise RunInterrupted(error.signal, line) from None
    if missing:
        warnings.warn(missing, RunWarning, stacklevel=3)


def _page(nb, executed: Path, pictures: Path) -> str:
    """Write a run's page; what it lacks, in a line. No error here may undo or hide the run."""
    page = executed.with_suffix(".html")
    if not page.parent.is_dir():  # it vanished
        return ""
    try:
        return write_page(nb, page, pictures)
    except FileError as error:
        return str(error)
    except Exception as error:
        return f"{page}: not written: {in_line(error) or type(error).__name__}"


def _ending(
    error: BaseException,
    notebook: Path,
    nb,
    ended: str,
    timeout: float | None,
    time_limit: float | None,
) -> tuple[str, str]:
    """The status of a run that ``error`` ended, and a line that says in which cell and why.

    Args:
        ended: how the kernel ended, if it did by itself.
        time_limit: the seconds that the run might take, if they are over.
    """
    place = _place(nb)
    if isinstance(error, FileError):
        return "failed", str(error)
    if isinstance(error, KeyboardInterrupt):
        name = signal.Signals(getattr(error, "signal", signal.SIGINT)).name
        return "interrupted", f"{notebook} was interrupted by {name} {place}"
    if isinstance(error, TimeoutError) and time_limit is not None:
        return "out of time", f"{notebook} ran out of time ({time_limit:g} s) {place}"
    if hasattr(error, "ename"):
        what = ": ".join(part for part in (error.ename, error.evalue) if part)
    elif isinstance(error, TimeoutError) and timeout is not None:
        what = f"took longer than {timeout:g} s"
    elif ended:
        what = f"its kernel died {ended}"
    else:
        what = f"{type(error).__name__}: {error}"
    return "failed", f"{notebook} failed {place}: {shortened(' '.join(what.split()), 500)}"


def _place(nb) -> str:
    """The last cell that started, by its number as the notebook's author counts cells."""
    where = "before its first cell"
    own = (cell for cell in nb.cells if not ADDED & set(cell.metadata.get("tags", ())))
    for number, cell in enumerate(own, 1):
        if cell.metadata.get("papermill", {}).get("start_time"):
            first = (cell.source.strip().splitlines() or [""])[0]
            where = f"in cell {number} ({quoted(first)})"
    return where
