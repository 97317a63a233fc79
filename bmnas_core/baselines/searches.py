"""Baselines that search: BM-NAS, its parts replaced, random search and evolution in its space."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import itemgetter

import torch

from ..genotype import Genotype, cell_predecessors, is_free, step_predecessors
from ..runtime import generator
from .architectures import motif_steps, random_genotype, sample_genotype
from .context import BaselineContext, Entries, register_baseline

#: What random search and evolution may spend, in full trainings of one network.
BUDGET = 10
#: Epochs of a short training: the end of the second cosine, if the first is one epoch long.
SHORT_EPOCHS = 3
POPULATION, TOURNAMENT = 10, 3


def with_motif(genotype: Genotype, motif: str) -> Genotype:
    """The genotype with its Cells' inputs kept and their steps replaced by a known motif."""
    steps = motif_steps(motif)
    return replace(genotype, cells=tuple(replace(cell, steps=steps) for cell in genotype.cells))


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
        cell, what = cells.pop(i), pick(("pair", "operation", "input"))
        steps = list(cell.steps)
        j = pick(range(len(steps)))
        inputs, step = cell.inputs, steps[j]
        if what == "pair":
            inputs = other_input(inputs, cell_predecessors(genotype.features, i))
        elif what == "operation":
            others = [op for op in operations if op != step.op]
            steps[j] = replace(step, op=pick(others or [step.op]))
        else:
            steps[j] = replace(step, inputs=other_input(step.inputs, step_predecessors(j)))
        if is_free(inputs, [other.inputs for other in cells]):
            cells.insert(i, replace(cell, inputs=inputs, steps=tuple(steps)))
            return replace(genotype, cells=tuple(cells))


def _register_bm_nas(name: str, **settings) -> None:
    @register_baseline(name)
    def bm_nas(context: BaselineContext) -> Entries:
        yield name, [context.train(context.searched(**settings))]


# With the task's settings; with one Cell, whose whole space is tabulated for ``digits``; without
# successive halving; and as published, by argmax, for which α, β, γ need longer.
_register_bm_nas("BM-NAS")
_register_bm_nas("BM-NAS of one Cell", N=1)
_register_bm_nas("BM-NAS by perturbation", selection="perturbation")
_register_bm_nas("BM-NAS by argmax", selection="argmax", epochs=7)


@register_baseline("BM-NAS at half the width")
def half_the_width(context: BaselineContext) -> Entries:
    """BM-NAS with half of C, searched and trained, which leaves about a third of the parameters."""
    C = max(context.config.C // 2, 1)
    found = context.searched(C=C)
    yield "BM-NAS at half the width", [context.train(found, replace(context.config, C=C))]


@register_baseline("searched features")
def searched_features(context: BaselineContext) -> Entries:
    """What BM-NAS pairs, fused by fixed Cells (Yin et al. 2022, table 7)."""
    for motif in ("Sum", "ConcatFC", "two-head attention", "attention on attention"):
        genotype = with_motif(context.searched(), motif)
        yield f"searched features, {motif}", [context.train(genotype)]


@register_baseline("random features")
def random_features(context: BaselineContext) -> Entries:
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
        score: rates a genotype, higher being better; the best of all is returned.
        evaluations: how many genotypes are scored.
        random: chooses tournaments and mutations.
        operations: those that a mutation may choose.
    """
    scored: list[tuple[float, Genotype]] = []  # the last POPULATION are alive
    for _ in range(evaluations):
        if len(scored) < POPULATION:
            genotype = sample()
        else:
            rows = torch.randperm(POPULATION, generator=random)[:TOURNAMENT].tolist()
            _, parent = max((scored[row - POPULATION] for row in rows), key=itemgetter(0))
            genotype = mutated(parent, random, operations)
        scored.append((score(genotype), genotype))
    return max(scored, key=itemgetter(0))[1]


def _register_short_trainings(name: str, label: str, find: Callable) -> None:
    @register_baseline(name)
    def search(context: BaselineContext) -> Entries:
        random, epochs = generator(context.seed, name), context.config.epochs
        short = context.recipe_on_train(min(SHORT_EPOCHS, epochs))
        sample = partial(sample_genotype, context, random)

        def score(genotype: Genotype) -> float:
            return context.validate(context.train(genotype, short))

        with context.searching():
            evaluations = BUDGET * epochs // short.epochs
            best = find(sample, score, evaluations, random, context.search.operations)
        yield label, [context.train(best)]


# The best on validation of genotypes that are each trained for a few epochs.
_register_short_trainings("random search", "random search", best_sampled)
_register_short_trainings("evolution", "regularised evolution", evolve)
