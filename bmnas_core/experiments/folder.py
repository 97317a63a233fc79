"""What a run's folder holds: ``run.json``, the state to resume from, an earlier result."""

import json
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from ..autosave import work_in
from ..config import __version__
from ..errors import BmnasError, FileError, quoted
from ..reading import text_of
from ..storage import atomic_write
from .results import RESULT_FILES, RUN_FILE, RUN_FORMAT

#: What a resumed run must have in common with the one that was interrupted.
SAME = ("notebook", "notebook_sha256", "version", "parameters")
#: The status if ``run.json`` cannot be read.
DAMAGED = "unreadable"


class ResumeError(BmnasError):
    """A run that cannot be resumed: its notebook, parameters or version of the kit differ."""


class RunFolder:
    """A run's folder, from its start to its end. Whoever uses it holds its lock.

    ``run.json`` says what runs and how it ended: ``notebook`` (its name), ``notebook_sha256`` (of
    its cells, see :func:`~bmnas_core.experiments.parameters.notebook_hash`), ``parameters`` (all
    but ``out``), ``version`` (the kit's), ``status`` (one of
    :data:`~bmnas_core.experiments.results.STATUSES`), ``error`` (a line, or null), ``started``
    (ISO 8601), ``seconds`` (null until its end) and ``resumed`` (seconds of work that were done
    before; null unless the run was resumed).

    In ``state`` searches, trainings and features keep what they need to continue. ``earlier`` keeps
    the result of the run before until this one is done. It is moved there, by renames through
    ``.earlier``, before this one begins; if a kill interrupts that, the next run moves it back.
    """

    def __init__(self, path: Path, notebook: str, sha256: str, parameters: dict):
        self.path, self.state, self.earlier = path, path / "state", path / "earlier"
        self.about = {
            "format": RUN_FORMAT,
            "notebook": notebook,
            "notebook_sha256": sha256,
            "parameters": parameters,
            "version": __version__,
        }

    def begin(self, *, resume: bool) -> bool:
        """Prepare the folder and note that a run begins. False for a run to resume that is done.

        Raises :class:`ResumeError` if the run to resume is a different one, and
        :class:`FileError` if the folder cannot be written to.
        """
        try:
            self._take_back()
            before = self._read()
            resumed = None
            if resume and before is not None:
                self._check_same(before)
                resumed = round(work_in(self.state), 1)
                if before["status"] == "done":
                    self._tidy()
                    return False
            else:
                discard(self.state)
            self._set_aside(before)
            self.state.mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(f"{self.path}: not written: {error.strerror or error}") from None
        self._started = time.monotonic()
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        how = {"started": started, "seconds": None, "resumed": resumed}
        self._write(status="running", error=None, **how)
        return True

    def end(self, status: str, error: str | None = None) -> None:
        """Note how the run ended. If it is done, its state and the earlier result are removed.

        Raises :class:`FileError` if that cannot be written, or the folder vanished meanwhile.
        """
        self.check()
        seconds = round(time.monotonic() - self._started, 3)
        self._write(status=status, error=error, seconds=seconds)
        if status == "done":
            self._tidy()
        with suppress(OSError):
            self.state.rmdir()  # unless something is in it

    def check(self) -> None:
        """Raise :class:`FileError` if the folder is no longer this run's."""
        if self._read() != self.about:
            raise FileError(f"{self.path}: not written: the folder vanished during the run")

    def _tidy(self) -> None:
        discard(self.state)
        discard(self.earlier)

    def _check_same(self, before: dict) -> None:
        if found := self._difference(before):
            allowed = "the notebook, parameters and version of the run there, or no --resume"
            raise ResumeError(f"{self.path}: resume", found, allowed)

    def _difference(self, before: dict) -> str:
        if before["status"] == DAMAGED:
            return f"an {DAMAGED} {RUN_FILE}"
        for name in SAME:
            mine, other = self.about[name], before.get(name)
            if as_text(mine) == as_text(other):
                continue
            if name == "parameters":
                return parameters_that_differ(mine, other)
            if name == "notebook_sha256":
                return "a notebook with other cells"
            return f"{name} {quoted(mine)}, not {quoted(other)}"
        return ""

    def _take_back(self) -> None:
        moving = self.path / ".earlier"
        if moving.is_symlink():  # none of ours: what it leads to is not this folder's
            moving.unlink()
        if moving.is_dir():
            for file in sorted(moving.iterdir(), key=lambda file: file.name == RUN_FILE):
                os.replace(file, self.path / file.name)
            moving.rmdir()

    def _set_aside(self, before: dict | None) -> None:
        """Move a complete result to ``earlier``; remove what an unfinished run left."""
        names = known_names(self.about["notebook"], (before or {}).get("notebook"))
        there = [self.path / name for name in names if (self.path / name).is_file()]
        if before is None or before["status"] == DAMAGED:
            whole = (self.path / "result.json").exists()
        else:
            whole = before["status"] == "done"
        if not whole:
            for file in there:
                file.unlink()
            return
        moving = self.path / ".earlier"
        moving.mkdir()
        for file in there:
            os.replace(file, moving / file.name)
        discard(self.earlier)
        moving.rename(self.earlier)

    def _read(self) -> dict | None:
        """What ``run.json`` holds, or None if there is none."""
        path = self.path / RUN_FILE
        try:
            found = json.loads(text_of(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            found = None
        if (
            not isinstance(found, dict)
            or found.get("format") != RUN_FORMAT
            or "status" not in found
        ):
            found = {"status": DAMAGED}
        return found

    def _write(self, **fields: object) -> None:
        about = {**self.about, **fields}
        with atomic_write(self.path / RUN_FILE) as beside:
            beside.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        self.about = about


def known_names(*notebooks: object) -> Iterable[str]:
    """The files of runs of these notebooks, in the order in which they are moved away."""
    yield from (RUN_FILE, *reversed(RESULT_FILES))
    for notebook in dict.fromkeys(name for name in notebooks if isinstance(name, str)):
        name = Path(notebook).name
        yield from (name, f"{Path(name).stem}.html")


def discard(folder: Path) -> None:
    """Remove a folder with all that is in it; after a kill it is there whole or not at all."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def as_text(value: object) -> str:
    """JSON that is equal only for values of equal types."""
    return json.dumps(value, sort_keys=True)


def parameters_that_differ(mine: dict, theirs: object) -> str:
    """The first parameter that differs, and its two values."""
    theirs = theirs if isinstance(theirs, dict) else {}
    for name in {**mine, **theirs}:
        if name not in mine or name not in theirs:
            return f"parameter {name} in one of the two runs"
        if as_text(mine[name]) != as_text(theirs[name]):
            return f"parameter {name} = {quoted(mine[name])}, not {quoted(theirs[name])}"
    return "other parameters"
