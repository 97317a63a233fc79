"""Exercises of notebook 13, sweeps."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...errors import quoted
from ...experiments.collect import t_interval
from ...experiments.spec import read_spec
from ..checks import exercise
from . import answers

#: The parameters of notebook 00 that a spec may set.
QUICKSTART = """\
task_name = "digits"
rule = "voice"
seed = 0
device = "auto"
search_epochs = 3
relaxation = "pair"
selection = None
epochs = 15
out = "runs/00_quickstart"
"""
#: Of the runs that exercise 13.6 asks for.
WANTED = {
    (rule, relaxation, seed)
    for rule, relaxation in (("sum", "pair"), ("sum", "paper"), ("same", "pair"))
    for seed in range(5)
}


def half_width(n: int) -> float:
    """Half of a 95 % interval from n values whose standard deviation is 1."""
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1)) / n**0.5


def needed(difference: float, deviation: float) -> int:
    """The least number of seeds with which the interval leaves zero out."""
    n = 2
    while half_width(n) * deviation >= difference:
        n += 1
    return n


@exercise(
    "13.1",
    "Half of the interval is Student's factor times deviation / √n. Both factors change with n.",
    "`student.ppf(0.975, n - 1)` is Student's factor for n seeds.",
)
def widening(answer):
    return answers.number(answer, half_width(2) / half_width(5), 0.05)


@exercise(
    "13.2",
    "Section 4 has the share of such intervals that contain zero. The others exclude it.",
    "Exactly: |t| is larger than 2 with probability `2 * student.sf(2, degrees_of_freedom)`, and "
    "five seeds leave four degrees of freedom.",
)
def false_alarms(answer):
    from scipy.stats import t

    return answers.number(answer, 20 * 2 * float(t.sf(2, 4)), 0.05)


@exercise(
    "13.3",
    "The interval leaves zero out if half of its width is less than the difference.",
    "Student's factor depends on n too, so try n = 2, 3, 4, … until it is so.",
)
def seeds_needed(answer):
    cases = [(0.01, 0.002), (0.01, 0.0093), (0.01, 0.02), (0.5, 0.5), (0.02, 0.1), (0.3, 0.01)]
    return answers.function(answer, needed, cases)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float]:
    """The interval of the mean of b − a, over the seeds that both have."""
    return t_interval([b[seed] - a[seed] for seed in a if seed in b])[2:]


@exercise(
    "13.4",
    "A seed that only one of them has gives no difference. Leave it out before you count n.",
    "From the differences on, it is the cell of section 3. The deviation divides by n − 1.",
)
def paired_interval(answer):
    cases = []
    for n, lost in ((5, ()), (5, (3,)), (8, (0, 4, 7)), (4, (1, 2))):
        a, b = np.random.default_rng(n).normal((0.9, 0.91), 0.02, size=(n, 2)).T.tolist()
        a, b = dict(enumerate(a)), dict(enumerate(b))
        cases.append((a, {seed: b[seed] for seed in reversed(b) if seed not in lost}))
    return _interval(answer, paired, cases)


def welch(a: list[float], b: list[float]) -> tuple[float, float]:
    """Welch's interval of the difference of two means, b − a."""
    from scipy.stats import t

    (u, m), (v, n) = ((np.var(x, ddof=1) / len(x), len(x)) for x in (a, b))
    freedom = (u + v) ** 2 / (u**2 / (m - 1) + v**2 / (n - 1))
    mean, half = float(np.mean(b) - np.mean(a)), float(t.ppf(0.975, freedom) * (u + v) ** 0.5)
    return mean - half, mean + half


@exercise(
    "13.5",
    "Nothing is paired, and there may be more runs of one than of the other: the variances of the "
    "two means are added up.",
    "Equal variances are not assumed, so the degrees of freedom are Welch's, "
    "(u + v)² / (u² / (m − 1) + v² / (n − 1)), where u and v are the variances of the two means.",
    "`scipy.stats.ttest_ind` has an argument `equal_var`, and its result a method "
    "`confidence_interval`.",
)
def welch_interval(answer):
    cases = []
    for m, n, spread in ((5, 5, 0.02), (5, 3, 0.05), (4, 9, 0.002)):
        random = np.random.default_rng(m)
        a, b = random.normal(0.9, 0.01, size=m), random.normal(0.91, spread, size=n)
        cases.append((a.tolist(), b.tolist()))
    return _interval(answer, welch, cases)


def _interval(answer: object, expected: Callable, cases: list[tuple]) -> str | None:
    """A function of two samples of scores that gives the lower and the upper end."""
    if wrong := answers.called(answer):
        return wrong
    for a, b in cases:
        found, wanted = answer(type(a)(a), type(b)(b)), expected(a, b)
        ends = [answers.as_number(end) for end in found] if isinstance(found, tuple) else []
        if len(ends) != 2 or None in ends:
            return f"It gives {quoted(found)}, and a tuple of two numbers is asked for."
        if not np.allclose(ends, wanted, rtol=1e-6, atol=1e-9):
            shared = "" if len(a) == len(b) else ", of one more than of the other"
            return f"For {len(a)} and {len(b)} scores{shared}, it gives {quoted(found)}."
    return None


@exercise(
    "13.6",
    "A grid has every combination, also the one that is not asked for. There are two ways out.",
    "One is `filter`, an expression that is true for the runs to keep. The other is `list`, which "
    "has the combinations as dicts; with `seeds` beside it, each runs with every seed.",
)
def spec_of_a_sweep(answer):
    if not isinstance(answer, dict):
        return f"A dict with the fields of a spec is asked for, and this is {answers.kind(answer)}."
    source = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": QUICKSTART}
    source |= {"outputs": [], "execution_count": None, "id": "parameters"}
    notebook = {"cells": [source], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    with TemporaryDirectory() as folder:
        path = Path(folder, "00_quickstart.ipynb")
        path.write_text(json.dumps(notebook), encoding="utf-8")
        runs = read_spec(answer | {"notebook": str(path)}).runs
    found = [(run["rule"], run["relaxation"], run["seed"]) for run in runs]
    if len(found) == len(WANTED) and set(found) == WANTED:
        return None
    missing, extra = WANTED - set(found), set(found) - WANTED
    if missing or extra:
        which = "missing" if missing else "not asked for"
        rule, relaxation, seed = min(missing or extra)
        return f"A run with {rule}, {relaxation} and seed {seed} is {which}."
    return "Some runs differ in another parameter."
