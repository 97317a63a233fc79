"""What an architecture is: which features each Cell pairs, and how it fuses them.

A Cell has two inputs, X and Y, taken from the modality features and the earlier Cells, and inner
steps S1, S2, …, primitive operations on two of X, Y and earlier steps (Yin et al. 2022, section 3).
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import permutations, starmap, zip_longest
from pathlib import Path

from . import reading
from .errors import BmnasError, in_line, quoted, shortened
from .published import LARGEST, PublishedCell, parse_published, write_published
from .registry import Registry
from .storage import atomic_write

FORMAT = "bmnas-genotype/1"
Pair = tuple[str, str]

#: The most features, and bytes of a genotype's text.
MOST_FEATURES, MOST_BYTES = 512, 1 << 20

#: The operations that a search chooses from unless told otherwise: the paper's, less Zero.
DEFAULT_OPERATIONS = ("sum", "attention", "linear_glu", "concat_fc")

#: Cells with a name in the literature, as steps on X and Y. Sum is DARTS's (Liu et al. 2019),
#: ConcatFC MFAS's (Pérez-Rúa et al. 2019), two-head attention Vaswani et al.'s (2017), attention on
#: attention Huang et al.'s (AoA, 2019).
MOTIFS = {
    "Sum": [("sum", ("X", "Y"))],
    "ConcatFC": [("concat_fc", ("X", "Y"))],
    "LinearGLU": [("linear_glu", ("X", "Y"))],
    "attention": [("attention", ("X", "Y"))],
    "two-head attention": [("attention", ("X", "Y")), ("attention", ("X", "Y"))],
    "attention on attention": [("attention", ("X", "Y")), ("linear_glu", ("X", "S1"))],
}


class GenotypeError(BmnasError):
    """A genotype that is not legal: says where, what was found and what was allowed."""

    def __init__(self, place: str, found: object = None, allowed: str | None = None, source=""):
        self.place, self.found, self.allowed = place, found, allowed
        super().__init__(f"{source}: {place}" if source else place, quoted(found), allowed)


class OperationError(BmnasError):
    """An operation that cannot be registered or does not exist."""


#: What writes genotypes in forms that need more than a genotype; imported on demand.
WRITERS = Registry("form", GenotypeError, on_demand={"source": f"{__package__}.source"})

OPERATION_NAMES = (r"[a-z][a-z0-9_]*", "small letters, digits, underscores")

#: Primitive operations by name, filled by :mod:`~bmnas_core.ops`; a genotype may use no others.
OPERATIONS = Registry(
    "operation",
    OperationError,
    pattern=OPERATION_NAMES,
    on_demand=dict.fromkeys(("zero", *DEFAULT_OPERATIONS), f"{__package__}.ops"),
)


# --- the grammar: what nodes are called, and which of them a Cell or a step may take


def cell_name(i: int) -> str:
    """What later Cells call Cell i, counted from 0: ``"C1"`` is the first."""
    return f"C{i + 1}"


def step_name(j: int) -> str:
    """What later steps of a Cell call step j, counted from 0: ``"S1"`` is the first."""
    return f"S{j + 1}"


def cell_predecessors(features: Sequence[str], i: int) -> tuple[str, ...]:
    """What Cell i, counted from 0, may take: all features, then all earlier Cells."""
    return (*features, *map(cell_name, range(i)))


def step_predecessors(j: int) -> tuple[str, ...]:
    """What step j of a Cell, counted from 0, may take: X and Y, then all earlier steps."""
    return ("X", "Y", *map(step_name, range(j)))


def is_free(pair: Pair, taken: Collection[Pair] = ()) -> bool:
    """Whether a Cell may take a pair: two different nodes, not in ``taken`` in either order."""
    return pair[0] != pair[1] and not any(set(pair) == set(other) for other in taken)


def free_pairs(names: Sequence[str], taken: Collection[Pair] = ()) -> list[Pair]:
    """All ordered pairs (X, Y) of ``names`` that are free, see :func:`is_free`."""
    closed = {pair for x, y in taken for pair in ((x, y), (y, x))}
    return [pair for pair in permutations(names, 2) if pair not in closed]


# --- genotypes


@dataclass(frozen=True)
class StepGenotype:
    """One inner step: operation ``op`` on two of X, Y, S1, S2, …"""

    op: str
    inputs: Pair


@dataclass(frozen=True)
class CellGenotype:
    """One Cell: ``inputs`` are the nodes that become X and Y, ``steps`` what it does with them."""

    inputs: Pair
    steps: tuple[StepGenotype, ...]

    @property
    def motif(self) -> str | None:
        """Name of this Cell's steps in :data:`MOTIFS`, such as ``"ConcatFC"``, or None."""
        steps = _canonical_steps((s.op, s.inputs) for s in self.steps)
        return next((n for n, motif in MOTIFS.items() if _canonical_steps(motif) == steps), None)


@dataclass(frozen=True)
class Change:
    """One thing in which a genotype differs from an earlier one.

    Attributes:
        cell, step: which, counted from 1; ``step`` is None for what belongs to the Cell itself.
        what: ``"X"`` or ``"Y"`` of a Cell, ``"operation"``, ``"1st input"`` or ``"2nd input"`` of
            a step, or ``""`` for a whole Cell or step that is new or gone.
        before, after: names, or ``""``.
    """

    cell: int
    step: int | None
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        step = step_name(self.step - 1) if self.step else ""
        where = " ".join(filter(None, (f"Cell {self.cell}", step, self.what)))
        return f"{where}: {self.before or 'none'} → {self.after or 'none'}"


@dataclass(frozen=True)
class Genotype:
    """A fusion architecture. Raises GenotypeError naming the place: ``cells[1].steps[0].op``.

    Args:
        features: names of the modality features, in the task's order, e.g. ``"Image_3"``.
        cells: Cells in order; Cell i is known to later ones as ``"C{i}"``, counted from 1.
    """

    features: tuple[str, ...]
    cells: tuple[CellGenotype, ...]

    def __post_init__(self):
        object.__setattr__(self, "features", _listed("features", self.features))
        object.__setattr__(self, "cells", _listed("cells", self.cells, "Cell"))
        check_features(self.features)
        for i, cell in enumerate(self.cells):
            _check_cell(cell, f"cells[{i}]", cell_predecessors(self.features, i))

    @property
    def used_features(self) -> tuple[str, ...]:
        """Features that some Cell takes, in the order of ``features``."""
        taken = {name for cell in self.cells for name in cell.inputs}
        return tuple(name for name in self.features if name in taken)

    def with_inputs(self, pairs: Sequence[Pair]) -> Genotype:
        """This genotype with other inputs X and Y of its first Cells, one pair each."""
        if len(pairs) > len(self.cells):
            raise GenotypeError("pairs", list(pairs), f"at most {len(self.cells)}, one a Cell")
        first = [replace(c, inputs=pair) for c, pair in zip(self.cells, pairs, strict=False)]
        return replace(self, cells=(*first, *self.cells[len(first) :]))

    def canonical(self) -> Genotype:
        """The one representative of all genotypes that are this same architecture.

        Three rewritings never change what a network can compute, only how its weights are laid
        out: swapping the inputs of an operation that is ``symmetric``; listing a Cell's steps in
        another order (their concatenation is reduced by a learned 1×1 convolution); listing the
        Cells in another order (their concatenation is read by a learned classifier). X and Y are
        not interchangeable, since X alone is added to the Cell's output.
        """
        steps = [_canonical_steps((s.op, s.inputs) for s in cell.steps) for cell in self.cells]
        nodes = [(s, cell.inputs, False) for s, cell in zip(steps, self.cells, strict=True)]
        cells = [
            CellGenotype(inputs, tuple(starmap(StepGenotype, s)))
            for s, inputs in _smallest_order(nodes, cell_name)
        ]
        return Genotype(self.features, tuple(cells))

    def changes_from(self, before: Genotype) -> tuple[Change, ...]:
        """What differs from ``before``, Cell by Cell and step by step as they are listed.

        The order of a step's inputs counts only if neither operation is symmetric.
        """
        if not isinstance(before, Genotype):
            raise GenotypeError("before", before, "a Genotype")
        changes = []
        for i, (old, new) in enumerate(zip_longest(before.cells, self.cells), 1):
            changes += _changes(i, None, old, new)
            pairs = zip_longest(old.steps, new.steps) if old and new else ()
            for j, steps in enumerate(pairs, 1):
                changes += _changes(i, j, *steps)
        return tuple(changes)

    def to_json(self) -> str:
        """JSON text in the format ``bmnas-genotype/1``, ending in a newline."""
        text, cells = partial(json.dumps, ensure_ascii=False), []
        for cell in self.cells:
            steps = (",\n" + " " * 22).join(text(vars(step)) for step in cell.steps)
            cells.append(f'{{"inputs": {text(cell.inputs)},\n{" " * 12}"steps": [{steps}]}}')
        rows = (",\n" + " " * 11).join(cells)
        head = f'{{"format": {text(FORMAT)},\n "features": {text(self.features)}'
        return f'{head},\n "cells": [{rows}]}}\n'

    @classmethod
    def from_json(cls, text: str, source: str = "") -> Genotype:
        """Read a genotype from JSON text. Raises GenotypeError; ``source`` names the text in it."""
        try:
            if len(text) > MOST_BYTES:
                found = f"{len(text):,} characters"
                raise GenotypeError("document", found, f"{MOST_BYTES:,} at most")
            return cls._from_data(json.loads(text, object_pairs_hook=_no_repeats))
        except json.JSONDecodeError as error:
            place = f"line {error.lineno} column {error.colno}"
            raise GenotypeError(place, error.msg, "a JSON document", source) from None
        except RecursionError:
            raise GenotypeError("document", "very deep nesting", "a genotype", source) from None
        except GenotypeError as error:
            raise GenotypeError(error.place, error.found, error.allowed, source) from None
        except ValueError as error:  # a number of thousands of digits
            raise GenotypeError("document", str(error), "a genotype", source) from None

    @classmethod
    def _from_data(cls, data: object) -> Genotype:
        form, features, cells = _fields("document", data, "format", "features", "cells")
        if form != FORMAT:
            raise GenotypeError("format", form, repr(FORMAT))
        made = []
        check_features(_listed("features", features))
        for i, cell in enumerate(_listed("cells", cells, "Cell")):
            inputs, steps = _fields(f"cells[{i}]", cell, "inputs", "steps")
            place = f"cells[{i}].steps"
            steps = enumerate(_listed(place, steps, "step"))
            steps = [_fields(f"{place}[{j}]", step, "op", "inputs") for j, step in steps]
            made.append(CellGenotype(inputs, tuple(starmap(StepGenotype, steps))))
        return cls(features, tuple(made))

    def to_source(self, task, config=None) -> str:
        """The network of this genotype for a task as one PyTorch module that needs torch alone.

        Its C, L and dropout are those of ``task``, a :class:`~bmnas_core.tasks.task.Task`, or of
        ``config``, a :class:`~bmnas_core.train.TrainConfig`. It has the parameter names of the
        network that :func:`~bmnas_core.train.train` gives, and the same outputs. Raises as
        ``train``, and SourceError for an operation whose class cannot stand alone.
        """
        return WRITERS["source"](self, task, config)

    def to_published(self) -> str:
        """The text that the released code prints for this genotype: ``Genotype(edges=…, …)``.

        Raises GenotypeError for an operation that it has not.
        """
        cells = []
        for i, cell in enumerate(self.cells):
            nodes = cell_predecessors(self.features, i)
            steps = [
                (step.op, tuple(map(step_predecessors(j).index, step.inputs)))
                for j, step in enumerate(cell.steps)
            ]
            inputs = tuple(map(nodes.index, cell.inputs))
            cells.append(PublishedCell(inputs, steps))
        return write_published(cells, len(self.features), GenotypeError)

    @classmethod
    def from_published(cls, text: str, features: Sequence[str], source: str = "") -> Genotype:
        """Read the text of a genotype that the released code prints, also from its log.

        ``features`` are the names of its input nodes in order; ``source`` names the text in errors.
        The text is never evaluated. Raises GenotypeError for another text, for several different
        genotypes in it, and for one that concatenates some Cells or steps only.
        """
        try:
            named = () if isinstance(features, (str, bytes)) else features
            return cls._from_published(text, tuple(named))
        except TypeError:
            raise GenotypeError("features", features, "a list of names", source) from None
        except GenotypeError as error:
            raise GenotypeError(error.place, error.found, error.allowed, source) from None

    @classmethod
    def _from_published(cls, text: str, features: tuple[str, ...]) -> Genotype:
        check_features(features)
        made = []
        for i, cell in enumerate(parse_published(text, len(features), GenotypeError)):
            nodes = cell_predecessors(features, i)
            steps = [
                StepGenotype(op, tuple(step_predecessors(j)[node] for node in inputs))
                for j, (op, inputs) in enumerate(cell.steps)
            ]
            made.append(CellGenotype(tuple(nodes[node] for node in cell.inputs), tuple(steps)))
        return cls(features, tuple(made))

    def save(self, path: str | os.PathLike) -> Path:
        """Write :meth:`to_json` to ``path``, whole or not at all. Raises FileError."""
        with atomic_write(path) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Genotype:
        """Read a genotype file. Raises GenotypeError naming the file and the place in it."""
        return cls.from_json(read_text(path), str(path))


def read_text(path: str | os.PathLike) -> str:
    """The text of a genotype's file. Raises GenotypeError naming it."""
    try:
        path = Path(path)
        return reading.text_of(path, MOST_BYTES)
    except TypeError:
        raise GenotypeError("path", path, "the path of a genotype file") from None
    except FileNotFoundError:
        raise GenotypeError("file", "nothing there", "a genotype file", str(path)) from None
    except UnicodeDecodeError as error:
        place = f"byte {error.start}"
        raise GenotypeError(place, "no UTF-8", "text in UTF-8", str(path)) from None
    except (OSError, ValueError) as error:
        why = in_line(error)
        raise GenotypeError("file", why, "a readable file", str(path)) from None


def check_features(features: tuple[str, ...]) -> None:
    """Raise :class:`GenotypeError` unless these are printable names, each once and no Cell's."""
    if not features:
        raise GenotypeError("features", [], "at least one feature name")
    if len(features) > MOST_FEATURES:
        raise GenotypeError("features", f"{len(features)} names", f"at most {MOST_FEATURES}")
    seen: set[str] = set()
    for i, name in enumerate(features):
        place = f"features[{i}]"
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise GenotypeError(place, name, "a printable name")
        if re.fullmatch(r"C\d+", name):
            raise GenotypeError(place, name, "names other than C1, C2, …, which are Cells")
        if name in seen:
            raise GenotypeError(place, name, "each name once")
        seen.add(name)


def _check_cell(cell: object, place: str, nodes: tuple[str, ...]) -> None:
    if not isinstance(cell, CellGenotype):
        raise GenotypeError(place, cell, "a CellGenotype")
    object.__setattr__(cell, "inputs", _pair(f"{place}.inputs", cell.inputs, nodes))
    object.__setattr__(cell, "steps", _listed(f"{place}.steps", cell.steps, "step"))
    for j, step in enumerate(cell.steps):
        here = f"{place}.steps[{j}]"
        if not isinstance(step, StepGenotype):
            raise GenotypeError(here, step, "a StepGenotype")
        if step.op not in OPERATIONS:
            raise GenotypeError(f"{here}.op", step.op, _choices(OPERATIONS))
        inputs = _pair(f"{here}.inputs", step.inputs, step_predecessors(j))
        object.__setattr__(step, "inputs", inputs)


def _pair(place: str, value: object, allowed: tuple[str, ...]) -> Pair:
    """``value`` as two different names out of ``allowed``."""
    pair = _listed(place, value)
    if len(pair) != 2:
        raise GenotypeError(place, list(pair), "two names")
    for k, name in enumerate(pair):
        choices = [n for n in allowed if n not in pair[:k]]
        if name not in choices:
            raise GenotypeError(f"{place}[{k}]", name, _choices(choices))
    return pair


def _listed(place: str, value: object, part: str = "") -> tuple:
    """``value`` as a tuple; of ``part``, if given, there is one at least and LARGEST at most."""
    if not isinstance(value, (list, tuple)):
        raise GenotypeError(place, value, "a list")
    if part and not value:
        raise GenotypeError(place, [], f"at least one {part}")
    if part and len(value) > LARGEST:
        raise GenotypeError(place, f"{len(value)} {part}s", f"at most {LARGEST}")
    return tuple(value)


def _fields(place: str, value: object, *names: str) -> list:
    """The values of a JSON object that has these fields and no others."""
    if not isinstance(value, dict):
        raise GenotypeError(place, value, f"an object with {_choices(names)}")
    wrong = [f"field {shortened(name, 60)}" for name in value if name not in names]
    wrong += [f"no field {name}" for name in names if name not in value]
    if wrong:
        raise GenotypeError(place, wrong[0], f"fields {_choices(names)}")
    return [value[name] for name in names]


def _no_repeats(pairs: list[tuple[str, object]]) -> dict:
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise GenotypeError("document", f"field {shortened(name, 60)} twice", "each field once")
    return dict(pairs)


def _choices(names) -> str:
    listed = ", ".join(repr(name) for name in names) or "nothing (no node is left)"
    return shortened(listed, 150)


def _summary(part: CellGenotype | StepGenotype | None) -> str:
    """A Cell as its inputs, a step as its operation on its inputs; nothing for None."""
    if part is None:
        return ""
    name = OPERATIONS[part.op].label if isinstance(part, StepGenotype) else ""
    return f"{name}({', '.join(part.inputs)})"


def _changes(cell: int, step: int | None, old, new) -> list[Change]:
    """What differs between two Cells, or two steps of a Cell; one of the two may be None."""
    if old is None or new is None:
        return [Change(cell, step, "", _summary(old), _summary(new))]
    changes, kinds, before, after = [], ("X", "Y"), old.inputs, new.inputs
    if step is not None:
        kinds, operations = ("1st input", "2nd input"), [OPERATIONS[old.op], OPERATIONS[new.op]]
        if old.op != new.op:
            changes.append(Change(cell, step, "operation", *(op.label for op in operations)))
        moved = before[0] == after[1] or before[1] == after[0]
        if moved and any(op.symmetric for op in operations):
            before = before[::-1]
    names = zip(kinds, before, after, strict=True)
    return changes + [Change(cell, step, what, a, b) for what, a, b in names if a != b]


def _canonical_steps(steps: Iterable[tuple[str, Pair]]) -> tuple[tuple[str, Pair], ...]:
    """Steps ``(op, inputs)`` in canonical order."""
    nodes = [(op, inputs, getattr(OPERATIONS.get(op), "symmetric", False)) for op, inputs in steps]
    return tuple(_smallest_order(nodes, step_name))


def _smallest_order(nodes: list[tuple], name: Callable[[int], str]) -> list[tuple]:
    """The smallest listing of a directed acyclic graph over all orders that respect it.

    Each node is ``(label, inputs, symmetric)``; later ones call node i ``name(i)``. Nodes are taken
    greedily, smallest ``(label, inputs under their new names)`` first, and among equals by what
    later nodes make of them (:func:`_roles`). Only equals in that too are each tried, within a
    budget that is far more than a searched Cell needs.
    """
    by_name = {name(i): node for i, node in enumerate(nodes)}
    roles, budget = _roles(by_name), 1000 if len(nodes) <= 16 else 100

    def extend(renamed: dict[str, str], listing: list[tuple]) -> list[tuple]:
        nonlocal budget
        while len(listing) < len(nodes):
            ready = []
            for own, (label, inputs, symmetric) in by_name.items():
                if own in renamed or any(n in roles and n not in renamed for n in inputs):
                    continue
                names = tuple(renamed.get(source, source) for source in inputs)
                node = label, tuple(sorted(names)) if symmetric else names
                ready.append((node, roles[own], own))
            node, role, _ = min(ready)
            ties = [own for other, its, own in ready if (other, its) == (node, role)]
            listing.append(node)
            new = name(len(listing) - 1)
            if len(ties) > 1 and role != "unused" and budget > 0:
                budget -= len(ties)
                return min(extend({**renamed, own: new}, [*listing]) for own in ties)
            renamed[ties[0]] = new
        return listing

    return extend({}, [])


def _roles(nodes: dict[str, tuple]) -> dict[str, str]:
    """For each node a text that says what it and its surroundings are, by rounds of refinement.

    Nodes that can be exchanged have the same one.
    """
    roles, users = {own: repr(label) for own, (label, _, _) in nodes.items()}, defaultdict(list)
    for own, (_, inputs, symmetric) in nodes.items():
        for k, source in enumerate(inputs):
            users[source].append((own, 0 if symmetric else k))
    for _ in nodes:
        before, roles = roles, {}
        for own, (_, inputs, symmetric) in nodes.items():
            sources = [before.get(source, source) for source in inputs]
            uses = sorted((before[user], k) for user, k in users[own])
            around = before[own], sorted(sources) if symmetric else sources, uses
            roles[own] = sha256(repr(around).encode()).hexdigest()
        if len(set(roles.values())) == len(set(before.values())):
            break
    return {own: role if users[own] else "unused" for own, role in roles.items()}
