"""SearchHistory: every step of a search, kept, compared and shown."""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .architecture import ArchitectureWeights
from .cells import RELAXATIONS
from .errors import BmnasError
from .genotype import OPERATIONS, Genotype
from .search import Search, SearchState
from .storage import atomic_write, read_tensors, write_tensors

FORMAT = "bmnas-history/2"
#: What a history must say of its search.
ABOUT = {"task": str, "rule": str | None, "metric": str, "seed": int, "config": dict}
ABOUT |= {"features": list}
PHASES = ("start", "both", "weights", "architecture", "selection")
#: The numbers of each row.
COLUMNS = ("step", "epoch", "lr", "train_loss", "val_loss", "val_score")


class HistoryError(BmnasError):
    """A history that cannot be read, or a state that does not belong to it."""


@dataclass(frozen=True)
class Comparison:
    """Two histories side by side.

    Attributes:
        settings: the settings that differ: name → both values.
        steps: how many steps both have kept.
        equal_until: the last of these steps up to which all numbers are equal to the bit; None if
            the first ones differ.
        agreement: the share of these steps at which both derive the same architecture.
        best: the best validation score of each; None before the end of an epoch.
    """

    settings: dict[str, tuple[object, object]]
    steps: int
    equal_until: int | None
    agreement: float
    best: tuple[float | None, float | None]

    def __str__(self) -> str:
        scores = " and ".join("none yet" if s is None else f"{s:.3f}" for s in self.best)
        settings = "; ".join(f"{k}: {a} and {b}" for k, (a, b) in self.settings.items())
        lines = [
            f"settings that differ    {settings or 'none'}",
            f"steps in common         {self.steps}",
            f"equal to the bit until  {'never' if self.equal_until is None else self.equal_until}",
            f"same architecture       at {self.agreement:.0%} of the steps in common",
            f"best validation score   {scores}",
        ]
        return "\n".join(lines)


class Row(NamedTuple):
    """A state as a history keeps it.

    Attributes:
        numbers: one for each of :data:`COLUMNS`, NaN for None.
        phase: index into :data:`PHASES`.
        genotype: index into the history's genotypes.
        weights: α, β and γ, flattened to one float32 array.
    """

    numbers: tuple[float, ...]
    phase: int
    genotype: int
    weights: np.ndarray

    def value(self, column: str) -> float:
        return self.numbers[COLUMNS.index(column)]


class SearchHistory:
    """The states of a search: all of them, or an even selection from a long one. ::

        history = bm.SearchHistory.from_search(search)
        for state in search:
            history.append(state)
        history[10].genotype, history.at(step=120).alpha
        history.save("history.safetensors"), history.to_html("search.html")

    Item i is a :class:`SearchState`; the first is the state in which the history began. Beyond
    ``limit`` states, every second step is dropped, then every second of the rest, and so on. The
    first, the last and the best state stay, and the ends of epochs as long as there is room.

    Args:
        about: the search's task, settings and seed, as :meth:`from_search` reads them.
        limit: the most states to keep, at least 3.
    """

    def __init__(self, about: dict, limit: int = 10_000):
        if not isinstance(limit, int) or limit < 3:
            raise HistoryError(f"limit: found {limit!r}; allowed: an integer of 3 or more")
        for name, kind in ABOUT.items():
            if not isinstance(about, dict) or not isinstance(about.get(name), kind):
                known = ", ".join(ABOUT)
                raise HistoryError(
                    f"about: found no {name}; allowed: {known}, as from_search reads them"
                )
        self.about, self.limit = dict(about), limit
        self.genotypes: list[Genotype] = []
        self._known: dict[Genotype, int] = {}
        self._shapes: list[tuple[int, ...]] | None = None
        self._rows: list[Row] = []
        self._stride = self._epoch_stride = 1
        self._best_row: Row | None = None

    @classmethod
    def from_search(cls, search: Search, limit: int = 10_000) -> SearchHistory:
        """A history of ``search`` from where it stands now.

        Raises:
            HistoryError: for anything but a search.
        """
        if not isinstance(search, Search):
            raise HistoryError(
                f"SearchHistory.from_search: found {type(search).__name__}; allowed: a Search"
            )
        about = {
            "task": search.task.name,
            "rule": search.task.rule,
            "protocol": search.task.protocol,
            "metric": search.task.metric,
            "seed": search.seed,
            "config": search.config.to_dict(),
            "features": list(search.task.features),
            "steps_per_epoch": search.steps_per_epoch,
        }
        history = cls(json.loads(json.dumps(about)), limit)
        history.append(search.state)
        return history

    def append(self, state: SearchState) -> None:
        """Keep a state; its step must come after those kept before.

        Raises:
            HistoryError: for anything but the next state of this history's search.
        """
        if not isinstance(state, SearchState):
            raise HistoryError(f"append: found {type(state).__name__}; allowed: a SearchState")
        weights, config = state.weights, self.about["config"]
        theirs = [*weights.features], [*weights.operations], weights.relaxation, state.selection
        ours = [config[name] for name in ("operations", "relaxation", "selection")]
        arrays = _arrays(weights)
        shapes = [array.shape for array in arrays]
        if list(theirs) != [self.about["features"], *ours] or self._shapes not in (None, shapes):
            raise HistoryError("append: found a state of another search; allowed: of the same one")
        if self._rows and state.step <= self._rows[-1].value("step"):
            last = int(self._rows[-1].value("step"))
            raise HistoryError(f"append: found step {state.step}; allowed: after step {last}")
        if state.phase not in PHASES:
            allowed = ", ".join(map(repr, PHASES))
            raise HistoryError(f"append: found phase {state.phase!r}; allowed: {allowed}")
        self._shapes = shapes
        numbers = tuple(
            math.nan if (value := getattr(state, name)) is None else float(value)
            for name in COLUMNS
        )
        if state.genotype not in self._known:
            self._known[state.genotype] = len(self.genotypes)
            self.genotypes.append(state.genotype)
        flat = np.concatenate([array.ravel() for array in arrays]).astype(np.float32)
        if len(self._rows) > 1 and not self._keeps(self._rows[-1]):
            self._rows.pop()
        self._add(Row(numbers, PHASES.index(state.phase), self._known[state.genotype], flat))
        if len(self._rows) > self.limit:
            self._thin()
        if len(self.genotypes) > len(self._rows):
            self._drop_unused()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SearchState]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int | slice) -> SearchState | list[SearchState]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        try:
            row = self._rows[i]
        except IndexError:
            raise IndexError(f"history: found index {i}; allowed: below {len(self)}") from None
        values = dict(zip(COLUMNS, row.numbers, strict=True))
        values = {k: None if math.isnan(v) else v for k, v in values.items()}
        config = self.about["config"]
        cells = (len(self._shapes) - 1) // 2
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]
        parts = np.split(row.weights, ends)
        alpha, *rest = (p.reshape(s) for p, s in zip(parts, self._shapes, strict=True))
        weights = ArchitectureWeights(
            alpha,
            tuple(rest[:cells]),
            tuple(rest[cells:]),
            tuple(self.about["features"]),
            tuple(config["operations"]),
            config["relaxation"],
        )
        values |= {"step": int(values["step"]), "epoch": int(values["epoch"])}
        state = SearchState(
            phase=PHASES[row.phase], weights=weights, selection=config["selection"], **values
        )
        # A history knows the genotype even if the selection rule is not registered here.
        state.__dict__["genotype"] = self.genotypes[row.genotype]
        return state

    def __eq__(self, other: object) -> bool:
        """Whether both have the same settings and the same numbers to the bit."""
        if not isinstance(other, SearchHistory):
            return NotImplemented
        return (
            self.about == other.about
            and len(self) == len(other)
            and all(map(_equal, self._rows, other._rows))
            and all(self._genotype(i) == other._genotype(i) for i in range(len(self)))
        )

    __hash__ = None

    def index(self, step: int) -> int:
        """Index of the last state kept at or before ``step``, or else of the first state.

        Raises:
            HistoryError: for anything but an integer, and if there are no states.
        """
        try:
            step = operator.index(step)
        except TypeError:
            raise HistoryError(f"step: found {step!r}; allowed: an integer") from None
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
        """One of ``step``, ``epoch``, ``lr``, ``train_loss``, ``val_loss``, ``val_score``: (len,).

        NaN for a state without it.

        Raises:
            HistoryError: for another name.
        """
        if name not in COLUMNS:
            raise HistoryError(f"column: found {name!r}; allowed: {', '.join(map(repr, COLUMNS))}")
        k = COLUMNS.index(name)
        return np.array([row.numbers[k] for row in self._rows])

    @property
    def phases(self) -> np.ndarray:
        """The phase of each state, as :class:`SearchState` names them: (len,), strings."""
        return np.array([PHASES[row.phase] for row in self._rows])

    @property
    def changes(self) -> list[int]:
        """Indices of the states whose architecture is not that of the state before."""
        canonical = [genotype.canonical() for genotype in self.genotypes]
        indices = [row.genotype for row in self._rows]
        pairs = enumerate(zip(indices, indices[1:], strict=False), 1)
        return [i for i, (a, b) in pairs if a != b and canonical[a] != canonical[b]]

    @property
    def best(self) -> SearchState | None:
        """The last state of the final selection; before it, the one with the best validation score.

        The first of equal ones; None if no state has a score.
        """
        if self._rows and PHASES[self._rows[-1].phase] == "selection":
            return self[-1]
        scores = self.column("val_score")
        return None if np.isnan(scores).all() else self[int(np.nanargmax(scores))]

    def compare(self, other: SearchHistory) -> Comparison:
        """This history compared with another, of any search.

        Raises:
            HistoryError: for anything but a history.
        """
        if not isinstance(other, SearchHistory):
            raise HistoryError(f"compare: found {type(other).__name__}; allowed: a SearchHistory")
        mine, theirs = ({**t.about, **t.about["config"]} for t in (self, other))
        settings = {
            name: (mine.get(name), theirs.get(name))
            for name in {**mine, **theirs}
            if name != "config" and mine.get(name) != theirs.get(name)
        }
        common, i, j = np.intersect1d(self.steps, other.steps, return_indices=True)
        pairs = list(zip(i, j, strict=True))
        equal = [_equal(self._rows[a], other._rows[b], any_start=True) for a, b in pairs]
        until = len(equal) if all(equal) else equal.index(False)
        canonical = {g: g.canonical() for t in (self, other) for g in t.genotypes}
        same = [canonical[self._genotype(a)] == canonical[other._genotype(b)] for a, b in pairs]
        return Comparison(
            settings,
            len(common),
            int(common[until - 1]) if until else None,
            sum(same) / len(same) if same else 0.0,
            tuple(t.best.val_score if t.best else None for t in (self, other)),
        )

    def save(self, path: str | os.PathLike) -> Path:
        """Write the history as safetensors with a JSON header, whole or not at all.

        Raises:
            HistoryError: if there are no states.
            FileError: if nothing can be written.
        """
        self._some()
        self._drop_unused()
        header = {
            "format": FORMAT,
            "about": self.about,
            "limit": self.limit,
            "strides": [self._stride, self._epoch_stride],
            "shapes": self._shapes,
            "genotypes": [json.loads(genotype.to_json()) for genotype in self.genotypes],
        }
        numbers, phases, genotypes, weights = zip(*self._rows, strict=True)
        tensors = {
            "numbers": torch.tensor(numbers, dtype=torch.float64),
            "phase": torch.tensor(phases, dtype=torch.int8),
            "genotype": torch.tensor(genotypes, dtype=torch.int32),
            "weights": torch.from_numpy(np.stack(weights)),
        }
        write_tensors(path, tensors, json.dumps(header, ensure_ascii=False))
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> SearchHistory:
        """Read a history.

        Raises:
            HistoryError: for a file that is missing or no whole history.
        """
        header, tensors = read_tensors(path, FORMAT, HistoryError, "history")
        try:
            history = cls(header["about"], header["limit"])
            history._stride, history._epoch_stride = header["strides"]
            history._shapes = [tuple(shape) for shape in header["shapes"]]
            texts = [json.dumps(genotype) for genotype in header["genotypes"]]
            history.genotypes = [Genotype.from_json(text) for text in texts]
            history._known = {genotype: k for k, genotype in enumerate(history.genotypes)}
            lists = (tensors[k].tolist() for k in ("numbers", "phase", "genotype"))
            for numbers, *row in zip(*lists, tensors["weights"].numpy(), strict=True):
                history._add(Row(tuple(numbers), *row))
            history._check()
        except (KeyError, IndexError) as error:
            raise HistoryError(f"{path}: found no {error}; allowed: a whole history") from None
        except (ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            raise HistoryError(f"{path}: {error}; allowed: a whole history") from None
        return history

    def to_html(self, path: str | os.PathLike, *, frames: int = 200) -> Path:
        """Write one HTML file that replays the search with no kernel and no network.

        Args:
            frames: the most states to show, evenly spaced, the first and the last among them; 1
                is the first alone.

        Raises:
            HistoryError: for fewer than one frame, and if there are no states.
            FileError: if nothing can be written.
        """
        from .draw.replay import page

        self._some()
        if not isinstance(frames, int) or frames < 1:
            raise HistoryError(f"frames: found {frames!r}; allowed: an integer of 1 or more")
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

    def _check(self) -> None:
        """Raise ValueError unless what was read is whole."""
        about, config = self.about, self.about["config"]
        names = [
            about["task"],
            about["rule"] or "",
            about["metric"],
            config["relaxation"],
            config["selection"],
        ]
        names += [*about["features"], *config["operations"]]
        lists = isinstance(about["features"], list) and isinstance(config["operations"], list)
        if not lists or len(about["features"]) < 2:
            raise ValueError("found no lists of features and operations")
        for kind, name, known in (
            ("relaxation", config["relaxation"], RELAXATIONS),
            *(("operation", name, OPERATIONS) for name in config["operations"]),
        ):
            if name not in known:
                raise ValueError(f"{kind}: found {name!r}; registered are {', '.join(known)}")
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"found names {names}, not all of them text")
        if not self._rows or not isinstance(about["seed"], int):
            raise ValueError("found no states, or a seed that is no int")
        numbers = np.array([row.numbers for row in self._rows])
        if numbers.ndim != 2 or numbers.shape[1] != len(COLUMNS) or np.isinf(numbers).any():
            raise ValueError("found numbers that are not finite, or not those of a state")
        if (
            np.abs(numbers[:, 0]).max() > 2**53
            or not (np.diff(numbers[:, 0]) > 0).all()
            or np.isnan(numbers[:, :3]).any()
        ):
            raise ValueError("found steps that do not rise")
        for _, phase, genotype, flat in self._rows:
            if not (0 <= phase < len(PHASES) and 0 <= genotype < len(self.genotypes)):
                raise ValueError("found a state without a phase or a genotype")
            if flat.ndim != 1 or flat.dtype != np.float32:
                raise ValueError(f"found weights of shape {flat.shape} and type {flat.dtype}")
        for state in (self[0], self[-1]):
            weights = state.weights
            if len(weights.gamma) != len(state.genotype.cells):
                raise ValueError("found other Cells in the weights than in the genotype")
            for i, gamma in enumerate(weights.gamma):
                names, x, _ = weights.cell_edges(i)
                edges = [weights.step_edges(i, j) for j in range(len(gamma))]
                fits = all(len(sources) == len(p) for sources, p, _ in [(names, x, x), *edges])
                if not fits or gamma.shape[1] != len(weights.operations):
                    raise ValueError("found weights that do not fit features and operations")

    def _some(self) -> None:
        if not self._rows:
            raise HistoryError("found a history without states; allowed: at least one state")

    def _genotype(self, i: int) -> Genotype:
        return self.genotypes[self._rows[i].genotype]

    def _keeps(self, row: Row) -> bool:
        step, epoch, *_, score = row.numbers
        return (
            row is self._rows[0]
            or row is self._best_row
            or step % self._stride == 0
            or (not math.isnan(score) and epoch % self._epoch_stride == 0)
        )

    def _add(self, row: Row) -> None:
        self._rows.append(row)
        score, best = row.value("val_score"), self._best_row
        if not math.isnan(score) and (best is None or score > best.value("val_score")):
            self._best_row = row

    def _thin(self) -> None:
        """Drop states until there are no more than ``limit``."""
        while len(self._rows) > self.limit:
            self._stride *= 2
            *rows, last = self._rows
            rows = [row for row in rows if self._keeps(row)]
            if len(rows) >= self.limit:
                self._epoch_stride *= 2
            self._rows = [*rows, last]
        self._drop_unused()

    def _drop_unused(self) -> None:
        """Forget genotypes of states that were dropped."""
        kept = sorted({row.genotype for row in self._rows})
        renamed = {old: new for new, old in enumerate(kept)}
        self.genotypes = [self.genotypes[old] for old in kept]
        self._known = {genotype: k for k, genotype in enumerate(self.genotypes)}
        rows, self._rows, self._best_row = self._rows, [], None
        for row in rows:
            self._add(row._replace(genotype=renamed[row.genotype]))


def _arrays(weights: ArchitectureWeights) -> list[np.ndarray]:
    return [weights.alpha, *weights.beta, *weights.gamma]


def _equal(row: Row, other: Row, any_start: bool = False) -> bool:
    """Whether two rows are equal to the bit; ``any_start`` ignores the losses if one is a start."""
    if any_start and PHASES.index("start") in (row.phase, other.phase):
        same = row.value("step") == other.value("step")
        return same and np.array_equal(row.weights, other.weights)
    same = np.array_equal(row.numbers, other.numbers, equal_nan=True) and row.phase == other.phase
    return same and row.weights.tobytes() == other.weights.tobytes()
