"""Locks between processes: only one at a time writes a run's folder, a table or features."""

import getpass
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import BmnasError, FileError, in_line, quoted, shortened
from .progress import progress_bar
from .reading import text_of

#: Seconds between checks of what other processes do.
POLL = 0.1
FOREVER = 1e9  # in seconds; filelock's own, -1, does not wait for another thread


class BusyError(BmnasError):
    """A file or folder that another process writes to."""


@contextmanager
def locked(path: str | os.PathLike, *, wait: float | None = 0.0):
    """Hold the lock of a file, or of a folder that exists, while a block writes to it. ::

        with locked(out):  # a second process that comes here is refused
            ...

    The system releases it when the process ends, however it ends. The lock of a folder is a file
    in it, that of a file lies beside it; both stay there, empty. All links to a file share a lock.

    Args:
        wait: the most seconds to wait for another owner; None waits as long as it takes.

    Raises:
        BusyError: if another process or thread has the lock; gives its command, number and age.
        FileError: if no lock can be made there.
    """
    lock = _acquired(path, FOREVER if wait is None else wait)
    owner = _owner(path)
    try:
        with suppress(OSError):  # only what others are told
            owner.unlink(missing_ok=True)  # a link there may lead to somebody's file
            with open(owner, "x", encoding="utf-8") as file:
                file.write(json.dumps(_this_process()))
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def is_locked(path: str | os.PathLike) -> bool:
    """Whether another process or thread holds the lock of ``path`` at this moment."""
    try:
        _acquired(path, 0.0).release()
    except BusyError:
        return True
    return False


def _acquired(path: str | os.PathLike, wait: float) -> FileLock:
    """The lock of ``path``, held. Raises as :func:`locked`."""
    lock = FileLock(_place(path), thread_local=False)
    try:
        lock.acquire(timeout=wait, poll_interval=POLL)
    except Timeout:
        raise BusyError(path, _described(_owner(path)), "one process at a time") from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise FileError(f"{path}: not written: {why}") from None
    return lock


def _owner(path: str | os.PathLike) -> Path:
    """The file that names the owner of a lock."""
    return _place(path).with_suffix(".owner")


def share_work(
    path: str | os.PathLike,
    items: Iterable,
    is_missing: Callable[[object], bool],
    do: Callable[[object], object],
    title: str,
    *,
    key: Callable[[object], object] = repr,
    show: bool = True,
) -> None:
    """Call ``do(item)`` for each item that is missing in a file or folder, with other processes.

    Processes that call this for one ``path`` share the work. An item that another process is doing
    is left to it and waited for at the end; if that process ends without it, it is done here.

    Args:
        is_missing: reads the file or folder as it is now.
        do: puts the item there.
        title: of the progress bar, which ``show=False`` never shows.
        key: identifies an item, alike in all processes.

    Raises FileError if no lock can be made there.
    """
    waiting = [item for item in items if is_missing(item)]
    with progress_bar((), title, len(waiting), show=show) as bar:
        while waiting:
            busy = []
            for item in waiting:
                with _claimed(path, str(key(item))) as mine:
                    if not mine:
                        busy.append(item)
                    elif is_missing(item):
                        do(item)
                bar.update(mine)
            if len(busy) == len(waiting):
                bar.set_postfix_str("waiting for another process")
                time.sleep(POLL)
            waiting = [item for item in busy if is_missing(item)]


@contextmanager
def _claimed(path: str | os.PathLike, key: str):
    """Hold the claim on one item of ``path``; yields False if another process has it.

    A claim is a lock whose file is removed at its end. It is made and released under the lock of
    ``path``, so that nobody locks a file that is about to be removed.
    """
    place = _place(path)
    name = place.name.removeprefix(".").removesuffix("lock")
    claim = place.with_name(name + hashlib.sha256(key.encode(errors="replace")).hexdigest()[:12])
    with ExitStack() as held:
        with locked(path, wait=None):
            try:
                held.enter_context(locked(claim))
                mine = True
            except BusyError:
                mine = False
        try:
            yield mine
        finally:
            if mine and place.parent.is_dir():  # else it vanished, with all that was in it
                with locked(path, wait=None):
                    held.close()
                    _place(claim).unlink(missing_ok=True)


def _place(path: str | os.PathLike) -> Path:
    """Where the lock of a file or folder lies. FileError for what is no path of either."""
    try:
        found = Path(os.path.realpath(path))
        return found / ".lock" if found.is_dir() else found.with_name(f".{found.name}.lock")
    except (OSError, TypeError, ValueError) as error:
        found = f"{quoted(path)} ({in_line(error)})"
        raise FileError("path", found, "a file or folder") from None


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
        about = json.loads(text_of(owner, 10_000))
        age = max(0, round(time.time() - about["since"]))
        there = f"process {about['process']} of {about['user']} on {about['host']}"
        there = shortened(there, 120)
        return f"it in use for {_duration(age)} by {quoted(about['command'])} ({there})"
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return "it in use by another process"


def _duration(seconds: int) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds} s"
