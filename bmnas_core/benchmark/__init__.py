"""Tabular benchmarks: every architecture of a small space, trained; and strategies to compare."""

from .ensemble import ModelEnsemble, train_together
from .strategies import (
    STRATEGIES,
    StrategyError,
    StrategyResult,
    read_benchmark,
    register_strategy,
    run_benchmark,
    run_strategy,
    search_strategy,
    summarize,
)
from .tabular import BenchmarkError, TabularBenchmark, enumerate_architectures, tabulate
