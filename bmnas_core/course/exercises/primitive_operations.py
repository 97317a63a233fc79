"""Exercises of notebook 02, primitive operations."""

import torch

from ...genotype import DEFAULT_OPERATIONS
from ...networks import count_parameters
from ...ops import OPERATIONS
from ..checks import exercise
from . import answers

NAMES = ("zero", *DEFAULT_OPERATIONS)
Inputs = tuple[torch.Tensor, torch.Tensor]


def giving_the_same(inputs: Inputs, others: Inputs) -> set[str]:
    """The operations with the same output for two pairs of inputs, each ``(N, C, L)``."""
    _, C, L = inputs[0].shape
    found = {name: OPERATIONS[name](C, L, 0.0).eval() for name in NAMES}
    return {name for name, op in found.items() if torch.allclose(op(*inputs), op(*others))}


@exercise(
    "02.1",
    "Run each operation on (x, y) and on (y, x), and compare. Weights stay as they are.",
    "“Symmetric” allows the weights to change along with the inputs. An operation without weights "
    "has nothing to change.",
)
def unchanged_by_a_swap(answer):
    x, y = answers.random_tensor(2, 4, 3, 5)
    return answers.names(answer, giving_the_same((x, y), (y, x)), NAMES)


@exercise(
    "02.2",
    "Which numbers does W need to map the stacked channels of x and y to C channels?",
    "The convolution also has a bias, and BatchNorm a scale and a shift, for each output channel.",
)
def parameters_of_concat_fc(answer):
    def count(C):
        return count_parameters(OPERATIONS["concat_fc"](C, 1, 0.0))

    return answers.function(answer, count, [(1,), (2,), (8,), (50,)])


@exercise(
    "02.3",
    "The scores of all pairs of positions are one matrix product, of shape (N, L, L): "
    "`x.transpose(1, 2) @ y`. Scale them before the softmax.",
    "The weights of one query add up to 1. Over which axis of the scores do the keys run?",
    "The output is a matrix product of y, (N, C, L), and the weights, turned to (N, key, query).",
)
def attention_up_to_layernorm(answer):
    def attend(x, y):
        return OPERATIONS["attention"].attend(x.mT, y.mT).mT

    sizes = ((2, 4, 5), (1, 9, 3), (3, 2, 1))
    cases = [tuple(answers.random_tensor(2, *size)) for size in sizes]
    return answers.function(answer, attend, cases, 1e-5)


@exercise(
    "02.4",
    "Copy GatedSum of section 6 and leave the gate out. `__init__` takes C, L and dropout, and "
    "must call `super().__init__()`.",
    "`torch.maximum` compares two tensors element by element; `torch.max(x, dim)` does not.",
)
def elementwise_maximum(answer):
    OPERATIONS.check("maximum", answer)
    for N, C, L in ((2, 4, 3), (3, 6, 1)):
        x, y = answers.random_tensor(2, N, C, L)
        if wrong := answers.tensor(answer(C, L, 0.0)(x, y), torch.maximum(x, y)):
            return f"For inputs of shape {N, C, L} {wrong}."
    return None


@exercise(
    "02.5",
    "Set L = 1 at the top and run the notebook again, or build each operation with L = 1 and try "
    "two different x.",
    "A softmax over a single score is 1, whatever the score is.",
    "One operation never reads x, for any L.",
)
def without_x_at_one_position(answer):
    x, other, y = answers.random_tensor(3, 4, 3, 1)
    return answers.names(answer, giving_the_same((x, y), (other, y)), NAMES)
