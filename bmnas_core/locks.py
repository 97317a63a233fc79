"""Locks between processes: only one at a time writes a run's folder, a table or a bank."""

import getpass
import json
import os
import platform
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import BmnasError, FileError


class BusyError(BmnasError):
    """A file or folder that another process writes to."""


@contextmanager
def locked(path: str | os.PathLike, *, wait: float | None = 0.0):
    """Hold the lock of a file, or of a folder that exists, while a block writes to it. ::

        with locked(out):  # a second process that comes here is refused
            ...

    The system releases it when the process ends, however it ends. A folder's lock is a file in it,
    a file's one beside it; both stay there, empty.

    Args:
        wait: the most seconds to wait for another owner; None waits as long as it takes.

    Raises:
        BusyError: if another process or thread has the lock; with its command, number and age.
        FileError: if no lock can be made there.
    """
    path = Path(path)
    place = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    owner, lock = place.with_suffix(".owner"), FileLock(place, thread_local=False)
    try:
        lock.acquire(timeout=-1 if wait is None else wait, poll_interval=0.1)
    except Timeout:
        raise BusyError(path, _described(owner), "one process at a time") from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise FileError(f"{place}: not written: {why}") from None
    try:
        with suppress(OSError):  # only what others are told
            owner.write_text(json.dumps(_this_process()), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def is_locked(path: str | os.PathLike) -> bool:
    """Whether another process or thread holds the lock of ``path`` at this moment."""
    try:
        with locked(path):
            return False
    except BusyError:
        return True


def _this_process() -> dict:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200] or "python"
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = ""
    where = {"host": platform.node(), "user": user}
    return {"command": command, "process": os.getpid(), **where, "since": time.time()}


def _described(owner: Path) -> str:
    try:
        about = json.loads(owner.read_text(encoding="utf-8"))
        age = max(0, round(time.time() - about["since"]))
        there = f"process {about['process']} of {about['user']} on {about['host']}"
        return f"it in use for {_duration(age)} by {about['command']!r} ({there})"
    except (OSError, ValueError, KeyError, TypeError):
        return "it in use by another process"


def _duration(seconds: int) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds} s"
