"""What one step of a search did, and the record from which a search is replayed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .architecture import ArchitectureWeights
from .autosave import QUICK, Autosave
from .errors import BmnasError, in_line
from .genotype import Genotype
from .metrics import score_text
from .reading import require_file
from .selection import derive

PHASES = ("start", "both", "weights", "architecture", "selection")


class _ReadWhenAsked:
    """A field that may be given as a function, which is called when the field is first read.

    To read a number from a GPU is to wait until the GPU has done all it was given.
    """

    def __set_name__(self, owner: type, name: str):
        self.name = name

    def __get__(self, state: object | None, owner: type):
        if state is None:  # as dataclass asks for a default
            raise AttributeError(self.name)
        if callable(value := state.__dict__[self.name]):
            value = state.__dict__[self.name] = value()
        return value

    def __set__(self, state: object, value: object):
        state.__dict__[self.name] = value


@dataclass(frozen=True)
class SearchState:
    """What one step of a search did, and the state after it.

    Attributes:
        step, epoch: counted from 1; 0 before the first step.
        phase: ``"both"``, ``"weights"`` or ``"architecture"``, as the step updates them;
            ``"selection"`` in the final selection; ``"start"`` before the first step.
        train_loss, val_loss: of this step's batches; None for the one the phase leaves out.
        val_score: on all of validation, the hypernet's score at the last step of an epoch; in the
            final selection the best candidate's so far, or during perturbation that of the
            hypernet fixed to the best pair.
        weights: α, β, γ after the step.
        selection: the name of the rule by which the search ends.
        selected: the best genotype so far, in the final selection.
    """

    step: int
    epoch: int
    phase: str
    lr: float
    train_loss: float | None = _ReadWhenAsked()
    val_loss: float | None = _ReadWhenAsked()
    val_score: float | None
    weights: ArchitectureWeights = _ReadWhenAsked()
    selection: str
    selected: Genotype | None = None

    alpha = property(lambda self: self.weights.alpha, doc="(edges, 2), edges Cell by Cell.")
    beta = property(lambda self: self.weights.beta, doc="Per Cell (edges, 2), step by step.")
    gamma = property(lambda self: self.weights.gamma, doc="Per Cell (M, operations).")

    @cached_property
    def genotype(self) -> Genotype:
        """What is selected so far; before the final selection, what α, β and γ stand for."""
        return self.selected or derive(self.weights, self.selection)

    def __str__(self) -> str:
        when = f"epoch {self.epoch}" if self.epoch else "before the first update"
        names = "training loss", "validation loss", "validation score"
        values = zip(names, (self.train_loss, self.val_loss, self.val_score), strict=True)
        known = [f"{name} {score_text(value)}" for name, value in values if value is not None]
        return " · ".join([f"step {self.step}", when, *known])


class StateLog:
    """A file of states of one search, in rows of one size, that grows by appending.

    A row keeps every number to the bit. Rows that were written after the last account of
    :meth:`write`, as before a kill, are ignored by :meth:`read` and overwritten later.

    Args:
        like: a state of the search.
    """

    def __init__(self, path: Path, like: SearchState):
        arrays = like.weights.arrays
        self.path, self._like = path, like
        self._shapes = [array.shape for array in arrays]
        self._row = np.dtype(
            [
                ("step", "<i8"),
                ("epoch", "<i8"),
                ("phase", "u1"),
                ("known", "?", (3,)),
                ("numbers", "<f8", (4,)),
                ("selected", "<i4"),
                ("weights", "<f4", (sum(array.size for array in arrays),)),
            ]
        )
        self._genotypes: list[Genotype] = []
        self._digest, self._count, self._unwritten = hashlib.sha256(), 0, []

    def append(self, state: SearchState) -> None:
        """Keep a state in memory until the next :meth:`write`."""
        self._unwritten.append(state)

    def _bytes(self, state: SearchState) -> bytes:
        row, selected = np.zeros((), self._row), -1
        if state.selected is not None:
            if state.selected not in self._genotypes[-1:]:
                self._genotypes.append(state.selected)
            selected = len(self._genotypes) - 1
        scores = state.train_loss, state.val_loss, state.val_score
        row["step"], row["epoch"], row["selected"] = state.step, state.epoch, selected
        row["phase"], row["known"] = PHASES.index(state.phase), [x is not None for x in scores]
        row["numbers"] = [state.lr, *(0.0 if x is None else x for x in scores)]
        row["weights"] = np.concatenate([array.ravel() for array in state.weights.arrays])
        return row.tobytes()

    def write(self) -> dict:
        """Write all states to disk; returns the account by which :meth:`read` finds them."""
        data = b"".join(map(self._bytes, self._unwritten))
        with open(self.path, "r+b" if self._count else "wb") as file:
            file.seek(self._count * self._row.itemsize)
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self._digest.update(data)
        self._count, self._unwritten = self._count + len(self._unwritten), []
        genotypes = [json.loads(genotype.to_json()) for genotype in self._genotypes]
        return {"rows": self._count, "sha256": self._digest.hexdigest(), "genotypes": genotypes}

    def read(self, account: dict) -> Sequence[SearchState]:
        """The states of an account. Raises BmnasError if the file does not begin with them."""
        size = self._row.itemsize
        try:
            rows = account["rows"]
            require_file(self.path)
            if not 0 <= rows * size <= os.path.getsize(self.path):
                raise OSError("fewer than were saved")
            with open(self.path, "rb") as file:
                data = file.read(rows * size)
        except (OSError, KeyError, TypeError) as error:
            raise BmnasError(f"{self.path}: found no states ({in_line(error)})") from None
        digest = hashlib.sha256(data)
        if len(data) != rows * size or digest.hexdigest() != account["sha256"]:
            raise BmnasError(self.path, "other states", "those of the search beside it")
        self._genotypes = [Genotype.from_json(json.dumps(g)) for g in account["genotypes"]]
        self._digest, self._count, self._unwritten = digest, rows, []
        return _Rows(np.frombuffer(data, self._row), self)

    def clear(self) -> None:
        """Forget what :meth:`read` gave; the next :meth:`write` starts a new file."""
        self._genotypes, self._digest, self._count = [], hashlib.sha256(), 0

    def _state(self, row: np.ndarray) -> SearchState:
        numbers = row["numbers"].tolist()
        scores = [x if known else None for x, known in zip(numbers[1:], row["known"], strict=True)]
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        parts = zip(np.split(row["weights"], ends), self._shapes, strict=True)
        arrays, like = [part.reshape(shape).copy() for part, shape in parts], self._like.weights
        named = like.features, like.operations, like.relaxation
        weights = ArchitectureWeights.from_arrays(arrays, *named)
        selected = self._genotypes[row["selected"]] if row["selected"] >= 0 else None
        made = int(row["step"]), int(row["epoch"]), PHASES[row["phase"]], numbers[0]
        return SearchState(*made, *scores, weights, self._like.selection, selected)


class _Rows(Sequence[SearchState]):
    """States that are built on access; those of a long search take hundreds of megabytes."""

    def __init__(self, rows: np.ndarray, log: StateLog):
        self._rows, self._log = rows, log

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self._log._state(row) for row in self._rows[i]]
        return self._log._state(self._rows[i])


class Record:
    """What a run's folder keeps of one search: its states, and the search as last saved.

    The states of a killed run are replayed one by one, and then the search continues from there.

    Args:
        begin: where the search begins: its step, best score and best genotype.

    Attributes:
        replayed: the last state that was replayed; None before and after the replay.
    """

    def __init__(self, autosave: Autosave, like: SearchState, begin: tuple):
        self.begin, self.replayed = begin, None
        self._autosave = autosave
        self._log = StateLog(autosave.path.with_suffix(".states"), like)
        self._saved, self._states, self._next = None, (), 0

    def read(self, read: Callable[[Path], tuple]) -> None:
        """Find what was kept; ``read`` gives ((header, …), tensors) of a file."""

        def read_both(path: Path) -> tuple:
            (header, *_), tensors = read(path)
            states = self._log.read(header.states or {})
            if not states or states[-1].step != header.step:
                raise BmnasError(path, "states up to another step", header.step)
            return (header, tensors), states

        if found := self._autosave.read(read_both):
            self._saved, self._states = found

    @property
    def replaying(self) -> bool:
        return self._next < len(self._states)

    def next(self) -> SearchState:
        """The next state to be replayed."""
        self.replayed = self._states[self._next]
        self._next += 1
        return self.replayed

    def end(self) -> tuple:
        """End the replay at its last state; header and tensors of the search there."""
        header, tensors = self._saved
        self._autosave.continue_from(header.seconds)
        self._saved, self._states, self.replayed = None, (), None
        return header, tensors

    def leave(self) -> int:
        """End the replay early; returns how many states were replayed, which are now made again."""
        made, self._next = self._next, 0
        self._saved, self._states, self.replayed = None, (), None
        self._log.clear()
        return made

    def append(self, state: SearchState) -> None:
        self._log.append(state)

    def save(self, saved: Callable[[dict], tuple], finished: bool) -> None:
        """Write what ``saved`` gives of the search if an autosave is due."""
        if self._autosave.due() or (finished and self._autosave.seconds >= QUICK):
            self._autosave.save(lambda: saved(self._log.write()))
