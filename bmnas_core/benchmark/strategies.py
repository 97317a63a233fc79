"""How good is the search? Strategies, run with many seeds and looked up in a tabular benchmark.

They are the default search, variants of it with one thing changed, and other searches. Those that
only score architectures one by one are simulated: they train nothing, but read the scores.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import pandas as pd
import torch

from ..architecture import most_probable
from ..baselines.architectures import random_genotype
from ..baselines.searches import BUDGET, SHORT_EPOCHS, evolve, sample_best, second_look
from ..errors import BmnasError
from ..genotype import Genotype
from ..registry import Registry, takes
from ..runtime import as_seed, device_name, generator, resolve_device
from ..search import Search, SearchConfig
from ..selection import RUNGS
from ..storage import ResumableTable, TableError, read_table
from ..tasks import load_task
from ..tasks.task import Task
from .tabular import BenchmarkError, TabularBenchmark

COLUMNS = {
    "task": "name", "rule": "name", "strategy": "name", "seed": "count", "genotype": "text",
    "tau": "number?", "seconds": "seconds?", "device": "name",
}  # fmt: skip


class StrategyError(BmnasError):
    """A strategy that cannot be registered or does not exist."""


def _check(name: str, function: object) -> None:
    if not takes(function, 3):
        allowed = "a function of task, benchmark and device"
        raise StrategyError(f"strategy {name!r}", repr(function), allowed)


#: Functions of task, benchmark and device that return a :data:`Strategy`, by its name. Filled by
#: :func:`register_strategy`.
STRATEGIES = Registry("strategy", StrategyError, check=_check)


def register_strategy(name: str):
    """Decorator: register a function of task, benchmark and device that returns a strategy.

    Raises StrategyError for a name that is taken or ill-formed, or anything but such a function.
    """
    return STRATEGIES.register(name)


@dataclass(frozen=True)
class StrategyResult:
    """What a strategy found with one seed.

    Attributes:
        genotype: the architecture that it selected.
        seconds: how long it took; None for a simulated strategy.
        ratings: architecture → how it rates it, higher being better; None if it rates none.
    """

    genotype: Genotype
    seconds: float | None = None
    ratings: Mapping[Genotype, float] | None = None


#: From a seed to a result.
Strategy = Callable[[int], StrategyResult]


def run_strategy(
    strategy: Strategy, benchmark: TabularBenchmark, seeds: Iterable[int]
) -> pd.DataFrame:
    """Run a strategy with each seed and look up what it finds in the benchmark.

    Returns:
        One row per seed: ``seed``, ``genotype``, ``rank`` (NaN if the benchmark has a sample),
        ``percentile``, ``regret`` (percentage points of test score), the same three on validation
        (``rank_validation``, …), ``tau`` (Kendall's, between its ratings and the mean test scores
        of the architectures that it rates) and ``seconds``.
    """
    rows = []
    for seed in seeds:
        found = strategy(as_seed(seed))
        tau = benchmark.kendall_tau(found.ratings) if found.ratings else None
        rows.append((seed, found.genotype.canonical(), tau, found.seconds))
    table = pd.DataFrame(rows, columns=["seed", "genotype", "tau", "seconds"])
    return _with_ranks(table, benchmark)


def _with_ranks(rows: pd.DataFrame, benchmark: TabularBenchmark) -> pd.DataFrame:
    """The rows with rank, percentile and regret of each genotype."""
    known = ("percentile", "regret") if benchmark.sampled else ("rank", "percentile", "regret")
    columns = dict.fromkeys(("rank", "rank_validation"), math.nan) | {
        name + suffix: [getattr(benchmark, name)(g, split) for g in rows["genotype"]]
        for split, suffix in (("test", ""), ("validation", "_validation"))
        for name in known
    }
    return rows.assign(**columns)


def search_strategy(
    task: Task, config: SearchConfig | None = None, *, device: str | torch.device = "auto"
) -> Strategy:
    """A search as a strategy. A search for one Cell rates all architectures."""

    def strategy(seed: int) -> StrategyResult:
        search, start = Search(task, config, seed=seed, device=device), time.perf_counter()
        for _ in search:
            pass
        seconds = time.perf_counter() - start
        ratings = most_probable(search.state.weights) if search.config.N == 1 else None
        return StrategyResult(search.best_genotype, seconds, ratings)

    return strategy


def _register_search(name: str, **settings) -> None:
    @register_strategy(name)
    def build(task: Task, benchmark: TabularBenchmark, device: torch.device) -> Strategy:
        operations, N = tuple(benchmark.recipe["operations"]), benchmark.recipe["config"]["N"]
        config = SearchConfig(operations=operations, N=N, **settings)
        return search_strategy(task, config, device=device)


_ARGMAX = {"selection": "argmax", "epochs": 7}
for _name, _settings in {
    "default search": {},
    "bfloat16": {"precision": "bf16"},
    "few candidates": {"rungs": RUNGS},
    "perturbation": {"selection": "perturbation"},
    "without tuning": {"tuning_epochs": 0},
    "perturbation after 7 epochs": {"selection": "perturbation", "epochs": 7, "tuning_epochs": 0},
    "argmax": _ARGMAX,
    "released": {**_ARGMAX, "selection": "released"},
    "paper relaxation": {**_ARGMAX, "relaxation": "paper"},
    "paper relaxation, released": {**_ARGMAX, "relaxation": "paper", "selection": "released"},
    "paper relaxation, perturbation": {"relaxation": "paper", "selection": "perturbation"},
    "paper relaxation, successive halving": {"relaxation": "paper"},
    "edge relaxation": {**_ARGMAX, "relaxation": "edge", "arch_lr": 3e-2},
    "second order": {**_ARGMAX, "order": "second"},
    "warm-up of 3 epochs": {**_ARGMAX, "warmup": 3},
    "annealed softmax": {**_ARGMAX, "temperature": (1.0, 0.1)},
    "annealed Gumbel": {**_ARGMAX, "temperature": (1.0, 0.1), "gumbel": True},
    "partial channels": {**_ARGMAX, "partial": 4},
    "single paths": {**_ARGMAX, "sampling": "single_path", "epochs": 15, "warmup": 3},
}.items():
    _register_search(_name, **_settings)


def _simulate(
    find: Callable,
    task: Task,
    benchmark: TabularBenchmark,
    stream: str,
    short: bool,
    seed: int,
) -> StrategyResult:
    """A search that scores architectures, such as :func:`~bmnas_core.baselines.searches.evolve`.

    Its space and its scores are the table's, those of one random seed. Its budget is BUDGET full
    trainings, or as many ``short`` ones as take the same time, and then a second look at the best
    of these, as the task's own search has it. In a table of a sample only random search can be
    simulated: any part of a random sample is one.
    """
    random, recipe, full = generator(seed, stream), benchmark.recipe, benchmark.ends[-1]
    counts = benchmark.runs["seed"].value_counts()
    complete = sorted(counts.index[counts == len(benchmark)])
    if not complete:
        raise BenchmarkError(
            f"{benchmark.path}: found no seed that all {len(benchmark):,} architectures have; "
            "simulated searches need one"
        )
    run = complete[int(torch.randint(len(complete), (), generator=random))]
    epochs, operations = min(SHORT_EPOCHS, full) if short else full, tuple(recipe["operations"])
    space = tuple(recipe["features"]), 1, recipe["config"]["M"], random, operations
    sample = partial(random_genotype, *space)
    if benchmark.sampled:
        order = torch.randperm(len(benchmark), generator=random).tolist()
        sample = map(benchmark.table["genotype"].__getitem__, order).__next__

    def score(genotypes: list[Genotype], epochs: int) -> list[float]:
        found = (benchmark.simulated_score(genotype, epochs, run) for genotype in genotypes)
        return [benchmark.metric.sign * one for one in found]

    scores = find(
        sample, partial(score, epochs=epochs), BUDGET * full // epochs, random, operations
    )
    rungs = (task.search_config.rungs or RUNGS) if short else ()
    rungs = [(count, min(epochs, full)) for count, epochs in rungs]
    return StrategyResult(second_look(scores, score, rungs))


def _register_simulated(name: str, stream: str, find: Callable, short: bool) -> None:
    @register_strategy(name)
    def build(task: Task, benchmark: TabularBenchmark, device: torch.device) -> Strategy:
        if benchmark.sampled and find is not sample_best:
            found, place = f"a sample of {len(benchmark):,} architectures", benchmark.path
            raise BenchmarkError(f"{place}: {name}", found, "a table of all, to simulate it")
        return partial(_simulate, find, task, benchmark, stream, short)


_register_simulated("random search", "random search", sample_best, short=False)
_register_simulated("random search, short training", "random search", sample_best, short=True)
_register_simulated("regularised evolution", "evolution", evolve, short=True)


@register_strategy("best on validation")
def best_on_validation(task: Task, benchmark: TabularBenchmark, device: torch.device) -> Strategy:
    """The best mean validation score in the table: the most that validation can tell."""
    return lambda seed: StrategyResult(benchmark.best("validation"))


def run_benchmark(
    task: str,
    rules: Iterable[str],
    seeds: Iterable[int],
    out: str | os.PathLike,
    *,
    names: Iterable[str] | None = None,
    device: str | torch.device = "auto",
) -> pd.DataFrame:
    """Run strategies, all by default, for each rule and seed; write every result to a CSV file.

    Results that the file already has are not computed again, even if settings have changed since;
    begin a new file then. Processes that write one file share the work. Returns what
    :func:`read_benchmark` reads from the file. Raises
    StrategyError for an unknown name, BenchmarkError for a strategy that a sample of architectures
    cannot simulate, and TableError if ``out`` exists and is not such a table.
    """
    strategies = {name: STRATEGIES[name] for name in (STRATEGIES if names is None else names)}
    table, device = ResumableTable(out, COLUMNS), resolve_device(device)
    load = cache(lambda rule: (load_task(task, rule=rule), TabularBenchmark(task, rule)))
    build = cache(lambda name, rule: strategies[name](*load(rule), device))
    runs = [
        {"task": task, "rule": rule, "strategy": name, "seed": seed}
        for name, rule, seed in product(strategies, rules, seeds)
    ]
    missing = [run for run in runs if not table.holds(**run)]
    for run in missing:
        build(run["strategy"], run["rule"])  # one that cannot be run is refused before all others

    def compute(run: dict) -> list[dict]:
        _, benchmark = load(run["rule"])
        strategy = build(run["strategy"], run["rule"])
        (row,) = run_strategy(strategy, benchmark, [run["seed"]]).to_dict("records")
        text = json.dumps(json.loads(row["genotype"].to_json()))  # in one line
        return [{**row, **run, "device": device_name(device), "genotype": text}]

    table.fill(missing, compute, "strategies, rules and seeds")
    return read_benchmark(out)


def read_benchmark(path: str | os.PathLike) -> pd.DataFrame:
    """The rows of a table of strategies, with rank, percentile and regret of each genotype.

    Raises TableError if the file is missing or not such a table.
    """
    table = read_table(path, COLUMNS)
    table["genotype"] = [Genotype.from_json(text, str(path)) for text in table["genotype"]]
    parts = []
    for which, part in table.groupby(["task", "rule"]):
        try:
            parts.append(_with_ranks(part, TabularBenchmark(*which)))
        except BmnasError as error:
            raise TableError(f"{path}: {error}") from None
    return pd.concat(parts) if parts else table


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Each strategy over its seeds, lowest mean regret first within a task and rule.

    Returns:
        Columns ``task``, ``rule``, ``strategy``, ``seeds``, ``median_rank``, ``worst_rank``,
        ``median_percentile``, ``worst_percentile``, ``regret`` and ``regret_std`` (mean and
        standard deviation, in percentage points), and the means ``tau`` and ``seconds``.
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
