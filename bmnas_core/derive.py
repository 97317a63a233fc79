"""From α, β, γ to a genotype: discretisation (Yin et al. 2022, section 3.3)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import torch

from .cells import RELAXATIONS
from .config import BmnasError
from .genotype import OPERATIONS, CellGenotype, Genotype, StepGenotype
from .networks import Hypernet

#: Derivation rules by name, each ``ArchitectureWeights -> Genotype``.
DERIVATIONS: dict[str, Callable[[ArchitectureWeights], Genotype]] = {}


class DeriveError(BmnasError):
    """Weights from which a rule can derive no genotype."""


def register_derivation(name: str):
    """Decorator: make a function from :class:`ArchitectureWeights` to a genotype a rule."""

    def decorate(function):
        DERIVATIONS[name] = function
        return function

    return decorate


@dataclass(frozen=True)
class ArchitectureWeights:
    """α, β, γ as numbers, detached from the hypernet, with what is needed to read them.

    Attributes:
        alpha: (edges, 2), edges Cell by Cell, each Cell's predecessors in order.
        beta: per Cell (edges, 2), edges step by step, predecessors X, Y, S1, …
        gamma: per Cell (M, operations).
    """

    alpha: np.ndarray
    beta: tuple[np.ndarray, ...]
    gamma: tuple[np.ndarray, ...]
    features: tuple[str, ...]
    operations: tuple[str, ...]
    relaxation: str

    @classmethod
    def of(cls, hypernet: Hypernet, operations: tuple[str, ...], relaxation: str):
        """A snapshot of a hypernet's current α, β, γ."""

        def numbers(parameter):
            return parameter.detach().cpu().numpy().copy()

        return cls(
            numbers(hypernet.alpha),
            tuple(numbers(cell.beta) for cell in hypernet.cells),
            tuple(numbers(cell.gamma) for cell in hypernet.cells),
            tuple(hypernet.reshape.channels),
            tuple(operations),
            relaxation,
        )

    def cell_edges(self, i: int) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Predecessors of Cell i (from 0) and their weights for X and for Y, each (P,)."""
        names = [*self.features, *(f"C{k + 1}" for k in range(i))]
        start = sum(len(self.features) + k for k in range(i))
        return names, *self._weights(self.alpha[start : start + len(names)])

    def step_edges(self, i: int, j: int) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Predecessors of step j of Cell i (from 0) and their weights, each (P,)."""
        names = ["X", "Y", *(f"S{k + 1}" for k in range(j))]
        start = sum(2 + k for k in range(j))
        return names, *self._weights(self.beta[i][start : start + len(names)])

    def operation_weights(self, i: int) -> np.ndarray:
        """softmax(γ) of Cell i: (M, operations)."""
        return torch.from_numpy(self.gamma[i]).softmax(dim=1).numpy()

    @property
    def shared(self) -> bool:
        """Whether the relaxation gives X and Y the same weights, whatever the logits are."""
        x, y = RELAXATIONS[self.relaxation].weights(torch.zeros(2, 2))
        return x is y

    def _weights(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = RELAXATIONS[self.relaxation].weights(torch.from_numpy(logits))
        return x.numpy(), y.numpy()


def derive(weights: ArchitectureWeights, rule: str = "argmax") -> Genotype:
    """The genotype that ``weights`` stand for, by a rule of :data:`DERIVATIONS`.

    Raises:
        DeriveError: for an unknown rule, or where no legal pair of predecessors is left.
    """
    if rule not in DERIVATIONS:
        raise DeriveError(f"derivation rule: found {rule!r}; allowed: {', '.join(DERIVATIONS)}")
    return DERIVATIONS[rule](weights)


def with_pairs(genotype: Genotype, pairs: Sequence[tuple[str, str]]) -> Genotype:
    """The genotype with other inputs X and Y of its first Cells."""
    count = len(pairs)
    first = zip(pairs, genotype.cells[:count], strict=True)
    cells = (*(replace(cell, inputs=pair) for pair, cell in first), *genotype.cells[count:])
    return replace(genotype, cells=cells)


def likeliest(weights: ArchitectureWeights, k: int | None = None) -> dict[Genotype, float]:
    """What the hypernet believes: genotypes in canonical form and their probability, falling.

    A Cell's inputs X and Y are drawn with their weights' product as odds, no two Cells the same
    pair; a step's inputs likewise; its operation by softmax(γ). Forms of one architecture count
    together.

    Args:
        k: how many; all where None, for small spaces only: their number grows with the power of
            all choices.

    Raises:
        DeriveError: where no legal pair of predecessors is left.
    """
    found: list[tuple[float, tuple]] = [(1.0, ())]
    most = None if k is None else 20 * k + 1000

    def extend(options: list[tuple[float, object]], legal=lambda taken, choice: True) -> None:
        nonlocal found
        longer = (
            (p * q, (*taken, choice))
            for p, taken in found
            for q, choice in options
            if legal(taken, choice)
        )
        found = list(longer) if most is None else heapq.nlargest(most, longer, lambda f: f[0])

    size = 1 + 2 * weights.gamma[0].shape[0]
    for i in range(len(weights.gamma)):
        pairs = _pair_odds(*weights.cell_edges(i))
        extend(pairs, lambda taken, pair: set(pair) not in map(set, taken[::size]))
        if not found:
            raise DeriveError(f"cells[{i}]: all pairs of predecessors are taken")
        for j, odds in enumerate(weights.operation_weights(i)):
            extend(list(zip(map(float, odds), weights.operations, strict=True)))
            extend(_pair_odds(*weights.step_edges(i, j)))
    whole, sums = sum(p for p, _ in found), {}
    for p, choices in found:
        cells = []
        for start in range(0, len(choices), size):
            pair, *steps = choices[start : start + size]
            steps = map(StepGenotype, steps[::2], steps[1::2])
            cells.append(CellGenotype(pair, tuple(steps)))
        genotype = Genotype(weights.features, tuple(cells)).canonical()
        sums[genotype] = sums.get(genotype, 0.0) + p / whole
    return dict(heapq.nlargest(len(sums) if k is None else k, sums.items(), lambda f: f[1]))


def sample(
    weights: ArchitectureWeights,
    pairs: Sequence[Mapping[tuple[str, str], float]],
    k: int,
    random: torch.Generator,
) -> dict[Genotype, float]:
    """Distinct genotypes in canonical form: Cells' inputs drawn by odds, steps evenly.

    A step is an operation with its inputs; ways to write it that are the same count once.

    Args:
        pairs: for each Cell, its (X, Y) and their odds.
        k: how many at most; fewer where that many different ones do not turn up.

    Returns:
        Each with the :func:`belief` in it, in the order in which they were drawn.

    Raises:
        DeriveError: where no legal pair of predecessors is left.
    """

    def draw(options: Mapping, even: bool = False):
        odds = torch.tensor([*options.values()], dtype=torch.float64)
        if not odds.sum() > 0:
            raise DeriveError("all pairs of predecessors are taken")
        odds = torch.ones_like(odds) if even else odds
        return [*options][int(odds.multinomial(1, generator=random))]

    steps = [_step_odds(weights, i) for i in range(len(weights.gamma))]
    found: dict[Genotype, float] = {}
    for _ in range(100 * k):
        cells: list[CellGenotype] = []
        for odds, options in zip(pairs, steps, strict=True):
            taken = [set(cell.inputs) for cell in cells]
            pair = draw({pair: p for pair, p in odds.items() if set(pair) not in taken})
            chosen = tuple(draw(option, even=True) for option in options)
            cells.append(CellGenotype(pair, chosen))
        genotype = Genotype(weights.features, tuple(cells))
        found.setdefault(genotype.canonical(), belief(weights, pairs, genotype))
        if len(found) == k:
            break
    return found


def belief(
    weights: ArchitectureWeights,
    pairs: Sequence[Mapping[tuple[str, str], float]],
    genotype: Genotype,
) -> float:
    """How likely a genotype is, its Cells' inputs by the given odds and its steps by β and γ.

    As it is listed: forms that are the same architecture do not count together.
    """
    p = 1.0
    for i, (cell, odds) in enumerate(zip(genotype.cells, pairs, strict=True)):
        p *= odds.get(cell.inputs, 0.0)
        for step, options in zip(cell.steps, _step_odds(weights, i), strict=True):
            p *= options[_plain(step)]
    return p


def _step_odds(weights: ArchitectureWeights, i: int) -> list[dict[StepGenotype, float]]:
    """For each step of Cell i (from 0) all it can be, and how likely by β and γ."""
    steps = []
    for j, operations in enumerate(weights.operation_weights(i)):
        sums: dict[StepGenotype, float] = {}
        for op, p in zip(weights.operations, map(float, operations), strict=True):
            for q, inputs in _pair_odds(*weights.step_edges(i, j)):
                step = _plain(StepGenotype(op, inputs))
                sums[step] = sums.get(step, 0.0) + p * q
        steps.append(sums)
    return steps


def _plain(step: StepGenotype) -> StepGenotype:
    """The step with inputs sorted where their order is nothing to its operation."""
    symmetric = getattr(OPERATIONS.get(step.op), "symmetric", False)
    return StepGenotype(step.op, tuple(sorted(step.inputs))) if symmetric else step


def _pair_odds(names: list[str], x: np.ndarray, y: np.ndarray) -> list[tuple[float, tuple]]:
    """Ordered pairs and their probability, by the product of weights."""
    pairs = list(permutations(range(len(names)), 2))
    odds = np.array([float(x[i]) * float(y[j]) for i, j in pairs])
    odds /= odds.sum()
    return [(float(p), (names[i], names[j])) for p, (i, j) in zip(odds, pairs, strict=True)]


@register_derivation("argmax")
def argmax(weights: ArchitectureWeights) -> Genotype:
    """Each Cell takes the heaviest pair that no earlier Cell took, earlier Cells included."""
    taken: set[frozenset[str]] = set()

    def choose(i: int) -> tuple[str, str]:
        names, x, y = weights.cell_edges(i)
        for pair in _heaviest_pairs(names, x, y):
            if frozenset(pair) not in taken:
                taken.add(frozenset(pair))
                return pair
        raise DeriveError(f"cells[{i}]: all pairs of {len(names)} predecessors are taken")

    return _genotype(weights, choose)


@register_derivation("released")
def released(weights: ArchitectureWeights) -> Genotype:
    """The rule of the published code: raw features only, each pair with one not used before."""
    used: set[str] = set()

    def choose(i: int) -> tuple[str, str]:
        names, x, y = weights.cell_edges(i)
        raw = len(weights.features)
        for pair in _heaviest_pairs(names[:raw], x[:raw], y[:raw]):
            if not set(pair) <= used:
                used.update(pair)
                return pair
        raise DeriveError(f"cells[{i}]: all {raw} features are used by earlier Cells already")

    return _genotype(weights, choose)


def _genotype(weights: ArchitectureWeights, choose: Callable[[int], tuple[str, str]]) -> Genotype:
    cells = []
    for i in range(len(weights.gamma)):
        best = weights.gamma[i].argmax(axis=1)
        steps = [
            StepGenotype(weights.operations[op], _two_best(*weights.step_edges(i, j)))
            for j, op in enumerate(best)
        ]
        cells.append(CellGenotype(choose(i), tuple(steps)))
    return Genotype(weights.features, tuple(cells))


def _heaviest_pairs(names: list[str], x: np.ndarray, y: np.ndarray) -> Iterable[tuple[str, str]]:
    """Ordered pairs by falling product of weights; equals in the order of the names."""
    pairs = sorted(permutations(range(len(names)), 2), key=lambda p: (-x[p[0]] * y[p[1]], p))
    return ((names[i], names[j]) for i, j in pairs)


def _two_best(names: list[str], x: np.ndarray, y: np.ndarray) -> tuple[str, str]:
    """The heaviest ordered pair; where order weighs nothing, the heavier input comes first."""
    pairs = permutations(range(len(names)), 2)
    i, j = min(pairs, key=lambda p: (-x[p[0]] * y[p[1]], -x[p[0]], p))
    return names[i], names[j]
