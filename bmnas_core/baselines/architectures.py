"""Rivals made of Cells that nobody learned: fixed ones, and random genotypes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ..config import generator
from ..genotype import MOTIFS, CellGenotype, Genotype, GenotypeError, StepGenotype
from ..tasks.task import Task
from .rivals import Contest, register_rival
from .streams import last_features

#: How many random genotypes stand for all of them.
RANDOM_GENOTYPES = 5
OPERATIONS = ("sum", "attention", "linear_glu", "concat_fc")


def fixed_genotype(task: Task, motif: str) -> Genotype:
    """Cells of one known kind on the last feature of each modality, two at a time.

    Args:
        motif: a name in :data:`~bmnas_core.genotype.MOTIFS`.

    Raises:
        GenotypeError: for another motif.
    """
    if motif not in MOTIFS:
        raise GenotypeError("motif", motif, ", ".join(map(repr, MOTIFS)))
    steps = tuple(StepGenotype(op, inputs) for op, inputs in MOTIFS[motif])
    first, *others = [name for channels in last_features(task) for name in channels]
    cells = []
    for i, name in enumerate(others):
        cells.append(CellGenotype((first if i == 0 else f"C{i}", name), steps))
    return Genotype(task.features, tuple(cells))


def random_genotype(
    features: tuple[str, ...],
    N: int,
    M: int,
    random: torch.Generator,
    operations: tuple[str, ...] = OPERATIONS,
) -> Genotype:
    """A genotype drawn evenly: pairs, no two Cells the same one, steps' inputs and operations.

    Raises:
        GenotypeError: for fewer than two features.
    """

    def pick(names):
        i, j = torch.randperm(len(names), generator=random)[:2]
        return names[i], names[j]

    if len(features) < 2:
        raise GenotypeError("features", list(features), "two names up")
    cells, nodes, taken = [], list(features), set()
    for i in range(N):
        pair = pick(nodes)
        while frozenset(pair) in taken:
            pair = pick(nodes)
        taken.add(frozenset(pair))
        steps, inner = [], ["X", "Y"]
        for j in range(M):
            op = operations[int(torch.randint(len(operations), (), generator=random))]
            steps.append(StepGenotype(op, pick(inner)))
            inner.append(f"S{j + 1}")
        cells.append(CellGenotype(pair, tuple(steps)))
        nodes.append(f"C{i + 1}")
    return Genotype(features, tuple(cells))


@register_rival("fixed Cells", quick=True)
def fixed_cells(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """A Sum Cell and a ConcatFC Cell on the last features."""
    for motif in ("Sum", "ConcatFC"):
        yield f"fixed {motif}", [contest.train(fixed_genotype(contest.task, motif))]


@register_rival("random genotypes", quick=True)
def random_genotypes(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """Genotypes of the task's size, drawn with the seed."""
    task, config = contest.task, contest.config
    random = generator(contest.seed, "random genotypes")
    nets = [
        contest.train(random_genotype(task.features, config.N, config.M, random))
        for _ in range(RANDOM_GENOTYPES)
    ]
    yield f"random genotypes, mean of {len(nets)}", nets
