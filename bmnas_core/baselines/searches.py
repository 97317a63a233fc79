"""Baselines that search: BM-NAS, its parts replaced, random search and evolution in its space."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from ..genotype import (
    MOTIFS,
    CellGenotype,
    Genotype,
    StepGenotype,
    cell_predecessors,
    is_free,
    step_predecessors,
)
from ..runtime import generator
from .architectures import random_genotype, sample_genotype
from .context import BaselineContext, register_baseline

#: What random search and evolution may spend, in full trainings of one network.
BUDGET = 10
#: Epochs of a short training: the end of the second cosine, if the first is one epoch long.
SHORT_EPOCHS = 3
POPULATION, TOURNAMENT = 10, 3


def with_motif(genotype: Genotype, motif: str) -> Genotype:
    """The genotype with its Cells' inputs kept and their steps replaced by a known motif."""
    steps = tuple(StepGenotype(op, inputs) for op, inputs in MOTIFS[motif])
    return replace(genotype, cells=tuple(CellGenotype(c.inputs, steps) for c in genotype.cells))


def with_random_pairs(genotype: Genotype, random: torch.Generator) -> Genotype:
    """The genotype with its Cells' steps kept and their inputs sampled, features or Cells."""
    other = random_genotype(genotype.features, len(genotype.cells), 1, random)
    return genotype.with_inputs([cell.inputs for cell in other.cells])


def mutated(genotype: Genotype, random: torch.Generator, operations: tuple[str, ...]) -> Genotype:
    """One random change: an input of a Cell, an input of a step, or a step's operation.

    No two Cells take the same pair.
    """

    def pick(options):
        return options[int(torch.randint(len(options), (), generator=random))]

    def other_input(inputs, nodes):
        k = pick((0, 1))
        new = list(inputs)
        new[k] = pick([n for n in nodes if n not in inputs] or [inputs[k]])
        return tuple(new) if new[k] != inputs[k] else inputs[::-1]

    while True:
        cells = list(genotype.cells)
        i = pick(range(len(cells)))
        cell, what = cells[i], pick(("pair", "operation", "input"))
        j = pick(range(len(cell.steps)))
        step = cell.steps[j]
        if what == "pair":
            nodes = cell_predecessors(genotype.features, i)
            cells[i] = replace(cell, inputs=other_input(cell.inputs, nodes))
        elif what == "operation":
            step = replace(step, op=pick([op for op in operations if op != step.op] or [step.op]))
        else:
            nodes = step_predecessors(j)
            step = replace(step, inputs=other_input(step.inputs, nodes))
        if what != "pair":
            cells[i] = replace(cell, steps=(*cell.steps[:j], step, *cell.steps[j + 1 :]))
        if is_free(cells[i].inputs, [c.inputs for k, c in enumerate(cells) if k != i]):
            return replace(genotype, cells=tuple(cells))


def _register_bm_nas(name: str, **settings) -> None:
    @register_baseline(name)
    def bm_nas(context: BaselineContext) -> Iterator[tuple[str, list[nn.Module]]]:
        yield name, [context.train(context.searched(**settings))]


# With the task's settings; with one Cell, whose whole space is tabulated for ``digits``; without
# successive halving; and as published, by argmax, for which α, β, γ need longer.
_register_bm_nas("BM-NAS")
_register_bm_nas("BM-NAS of one Cell", N=1)
_register_bm_nas("BM-NAS by perturbation", selection="perturbation")
_register_bm_nas("BM-NAS by argmax", selection="argmax", epochs=7)


@register_baseline("BM-NAS at half the width")
def half_the_width(context: BaselineContext) -> Iterator[tuple[str, list[nn.Module]]]:
    """BM-NAS with half of C, searched and trained, which leaves about a third of the parameters."""
    C = max(context.config.C // 2, 1)
    found = context.searched(C=C)
    yield "BM-NAS at half the width", [context.train(found, replace(context.config, C=C))]


@register_baseline("searched features")
def searched_features(context: BaselineContext) -> Iterator[tuple[str, list[nn.Module]]]:
    """What BM-NAS pairs, fused by fixed Cells (Yin et al. 2022, table 7)."""
    for motif in ("Sum", "ConcatFC", "two-head attention", "attention on attention"):
        genotype = with_motif(context.searched(), motif)
        yield f"searched features, {motif}", [context.train(genotype)]


@register_baseline("random features")
def random_features(context: BaselineContext) -> Iterator[tuple[str, list[nn.Module]]]:
    """The steps that BM-NAS finds, on pairs sampled with the seed (Yin et al. 2022, table 6)."""
    found, random = context.searched(), generator(context.seed, "random features")
    nets = [context.train(with_random_pairs(found, random)) for _ in range(3)]
    yield f"random features, searched Cells, mean of {len(nets)}", nets


def best_sampled(
    sample: Callable[[], Genotype], score: Callable[[Genotype], float], evaluations: int, *_: object
) -> Genotype:
    """Random search: the best of so many sampled genotypes. Called like :func:`evolve`."""
    return max((sample() for _ in range(evaluations)), key=score)


def evolve(
    sample: Callable[[], Genotype],
    score: Callable[[Genotype], float],
    evaluations: int,
    random: torch.Generator,
    operations: tuple[str, ...],
) -> Genotype:
    """Regularised evolution (Real et al. 2019): a tournament's winner mutates, the oldest dies.

    Args:
        sample: a random genotype; the first population consists of these.
        score: rates a genotype, higher being better.
        evaluations: how many genotypes are scored.
        random: chooses tournaments and mutations.
        operations: those that a mutation may choose.

    Returns:
        The genotype with the best score of all.
    """
    population: deque[tuple[float, Genotype]] = deque(maxlen=POPULATION)
    best = None
    for _ in range(evaluations):
        if len(population) < POPULATION:
            genotype = sample()
        else:
            rows = torch.randperm(POPULATION, generator=random)[:TOURNAMENT].tolist()
            parent = max((population[row] for row in rows), key=lambda entry: entry[0])[1]
            genotype = mutated(parent, random, operations)
        population.append((score(genotype), genotype))
        best = max(best or population[-1], population[-1], key=lambda entry: entry[0])
    return best[1]


@register_baseline("random search")
def random_search(context: BaselineContext) -> Iterator[tuple[str, list[nn.Module]]]:
    """The best on validation of random genotypes, each trained for a few epochs."""
    with context.searching():
        best = best_sampled(*_budget(context, "random search"))
    yield "random search", [context.train(best)]


@register_baseline("evolution")
def evolution(context: BaselineContext) -> Iterator[tuple[str, list[nn.Module]]]:
    """:func:`evolve` with as many short trainings as random search has."""
    with context.searching():
        best = evolve(*_budget(context, "evolution"))
    yield "regularised evolution", [context.train(best)]


def _budget(context: BaselineContext, stream: str):
    """The arguments of :func:`evolve` for a search among short trainings."""
    random, epochs = generator(context.seed, stream), context.config.epochs
    short = min(SHORT_EPOCHS, epochs)

    def sample() -> Genotype:
        return sample_genotype(context, random)

    def score(genotype: Genotype) -> float:
        return context.validate(context.train(genotype, context.recipe_on_train(short)))

    return sample, score, BUDGET * epochs // short, random, context.search.operations
