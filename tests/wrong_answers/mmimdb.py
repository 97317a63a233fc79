"""Wrong answers to the exercises of notebook 10."""

import math

import torch

from bmnas_core.metrics import METRICS


def unweighted(logits, labels, threshold):
    return METRICS["macro_f1"].score(logits, labels, threshold)


def threshold_of_logits(logits, labels, threshold):
    return METRICS["weighted_f1"].score(torch.logit(logits.sigmoid().clamp(threshold)), labels, 0.5)


WRONG = {
    "10.1": [unweighted, threshold_of_logits, METRICS["micro_f1"].score],
    "10.2": [lambda p: 1 / (1 + math.exp(-p)), math.log, lambda p: math.log((1 - p) / p)],
    "10.3": [0.0, 0.5, 2.48 / 23, 89.2],
    "10.4": [{"Drama"}, {"Drama", "Comedy", "Romance"}, set()],
    "10.5": [
        lambda shapes, films: films * sum(c * n for c, n in shapes.values()),
        lambda shapes, films: 4 * films * sum(c * n for c, n in shapes.values()),
        lambda shapes, films: 2 * films * sum(16 * c for c, _ in shapes.values()),
    ],
}
