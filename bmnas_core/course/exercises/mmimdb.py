"""Exercises of notebook 10, MM-IMDB."""

import math

import torch

from ...metrics import METRICS
from ...tasks.paper.samples.posters import COUNTS
from ..checks import exercise
from . import answers

FILMS = 25_959


def _labels(films: int, shares: list[float]) -> torch.Tensor:
    return (torch.rand(films, len(shares)) < torch.tensor(shares)).long()


@exercise(
    "10.1",
    "Predict a genre where `logits.sigmoid() > threshold`. For each genre count the films that "
    "have it and are predicted (hits), all that are predicted, and all that have it.",
    "F1 of a genre is 2 · hits / (predicted + having), and 0 where hits are 0.",
    "Weight the F1 of each genre by the number of films that have it, and divide by the sum of "
    "the weights.",
)
def weighted_f1(answer):
    cases = [
        (torch.randn(60, 4), _labels(60, [0.6, 0.3, 0.1, 0.0]), 0.3),
        (torch.randn(60, 4) - 1, _labels(60, [0.6, 0.3, 0.1, 0.2]), 0.5),
        (torch.tensor([[-9.0, 9.0]] * 3), torch.tensor([[1, 0], [1, 1], [0, 1]]), 0.3),
    ]
    return answers.function(answer, METRICS["weighted_f1"].score, cases, 1e-5)


@exercise(
    "10.2",
    "sigmoid(z) = 1 / (1 + exp(−z)). Set it equal to p and solve for z.",
    "The answer is the logarithm of the odds of p.",
)
def threshold_as_logit(answer):
    cases = [(p,) for p in (0.3, 0.5, 0.1, 0.9)]
    return answers.function(answer, lambda p: math.log(p / (1 - p)), cases, 1e-6)


@exercise(
    "10.3",
    "The network answers no 23 times a film. How many of these answers are wrong?",
    "A film's wrong answers are its genres. How many genres does a film have on average?",
    "The share is 1 − (all labels) / (23 · films).",
)
def predict_nothing(answer):
    return answers.number(answer, 1 - sum(COUNTS.values()) / (len(COUNTS) * FILMS), 0.002)


@exercise(
    "10.4",
    "The probability of a genre is its number of films, divided by 25,959.",
    "A genre is predicted for every film if that share exceeds 0.3, and for none if it does not.",
)
def shares_alone(answer):
    expected = [genre for genre, n in COUNTS.items() if n / FILMS > 0.3]
    return answers.names(answer, expected, COUNTS)


@exercise(
    "10.5",
    "Half precision takes two bytes a number.",
    "A feature has C_i · L_i numbers for each film. Without positions, L_i is 1.",
)
def bytes_on_disk(answer):
    cases = [
        ({"Image_1": (512, 16), "Text_1": (64, 1)}, 1),
        ({"Image_1": (512, 16), "Image_4": (512, 16), "Text_2": (128, 1)}, FILMS),
        ({"Text_1": (64, 1)}, 10),
    ]

    def expected(shapes, films):
        return 2 * films * sum(channels * length for channels, length in shapes.values())

    return answers.function(answer, expected, cases)
