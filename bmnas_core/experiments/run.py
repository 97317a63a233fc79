"""Run a notebook with other parameters, unattended."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import BmnasError, quoted, shortened
from ..progress import UNATTENDED, is_interactive
from .page import write_page
from .parameters import notebook_parameters, parameter_named, silenced
from .results import RESULT_FILES, writable_folder


class RunError(BmnasError):
    """A notebook that failed: says in which cell, why, and where the executed part is."""


def run(
    notebook: str | os.PathLike,
    parameters: Mapping[str, object] | None = None,
    out: str | os.PathLike | None = None,
    *,
    progress: bool = True,
    timeout: int | None = None,
) -> Path:
    """Execute a notebook with other parameters, by papermill in this environment's Python.

    Returns the folder with the executed notebook, the same as a page of HTML and, if the notebook
    has a parameter ``out``, which is set to the folder, what it saves there
    (:func:`~bmnas_core.experiments.save_run`). The working directory is the current one. What an
    earlier run left in the folder is removed first.

    Args:
        notebook: an ``.ipynb`` file.
        parameters: values by name; the others keep the notebook's defaults.
        out: the folder, made if need be; ``runs/NAME`` by default.
        progress: show a bar of cells in a terminal or a notebook.
        timeout: the most seconds that one cell may take; unlimited by default.

    Raises:
        NotebookError, ParameterError: for a file that is not a notebook with parameters, unknown
            parameters and values of the wrong type, before anything starts.
        BmnasError: for a folder that cannot be made or is the notebook's own, likewise.
        RunError: when a cell fails. The notebook up to that cell stays in the folder.
    """
    notebook = Path(notebook)
    known = notebook_parameters(notebook)
    values = {
        name: parameter_named(name, known, notebook).check(value)
        for name, value in (parameters or {}).items()
    }
    out = _prepared(notebook, Path(out) if out is not None else Path("runs") / notebook.stem)
    if "out" in known:
        values["out"] = str(out)

    import papermill

    executed = out / notebook.name
    try:
        with silenced("papermill"):
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
        write_page(executed, notebook.parent)
        raise _run_error(notebook, executed, error, timeout) from None
    write_page(executed, notebook.parent)
    return out


def _prepared(notebook: Path, out: Path) -> Path:
    """The folder ``out``, without what an earlier run of this notebook left in it."""
    taken = (out / notebook.name).exists() and (out / notebook.name).samefile(notebook)
    if taken or out.resolve() == notebook.resolve().parent:
        raise BmnasError("out", f"{out}, the notebook's own folder", "another folder")
    writable_folder(out)
    for name in (*RESULT_FILES, notebook.name, f"{notebook.stem}.html"):
        (out / name).unlink(missing_ok=True)
    return out


def _unformatted(path: Path) -> str:
    """``path`` for papermill, which fills braces in paths with parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kernel_of_this_environment() -> type:
    """A kernel manager that starts this very Python, encrypts, and leaves Ctrl-C to us.

    Otherwise a user's own kernel named ``python3`` would come first, and nbclient would answer
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
            # For small networks one thread is as fast as many, and many give other numbers.
            usual = {"OMP_NUM_THREADS": "1"}
            options["env"] = {**usual, **options.get("env", os.environ), UNATTENDED: "1"}
            await super().start_kernel(**options)

        async def shutdown_kernel(self, now=False, restart=False):
            if sys.exc_info()[0] is not None:  # interrupted inside a cell: do not wait for it
                now = True
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.add_done_callback(lambda task: task.cancelled() or task.exception())
            await super().shutdown_kernel(now, restart)

    return Kernel


def _run_error(notebook: Path, executed: Path, error: Exception, timeout: int | None) -> RunError:
    """``error`` in one line, with the number of its cell as the notebook's author counts cells."""
    import nbformat

    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = nbformat.read(executed, as_version=4).cells
    own = [cell for cell in cells if not added & set(cell.metadata.get("tags", ()))]
    where = "before its first cell"
    for number, cell in enumerate(own, 1):
        if cell.metadata.get("papermill", {}).get("start_time"):
            first = (cell.source.strip().splitlines() or [""])[0]
            where = f"in cell {number} ({quoted(first)})"
    if hasattr(error, "ename"):
        what = ": ".join(part for part in (error.ename, error.evalue) if part)
    elif isinstance(error, TimeoutError):
        what = f"took longer than {timeout} s"
    else:
        what = f"{type(error).__name__}: {error}"
    return RunError(
        f"{notebook} failed {where}: {shortened(' '.join(what.split()), 500)}; "
        f"executed notebook: {executed}"
    )
