"""Exercises of notebook 05, genotypes."""

from itertools import combinations, product

import torch

from ...benchmark.tabular import enumerate_architectures
from ...cells import Cell
from ...genotype import MOTIFS, CellGenotype, Genotype, StepGenotype, step_name, step_predecessors
from ..checks import exercise
from . import answers


def factor_of_x() -> float:
    """How much the output of a Cell of one Sum grows with X, before its LayerNorm."""
    steps = tuple(StepGenotype(op, inputs) for op, inputs in MOTIFS["Sum"])
    cell = Cell(CellGenotype(("Image_3", "Audio_3"), steps), C=1, L=1, dropout=0.0)
    cell.output.ln = torch.nn.Identity()
    x, y = torch.zeros(2, 1, 1, 1)
    return float(cell(x + 1, y) - cell(x, y))


@exercise(
    "05.1",
    "A single step is not reduced: Z is LayerNorm of the step plus something.",
    "Look at the graph of the Cell called Sum. Follow every path from X to Z, blue or black.",
)
def times_that_x_counts(answer):
    return answers.number(answer, factor_of_x())


def largest_factor(M: int) -> int:
    """The most that X can count in the last of M Sums, over all inputs that they can have."""
    largest = 0
    for pairs in product(*(combinations(step_predecessors(j), 2) for j in range(M))):
        factors = {"X": 1, "Y": 0}
        for j, (first, second) in enumerate(pairs):
            factors[step_name(j)] = factors[first] + factors[second]
        largest = max(largest, factors[step_name(M - 1)])
    return largest


@exercise(
    "05.2",
    "Write the first steps down: S1 must be X + Y. What can S2 be, and which is largest in X?",
    "A step reads two *different* nodes. Take the two that have most of X.",
    "Note the largest a of S1, S2, S3 and S4. Do you know this row of numbers?",
)
def largest_factor_after_sums(answer):
    return answers.function(answer, largest_factor, [(M,) for M in range(1, 6)])


@exercise(
    "05.3",
    "Which feature is X and which is Y makes a difference. How many such pairs are there?",
    "How many different steps are there on X and Y? The order of inputs matters to one of the four "
    "operations only.",
    "Or let the kit count: put the canonical form of every genotype into a set.",
)
def number_of_architectures(answer):
    return answers.number(answer, len(enumerate_architectures(tuple("abcdef"), M=1)))


@exercise(
    "05.4",
    "In this motif X gives the queries. So which feature is X?",
    '`MOTIFS["attention on attention"]` lists the steps, and `cell` of section 2 makes a Cell of '
    "them.",
)
def sound_asks_picture(answer):
    if wrong := answers.instance(answer, Genotype):
        return wrong
    if len(answer.cells) != 1:
        return f"One Cell is asked for, and this genotype has {len(answer.cells)}."
    (cell,) = answer.cells
    if cell.motif != "attention on attention":
        return f"The steps are {cell.motif or 'no motif'}, not attention on attention."
    if cell.inputs != ("Audio_2", "Image_3"):
        return f"The Cell reads {cell.inputs[0]} as X and {cell.inputs[1]} as Y."
    return None


def not_a_pair(answer: object) -> str | None:
    """What is wrong with an answer that should be two different genotypes of the same features."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        return f"A pair of genotypes is asked for, and this is {answers.kind(answer)}."
    for one in answer:
        if wrong := answers.instance(one, Genotype):
            return wrong
    one, other = answer
    if one.features != other.features:
        return "The two have different features."
    return "The two are equal as text." if one == other else None


@exercise(
    "05.5",
    "Build both Cells first, and then the two genotypes from them: `(one, two)` and `(two, one)`.",
    "A Cell can only read Cells that come before it. Can one of yours read the other?",
)
def cells_in_another_order(answer):
    if wrong := not_a_pair(answer):
        return wrong
    one, other = answer
    if len(one.cells) != 2 or one.cells != other.cells[::-1]:
        return "The two do not list the same two Cells in opposite order."
    return None if one.canonical() == other.canonical() else "They are not the same architecture."


def unordered(genotype: Genotype) -> list:
    """A genotype with all pairs of inputs as sets."""
    return [
        (set(cell.inputs), [(step.op, set(step.inputs)) for step in cell.steps])
        for cell in genotype.cells
    ]


@exercise(
    "05.6",
    "The table of section 3 has two such changes.",
    "Swapped inputs matter if the two have different parts to play, such as query and value.",
)
def alike_but_not_the_same(answer):
    if wrong := not_a_pair(answer):
        return wrong
    one, other = answer
    if unordered(one) != unordered(other):
        return "More than the order of inputs differs."
    if one.canonical() == other.canonical():
        return "They are the same architecture."
    return None
