"""α, β and γ as numbers: what they say of edges and operations, and how probable genotypes are."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch

from .cells import RELAXATIONS
from .errors import BmnasError
from .genotype import (
    OPERATIONS,
    CellGenotype,
    Genotype,
    Pair,
    StepGenotype,
    cell_predecessors,
    free_pairs,
    is_free,
    step_predecessors,
)
from .networks import Hypernet


class SelectionError(BmnasError):
    """A selection rule that does not exist, or that finds no legal architecture."""


@dataclass(frozen=True)
class ArchitectureWeights:
    """α, β, γ as numbers, with what is needed to read them.

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
    def from_hypernet(cls, hypernet: Hypernet, operations: tuple[str, ...], relaxation: str):
        """A snapshot of a hypernet's current α, β, γ."""
        return cls.later(hypernet, operations, relaxation)()

    @classmethod
    def later(
        cls, hypernet: Hypernet, operations: tuple[str, ...], relaxation: str
    ) -> Callable[[], ArchitectureWeights]:
        """A function that gives what :meth:`from_hypernet` would give now.

        Until it is called, the numbers stay on the hypernet's device.
        """
        taken = [p.detach().clone() for p in hypernet.architecture_parameters()]
        features = tuple(hypernet.reshape.channels)

        def read() -> ArchitectureWeights:
            arrays = [tensor.cpu().numpy() for tensor in taken]
            return cls.from_arrays(arrays, features, operations, relaxation)

        return read

    @classmethod
    def from_arrays(
        cls,
        arrays: Sequence[np.ndarray],
        features: tuple[str, ...],
        operations: tuple[str, ...],
        relaxation: str,
    ):
        """Those of :attr:`arrays`."""
        alpha, *rest = arrays
        beta, gamma = tuple(rest[: len(rest) // 2]), tuple(rest[len(rest) // 2 :])
        return cls(alpha, beta, gamma, features, tuple(operations), relaxation)

    @property
    def arrays(self) -> list[np.ndarray]:
        """α, then each Cell's β, then each Cell's γ."""
        return [self.alpha, *self.beta, *self.gamma]

    def cell_edges(self, i: int) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Predecessors of Cell i (from 0) and their weights for X and for Y, each (P,)."""
        return self._edges(self.alpha, [cell_predecessors(self.features, k) for k in range(i + 1)])

    def step_edges(self, i: int, j: int) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Predecessors of step j of Cell i (from 0) and their weights, each (P,)."""
        return self._edges(self.beta[i], [step_predecessors(k) for k in range(j + 1)])

    def operation_weights(self, i: int) -> np.ndarray:
        """softmax(γ) of Cell i: (M, operations)."""
        return torch.from_numpy(self.gamma[i]).softmax(dim=1).numpy()

    @property
    def shared(self) -> bool:
        """Whether the relaxation gives X and Y the same weights, whatever the logits are."""
        x, y = RELAXATIONS[self.relaxation].weights(torch.zeros(2, 2))
        return x is y

    def _edges(self, logits: np.ndarray, predecessors: list[tuple[str, ...]]):
        """The last of these lists of predecessors, and their weights by its rows of ``logits``."""
        *earlier, names = predecessors
        start = sum(map(len, earlier))
        rows = torch.from_numpy(logits[start : start + len(names)])
        x, y = RELAXATIONS[self.relaxation].weights(rows)
        return names, x.numpy(), y.numpy()


def most_probable(weights: ArchitectureWeights, k: int | None = None) -> dict[Genotype, float]:
    """The ``k`` most probable genotypes under α, β, γ, in canonical form, by falling probability.

    A pair of inputs X and Y of a Cell is as probable as the product of their weights says, among
    the pairs that are free; the inputs of a step likewise; its operation by softmax(γ). The
    probabilities of all ways to list one architecture are added up. All genotypes, the default,
    take time and memory for all but small spaces.
    """
    found: list[tuple[float, tuple]] = [(1.0, ())]
    size = 1 + len(weights.gamma[0])  # parts of a Cell: its pair of inputs and its steps
    for i in range(len(weights.gamma)):
        for j, odds in enumerate([_pair_odds(*weights.cell_edges(i)), *_step_odds(weights, i)]):
            longer = (
                (p * q, (*taken, part))
                for p, taken in found
                for part, q in odds.items()
                if j > 0 or is_free(part, taken[::size])
            )
            found = [*longer] if k is None else heapq.nlargest(20 * k + 1000, longer, itemgetter(0))
        if not found:
            raise SelectionError(f"cells[{i}]: all pairs of predecessors are taken")
    whole, sums = sum(p for p, _ in found), Counter()
    for p, parts in found:
        starts = range(0, len(parts), size)
        cells = (CellGenotype(parts[k], parts[k + 1 : k + size]) for k in starts)
        sums[Genotype(weights.features, tuple(cells)).canonical()] += p / whole
    return dict(sums.most_common(k))


def sample_candidates(
    weights: ArchitectureWeights,
    pairs: Sequence[Mapping[Pair, float]],
    k: int,
    random: torch.Generator,
) -> dict[Genotype, float]:
    """At most ``k`` genotypes in canonical form, with their :func:`genotype_probability`.

    Cells' inputs are sampled by ``pairs``, (X, Y) → odds for each Cell; steps uniformly from all
    operations and inputs, equal ones counted once. Raises SelectionError if no legal pair is left.
    """

    def sample(options: Mapping):
        odds = torch.tensor([*options.values()], dtype=torch.float64)
        if not odds.sum() > 0:
            raise SelectionError("all pairs of predecessors are taken")
        return [*options][int(odds.multinomial(1, generator=random))]

    steps = [_step_odds(weights, i) for i in range(len(weights.gamma))]
    found: dict[Genotype, float] = {}
    for _ in range(100 * k):
        cells: list[CellGenotype] = []
        for odds, options in zip(pairs, steps, strict=True):
            taken = [cell.inputs for cell in cells]
            pair = sample({pair: p for pair, p in odds.items() if is_free(pair, taken)})
            sampled = (sample(dict.fromkeys(option, 1.0)) for option in options)
            cells.append(CellGenotype(pair, tuple(sampled)))
        genotype = Genotype(weights.features, tuple(cells))
        found.setdefault(genotype.canonical(), genotype_probability(weights, pairs, genotype))
        if len(found) == k:
            break
    return found


def genotype_probability(
    weights: ArchitectureWeights, pairs: Sequence[Mapping[Pair, float]], genotype: Genotype
) -> float:
    """How probable a genotype is, as listed: Cells' inputs by the given odds, steps by β and γ."""
    p = 1.0
    for i, (cell, odds) in enumerate(zip(genotype.cells, pairs, strict=True)):
        p *= odds.get(cell.inputs, 0.0)
        for step, options in zip(cell.steps, _step_odds(weights, i), strict=True):
            p *= options[_plain(step)]
    return p


def _step_odds(weights: ArchitectureWeights, i: int) -> list[dict[StepGenotype, float]]:
    """All that each step of Cell i (from 0) can be, and how probable that is by β and γ."""
    steps = []
    for j, operations in enumerate(weights.operation_weights(i).tolist()):
        pairs, sums = _pair_odds(*weights.step_edges(i, j)), Counter()
        for op, p in zip(weights.operations, operations, strict=True):
            for inputs, q in pairs.items():
                sums[_plain(StepGenotype(op, inputs))] += p * q
        steps.append(sums)
    return steps


def _plain(step: StepGenotype) -> StepGenotype:
    """The step, with sorted inputs if its operation is symmetric."""
    symmetric = OPERATIONS[step.op].symmetric
    return StepGenotype(step.op, tuple(sorted(step.inputs))) if symmetric else step


def _pair_odds(names: Sequence[str], x: np.ndarray, y: np.ndarray) -> dict[Pair, float]:
    """Ordered pairs and their probability, by the product of weights."""
    pairs, place = free_pairs(names), {name: k for k, name in enumerate(names)}
    odds = np.array([float(x[place[a]]) * float(y[place[b]]) for a, b in pairs])
    return dict(zip(pairs, (odds / odds.sum()).tolist(), strict=True))
