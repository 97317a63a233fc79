"""Is the search any good? Strategies held against the truth, over many seeds.

A strategy is a function from a seed to what it found. :data:`STRATEGIES` has the default search,
variants of it with one thing changed, and rivals; those that only rate architectures one by one are
played on the table itself, which says how each would have scored.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from .baselines.architectures import random_genotype
from .baselines.searches import BUDGET, TRIAL_EPOCHS, best_drawn, evolve
from .baselines.table import read_rows, write_rows
from .choices import RUNGS
from .config import BmnasError, as_seed, device_name, generator, resolve_device
from .derive import likeliest
from .genotype import Genotype
from .groundtruth import GroundTruth
from .progress import progress_bar
from .search import Search, SearchConfig
from .tasks import load_task
from .tasks.task import Task

COLUMNS = ("task", "rule", "strategy", "seed", "genotype", "tau", "seconds", "device")

#: A strategy by name: task, its truth and a device → the strategy.
STRATEGIES: dict[str, Callable[[Task, GroundTruth, torch.device], Strategy]] = {}


class StrategyError(BmnasError):
    """A strategy that does not exist."""


@dataclass(frozen=True)
class Found:
    """What a strategy came to, for :func:`judge`.

    Attributes:
        genotype: its choice.
        seconds: what it took; None where it is only looked up, not run.
        belief: how it rates architectures, higher being better; None for one that does not say.
    """

    genotype: Genotype
    seconds: float | None = None
    belief: Mapping[Genotype, float] | None = None


Strategy = Callable[[int], Found]


def judge(strategy: Strategy, truth: GroundTruth, seeds: Iterable[int]) -> pd.DataFrame:
    """Run a strategy over seeds and hold what it finds against the truth.

    Returns:
        One row a seed: ``seed``, ``genotype``, ``rank``, ``percentile``, ``regret`` (points of
        test score), the same three on validation, ``tau`` (Kendall's, of the belief and the true
        test score, over the architectures that it rates) and ``seconds``.
    """
    rows = []
    for seed in seeds:
        found = strategy(as_seed(seed))
        tau = truth.agreement(found.belief) if found.belief else None
        genotype = found.genotype.canonical()
        rows.append({"seed": seed, "genotype": genotype, "tau": tau, "seconds": found.seconds})
    return _held(pd.DataFrame(rows), truth)


def _held(rows: pd.DataFrame, truth: GroundTruth) -> pd.DataFrame:
    """The rows with where each genotype stands."""
    columns = {}
    for split, suffix in (("test", ""), ("validation", "_validation")):
        for name in ("rank", "percentile", "regret"):
            look_up = getattr(truth, name)
            columns[name + suffix] = [look_up(genotype, split) for genotype in rows["genotype"]]
    return rows.assign(**columns)


def search_strategy(
    task: Task, config: SearchConfig | None = None, *, device: str | torch.device = "auto"
) -> Strategy:
    """A search as a strategy to :func:`judge`: one Cell, and its settings otherwise."""
    config = replace(SearchConfig.of(config), N=1)

    def strategy(seed: int) -> Found:
        search, start = Search(task, config, seed=seed, device=device), time.perf_counter()
        for _ in search:
            pass
        seconds = time.perf_counter() - start
        return Found(search.best_genotype, seconds, likeliest(search.state.weights))

    return strategy


def register_strategy(name: str):
    """Decorator: make a function from task, truth and device to a strategy one of them."""

    def decorate(function):
        STRATEGIES[name] = function
        return function

    return decorate


def _register_search(name: str, **settings) -> None:
    @register_strategy(name)
    def build(task: Task, truth: GroundTruth, device: torch.device) -> Strategy:
        return search_strategy(task, SearchConfig(**settings), device=device)


_register_search("default search")
_register_search("few trials", rungs=RUNGS)
_register_search("looks", choice="looks")
_register_search("best epoch", choice="best epoch", epochs=7)
for _name, _settings in {
    "paper relaxation": {"relaxation": "paper"},
    "edge relaxation": {"relaxation": "edge", "arch_lr": 3e-2},
    "second order": {"order": "second"},
    "warm-up of 3 epochs": {"warmup": 3},
    "annealed softmax": {"temperature": (1.0, 0.1)},
    "annealed Gumbel": {"temperature": (1.0, 0.1), "gumbel": True},
    "partial channels": {"partial": 4},
    "single paths": {"passes": "paths", "epochs": 15, "warmup": 3},
}.items():
    _register_search(_name, choice="best epoch", **{"epochs": 7, **_settings})


def _played(truth: GroundTruth, seed: int, stream: str, short: bool):
    """A budget of trainings, played on the table, which says how each would have scored.

    Returns:
        How to draw, how to rate, how many trials there are, and the random numbers.
    """
    random, recipe = generator(seed, stream), truth.recipe
    counts = truth.runs["seed"].value_counts()
    whole = sorted(counts.index[counts == len(truth)])  # seeds that all were trained with
    run = whole[int(torch.randint(len(whole), (), generator=random))]
    epochs = min(TRIAL_EPOCHS, truth.ends[-1]) if short else truth.ends[-1]

    def draw() -> Genotype:
        return random_genotype(tuple(recipe["features"]), 1, recipe["config"]["M"], random)

    def rate(genotype: Genotype) -> float:
        return truth.trial(genotype, epochs, run)

    return draw, rate, BUDGET * truth.ends[-1] // epochs, random


def _register_played(name: str, stream: str, choose: Callable, short: bool) -> None:
    @register_strategy(name)
    def build(task: Task, truth: GroundTruth, device: torch.device) -> Strategy:
        return lambda seed: Found(choose(*_played(truth, seed, stream, short)))


def _best_drawn(draw, rate, trials, random) -> Genotype:
    return best_drawn(draw, rate, trials)


_register_played("random search", "random search", _best_drawn, short=False)
_register_played("random search, short trials", "random search", _best_drawn, short=True)
_register_played("regularised evolution", "evolution", evolve, short=True)


@register_strategy("best on validation")
def best_on_validation(task: Task, truth: GroundTruth, device: torch.device) -> Strategy:
    """All architectures trained with all seeds of the table: the most that validation can tell."""
    return lambda seed: Found(truth.best("validation"))


def run_judging(
    task: str,
    rules: Iterable[str],
    seeds: Iterable[int],
    out: str | os.PathLike,
    *,
    names: Iterable[str] | None = None,
    device: str | torch.device = "auto",
) -> pd.DataFrame:
    """Judge strategies for each rule and seed, and write every result to a CSV file.

    What the file has already is not run again, whatever it was made with: after a change of
    settings, begin another.

    Args:
        names: of :data:`STRATEGIES`; all where None.

    Raises:
        StrategyError: for an unknown name.
        TableError: if ``out`` is there and is no such table.
    """
    names, out = list(STRATEGIES if names is None else names), Path(out)
    for name in names:
        if name not in STRATEGIES:
            raise StrategyError(f"strategy: found {name!r}; allowed: {', '.join(STRATEGIES)}")
    rows = read_rows(out, COLUMNS).to_dict("records") if out.exists() else []
    done = {(row["rule"], row["strategy"], row["seed"]) for row in rows if row["task"] == task}
    plan = [
        (name, rule, seed)
        for name, rule, seed in product(names, rules, seeds)
        if (rule, name, seed) not in done
    ]
    device, truths, tasks = resolve_device(device), {}, {}
    for name, rule, seed in progress_bar(plan, "strategies, rules and seeds"):
        if rule not in truths:
            tasks[rule], truths[rule] = load_task(task, rule=rule), GroundTruth(task, rule)
        strategy = STRATEGIES[name](tasks[rule], truths[rule], device)
        (row,) = judge(strategy, truths[rule], [seed]).to_dict("records")
        row = {name: row[name] for name in COLUMNS if name in row}
        which = {"task": task, "rule": rule, "strategy": name, "device": device_name(device)}
        rows.append({**row, **which, "genotype": json.dumps(json.loads(row["genotype"].to_json()))})
        write_rows(out, rows, COLUMNS)
    return read_judged(out)


def read_judged(path: str | os.PathLike) -> pd.DataFrame:
    """The rows of such a table, with what the truth says today of each genotype.

    Raises:
        TableError: for a file that is missing or no such table.
    """
    table = read_rows(path, COLUMNS)
    table["genotype"] = [Genotype.from_json(text) for text in table["genotype"]]
    parts = [_held(part, GroundTruth(*which)) for which, part in table.groupby(["task", "rule"])]
    return pd.concat(parts) if parts else table


def verdict(table: pd.DataFrame) -> pd.DataFrame:
    """What seeds come to, best first within a rule: a row a strategy.

    Columns: ``task``, ``rule``, ``strategy``, ``seeds``, ``median_rank``, ``worst_rank``,
    ``median_percentile``, ``worst_percentile``, ``regret`` and ``regret_std`` (points), ``tau``,
    ``seconds`` (means).
    """
    groups = table.groupby(["task", "rule", "strategy"], sort=False)
    found = groups.agg(
        seeds=("seed", "size"),
        median_rank=("rank", "median"),
        worst_rank=("rank", "max"),
        median_percentile=("percentile", "median"),
        worst_percentile=("percentile", "max"),
        regret=("regret", "mean"),
        regret_std=("regret", "std"),
        tau=("tau", "mean"),
        seconds=("seconds", "mean"),
    ).reset_index()
    return found.sort_values(["task", "rule", "regret"], ignore_index=True)
