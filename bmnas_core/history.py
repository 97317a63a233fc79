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
from .cells import RELAXATIONS
from .config import as_type
from .errors import BmnasError, check_type, quoted, shortened
from .genotype import LARGEST, OPERATIONS, Genotype, cell_predecessors, step_predecessors
from .metrics import DIRECTIONS, score_text
from .search import Search
from .search_state import PHASES, SearchState
from .storage import ROUNDING, atomic_write
from .tensor_files import read_tensors, write_tensors

FORMAT = "bmnas-history/3"
#: What a history must say of its search.
ABOUT = dict(task=str, rule=str | None, metric=str, seed=int, config=dict, features=list)
#: What it may say besides.
ADDED = dict(
    protocol=str | None,
    direction=str,
    steps_per_epoch=int,
    limits=tuple[float | None, float | None],
)
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
    def limits(self) -> tuple[float | None, float | None]:
        """The lowest and the highest score that the metric can have; None where it has no end."""
        return tuple(self.about.get("limits") or (None, None))

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
        flat = [np.concatenate([a.ravel() for a in state.weights.arrays]) for state in self]
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
        (history, genotypes, shapes), tensors = read_tensors(
            path, FORMAT, HistoryError, "history", cls._from_header
        )
        try:
            history._read(genotypes, shapes, {k: tensor.numpy() for k, tensor in tensors.items()})
        except HistoryError as error:
            raise HistoryError(f"{path}: {error}") from None
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

    @classmethod
    def _from_header(
        cls, header: dict, described: dict[str, torch.Tensor]
    ) -> tuple[SearchHistory, list[Genotype], list[tuple[int, ...]]]:
        """A history without its states, their genotypes, and the shapes of α, β and γ.

        Raises HistoryError, by place, unless all of it fits together and the tensors of the file.
        """
        history = cls(as_type(header["about"], dict, "about", HistoryError), header["limit"])
        for name, kind in (ABOUT | ADDED).items():
            if name in history.about:
                as_type(history.about[name], kind, f"about.{name}", HistoryError)
        if not _is_finite(history.about):
            raise HistoryError("about", "NaN or infinity", "finite numbers")
        direction = history.about.get("direction", "max")
        if direction not in DIRECTIONS:
            raise HistoryError("about.direction", quoted(direction), ", ".join(DIRECTIONS))
        least, most = history.limits
        if least is not None and most is not None and not least < most:
            raise HistoryError(
                "about.limits", f"{least:g} and {most:g}", "a lower and a higher one"
            )
        if history.about.get("steps_per_epoch", 1) < 1:
            found = history.about["steps_per_epoch"]
            raise HistoryError("about.steps_per_epoch", found, "1 or more")
        strides = as_type(header["strides"], tuple[int, int], "strides", HistoryError)
        if min(strides) < 1:
            raise HistoryError("strides", quoted(strides), "at least 1")
        history._stride, history._epoch_stride = strides
        found = as_type(header["genotypes"], tuple[dict, ...], "genotypes", HistoryError)
        genotypes = [
            Genotype.from_json(json.dumps(genotype), f"genotypes[{k}]")
            for k, genotype in enumerate(found)
        ]
        kind = tuple[tuple[int, ...], ...]
        shapes = list(as_type(header["shapes"], kind, "shapes", HistoryError))
        if not genotypes or (fit := history._fitting(genotypes[0], shapes)) != shapes:
            allowed = f"{quoted(fit)}, by features, operations and Cells" if genotypes else "none"
            raise HistoryError("shapes", quoted(shapes), allowed)
        for k, genotype in enumerate(genotypes):
            if [*genotype.features] != history.about["features"]:
                allowed = shortened(", ".join(map(str, history.about["features"])), 150)
                raise HistoryError(f"genotypes[{k}]", quoted(genotype.features), allowed)
            if len(genotype.cells) != len(genotypes[0].cells):
                cells = f"{len(genotype.cells)} Cells"
                raise HistoryError(f"genotypes[{k}]", cells, f"{len(genotypes[0].cells)}")
        states = described["phase"].numel() if "phase" in described else 0
        if not 1 <= states <= history.limit:
            raise HistoryError("phase", f"{states} states", f"1 to the limit, {history.limit}")
        wanted = {
            "numbers": ((states, len(COLUMNS)), torch.float64),
            "phase": ((states,), torch.int8),
            "genotype": ((states,), torch.int32),
            "weights": ((states, sum(map(math.prod, shapes))), torch.float32),
        }
        there = {name: (tuple(t.shape), t.dtype) for name, t in described.items()}
        for name in {**wanted, **there}:
            if there.get(name) != wanted.get(name):
                allowed = quoted(wanted.get(name, f"only {', '.join(wanted)}"))
                raise HistoryError(f"tensor {name!r}", quoted(there.get(name)), allowed)
        return history, genotypes, shapes

    def _fitting(self, genotype: Genotype, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes of α, β and γ with the features, operations and Cells of this history.

        Each Cell has as many steps as its γ in ``shapes``, LARGEST at the most.
        """
        config, cells = self.about["config"], range(len(genotype.cells))
        operations = as_type(config["operations"], tuple[str, ...], "operations", HistoryError)
        for name in operations:
            OPERATIONS[name]  # raises for one that is not registered
        RELAXATIONS[as_type(config["relaxation"], str, "relaxation", HistoryError)]
        as_type(config["selection"], str, "selection", HistoryError)
        steps = [min(shape[0], LARGEST) if shape else 0 for shape in shapes[1 + len(cells) :]]
        edges = sum(len(cell_predecessors(genotype.features, i)) for i in cells)
        beta = [(sum(len(step_predecessors(j)) for j in range(m)), 2) for m in steps]
        return [(edges, 2), *beta, *((m, len(operations)) for m in steps)]

    def _read(
        self,
        genotypes: list[Genotype],
        shapes: list[tuple[int, ...]],
        arrays: dict[str, np.ndarray],
    ) -> None:
        """Add the states of a file. Raises HistoryError for numbers that no state has."""
        numbers, phases, kinds = arrays["numbers"], arrays["phase"], arrays["genotype"]
        whole = numbers[:, :2]  # steps and epochs
        if (whole != np.floor(whole)).any() or (abs(whole) > 2**53).any() or (whole < 0).any():
            raise HistoryError("steps and epochs", "others", "whole numbers from 0")
        if (whole[:, 1] > whole[:, 0]).any():
            raise HistoryError("epochs", "more of them than steps", "at most as many")
        if (numbers[:, COLUMNS.index("lr")] < 0).any():
            raise HistoryError("learning rates", "some below 0", "0 or more")
        scores, (least, most) = numbers[:, COLUMNS.index("val_score")], self.limits
        low = least is not None and (scores < least - ROUNDING).any()
        if low or most is not None and (scores > most + ROUNDING).any():
            found = f"one of {np.nanmin(scores) if low else np.nanmax(scores):g}"
            raise HistoryError("validation scores", found, f"{least} to {most}")
        if not (np.diff(numbers[:, 0]) > 0).all():
            raise HistoryError("steps", "some that do not rise", "rising ones")
        finite = np.isfinite(arrays["weights"]).all() and np.isfinite(numbers[:, 2]).all()
        if not finite or np.isinf(numbers).any():
            raise HistoryError("weights and losses", "NaN or infinity", "finite numbers")
        for name, limit in {"phase": len(PHASES), "genotype": len(genotypes)}.items():
            if not ((arrays[name] >= 0) & (arrays[name] < limit)).all():
                raise HistoryError(f"tensor {name!r}", "others", f"numbers from 0 to {limit - 1}")
        config = self.about["config"]
        names = genotypes[0].features, tuple(config["operations"]), config["relaxation"]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        parts = zip(np.split(arrays["weights"], ends[:-1], axis=1), shapes, strict=True)
        each = zip(*(part.reshape(-1, *shape) for part, shape in parts), strict=True)
        rows = zip(numbers.tolist(), phases.tolist(), kinds.tolist(), each, strict=True)
        for row, phase, kind, arrays_of_one in rows:
            found = ArchitectureWeights.from_arrays(arrays_of_one, *names)
            values = dict(zip(COLUMNS, (None if v != v else v for v in row), strict=True))
            values |= {name: int(values[name]) for name in ("step", "epoch")}
            values |= {"phase": PHASES[phase], "selection": config["selection"]}
            state = SearchState(weights=found, **values)
            # A history knows the genotype even if the selection rule is not registered here.
            state.__dict__["genotype"] = genotypes[kind]
            self._add(state)

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


def _is_finite(value: object) -> bool:
    """Whether all numbers in parsed JSON are finite."""
    if isinstance(value, (dict, list)):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _shapes(state: SearchState) -> list[tuple[int, ...]]:
    return [array.shape for array in state.weights.arrays]


def _same(one: SearchState, other: SearchState, any_start: bool = False) -> bool:
    """Equal to the bit; with ``any_start``, missing losses do not count if one is a start."""
    start = any_start and "start" in (one.phase, other.phase)
    names = ("step",) if start else (*COLUMNS, "phase")
    same = all(getattr(one, name) == getattr(other, name) for name in names)
    arrays = zip(one.weights.arrays, other.weights.arrays, strict=True)
    return same and all(a.tobytes() == b.tobytes() for a, b in arrays)
