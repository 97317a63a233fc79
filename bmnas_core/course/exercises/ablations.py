"""Exercises of notebook 07, ablations."""

from functools import cache

from ...baselines import with_motif
from ...baselines.architectures import random_genotype
from ...benchmark import STRATEGIES, read_benchmark
from ...experiments import t_interval
from ...genotype import Genotype, free_pairs
from ...networks import count_parameters
from ...ops import ConcatFC
from ...runtime import generator
from ...tasks.files import asset
from ..checks import exercise
from . import answers

FEATURES = ("Image_1", "Image_2", "Image_3", "Audio_1", "Audio_2", "Audio_3")
OF_MANY_CELLS = ("released", "without tuning", "paper relaxation, released")


@exercise(
    "07.1",
    "A genotype is frozen, so make a new one: `bm.Genotype(genotype.features, cells)`.",
    "Each new Cell keeps `cell.inputs` of the old one, and has a tuple of one step on X and Y.",
)
def concat_everywhere(answer):
    if wrong := answers.called(answer):
        return wrong
    random = generator(0, "exercise 07.1")
    for N, M in [(1, 2), (2, 2), (3, 1)]:
        genotype = random_genotype(FEATURES, N, M, random)
        found, wanted = answer(genotype), with_motif(genotype, "ConcatFC")
        if wrong := answers.instance(found, Genotype):
            return wrong
        if found.features != wanted.features:
            return "The features must stay the same."
        if [cell.inputs for cell in found.cells] != [cell.inputs for cell in wanted.cells]:
            return f"For {N} Cells of {M} steps, the inputs of the Cells have changed."
        if found.canonical() != wanted.canonical():
            return f"For {N} Cells of {M} steps, not every Cell is one ConcatFC of X and Y."
    return None


def share_of_both(a: int, b: int) -> float:
    """Share of ordered pairs of a + b features that have one of each kind."""
    kinds = dict(enumerate("x" * a + "y" * b))
    pairs = free_pairs([*kinds])
    return sum(kinds[x] != kinds[y] for x, y in pairs) / len(pairs)


@exercise(
    "07.2",
    "Count ordered pairs: how many are there of a + b features, if X and Y must differ?",
    "X can be an image feature and Y an audio feature, or the other way round.",
)
def both_modalities(answer):
    return answers.function(answer, share_of_both, [(3, 3), (4, 4), (1, 5), (2, 7)])


@cache
def _regrets():
    """Regret under sum by seed, a column for each strategy."""
    table = read_benchmark(asset("results/digits_benchmark.csv"))
    return table[table["rule"] == "sum"].pivot(index="seed", columns="strategy", values="regret")


def variants() -> list[str]:
    """The variants of the search, as notebook 07 shows them."""
    others = ("random", "regularised", "best on")
    return [
        name
        for name in STRATEGIES
        if name in _regrets() and name not in OF_MANY_CELLS and not name.startswith(others)
    ]


def different_from(name: str) -> set[str]:
    """Variants whose regret differs from a variant's by an interval without 0."""
    found = set()
    for other in variants():
        _, _, low, high = t_interval(_regrets()[other] - _regrets()[name])
        if low > 0 or high < 0:
            found.add(other)
    return found - {name}


@exercise(
    "07.3",
    "Pivot the rows of rule sum: seeds down, strategies across. Subtract the column of argmax.",
    "`t_interval` gives mean, standard deviation, low and high. Keep names with low > 0 or "
    "high < 0; a difference may be large and still not be kept.",
)
def what_differs_from_argmax(answer):
    return answers.names(answer, different_from("argmax"), variants())


@exercise(
    "07.4",
    "The linear layer has a weight for each pair of an input and an output channel. How many "
    "inputs has it?",
    "Add a bias for each output, and BatchNorm's scale and shift for each channel.",
)
def parameters_of_concat_fc(answer):
    return answers.function(
        answer, lambda C: count_parameters(ConcatFC(C, 4)), [(8,), (32,), (64,), (128,)]
    )


PAPER = "paper relaxation, perturbation"
#: Question → the two rows that differ in that alone.
ROWS = {
    "A": {"argmax", "perturbation after 7 epochs"},
    "B": {"perturbation", "default search"},
    "C": {"perturbation", PAPER},
    "D": {"annealed softmax", "annealed Gumbel"},
    "E": {"perturbation", "perturbation after 7 epochs"},
}


@exercise(
    "07.5",
    "List for each row: the relaxation, how the mixture is trained, for how many epochs, and how "
    "the search ends. The two rows must differ in one of these.",
    "The variants of argmax train for seven epochs, perturbation for three unless its name says "
    "otherwise.",
)
def one_thing_at_a_time(answer):
    if not isinstance(answer, dict) or set(answer) != set(ROWS):
        return "A dictionary from each of A, B, C, D and E to a pair of names is asked for."
    for letter, rows in ROWS.items():
        pair = answer[letter]
        if wrong := answers.names(pair, rows, variants()):
            return f"{letter}: {wrong}"
    return None
