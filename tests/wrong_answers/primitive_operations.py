"""Wrong answers to the exercises of notebook 02."""

import torch
from torch import nn

from bmnas_core.ops import Sum


class LargestChannel(nn.Module):
    def __init__(self, C, L, dropout):
        super().__init__()

    def forward(self, x, y):
        return torch.maximum(x, y).max(1).values


class Minimum(LargestChannel):
    def forward(self, x, y):
        return torch.minimum(x, y)


class WithoutSizes(Minimum):
    def __init__(self):
        nn.Module.__init__(self)


def scores(x, y):
    return x.transpose(1, 2) @ y / x.shape[1] ** 0.5


WRONG = {
    "02.1": [
        {"sum"},
        {"zero", "sum", "linear_glu", "concat_fc"},  # what is symmetric
        {"Zero", "Sum"},
        "sum",
    ],
    "02.2": [
        lambda C: 2 * C * C,
        lambda C: 2 * C * C + C,  # no BatchNorm
        lambda C: C * C + 3 * C,
        152,
    ],
    "02.3": [
        lambda x, y: y @ scores(x, y).softmax(1).transpose(1, 2),  # over the queries
        lambda x, y: y @ scores(x, y).softmax(2),  # not transposed
        lambda x, y: y @ (x.transpose(1, 2) @ y).softmax(2).transpose(1, 2),  # not scaled
        lambda x, y: x @ scores(y, x).softmax(2).transpose(1, 2),  # x and y exchanged
        lambda x, y: scores(x, y).softmax(2) @ y.transpose(1, 2),  # (N, L, C)
    ],
    "02.4": [LargestChannel, Minimum, WithoutSizes, Sum, torch.maximum, Minimum(4, 3, 0.0)],
    "02.5": [{"attention"}, {"zero"}, {"zero", "sum"}, {"attention", "linear_glu"}],
}
