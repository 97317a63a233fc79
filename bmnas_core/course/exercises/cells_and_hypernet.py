"""Exercises of notebook 03, cells and the hypernet."""

import torch

from ...cells import RELAXATIONS
from ...genotype import DEFAULT_OPERATIONS, cell_predecessors, free_pairs, step_predecessors
from ..checks import exercise
from . import answers


@exercise(
    "03.1",
    "α has one row for each edge that leads to a Cell. Which nodes can Cell 1 read, and which "
    "Cell 2?",
    "Cell i reads all features and the i − 1 Cells before it. Add this up over all Cells.",
)
def rows_of_alpha(answer):
    cases = [(6, 1), (6, 2), (8, 2), (3, 5)]
    return answers.function(answer, lambda F, N: N * F + N * (N - 1) // 2, cases)


@exercise(
    "03.2",
    "Step 1 reads X and Y. What else can step 2 read?",
    "β of one Cell has a row for each edge that leads to a step: two for step 1, three for step 2.",
)
def rows_of_beta(answer):
    return answers.function(
        answer, lambda M: sum(len(step_predecessors(j)) for j in range(M)), [(1,), (2,), (3,), (6,)]
    )


def count_genotypes(features: tuple[str, ...], M: int = 2) -> int:
    """Genotypes of two Cells as a search lists them: ordered pairs, nothing merged."""
    steps = 1
    for j in range(M):
        steps *= len(DEFAULT_OPERATIONS) * len(free_pairs(step_predecessors(j)))
    total = 0
    for pair in free_pairs(cell_predecessors(features, 0)):
        total += len(free_pairs(cell_predecessors(features, 1), [pair])) * steps**2
    return total


@exercise(
    "03.3",
    "Count Cell by Cell. A Cell is an ordered pair of inputs, and M steps; a step is an ordered "
    "pair of earlier nodes, and an operation.",
    "Cell 2 has one node more to read, but it may not take the pair of Cell 1, in either order.",
    "The first step of a Cell reads X and Y, the second X, Y and S1. How many ordered pairs are "
    "that in each case, and with how many operations does each of them go?",
)
def number_of_networks(answer):
    return answers.number(answer, count_genotypes(tuple("abcdef")))


@exercise(
    "03.4",
    "Each edge mixes Zero and Identity by a softmax of its own, over the two columns of its row.",
    "With two classes a softmax is a sigmoid of the difference of the two logits.",
)
def weights_of_paper(answer):
    cases = [(torch.randn(P, 2),) for P in (2, 4, 7)]
    return answers.function(answer, lambda w: RELAXATIONS["paper"].weights(w)[0], cases, 1e-5)


@exercise(
    "03.5",
    "The value must be one-hot, the gradient that of `soft`. What can you add to `hard` that is "
    "zero, but has this gradient? `detach` is what you need.",
    "`argmax(0)` gives the row of the largest weight in each column, and "
    "`torch.nn.functional.one_hot` makes columns of zeros and a one of it.",
    "Return soft weights if the logits need no gradient: a genotype is derived then, and every "
    "pair must still have a rank.",
)
def straight_through(answer):
    if not (isinstance(answer, type) and callable(getattr(answer, "weights", None))):
        return f"A class with columns and weights is asked for, and this is {answers.kind(answer)}."
    logits = torch.randn(5, 2, requires_grad=True)
    factors = torch.randn(5)
    for k, weights in enumerate(answer.weights(logits)):
        soft = logits[:, k].softmax(0)
        hard = torch.zeros(5).scatter(0, soft.argmax(0, keepdim=True), 1.0)
        if wrong := answers.tensor(weights, hard):
            return f"Of the weights for {'XY'[k]} {wrong}; only the strongest edge may count."
        found, wanted = (_gradient((w * factors).sum(), logits) for w in (weights, soft))
        if found is None or not torch.allclose(found, wanted, atol=1e-6):
            return "The gradients of the logits are not those of a softmax."
    for k, weights in enumerate(answer.weights(logits.detach())):
        if answers.tensor(weights, logits.detach()[:, k].softmax(0)):
            return "Without a gradient the weights must be soft, so that pairs can be ranked."
    return None


def _gradient(value: torch.Tensor, logits: torch.Tensor) -> torch.Tensor | None:
    """The gradient, or None if the value does not depend on the logits."""
    if not value.requires_grad:
        return None
    return torch.autograd.grad(value, logits, retain_graph=True, allow_unused=True)[0]
