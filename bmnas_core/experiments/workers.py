"""Where a sweep's runs are done: in workers of dask.distributed, our own or a cluster's."""

import ctypes
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from errno import EDQUOT, ENOSPC, EROFS
from functools import partial
from pathlib import Path

from ..errors import BmnasError, FileError, in_line
from ..locks import BusyError
from ..storage import atomic_write
from .folder import ResumeError
from .parameters import silenced
from .results import load_run
from .run import RunError, run
from .spec import run_key

#: With fewer bytes free than this, a run cannot even save its notebook.
LEAST_SPACE = 100_000
#: Seconds that processes have to end in order.
GRACE = 15.0
#: A run during which this many workers died is not started again.
MAX_STARTS = 3
#: Statuses of runs that ended by themselves; another sweep does not do these again.
ENDED = ("done", "failed", "out of time")
#: Those of a run that can be done anew in its folder, or by another run.
WITHOUT_RESULT = ("failed", "out of time", "interrupted", "killed")


class SweepError(BmnasError):
    """A sweep that cannot start or go on."""


@dataclass(frozen=True)
class RunState:
    """How a run's folder was found, by its ``run.json``.

    ``status`` is "done", "failed", "out of time", "interrupted", "running", "killed" or "missing";
    ``key`` tells runs apart (:func:`~bmnas_core.experiments.spec.run_key`).
    """

    status: str
    error: str | None = None
    seconds: float | None = None
    started: str | None = None
    key: str | None = None


def run_state(folder: Path) -> RunState:
    """The state of the run in a folder. Raises :class:`ResultError` if its record is damaged."""
    if (record := load_run(folder)) is None:
        return RunState("missing")
    key = run_key(record["notebook_sha256"], record["parameters"])
    return RunState(record["status"], record["error"], record["seconds"], record["started"], key)


# --- in a worker


@dataclass(frozen=True)
class Job:
    """One run of a sweep, as a worker gets it.

    ``notebook`` is the sweep's copy, ``pictures`` the folder of the original; ``mark`` is a file
    that is there while the sweep lasts.
    """

    name: str
    folder: Path
    notebook: Path
    pictures: Path
    parameters: dict
    key: str
    timeout: int | None
    time_limit: float | None
    before: RunState
    mark: Path


#: Jobs under way in this process: a sweep's mark and a folder → the thread that does the job, or
#: None once that has been interrupted.
_UNDER_WAY: dict[tuple[Path, Path], int | None] = {}


def do_run(job: Job) -> RunState:
    """Do a run in a worker's thread, unless another sweep has done it in the meantime.

    Returns how it ended. The status is "busy" if another process is doing it now, and "no folder"
    if the sweep's is full or gone.
    """
    try:
        return _do_run(job)
    except FileError as error:  # which dask could not send
        return RunState("no folder", str(error))
    except KeyboardInterrupt:
        return RunState("interrupted")
    finally:
        _UNDER_WAY.pop((job.mark, job.folder), None)


def _do_run(job: Job) -> RunState:
    import papermill.execute  # noqa: F401  (takes seconds that must not count as the run's)
    from distributed import get_worker

    _check_folder(job)
    found = run_state(job.folder)
    if found.key == job.key and (
        found.status == "done" or (found.status in ENDED and found.started != job.before.started)
    ):
        return found
    starts = job.mark.with_name(f"{job.mark.name}-{job.key[:12]}")
    if _counted(starts) > MAX_STARTS:
        return RunState("killed", f"its worker died {MAX_STARTS} times")
    get_worker().log_event(job.mark.name, job.name)
    options = {"timeout": job.timeout, "time_limit": job.time_limit, "pictures": job.pictures}
    do = partial(run, job.notebook, job.parameters, job.folder, progress=False, **options)
    _UNDER_WAY[job.mark, job.folder] = threading.get_ident()
    try:
        try:
            do(resume=True)
        except ResumeError:  # what it did before was with another version of notebook or kit
            do()
    except BusyError:
        return RunState("busy")
    except RunError:
        _check_folder(job)
    except Exception as error:
        _check_folder(job)
        if (number := getattr(error.__cause__ or error, "errno", None)) in (EDQUOT, ENOSPC, EROFS):
            raise FileError(f"{job.folder}: not written: {os.strerror(number)}") from None
        return RunState("failed", f"{type(error).__name__}: {in_line(error)}")
    finally:
        starts.unlink(missing_ok=True)
    state, page = run_state(job.folder), job.folder / f"{job.notebook.stem}.html"
    if state.status == "done" and not page.exists():
        return replace(state, error=f"{page}: not written")
    return state


def _counted(path: Path) -> int:
    """How many times this was called for a file."""
    with open(path, "ab") as file:
        file.write(b".")
        return file.tell()


def _check_folder(job: Job) -> None:
    """Raise :class:`FileError` if the sweep's folder is gone or full."""
    if not job.mark.exists():
        raise FileError(f"{job.mark.parent}: gone while the sweep was under way")
    if shutil.disk_usage(job.mark.parent).free < LEAST_SPACE:
        raise FileError(f"{job.mark.parent}: not written: No space left on device")


def interrupt_runs(mark: Path) -> int:
    """Interrupt a sweep's runs in this worker once, as Ctrl-C would; how many are still there."""
    ours = [key for key in list(_UNDER_WAY) if key[0] == mark]
    for key in ours:
        if thread := _UNDER_WAY.get(key):
            _UNDER_WAY[key] = None
            error = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
    return len(ours)


def answer(mark: Path) -> Path:
    """Show that this worker reads and writes the sweep's folder, by a copy of its mark."""
    copy = mark.with_name(f"{mark.name}-{uuid.uuid4().hex[:8]}")
    with atomic_write(copy) as beside:
        beside.write_text(mark.read_text("utf-8"), "utf-8")
    return copy


# --- from outside


def check_options(workers, scheduler, insecure: bool, dashboard: bool) -> None:
    """Refuse options that exclude each other or are not safe, and a missing package."""
    if workers is not None and workers < 1:
        raise SweepError("workers", workers, "at least 1")
    if scheduler is not None and (workers is not None or dashboard):
        raise SweepError(
            "scheduler",
            "workers or a dashboard beside it",
            "a scheduler alone, with its own workers",
        )
    try:
        import cryptography  # noqa: F401
        import distributed
    except ImportError:
        raise SweepError("a sweep needs dask: pip install 'bmnas[cluster]'") from None
    if scheduler is not None and not insecure:
        if not scheduler.startswith("tls://"):
            found = f"{scheduler}, without authentication or encryption"
            raise SweepError("scheduler", found, "tls://…, or --insecure (insecure=True)")
        if distributed.Security().get_connection_args("client")["ssl_context"] is None:
            found = "no certificates for tls://"
            raise SweepError("scheduler", found, "dask's settings distributed.comm.tls")


@contextmanager
def connected(workers: int | None, scheduler: str | None, dashboard: bool, progress: bool):
    """A client of the scheduler at an address, or else of our own on this machine."""
    from dask.system import CPU_COUNT
    from distributed import Client, Security

    with ExitStack() as stack:
        for name in [n for n in logging.root.manager.loggerDict if n.startswith("distributed")]:
            stack.enter_context(silenced(name))
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        security = None  # dask's own settings
        if scheduler is None:
            own = stack.enter_context(_own_cluster(workers or CPU_COUNT, dashboard))
            scheduler, keys = own["address"], own["keys"]
            security = Security(
                tls_ca_file=keys["ca_file"],
                tls_client_cert=keys["cert"],
                tls_client_key=keys["key"],
                require_encryption=True,
            )
            if dashboard and progress:
                print(f"dashboard: {own['dashboard']}", file=sys.stderr)
        try:
            client = Client(scheduler, security=security, set_as_default=False, name="bmnas-sweep")
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise SweepError(f"scheduler {scheduler}: no answer ({in_line(error)})") from None
        stack.callback(client.close, timeout=5)
        yield client


@contextmanager
def _own_cluster(workers: int, dashboard: bool) -> Iterator[dict]:
    """A scheduler and workers on this machine, whose processes end with the block."""
    options = json.dumps({"workers": workers, "dashboard": dashboard})
    program = Path(__file__).with_name("cluster.py")
    # Ctrl-C reaches only this process, which then ends the others in order.
    apart = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", program, options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            **apart,
        )
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                last = log.read()[-1000:].decode(errors="replace").strip().splitlines()[-1:]
                raise SweepError(f"dask did not start: {' '.join(last) or 'it says nothing'}")
            yield json.loads(line)
        finally:
            process.stdin.close()
            process.stdout.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()  # its workers end when they find it gone
            process.wait()


def check_shared(client, folder: Path, mark: Path) -> None:
    """Wait for a worker, and check that each one shares the sweep's folder.

    Raises :class:`SweepError` for a worker that does not see the folder or lacks the kit.
    """
    client.wait_for_workers(1)
    for worker, copy in client.run(answer, mark, on_error="return").items():
        try:
            if isinstance(copy, Exception):
                raise copy
            if copy.read_text("utf-8") != mark.name:
                raise FileNotFoundError
        except Exception as error:
            found = f"worker {worker} without it ({type(error).__name__}: {in_line(error)})"
            raise SweepError(folder, found, "a folder that all workers share") from None
        finally:
            with suppress(OSError, AttributeError):
                copy.unlink()
