"""Wrong answers to the exercises of notebook 06."""

from math import prod

import numpy as np
import torch
from scipy.stats import norm, sem, t, ttest_ind


def by_normal(a, b):
    """As if the deviation were known."""
    points = np.subtract(a, b)
    half = norm.ppf(0.975) * sem(points)
    return points.mean() - half, points.mean() + half


def unpaired(a, b):
    return tuple(ttest_ind(a, b).confidence_interval(0.95))


def one_sided(a, b):
    points = np.subtract(a, b)
    half = t.ppf(0.95, len(points) - 1) * sem(points)
    return points.mean() - half, points.mean() + half


def half_alone(a, b):
    points = np.subtract(a, b)
    return points.mean(), t.ppf(0.975, len(points) - 1) * sem(points)


class Product(torch.nn.Module):
    """Channel by channel: only a few of the products."""

    def __init__(self, a, b, classes):
        super().__init__()
        self.size = min(a, b)
        self.linear = torch.nn.Linear(self.size, classes)

    def forward(self, x, y):
        return self.linear(x.mean(2)[:, : self.size] * y.mean(2)[:, : self.size])


class Added(torch.nn.Module):
    """Linear in each, without products."""

    def __init__(self, a, b, classes):
        super().__init__()
        self.linear = torch.nn.Linear(a + b, classes)

    def forward(self, x, y):
        return self.linear(torch.cat([x.mean(2), y.mean(2)], dim=1))


class FirstPosition(torch.nn.Module):
    """Not averaged."""

    def __init__(self, a, b, classes):
        super().__init__()
        self.bilinear = torch.nn.Bilinear(a, b, classes)

    def forward(self, x, y):
        return self.bilinear(x[:, :, 0], y[:, :, 0])


FRONT = {
    "Audio alone", "logistic regression", "late fusion, concatenated", "fixed Sum", "CentralNet",
    "fixed ConcatFC", "GMU", "fixed attention on attention", "random search",
}  # fmt: skip

WRONG = {
    "06.1": [
        lambda features, activations, layers: prod(features) * activations,
        lambda features, activations, layers: (prod(features) * activations) ** layers,
        lambda features, activations, layers: sum(features) * activations * layers,
    ],
    "06.2": [by_normal, unpaired, one_sided, half_alone],
    "06.3": [
        FRONT | {"BM-NAS"},
        FRONT - {"Audio alone"},
        FRONT - {"random search", "fixed attention on attention"},
        {"random search"},
    ],
    "06.4": [
        {"BM-NAS", "BM-NAS by perturbation", "MLP of two layers"},
        {"BM-NAS", "BM-NAS by perturbation", "MLP of two layers", "regularised evolution",
         "random search", "best pair, ConcatFC"},
        {"BM-NAS by perturbation", "best pair, ConcatFC", "random search", "MLP of two layers",
         "regularised evolution"},
    ],
    "06.5": [Product, Added, FirstPosition, torch.nn.Bilinear, torch.nn.Linear],
}  # fmt: skip
