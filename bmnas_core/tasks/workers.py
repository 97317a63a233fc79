"""Worker processes that read batches ahead, also where little is set up for them.

Workers hand over a batch in shared memory or, if there is too little, as with Docker's default of
64 MB, in a temporary file. If there is no room for that either, or workers cannot start, this
process reads. A :class:`DataNotice` says so in one line.
"""

import io
import multiprocessing
import pickle
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import DataError, DataNotice, in_line

#: Give up after this many seconds without a batch: a worker is blocked.
MAX_WAIT = 600.0

#: Seconds between checks that all workers are alive.
POLL = 2.0


def read_ahead(read: Callable[[Any], Any], batches: Sequence, workers: int) -> Iterator[Any]:
    """``map(read, batches)`` in worker processes, each at most two batches ahead.

    Raises DataError for a ``read`` that cannot be pickled, and if a worker ends or blocks.
    """
    folder, done, parts, why = _unused_folder(), 0, None, ""
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=min(workers, len(batches)),
        collate_fn=_HandOver(read, folder),
        generator=torch.Generator(),  # by default it draws from the one that training uses
        timeout=POLL,
    )
    try:
        parts = _start(loader)
        while done < len(batches):
            found, short = _next(parts, loader.num_workers)
            if short and not why:
                why = f"found too little shared memory ({short}); allowed: more, in Docker"
                _warn(f"{why} with --shm-size=2g; until then batches go through files")
            done += 1
            yield found
    except _NoWorkersError as error:
        _warn(f"{error}; files are read in this process, which is slower")
    finally:
        for process in getattr(parts, "_workers", ()):
            process.kill()  # one that was forked beside busy threads may never end by itself
        parts = None
        shutil.rmtree(folder or "", ignore_errors=True)
    yield from map(read, batches[done:])


class _NoWorkersError(Exception):
    """Why worker processes cannot start, or cannot hand over what they read."""


class _HandOver:
    """Reads a batch in a worker, and hands it to the main process, pickled; see _unpacked.

    Shared memory is used here and not in DataLoader's queue, whose errors nobody sees.
    """

    def __init__(self, read: Callable[[Any], Any], folder: Path | None):
        self.read, self.folder, self.why = read, folder, ""

    def __call__(self, batch: Any) -> tuple[bytes, str]:
        found = self.read(batch)
        if not self.why:
            try:
                return bytes(ForkingPickler.dumps(found)), ""
            except (OSError, RuntimeError) as error:
                self.why = in_line(error)
        try:
            if not self.folder:
                raise OSError("no folder for temporary files")
            self.folder.mkdir(mode=0o700, exist_ok=True)
            path = self.folder / uuid4().hex
            with open(path, "wb") as file:
                pickle.dump(found, file)
        except OSError as error:  # what was written is removed with the folder
            return pickle.dumps(_NoWorkersError(f"found {self.why}, and {error}")), self.why
        return pickle.dumps(path), self.why


def _unpacked(packed: bytes) -> Any:
    try:
        found = pickle.loads(packed)
        if isinstance(found, Path):
            with open(found, "rb") as file:
                found, path = pickle.load(file), found
            path.unlink()
    except (OSError, EOFError, RuntimeError) as error:  # open files, or the worker has ended
        why = f"found a batch not handed over ({type(error).__name__} {in_line(error)})"
        raise _NoWorkersError(why) from None
    if isinstance(found, _NoWorkersError):
        raise found
    return found


def _unused_folder() -> Path | None:
    """Where a folder for batches can be made, or None where there is no place for one."""
    try:
        return Path(tempfile.gettempdir(), f"bmnas-{uuid4().hex}")
    except OSError:
        return None


def _start(loader: DataLoader) -> Iterator[tuple[bytes, str]]:
    """The loader's iterator, with all workers started. Raises _NoWorkersError, or DataError."""
    if multiprocessing.current_process().daemon:
        raise _NoWorkersError("found a process that may start no others, a worker itself")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # a worker that runs the script anew; _next says why it ended
    try:  # as many locks as the loader takes: without them it would be left half started
        [multiprocessing.Queue() for _ in range(loader.num_workers + 4)]
    except (OSError, ImportError) as error:
        why = f"found no shared memory for locks ({in_line(error)}); allowed: a writable /dev/shm"
        raise _NoWorkersError(why) from None
    try:
        with _script_hidden(loader.collate_fn):
            parts = iter(loader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        found = f"inputs that cannot be pickled for worker processes ({in_line(error)})"
        allowed = "classes and functions of modules; or BMNAS_WORKERS=0, if there is a version"
        raise DataError("inputs", found, allowed) from None
    except OSError as error:
        raise _NoWorkersError(f"found that none can start ({in_line(error)})") from None
    with suppress(AttributeError):  # otherwise the end of a worker is raised in whatever runs then
        torch.utils.data._utils.signal_handling._remove_worker_pids(id(parts))
        parts._worker_pids_set = False
    return parts


@contextmanager
def _script_hidden(sent: object):
    """Start workers in this block that do not run the main script, which may lack a main guard.

    They have it only if they are forked from this process or need a class of the script. Raises
    _NoWorkersError if they need it and cannot import it.
    """
    main = sys.modules["__main__"]
    if multiprocessing.get_start_method() == "fork":
        yield
    elif name := _MainFinder().find(sent):
        if why := _unimportable(main):
            raise _NoWorkersError(f"found {name} in {why}{name} in a module of its own")
        yield
    else:
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


GUARD = """`if __name__ == "__main__":`"""


def _unimportable(main: ModuleType) -> str:
    """Why workers that do not start as a fork cannot import the main script, or ""."""
    try:
        source = Path(main.__file__).read_text(encoding="utf-8", errors="replace")
    except (AttributeError, OSError):
        return "a notebook, or a script without a file; allowed: "
    guarded = "__main__" in source
    return "" if guarded else f"{main.__file__}, which has no {GUARD}; allowed: that line, or "


class _MainFinder(pickle.Pickler):
    """Finds out whether an object needs a class or function of the main script."""

    def __init__(self):
        super().__init__(io.BytesIO())
        self._found = ""

    def find(self, sent: object) -> str:
        """The name of a class or function of the main script that unpickling needs, or ""."""
        self.dump(sent)
        return self._found

    def persistent_id(self, part: object) -> str | None:
        if getattr(part, "__module__", None) == "__main__":
            self._found = getattr(part, "__qualname__", type(part).__qualname__)
        return "array" if isinstance(part, (Tensor, np.ndarray)) else None  # not copied


def _next(parts: Iterator, workers: int) -> tuple[Any, str]:
    """The next batch, and why not in shared memory.

    Raises DataError if a worker has ended or no batch came for ``MAX_WAIT`` seconds, or
    _NoWorkersError.
    """
    start, wrong = time.monotonic(), ""
    processes = getattr(parts, "_workers", ())
    while not wrong:
        try:
            packed, why = next(parts)
            return _unpacked(packed), why
        except _NoWorkersError:
            if not wait([process.sentinel for process in processes], 1.0):
                raise
            wrong = "one that ended"
        except RuntimeError as error:
            waited = time.monotonic() - start
            if "DataLoader worker (pid" in str(error):
                wrong = "one that ended"
            elif "DataLoader timed out" not in str(error):
                raise
            elif waited > MAX_WAIT:
                wrong = f"no batch for {waited:.0f} s"
    for process in processes:
        process.join(0.2)
    codes = [process.exitcode for process in processes if process.exitcode is not None]
    for process in processes:
        process.kill()
    found = f"{wrong} (exit code {codes[0]})" if codes else wrong
    allowed = f"as many as fit in memory, in a script with {GUARD}; or BMNAS_WORKERS=0"
    raise DataError(f"{workers} worker processes", found, allowed)


def _warn(what: str) -> None:
    warnings.warn(f"worker processes: {what}", DataNotice, stacklevel=4)
