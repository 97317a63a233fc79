"""Baselines made of Cells without a search: fixed ones, and random genotypes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ..genotype import (
    DEFAULT_OPERATIONS,
    MOTIFS,
    CellGenotype,
    Genotype,
    GenotypeError,
    StepGenotype,
    cell_name,
    cell_predecessors,
    is_free,
    step_predecessors,
)
from ..runtime import generator
from ..tasks.task import Task
from .context import BaselineContext, register_baseline
from .fusion_models import last_features

#: How many random genotypes are trained; the table has their mean.
RANDOM_GENOTYPES = 5


def fixed_genotype(task: Task, motif: str) -> Genotype:
    """Cells with the same steps on the last feature of each modality, two at a time.

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
        cells.append(CellGenotype((cell_name(i - 1) if i else first, name), steps))
    return Genotype(task.features, tuple(cells))


def random_genotype(
    features: tuple[str, ...],
    N: int,
    M: int,
    random: torch.Generator,
    operations: tuple[str, ...] = DEFAULT_OPERATIONS,
) -> Genotype:
    """A genotype sampled uniformly: free pairs of inputs, steps' inputs and operations.

    Args:
        N, M: how many Cells, and steps of each.

    Raises:
        GenotypeError: for fewer than two features.
    """

    def pick(names: tuple[str, ...]) -> tuple[str, str]:
        i, j = torch.randperm(len(names), generator=random)[:2]
        return names[i], names[j]

    if len(features) < 2:
        raise GenotypeError("features", list(features), "at least two names")
    cells: list[CellGenotype] = []
    for i in range(N):
        taken = [cell.inputs for cell in cells]
        pair = pick(cell_predecessors(features, i))
        while not is_free(pair, taken):
            pair = pick(cell_predecessors(features, i))
        steps = []
        for j in range(M):
            op = operations[int(torch.randint(len(operations), (), generator=random))]
            steps.append(StepGenotype(op, pick(step_predecessors(j))))
        cells.append(CellGenotype(pair, tuple(steps)))
    return Genotype(features, tuple(cells))


def sample_genotype(context: BaselineContext, random: torch.Generator) -> Genotype:
    """A :func:`random_genotype` from the space of the context's search."""
    space = context.search
    return random_genotype(context.task.features, space.N, space.M, random, space.operations)


@register_baseline("fixed Cells", quick=True)
def fixed_cells(context: BaselineContext) -> Iterator[tuple[str, list[nn.Module]]]:
    """A Sum Cell and a ConcatFC Cell on the last features."""
    for motif in ("Sum", "ConcatFC"):
        yield f"fixed {motif}", [context.train(fixed_genotype(context.task, motif))]


@register_baseline("random genotypes", quick=True)
def random_genotypes(context: BaselineContext) -> Iterator[tuple[str, list[nn.Module]]]:
    """Genotypes from the space of the search, sampled with the seed."""
    random = generator(context.seed, "random genotypes")
    nets = [context.train(sample_genotype(context, random)) for _ in range(RANDOM_GENOTYPES)]
    yield f"random genotypes, mean of {len(nets)}", nets
