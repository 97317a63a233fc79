"""Exercises of notebook 06, evaluation."""

from functools import cache
from math import prod

import torch
from torch import nn

from ..checks import exercise
from . import answers


@cache
def table(name: str):
    """The rows of a committed table of baselines, without the networks of notebook 07."""
    from ...baselines import read_baselines
    from ...tasks.files import asset

    rows = read_baselines(asset(f"results/{name}_baselines.csv"))
    return rows[~rows["network"].str.contains("features")]


def count_configurations(features: list[int], activations: int, layers: int) -> int:
    """Configurations of one to ``layers`` fusion layers of MFAS."""
    options = prod(features) * activations
    return sum(options**depth for depth in range(1, layers + 1))


@exercise(
    "06.1",
    "How many options does a single layer have? On our task 3 · 3 · 2.",
    "Every layer is chosen independently of the others. How many configurations have exactly d "
    "layers?",
    "Add these numbers up, for one layer, two layers and so forth.",
)
def configurations_of_mfas(answer):
    cases = [([3, 3], 2, 1), ([3, 3], 2, 4), ([4, 4], 3, 2), ([4, 2], 2, 3), ([2, 3, 4], 1, 2)]
    return answers.function(answer, count_configurations, cases)


@exercise(
    "06.2",
    "Take the differences of each seed first. Their standard deviation divides by n − 1.",
    "The interval is the mean plus and minus t · s / √n.",
    "`scipy.stats.t.ppf(0.975, n - 1)` gives t: 2.5 % of the distribution lie above it.",
)
def paired_interval(answer):
    from scipy.stats import ttest_rel

    if wrong := answers.called(answer):
        return wrong
    for n in (2, 5, 10, 31):
        hard = torch.randn(n, dtype=torch.double)  # what a seed does to both networks
        both = [(0.9 + 0.05 * hard + 0.01 * torch.randn(n)).tolist() for _ in "ab"]
        found = answer(*(list(scores) for scores in both))
        ends = list(found) if isinstance(found, (tuple, list)) or hasattr(found, "__len__") else []
        ends = [answers.as_number(end) for end in ends]
        if len(ends) != 2 or None in ends:
            return f"Two numbers are asked for; for {n} seeds it gives {answers.kind(found)}."
        wanted = ttest_rel(*both).confidence_interval(0.95)
        if any(abs(x - y) > 1e-7 for x, y in zip(ends, wanted, strict=True)):
            return f"For {n} seeds the interval is not right."
    return None


SAME = {"best pair, ConcatFC", "fixed ConcatFC"}


def pareto_front() -> set[str]:
    """Networks under *sum* on AV-MNIST that no other beats in score and size."""
    rows = table("avmnist").query("rule == 'sum'").groupby("network")[["test", "params"]].mean()
    rows = rows.drop(index="best pair, ConcatFC")

    def beaten(one):
        no_worse = (rows["test"] >= one["test"]) & (rows["params"] <= one["params"])
        return (no_worse & ((rows["test"] > one["test"]) | (rows["params"] < one["params"]))).any()

    return {name for name, one in rows.iterrows() if not beaten(one)}


@exercise(
    "06.3",
    "Take means over seeds, sort by parameters, and go from small networks to large ones.",
    "A network is on the front if its score is above those of all smaller ones.",
    "The smallest network is always on the front, however low its score, and so is the best one, "
    "however large.",
)
def networks_on_the_front(answer):
    options = sorted(set(table("avmnist")["network"]) - {"best pair, ConcatFC"})
    return answers.names(answer, pareto_front(), options)


def level_with(reference: str) -> set[str]:
    """Networks whose paired interval of test scores under *voice* contains 0."""
    from scipy.stats import ttest_rel

    scores = table("digits_voice").pivot(index="seed", columns="network", values="test")
    found = set()
    for name in set(scores) - {reference}:
        low, high = ttest_rel(scores[name], scores[reference]).confidence_interval(0.95)
        found |= {name} if low <= 0 <= high else set()
    return found


@exercise(
    "06.4",
    "`points_behind` has an argument `reference`.",
    "A network is level if the absolute mean is at most half of the interval. Look at unrounded "
    "numbers.",
    "A wide interval makes level, too. And who is level with BM-NAS need not be level with MFAS.",
)
def level_with_mfas(answer):
    options = sorted(set(table("digits_voice")["network"]))
    return answers.names(answer, level_with("MFAS"), options)


@exercise(
    "06.5",
    "Average over positions first: `x.mean(2)` has the shape (N, channels of x).",
    "A weight for each class, each channel of x and each channel of y is a tensor of three "
    "dimensions.",
    "`torch.nn.Bilinear` does it, and so does `torch.einsum('ni,kij,nj->nk', …)`.",
)
def bilinear_fusion(answer):
    if not (isinstance(answer, type) and issubclass(answer, nn.Module)):
        return f"A class of torch.nn.Module is asked for, and this is {answers.kind(answer)}."
    a, b, classes = 3, 4, 5
    net = answer(a, b, classes).eval()
    with torch.no_grad():
        x, y = torch.randn(6, a, 2), torch.randn(6, b, 2)
        found = net(x, y)
        if wrong := answers.tensor(found, torch.zeros(6, classes), torch.inf):
            return f"For random features {wrong}."
        # What each pair of channels adds to each class, (classes, a · b).
        ones, more = torch.eye(a).repeat_interleave(b, 0), torch.eye(b).repeat(a, 1)
        zero = net(torch.zeros(1, a, 1), torch.zeros(1, b, 1))
        weights = (net(ones[..., None], more[..., None]) - zero).T
        pairs = (x.mean(2)[:, :, None] * y.mean(2)[:, None]).flatten(1)
        if answers.tensor(found, pairs @ weights.T + zero, 1e-4):
            return "Its logits are not a weighted sum of products of averaged channels."
    if torch.linalg.matrix_rank(weights, tol=1e-4) < classes or (weights.abs() < 1e-7).any():
        return "Not every product has a weight of its own for every class."
    return None
