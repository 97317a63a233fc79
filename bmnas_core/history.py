"""SearchHistory: every step of a search, kept, compared and shown."""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .architecture import ArchitectureWeights
from .errors import BmnasError, check_type
from .genotype import OPERATIONS, Genotype
from .metrics import score_text
from .search import Search, SearchState
from .storage import atomic_write, read_tensors, write_tensors

FORMAT = "bmnas-history/3"
#: What a history must say of its search.
ABOUT = dict(task=str, rule=str | None, metric=str, seed=int, config=dict, features=list)
PHASES = ("start", "both", "weights", "architecture", "selection")
#: The numbers of each state.
COLUMNS = ("step", "epoch", "lr", "train_loss", "val_loss", "val_score")


class HistoryError(BmnasError):
    """A history that cannot be read, or a state that does not belong to it."""


@dataclass(frozen=True)
class Comparison:
    """Two histories side by side.

    Attributes:
        settings: those that differ: name → both values.
        steps: how many steps both have kept.
        equal_until: the last of these up to which all numbers are equal to the bit; or None.
        agreement: the share of these steps at which both derive the same architecture.
        best: the best validation score of each; None before the end of an epoch.
    """

    settings: dict[str, tuple[object, object]]
    steps: int
    equal_until: int | None
    agreement: float
    best: tuple[float | None, float | None]

    def __str__(self) -> str:
        scores = " and ".join("none yet" if s is None else score_text(s) for s in self.best)
        settings = "; ".join(f"{k}: {a} and {b}" for k, (a, b) in self.settings.items())
        until = "never" if self.equal_until is None else self.equal_until
        return (
            f"settings that differ    {settings or 'none'}\n"
            f"steps in common         {self.steps}\n"
            f"equal to the bit until  {until}\n"
            f"same architecture       at {self.agreement:.0%} of the steps in common\n"
            f"best validation score   {scores}"
        )


class SearchHistory:
    """The states of a search: all of them, or an even selection from a long one. ::

        history = bm.SearchHistory.from_search(search)
        for state in search:
            history.append(state)
        history[10].genotype, history.at(step=120).alpha
        history.save("history.safetensors"), history.to_html("search.html")

    Item i is a :class:`SearchState`; the first is the state in which the history began. Beyond
    ``limit`` states, 3 or more, every second step is dropped, then every second of the rest, and so
    on. The first, the last and the best state stay, and ends of epochs as long as there is room.
    ``about`` is the search's task, settings and seed, as :meth:`from_search` reads them.
    """

    def __init__(self, about: dict, limit: int = 10_000):
        if not isinstance(limit, int) or limit < 3:
            raise HistoryError("limit", repr(limit), "an integer of 3 or more")
        for name, kind in ABOUT.items():
            if not isinstance(about, dict) or not isinstance(about.get(name), kind):
                allowed = f"{', '.join(ABOUT)}, as from_search reads them"
                raise HistoryError("about", f"no {name}", allowed)
        self.about, self.limit = dict(about), limit
        self._states: list[SearchState] = []
        self._best: SearchState | None = None
        self._stride = self._epoch_stride = 1

    @classmethod
    def from_search(cls, search: Search, limit: int = 10_000) -> SearchHistory:
        """A history of ``search`` from where it stands now."""
        check_type(search, Search, "SearchHistory.from_search", HistoryError)
        about = {
            "task": search.task.name,
            "rule": search.task.rule,
            "protocol": search.task.protocol,
            "metric": search.task.metric,
            "direction": search.metric.direction,
            "limits": search.metric.limits,
            "seed": search.seed,
            "config": search.config.to_dict(),
            "features": search.task.features,
            "steps_per_epoch": search.steps_per_epoch,
        }
        history = cls(json.loads(json.dumps(about)), limit)
        history.append(search.state)
        return history

    def append(self, state: SearchState) -> None:
        """Keep a state. Raises HistoryError unless it is a later one of the same search."""
        check_type(state, SearchState, "append", HistoryError)
        weights, about = state.weights, {**self.about["config"], **self.about}
        theirs = [[*weights.features], [*weights.operations], weights.relaxation, state.selection]
        ours = [about[name] for name in ("features", "operations", "relaxation", "selection")]
        last = self._states[-1] if self._states else None
        if theirs != ours or (last and _shapes(state) != _shapes(last)):
            raise HistoryError("append", "a state of another search", "of the same one")
        if last and state.step <= last.step:
            raise HistoryError("append", f"step {state.step}", f"after step {last.step}")
        if state.phase not in PHASES:
            raise HistoryError("append", f"phase {state.phase!r}", ", ".join(map(repr, PHASES)))
        if last and state.genotype == last.genotype:  # keep one object of it
            state.__dict__["genotype"] = last.genotype
        if len(self) > 1 and not self._keeps(last):
            self._states.pop()
        self._add(state)
        while len(self) > self.limit:
            self._stride *= 2
            states = [state for state in self._states[:-1] if self._keeps(state)]
            if len(states) >= self.limit:
                self._epoch_stride *= 2
            self._states = [*states, self._states[-1]]

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[SearchState]:
        return iter(self._states)

    def __getitem__(self, i: int | slice) -> SearchState | list[SearchState]:
        try:
            return self._states[i]
        except IndexError:
            raise IndexError(f"history: found index {i}; allowed: below {len(self)}") from None

    @property
    def genotypes(self) -> list[Genotype]:
        """All genotypes that states have, each once, in order."""
        return list(dict.fromkeys(state.genotype for state in self))

    def __eq__(self, other: object) -> bool:
        """Whether both have the same settings and the same numbers to the bit."""
        if not isinstance(other, SearchHistory):
            return NotImplemented
        same = self.about == other.about and len(self) == len(other)
        return same and all(
            _same(a, b) and a.genotype == b.genotype for a, b in zip(self, other, strict=True)
        )

    def index(self, step: int) -> int:
        """Index of the last state kept at or before ``step``, or else of the first state."""
        try:
            step = operator.index(step)
        except TypeError:
            raise HistoryError("step", repr(step), "an integer") from None
        self._some()
        return max(0, int(np.searchsorted(self.steps, step, side="right")) - 1)

    def at(self, step: int) -> SearchState:
        """The last state kept at or before ``step``, as :meth:`index` finds it."""
        return self[self.index(step)]

    @property
    def steps(self) -> np.ndarray:
        """Steps of all states, (len,), integers."""
        return self.column("step").astype(np.int64)

    def column(self, name: str) -> np.ndarray:
        """One of :data:`COLUMNS`, (len,), with NaN for a state without it."""
        if name not in COLUMNS:
            raise HistoryError("column", repr(name), ", ".join(map(repr, COLUMNS)))
        return np.array([getattr(state, name) for state in self], dtype=float)

    @property
    def phases(self) -> np.ndarray:
        """The phase of each state, as :class:`SearchState` names them: (len,), strings."""
        return np.array([state.phase for state in self])

    @property
    def changes(self) -> list[int]:
        """Indices of the states whose architecture is not that of the state before."""
        canonical = {genotype: genotype.canonical() for genotype in self.genotypes}
        found = [canonical[state.genotype] for state in self]
        return [i for i in range(1, len(self)) if found[i] != found[i - 1]]

    @property
    def best(self) -> SearchState | None:
        """The last state of the final selection; before it, the first with the best val_score."""
        selecting = self._states and self._states[-1].phase == "selection"
        return self._states[-1] if selecting else self._best

    def compare(self, other: SearchHistory) -> Comparison:
        """This history compared with another, of any search."""
        check_type(other, SearchHistory, "compare", HistoryError)
        mine, theirs = ({**t.about, **t.about["config"]} for t in (self, other))
        both = {name: (mine.get(name), theirs.get(name)) for name in {**mine, **theirs}}
        settings = {k: (a, b) for k, (a, b) in both.items() if a != b and k != "config"}
        common, i, j = np.intersect1d(self.steps, other.steps, return_indices=True)
        pairs = [(self[a], other[b]) for a, b in zip(i, j, strict=True)]
        equal = [_same(a, b, any_start=True) for a, b in pairs]
        until = [*equal, False].index(False)
        equal_until = int(common[until - 1]) if until else None
        canonical = {g: g.canonical() for t in (self, other) for g in t.genotypes}
        same = [canonical[a.genotype] == canonical[b.genotype] for a, b in pairs]
        agreement = sum(same) / len(same) if same else 0.0
        best = tuple(t.best.val_score if t.best else None for t in (self, other))
        return Comparison(settings, len(common), equal_until, agreement, best)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the history as safetensors with a JSON header, whole or not at all."""
        self._some()
        genotypes = {genotype: k for k, genotype in enumerate(self.genotypes)}
        header = {
            "format": FORMAT,
            "about": self.about,
            "limit": self.limit,
            "strides": [self._stride, self._epoch_stride],
            "shapes": _shapes(self[0]),
            "genotypes": [json.loads(genotype.to_json()) for genotype in genotypes],
        }
        flat = [np.concatenate([a.ravel() for a in _arrays(state)]) for state in self]
        tensors = {
            "numbers": torch.from_numpy(np.stack([self.column(name) for name in COLUMNS], axis=1)),
            "phase": torch.tensor([PHASES.index(s.phase) for s in self], dtype=torch.int8),
            "genotype": torch.tensor([genotypes[s.genotype] for s in self], dtype=torch.int32),
            "weights": torch.from_numpy(np.stack(flat).astype(np.float32)),
        }
        write_tensors(path, tensors, header)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> SearchHistory:
        """Read a history. Raises HistoryError for a file that is missing or no whole history."""
        header, tensors = read_tensors(path, FORMAT, HistoryError, "history")
        try:
            history = cls(header["about"], header["limit"])
            history._read(header, tensors)
        except (KeyError, IndexError) as error:
            raise HistoryError(path, f"no {error}", "a whole history") from None
        except (ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            raise HistoryError(f"{path}: {error}; allowed: a whole history") from None
        return history

    def to_html(self, path: str | os.PathLike, *, frames: int = 200) -> Path:
        """Write one HTML file that replays the search with no kernel and no network.

        It shows at most ``frames`` states, evenly spaced, from the first to the last.
        """
        from .draw.replay import page

        self._some()
        if not isinstance(frames, int) or frames < 1:
            raise HistoryError("frames", repr(frames), "an integer of 1 or more")
        with atomic_write(path) as beside:
            beside.write_text(page(self, frames), encoding="utf-8")
        return Path(path)

    def __repr__(self) -> str:
        about, steps = self.about, self.steps.tolist()
        span = f", steps {steps[0]} to {steps[-1]}" if steps else ""
        made = f"{about['task']}, {about['config']['relaxation']}, seed {about['seed']}"
        return f"SearchHistory({made}: {len(self)} states{span})"

    def _repr_svg_(self) -> str:
        from .draw import draw_curves

        return draw_curves(self).svg

    def _read(self, header: dict, tensors: dict[str, torch.Tensor]) -> None:
        """Add the states of a file. Raises ValueError, or whatever damage leads to."""
        config = self.about["config"]
        names = tuple(self.about["features"]), tuple(config["operations"]), config["relaxation"]
        for name in names[1]:
            OPERATIONS[name]  # raises for one that is not registered
        check_type(config["selection"], str, "selection", HistoryError, "text")
        self._stride, self._epoch_stride = header["strides"]
        shapes = [tuple(shape) for shape in header["shapes"]]
        genotypes = [Genotype.from_json(json.dumps(genotype)) for genotype in header["genotypes"]]
        numbers, weights = tensors["numbers"].double().numpy(), tensors["weights"].numpy()
        phases, kinds = tensors["phase"].tolist(), tensors["genotype"].tolist()
        rise = len(numbers) and (np.diff(numbers[:, 0]) > 0).all() and numbers[-1, 0] <= 2**53
        if not rise or np.isinf(numbers).any() or np.isnan(numbers[:, :3]).any():
            raise ValueError("found steps that do not rise, or numbers that are not a state's")
        if weights.ndim != 2 or weights.dtype != np.float32:
            raise ValueError(f"found weights of shape {weights.shape} and type {weights.dtype}")
        cells, ends = (len(shapes) - 1) // 2, np.cumsum([math.prod(shape) for shape in shapes])
        if any(g.features != names[0] or len(g.cells) != cells for g in genotypes):
            raise ValueError("found genotypes of other features or Cells than the weights")
        parts = zip(np.split(weights, ends[:-1], axis=1), shapes, strict=True)
        arrays = zip(*(part.reshape(-1, *shape) for part, shape in parts), strict=True)
        rows = zip(numbers.tolist(), phases, kinds, arrays, strict=True)
        for row, phase, kind, (alpha, *rest) in rows:
            if not (0 <= phase < len(PHASES) and 0 <= kind < len(genotypes)):
                raise ValueError("found a state without a phase or a genotype")
            found = ArchitectureWeights(alpha, tuple(rest[:cells]), tuple(rest[cells:]), *names)
            values = dict(zip(COLUMNS, (None if v != v else v for v in row), strict=True))
            values |= {name: int(values[name]) for name in ("step", "epoch")}
            values |= {"phase": PHASES[phase], "selection": config["selection"]}
            state = SearchState(weights=found, **values)
            # A history knows the genotype even if the selection rule is not registered here.
            state.__dict__["genotype"] = genotypes[kind]
            self._add(state)
        weights = self[0].weights
        for i, gamma in enumerate(weights.gamma):
            edges = [weights.cell_edges(i), *(weights.step_edges(i, j) for j in range(len(gamma)))]
            fits = all(len(predecessors) == len(x) for predecessors, x, _ in edges)
            if not fits or gamma.shape[1] != len(weights.operations):
                raise ValueError("found weights that do not fit features and operations")

    def _some(self) -> None:
        if not self._states:
            raise HistoryError("found a history without states; allowed: at least one state")

    def _keeps(self, state: SearchState) -> bool:
        extreme = state is self._states[0] or state is self._best
        ends_epoch = state.val_score is not None and state.epoch % self._epoch_stride == 0
        return extreme or ends_epoch or state.step % self._stride == 0

    def _add(self, state: SearchState) -> None:
        self._states.append(state)
        score, lower = state.val_score, self.about.get("direction") == "min"
        best = math.nan if self._best is None else self._best.val_score
        if score is None:
            return
        if math.isnan(best) or (score < best if lower else score > best):
            self._best = state


def _arrays(state: SearchState) -> list[np.ndarray]:
    return [state.alpha, *state.beta, *state.gamma]


def _shapes(state: SearchState) -> list[tuple[int, ...]]:
    return [array.shape for array in _arrays(state)]


def _same(one: SearchState, other: SearchState, any_start: bool = False) -> bool:
    """Equal to the bit; with ``any_start``, missing losses do not count if one is a start."""
    start = any_start and "start" in (one.phase, other.phase)
    names = ("step",) if start else (*COLUMNS, "phase")
    same = all(getattr(one, name) == getattr(other, name) for name in names)
    return same and [a.tobytes() for a in _arrays(one)] == [a.tobytes() for a in _arrays(other)]
