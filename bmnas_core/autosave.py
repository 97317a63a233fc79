"""Autosaves: files from which killed searches and trainings continue.

A search keeps one where ``autosave=path`` says. ``bmnas run`` names a folder in the environment
variable BMNAS_STATE, where the searches, trainings and features of its notebook keep theirs. A
second run that makes the same ones in the same order finds them there: finished work is read,
interrupted work continues.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from safetensors import SafetensorError, safe_open

from .errors import BmnasError, quoted
from .reading import require_file

if TYPE_CHECKING:
    from torch import Tensor

#: Environment variable: the folder in which a run keeps what it can be resumed from.
STATE = "BMNAS_STATE"

#: Seconds between two autosaves, and the largest share of the time that saving may take.
EVERY, SHARE = 5.0, 0.02

#: Work that takes a run fewer seconds than this is repeated rather than kept.
QUICK = 1.0

Read = TypeVar("Read")


class AutosaveWarning(UserWarning):
    """An autosave that could not be written, or is damaged; the work goes on."""


class Autosave:
    """A file of tensors that is replaced now and then, and the one before it.

    Args:
        path: the newest; the one before has ``.before`` in front of its suffix.
        every: seconds between two; 0 saves at every opportunity. By default ``EVERY``, or more if
            saving would take more than ``SHARE`` of the time.
    """

    def __init__(self, path: str | os.PathLike, every: float | None = None):
        try:
            self.path, self.every = Path(path), every
            self.before = self.path.with_suffix(f".before{self.path.suffix}")
        except (TypeError, ValueError):
            raise BmnasError("autosave", quoted(path), "the path of a file") from None
        self._last = time.monotonic()
        self._cost, self._failed, self._spent = 0.0, False, -self._last

    @property
    def seconds(self) -> float:
        """How long the work has taken so far, the time before a kill included."""
        return self._spent + time.monotonic()

    def continue_from(self, seconds: float) -> None:
        """Count the seconds that the work took before it was killed."""
        self._spent += seconds

    def due(self) -> bool:
        """Whether it is time for the next one."""
        wait = max(EVERY, self._cost / SHARE) if self.every is None else self.every
        return time.monotonic() - self._last >= wait

    def save(self, make: Callable[[], tuple[dict[str, Tensor], dict]]) -> None:
        """Write the tensors and the header that ``make`` gives, and keep the file before.

        If that fails, the earlier files stay, with an :class:`AutosaveWarning`.
        """
        from .tensor_files import write_tensors

        start, beside = time.monotonic(), self.path.with_suffix(f".new{self.path.suffix}")
        try:
            tensors, header = make()
            write_tensors(beside, tensors, {**header, "seconds": round(self.seconds, 3)})
            if self.path.exists():
                os.replace(self.path, self.before)
            os.replace(beside, self.path)
        except OSError as error:
            if not self._failed:
                warnings.warn(f"no autosave: {error}", AutosaveWarning, stacklevel=2)
            self._failed = True
        self._last = time.monotonic()
        self._cost = self._last - start

    def read(self, read: Callable[[Path], Read]) -> Read | None:
        """What ``read`` makes of the newest undamaged file; None if there is none.

        Warns of a damaged one with :class:`AutosaveWarning`.
        """
        if not (self.path.exists() or self.before.exists()):
            return None
        try:
            return newest(self.path, read)
        except BmnasError as error:
            warnings.warn(f"{error}; made again", AutosaveWarning, stacklevel=2)
            return None


def newest(path: str | os.PathLike, read: Callable[[Path], Read]) -> Read:
    """What ``read`` makes of an autosave or, with a warning, of the one before if it is damaged.

    Raises what ``read`` raises for the newest if both are damaged.
    """
    autosave = Autosave(path)
    path, before = autosave.path, autosave.before
    try:
        return read(path)
    except BmnasError as error:
        try:
            found = read(before)
        except BmnasError:
            raise error from None
        if path.exists():
            text = f"{error}; continuing from the one before it, {before.name}"
            warnings.warn(text, AutosaveWarning, stacklevel=3)
        return found


#: The folder of the run that this process belongs to. It is removed from the environment, so that
#: commands that a notebook starts do not write there too.
_folder = Path(_path) if (_path := os.environ.pop(STATE, "")) else None
_made: Counter[tuple[str, str]] = Counter()


def is_kept() -> bool:
    """Whether this process keeps its work in the folder of a run."""
    return _folder is not None


def kept(kind: str, *made_from: object) -> Autosave | None:
    """The autosave, in the run's folder, of what is made from these; None outside a run.

    ``made_from`` must fix it to the bit. If the same thing is made twice, each time has a file of
    its own, by their order, so that a run never reads what it has made itself.
    """
    if _folder is None:
        return None
    key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
    number = _made[kind, key]
    _made[kind, key] += 1
    _folder.mkdir(parents=True, exist_ok=True)
    return Autosave(_folder / f"{kind}-{key}-{number}.safetensors")


def work_in(folder: Path) -> float:
    """Seconds of work that a run's folder keeps, of searches, trainings and features.

    Trainings within a search count as part of it.
    """
    seconds = 0.0
    for path in folder.glob("*-*.safetensors"):
        kind = path.name.partition("-")[0]
        if kind in ("search", "training", "features") and len(path.suffixes) == 1:
            damage = suppress(OSError, SafetensorError, ValueError, LookupError, TypeError)
            with damage, suppress(RecursionError):
                require_file(path)
                with safe_open(path, "pt") as file:
                    found = float(json.loads(file.metadata()["bmnas"])["seconds"])
                seconds += found if 0 <= found < math.inf else 0.0
    return seconds
