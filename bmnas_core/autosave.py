"""Autosaves: what searches and trainings that were killed go on from.

A search keeps one where it is told to (``autosave=path``). ``bmnas run`` names a folder in the
environment variable BMNAS_STATE, in which searches, trainings and features of its notebook keep
theirs. A second run that makes the same ones in the same order finds them there: what was finished
is read, what was under way continues.
"""

import hashlib
import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import BmnasError, quoted
from .storage import write_tensors

#: Environment variable: the folder of a run in which it keeps what it can go on from.
STATE = "BMNAS_STATE"

#: Seconds between two autosaves, and the largest share of the time that they may take.
EVERY, SHARE = 5.0, 0.02

#: What a run makes in less time, in seconds, is made again rather than kept.
QUICK = 1.0

Read = TypeVar("Read")


class AutosaveWarning(UserWarning):
    """An autosave that could not be written, or is damaged; the work goes on."""


class Autosave:
    """A file of tensors that is replaced now and then, and the one before it.

    Args:
        path: the newest; the one before has ``.before`` in front of its suffix.
        every: seconds between two, 0 at each occasion. By default ``EVERY``, or more if saving
            would take more than ``SHARE`` of the time.
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
        """How long the work has taken so far, also before it was killed."""
        return self._spent + time.monotonic()

    def continue_from(self, seconds: float) -> None:
        """Count the seconds that the work took before it was killed."""
        self._spent += seconds

    def due(self) -> bool:
        """Whether it is time for the next one."""
        wait = max(EVERY, self._cost / SHARE) if self.every is None else self.every
        return time.monotonic() - self._last >= wait

    def save(self, make: Callable[[], tuple[dict[str, Tensor], dict]]) -> None:
        """Write the tensors and the header that ``make`` gives, and keep those before.

        If that fails, the earlier ones stay, with an :class:`AutosaveWarning`.
        """
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
        """What ``read`` makes of the newest whole one; None if there is none.

        Damage is said in an :class:`AutosaveWarning`.
        """
        if not (self.path.exists() or self.before.exists()):
            return None
        try:
            return newest(self.path, read)
        except BmnasError as error:
            warnings.warn(f"{error}; made again", AutosaveWarning, stacklevel=2)
            return None


def newest(path: str | os.PathLike, read: Callable[[Path], Read]) -> Read:
    """What ``read`` makes of an autosave; of the one before, with a warning, if it is damaged.

    Raises what ``read`` raises for the newest if no other is whole.
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
            text = f"{error}; going on from the one before it, {before.name}"
            warnings.warn(text, AutosaveWarning, stacklevel=3)
        return found


#: The folder of the run that this process belongs to. It leaves the environment, so that commands
#: which a notebook starts do not write there too.
_folder = Path(_path) if (_path := os.environ.pop(STATE, "")) else None
_made: Counter[tuple[str, str]] = Counter()


def is_kept() -> bool:
    """Whether this process keeps its work in the folder of a run."""
    return _folder is not None


def kept(kind: str, *made_from: object) -> Autosave | None:
    """Where the run's folder has, or will have, what is made from these; None without a folder.

    ``made_from`` must fix it to the bit. The same things made twice have two files, in their order,
    so that no run is faster for what it did before.
    """
    if _folder is None:
        return None
    key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
    number = _made[kind, key]
    _made[kind, key] += 1
    _folder.mkdir(parents=True, exist_ok=True)
    return Autosave(_folder / f"{kind}-{key}-{number}.safetensors")


def work_in(folder: Path) -> float:
    """How many seconds of work a run's folder keeps: of searches, trainings and features.

    Trainings within a search count as part of it.
    """
    seconds = 0.0
    for path in folder.glob("*-*.safetensors"):
        kind = path.name.partition("-")[0]
        if kind in ("search", "training", "features") and len(path.suffixes) == 1:
            damage = suppress(OSError, SafetensorError, ValueError, KeyError, TypeError)
            with damage, safe_open(path, "pt") as file:
                seconds += float(json.loads(file.metadata()["bmnas"])["seconds"])
    return seconds
