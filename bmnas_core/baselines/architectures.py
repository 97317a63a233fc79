"""Baselines made of Cells without a search: fixed ones, and random genotypes."""

from itertools import starmap

import torch

from .. import genotype as grammar
from ..genotype import DEFAULT_OPERATIONS, CellGenotype, Genotype, GenotypeError, StepGenotype
from ..runtime import generator
from ..tasks.task import Task
from .context import BaselineContext, Entries, register_baseline
from .fusion_models import last_features


def motif_steps(motif: str) -> tuple[StepGenotype, ...]:
    """The steps of a Cell in :data:`~bmnas_core.genotype.MOTIFS`; GenotypeError for others."""
    if motif not in grammar.MOTIFS:
        raise GenotypeError("motif", motif, ", ".join(map(repr, grammar.MOTIFS)))
    return tuple(starmap(StepGenotype, grammar.MOTIFS[motif]))


def fixed_genotype(task: Task, motif: str) -> Genotype:
    """Cells of one motif on the last features, two at a time. Raises as :func:`motif_steps`."""
    steps = motif_steps(motif)
    first, *others = last_features(task)
    before = [first, *map(grammar.cell_name, range(len(others)))]
    pairs = zip(before, others, strict=False)
    return Genotype(task.features, tuple(CellGenotype(pair, steps) for pair in pairs))


def random_genotype(
    features: tuple[str, ...],
    N: int,
    M: int,
    random: torch.Generator,
    operations: tuple[str, ...] = DEFAULT_OPERATIONS,
) -> Genotype:
    """N Cells of M steps, sampled uniformly: free pairs of inputs, steps' inputs and operations.

    Raises GenotypeError for fewer than two features.
    """

    def sample_pair(names: tuple[str, ...]) -> tuple[str, str]:
        i, j = torch.randperm(len(names), generator=random)[:2]
        return names[i], names[j]

    def sample_step(j: int) -> StepGenotype:
        op = operations[int(torch.randint(len(operations), (), generator=random))]
        return StepGenotype(op, sample_pair(grammar.step_predecessors(j)))

    if len(features) < 2:
        raise GenotypeError("features", list(features), "at least two names")
    cells: list[CellGenotype] = []
    for i in range(N):
        nodes, taken = grammar.cell_predecessors(features, i), [cell.inputs for cell in cells]
        while not grammar.is_free(pair := sample_pair(nodes), taken):
            pass
        cells.append(CellGenotype(pair, tuple(map(sample_step, range(M)))))
    return Genotype(features, tuple(cells))


def sample_genotype(context: BaselineContext, random: torch.Generator) -> Genotype:
    """A :func:`random_genotype` from the space of the context's search."""
    space = context.search
    return random_genotype(context.task.features, space.N, space.M, random, space.operations)


@register_baseline("fixed Cells", quick=True)
def fixed_cells(context: BaselineContext) -> Entries:
    """A Sum Cell and a ConcatFC Cell on the last features."""
    for motif in ("Sum", "ConcatFC"):
        yield f"fixed {motif}", [context.train(fixed_genotype(context.task, motif))]


@register_baseline("fixed attention")
def fixed_attention(context: BaselineContext) -> Entries:
    """Two Cells known from the literature, on the last features."""
    for motif in ("two-head attention", "attention on attention"):
        yield f"fixed {motif}", [context.train(fixed_genotype(context.task, motif))]


@register_baseline("random genotypes", quick=True)
def random_genotypes(context: BaselineContext) -> Entries:
    """Genotypes from the space of the search, sampled with the seed."""
    random = generator(context.seed, "random genotypes")
    nets = context.train_all(sample_genotype(context, random) for _ in range(5))
    yield f"random genotypes, mean of {len(nets)}", nets
