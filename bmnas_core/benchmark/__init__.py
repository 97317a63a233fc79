"""Tabular benchmarks: every architecture of a small space, trained; and strategies to compare."""

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
from .tabular import (
    BenchmarkError,
    Percentile,
    TabularBenchmark,
    data_hash,
    enumerate_architectures,
    sample_architectures,
    tabulate,
)
