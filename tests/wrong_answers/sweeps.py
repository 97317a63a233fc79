"""Wrong answers to the exercises of notebook 13."""

import numpy as np
from scipy.stats import t as student
from scipy.stats import ttest_ind

from bmnas_core.experiments import t_interval

GRID = {"grid": {"rule": ["sum", "same"], "relaxation": ["pair", "paper"]}, "seeds": 5}


def by_normal(difference, deviation):
    return int(np.ceil((1.96 * deviation / difference) ** 2))


def with_factor_of_five(difference, deviation):
    n = 2
    while 2.776 * deviation / n**0.5 >= difference:
        n += 1
    return n


def by_position(a, b):
    both = zip(a.values(), b.values(), strict=False)
    return t_interval([y - x for x, y in both])[2:]


def biased(a, b):
    differences = np.array([b[seed] - a[seed] for seed in a.keys() & b.keys()])
    n, mean = len(differences), differences.mean()
    half = student.ppf(0.975, n - 1) * differences.std() / n**0.5
    return float(mean - half), float(mean + half)


def as_if_paired(a, b):
    return t_interval([y - x for x, y in zip(a, b, strict=False)])[2:]


def pooled(a, b):
    ends = ttest_ind(b, a).confidence_interval(0.95)
    return float(ends.low), float(ends.high)


def other_way_round(a, b):
    ends = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return float(ends.low), float(ends.high)


def as_list(a, b):
    return [b[seed] - a[seed] for seed in a if seed in b]


def flipped(a, b):
    return t_interval([a[seed] - b[seed] for seed in a if seed in b])[2:]


WRONG = {
    "13.1": [(5 / 2) ** 0.5, 12.7 / 2.78, 2.5],
    "13.2": [1, 0.91, 20 * 2 * student.sf(2, 5), 0.116],
    "13.3": [by_normal, with_factor_of_five, lambda difference, deviation: 6],
    "13.4": [by_position, biased, as_list, flipped],
    "13.5": [as_if_paired, pooled, other_way_round],
    "13.6": [
        GRID,
        {"list": [{"rule": "sum"}, {"relaxation": "paper"}], "seeds": 5},
        GRID | {"filter": "rule == 'sum' and relaxation == 'pair'"},
        GRID | {"filter": "rule == 'same' or relaxation == 'pair'"},
        {"grid": {"rules": ["sum", "same"]}, "seeds": 5},
    ],
}
