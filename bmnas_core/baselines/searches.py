"""Rivals that search the same space: BM-NAS, its parts replaced, random search, evolution."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from ..config import generator
from ..genotype import MOTIFS, CellGenotype, Genotype, StepGenotype
from .architectures import OPERATIONS, random_genotype
from .rivals import Contest, register_rival

#: What random search and evolution may spend, in trainings of one network.
BUDGET = 10
#: Epochs of a trial: the end of the second cosine where it restarts after the first epoch.
TRIAL_EPOCHS = 3
POPULATION, TOURNAMENT = 10, 3


def with_motif(genotype: Genotype, motif: str) -> Genotype:
    """The genotype with its Cells' inputs kept and their steps replaced by a known motif."""
    steps = tuple(StepGenotype(op, inputs) for op, inputs in MOTIFS[motif])
    return replace(genotype, cells=tuple(CellGenotype(c.inputs, steps) for c in genotype.cells))


def with_random_pairs(genotype: Genotype, random: torch.Generator) -> Genotype:
    """The genotype with its Cells' steps kept and their inputs drawn, raw features or Cells."""
    drawn = random_genotype(genotype.features, len(genotype.cells), 1, random)
    pairs = zip(genotype.cells, drawn.cells, strict=True)
    return replace(genotype, cells=tuple(CellGenotype(new.inputs, old.steps) for old, new in pairs))


def mutated(
    genotype: Genotype, random: torch.Generator, operations: tuple[str, ...] = OPERATIONS
) -> Genotype:
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
            nodes = [*genotype.features, *(f"C{k + 1}" for k in range(i))]
            cells[i] = replace(cell, inputs=other_input(cell.inputs, nodes))
        elif what == "operation":
            step = replace(step, op=pick([op for op in operations if op != step.op] or [step.op]))
        else:
            nodes = ["X", "Y", *(f"S{k + 1}" for k in range(j))]
            step = replace(step, inputs=other_input(step.inputs, nodes))
        if what != "pair":
            cells[i] = replace(cell, steps=(*cell.steps[:j], step, *cell.steps[j + 1 :]))
        if len({frozenset(c.inputs) for c in cells}) == len(cells):
            return replace(genotype, cells=tuple(cells))


def _register_bm_nas(name: str, **settings) -> None:
    @register_rival(name)
    def bm_nas(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
        yield name, [contest.train(contest.searched(**settings))]


# As the task has it; with one Cell, whose whole space is known on ``digits``; without trials; and
# as published, with the best epoch, for which α, β, γ need longer.
_register_bm_nas("BM-NAS")
_register_bm_nas("BM-NAS of one Cell", N=1)
_register_bm_nas("BM-NAS by looks", choice="looks")
_register_bm_nas("BM-NAS by its best epoch", choice="best epoch", epochs=7)


@register_rival("BM-NAS at half the width")
def half_the_width(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """As the task has it with half of C: what becomes of it with a third of the parameters."""
    C = max(contest.config.C // 2, 1)
    found = contest.searched(C=C)
    yield "BM-NAS at half the width", [contest.train(found, replace(contest.config, C=C))]


@register_rival("searched features")
def searched_features(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """What BM-NAS pairs, fused by fixed Cells: the paper's Table 7."""
    for motif in ("Sum", "ConcatFC", "two-head attention", "attention on attention"):
        genotype = with_motif(contest.searched(), motif)
        yield f"searched features, {motif}", [contest.train(genotype)]


@register_rival("random features")
def random_features(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """The Cells that BM-NAS finds on pairs drawn with the seed: the paper's Table 6."""
    found, random = contest.searched(), generator(contest.seed, "random features")
    nets = [contest.train(with_random_pairs(found, random)) for _ in range(3)]
    yield f"random features, searched Cells, mean of {len(nets)}", nets


def best_drawn(
    draw: Callable[[], Genotype], rate: Callable[[Genotype], float], trials: int
) -> Genotype:
    """Random search: the best rated of so many that are drawn."""
    return max((draw() for _ in range(trials)), key=rate)


def evolve(
    draw: Callable[[], Genotype],
    rate: Callable[[Genotype], float],
    trials: int,
    random: torch.Generator,
) -> Genotype:
    """Regularised evolution (Real et al. 2019): the oldest dies, a tournament's winner mutates.

    The first of the ``trials`` are drawn, until there is a population.
    """
    population: deque[tuple[float, Genotype]] = deque(maxlen=POPULATION)
    best = None
    for _ in range(trials):
        if len(population) < POPULATION:
            genotype = draw()
        else:
            rows = torch.randperm(POPULATION, generator=random)[:TOURNAMENT].tolist()
            parent = max((population[row] for row in rows), key=lambda entry: entry[0])[1]
            genotype = mutated(parent, random)
        population.append((rate(genotype), genotype))
        best = max(best or population[-1], population[-1], key=lambda entry: entry[0])
    return best[1]


@register_rival("random search")
def random_search(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """The best on validation of random genotypes, each trained for a short while."""
    draw, rate, trials, _ = _budget(contest, "random search")
    with contest.searching():
        best = best_drawn(draw, rate, trials)
    yield "random search", [contest.train(best)]


@register_rival("evolution")
def evolution(contest: Contest) -> Iterator[tuple[str, list[nn.Module]]]:
    """:func:`evolve` with as many short trainings as random search has."""
    with contest.searching():
        best = evolve(*_budget(contest, "evolution"))
    yield "regularised evolution", [contest.train(best)]


def _budget(contest: Contest, stream: str):
    """How to draw, how to rate, how many trials, and the random numbers."""
    task, config, random = contest.task, contest.config, generator(contest.seed, stream)
    short = min(TRIAL_EPOCHS, config.epochs)

    def draw() -> Genotype:
        return random_genotype(task.features, config.N, config.M, random)

    def rate(genotype: Genotype) -> float:
        return contest.validate(contest.train(genotype, contest.trial(short)))

    return draw, rate, BUDGET * config.epochs // short, random
