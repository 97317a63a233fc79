"""Baselines that search: BM-NAS, its parts replaced, random search and evolution in its space."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from operator import itemgetter

import torch

from ..genotype import Genotype, cell_predecessors, is_free, step_predecessors
from ..runtime import generator
from ..selection import RUNGS
from .architectures import fixed_genotype, motif_steps, random_genotype, sample_genotype
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

    The result is another architecture, not the same one in another form
    (:meth:`~bmnas_core.genotype.Genotype.canonical`), and no two Cells take the same pair.
    """

    def pick(options):
        return options[int(torch.randint(len(options), (), generator=random))]

    def other_input(inputs, nodes):
        k = pick((0, 1))
        new = list(inputs)
        new[k] = pick([n for n in nodes if n not in inputs] or [inputs[k]])
        return tuple(new) if new[k] != inputs[k] else inputs[::-1]

    before = genotype.canonical()
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
            changed = replace(genotype, cells=tuple(cells))
            if changed.canonical() != before:
                return changed


def _bm_nas(context: BaselineContext, **settings) -> torch.nn.Module:
    return context.train(context.searched(**settings))


@register_baseline("BM-NAS")
def bm_nas(context: BaselineContext) -> Entries:
    """The search with the task's settings."""
    yield "BM-NAS", [_bm_nas(context)]


@register_baseline("BM-NAS of more or fewer Cells", like="BM-NAS")
def bm_nas_of_more_or_fewer_cells(context: BaselineContext) -> Entries:
    """With one Cell, or with two if one is the task's setting."""
    N, words = (2, "two Cells") if context.search.N == 1 else (1, "one Cell")
    yield f"BM-NAS of {words}", [_bm_nas(context, N=N)]


@register_baseline("BM-NAS by perturbation", like="BM-NAS")
def bm_nas_by_perturbation(context: BaselineContext) -> Entries:
    """Without successive halving."""
    yield "BM-NAS by perturbation", [_bm_nas(context, selection="perturbation")]


@register_baseline("BM-NAS by argmax", like="BM-NAS")
def bm_nas_by_argmax(context: BaselineContext) -> Entries:
    """As published, by argmax, for which α, β, γ need longer."""
    yield "BM-NAS by argmax", [_bm_nas(context, selection="argmax", epochs=7)]


@register_baseline("best pair")
def best_pair(context: BaselineContext) -> Entries:
    """A ConcatFC Cell on the pair of features that is best for it on validation."""
    fixed = fixed_genotype(context.task, "ConcatFC")
    fixed = replace(fixed, cells=fixed.cells[:1])

    def find() -> tuple[str, str]:
        pairs = list(combinations(context.task.features, 2))
        genotypes = (fixed.with_inputs([pair]) for pair in pairs)
        nets = context.train_all(genotypes, context.recipe_on_train())
        scores = dict(zip(pairs, map(context.validate, nets), strict=True))
        return context.metric.best(pairs, key=scores.__getitem__)

    pair = context.search_once("best pair", find)
    yield "best pair, ConcatFC", [context.train(fixed.with_inputs([pair]))]


@register_baseline("searched features", like="BM-NAS")
def searched_features(context: BaselineContext) -> Entries:
    """What BM-NAS pairs, fused by fixed Cells (Yin et al. 2022, table 7)."""
    for motif in ("Sum", "ConcatFC", "two-head attention", "attention on attention"):
        genotype = with_motif(context.searched(), motif)
        yield f"searched features, {motif}", [context.train(genotype)]


@register_baseline("random features", like="BM-NAS")
def random_features(context: BaselineContext) -> Entries:
    """The steps that BM-NAS finds, on pairs sampled with the seed (Yin et al. 2022, table 6)."""
    found, random = context.searched(), generator(context.seed, "random features")
    nets = context.train_all(with_random_pairs(found, random) for _ in range(3))
    yield f"random features, searched Cells, mean of {len(nets)}", nets


#: What was scored on the way, as canonical genotypes.
Scores = dict[Genotype, float]

#: Rates genotypes, higher being better.
Score = Callable[[list[Genotype]], list[float]]


def sample_best(
    sample: Callable[[], Genotype], score: Score, evaluations: int, *_: object
) -> Scores:
    """Random search: so many sampled genotypes, scored. Called like :func:`evolve`."""
    genotypes = [sample().canonical() for _ in range(evaluations)]
    return dict(zip(genotypes, score(genotypes), strict=True))


def evolve(
    sample: Callable[[], Genotype],
    score: Score,
    evaluations: int,
    random: torch.Generator,
    operations: tuple[str, ...],
) -> Scores:
    """Regularised evolution (Real et al. 2019): a tournament's winner mutates, the oldest dies.

    Args:
        sample: a random genotype; the first population consists of these.
        score: rates genotypes, higher being better: the first population together, then one by
            one.
        evaluations: how many genotypes are scored.
        random: chooses tournaments and mutations.
        operations: those that a mutation may choose.
    """
    first = [sample() for _ in range(min(POPULATION, evaluations))]
    scored = list(zip(score(first), first, strict=True))  # the last POPULATION are alive
    while len(scored) < evaluations:
        rows = torch.randperm(POPULATION, generator=random)[:TOURNAMENT].tolist()
        _, parent = max((scored[row - POPULATION] for row in rows), key=itemgetter(0))
        genotype = mutated(parent, random, operations)
        scored.append((*score([genotype]), genotype))
    return {genotype.canonical(): found for found, genotype in scored}


def second_look(
    scores: Scores,
    score: Callable[[list[Genotype], int], list[float]],
    rungs: Sequence[tuple[int, int]],
) -> Genotype:
    """The best genotype after what successive halving does with its best, trained for longer.

    ``rungs`` are those of a search, of which the first is over; ``score`` takes genotypes and the
    epochs that they are trained for.
    """
    for count, epochs in rungs[1:]:
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:count]
        scores = dict(zip(best, score(best, epochs), strict=True))
    return max(scores, key=scores.__getitem__)


def _register_short_trainings(name: str, label: str, find: Callable) -> None:
    @register_baseline(name)
    def search(context: BaselineContext) -> Entries:
        random, epochs = generator(context.seed, name), context.config.epochs
        sample, short = partial(sample_genotype, context, random), min(SHORT_EPOCHS, epochs)
        settings = context.search.with_defaults(context.task.search_config)

        def score(genotypes: list[Genotype], so_many: int = short) -> list[float]:
            recipe = context.recipe_on_train(min(so_many, epochs))
            nets = context.train_all(genotypes, recipe)
            return [context.metric.sign * context.validate(net) for net in nets]

        def best() -> Genotype:
            evaluations = BUDGET * epochs // short
            scores = find(sample, score, evaluations, random, settings.operations)
            return second_look(scores, score, settings.rungs or RUNGS)

        yield label, [context.train(context.search_once(name, best))]


# The best on validation of genotypes that are each trained for a few epochs, after a second look.
_register_short_trainings("random search", "random search", sample_best)
_register_short_trainings("evolution", "regularised evolution", evolve)
