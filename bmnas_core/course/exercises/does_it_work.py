"""Exercises of notebook 08, does the search work?"""

from functools import cache, partial

import torch

from ...benchmark import TabularBenchmark
from ...benchmark.tabular import Percentile, enumerate_architectures
from ...genotype import DEFAULT_OPERATIONS
from ..checks import exercise
from . import answers


@cache
def benchmark() -> TabularBenchmark:
    """The table of digits under sum."""
    return TabularBenchmark("digits", "sum")


@exercise(
    "08.1",
    "X and Y are an ordered pair of features. How many are there? Then count the ways to fill the "
    "two steps, and multiply.",
    "List all ways: an operation on an ordered pair of X and Y, then one on an ordered pair of "
    "X, Y and S1. Rewrite each in one standard form and put it into a set.",
    "Two rewritings: sort the inputs of a symmetric operation; and if step 2 does not read S1, "
    "sort the two steps.",
)
def number_of_architectures(answer):
    def expected(F, operations):
        return len(enumerate_architectures(tuple(f"f{k}" for k in range(F)), 2, operations))

    some = [("sum",), ("attention",), ("sum", "attention"), ("linear_glu", "concat_fc")]
    cases = [(6, DEFAULT_OPERATIONS), *((F, some[F - 2]) for F in range(2, 6))]
    return answers.function(answer, expected, cases)


@exercise(
    "08.2",
    "In the first rung, each of the candidates is trained for that rung's epochs.",
    "In a later rung a candidate has been trained already. Count only the epochs that are added.",
)
def epochs_of_halving(answer):
    def expected(rungs):
        total = done = 0
        for count, epochs in rungs:
            total += count * (epochs - done)
            done = epochs
        return total

    cases = [(((36, 3), (10, 7), (3, 15)),), (((4, 3), (2, 7)),), (((16, 3), (4, 7), (2, 15)),)]
    return answers.function(answer, expected, [*cases, (((5, 2),),)])


@exercise(
    "08.3",
    "Go over all pairs of positions i < j. Both lists agree on a pair if the differences have the "
    "same sign.",
    "With n elements there are n(n − 1)/2 pairs. Divide the difference of the two counts by that.",
)
def kendalls_tau(answer):
    from scipy.stats import kendalltau

    cases = [([1, 2, 3], [1, 2, 3]), ([1.0, 2.0, 3.0], [0.3, 0.2, 0.1])]
    cases += [(torch.randperm(n).tolist(), torch.randperm(n).tolist()) for n in (4, 9, 20)]
    return answers.function(answer, lambda x, y: float(kendalltau(x, y).statistic), cases)


def near_the_best() -> int:
    """How many architectures are less than two standard errors behind the best one's mean."""
    runs, table = benchmark().runs, benchmark().table["test"]
    own = runs[runs["genotype"] == benchmark().best().to_json()]["test"]
    return int((table > table[0] - 2 * own.std() / len(own) ** 0.5).sum())


@exercise(
    "08.4",
    "`runs` has genotypes as text: compare with `benchmarks['sum'].best().to_json()`.",
    "The standard error of a mean is the standard deviation of the runs (with n − 1) divided by "
    "the root of their number.",
    "Count the rows of `benchmarks['sum'].table` whose test score is above the best mean less two "
    "standard errors.",
)
def architectures_near_the_best(answer):
    return answers.number(answer, near_the_best())


@exercise(
    "08.5",
    "Compute p, then the middle and half the width; the ends are their difference and sum.",
    "Multiply by 100 at the end. z may be 1.96 or 1.959964.",
)
def wilsons_interval(answer):
    if wrong := answers.called(answer):
        return wrong
    for k, n in [(0, 10), (14, 1000), (3, 7), (500, 1000), (20, 20)]:
        found, wanted = answer(k, n), Percentile(k, n, sampled=True)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            return f"For ({k}, {n}) it gives {answers.kind(found)}, not two numbers."
        for one, end in zip(found, (wanted.low, wanted.high), strict=True):
            value = answers.as_number(one)
            if value is None or abs(value - end) > 0.005:
                return f"For ({k}, {n}) it gives {answers.quoted(found)}, which is not right."
    return None


@cache
def rank_after_one_epoch() -> int:
    """Rank under sum of the architecture that is best on validation after one epoch."""
    score = partial(benchmark().simulated_score, epochs=1, seed=0)
    return benchmark().rank(max(benchmark().table["genotype"], key=score))


@exercise(
    "08.6",
    "`benchmarks['sum'].table['genotype']` has all architectures; take the one with the largest "
    "score by `max(…, key=…)`.",
    "The rank asked for is that of its mean test score: `benchmarks['sum'].rank(…)`.",
)
def one_epoch_of_each(answer):
    return answers.number(answer, rank_after_one_epoch())
