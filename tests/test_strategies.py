"""Strategies held against the benchmark."""

import numpy as np
import pandas as pd
import pytest
import torch

from bmnas_core import SearchConfig, TabularBenchmark
from bmnas_core.baselines import TableError
from bmnas_core.benchmark.strategies import (
    STRATEGIES,
    StrategyError,
    StrategyResult,
    read_benchmark,
    run_benchmark,
    run_strategy,
    search_strategy,
    summarize,
)

PLAYED = ["random search", "best on validation"]


@pytest.fixture(scope="module")
def small_benchmark(small_table) -> TabularBenchmark:
    return TabularBenchmark(path=small_table)


def test_strategies_holds_what_is_found_against_the_benchmark(small_task, small_benchmark):
    benchmark = small_benchmark
    believed = {genotype: float(-rank) for rank, genotype in enumerate(benchmark.table["genotype"])}
    worst = benchmark.table["genotype"].iloc[-1]

    def strategy(seed):
        return StrategyResult(
            benchmark.best() if seed else worst, seconds=1.5, belief=believed if seed else None
        )

    found = run_strategy(strategy, benchmark, (0, 1))
    assert list(found["seed"]) == [0, 1] and list(found["seconds"]) == [1.5, 1.5]
    assert found["rank"].tolist() == [benchmark.rank(worst), 1]
    assert found["regret"].tolist() == [benchmark.regret(worst), 0]
    assert found["percentile"].tolist() == pytest.approx([benchmark.percentile(worst), 100 / 60])
    assert np.isnan(found["tau"][0]) and found["tau"][1] > 0.9
    searched = run_strategy(
        search_strategy(small_task, SearchConfig(M=1), device="cpu"), benchmark, (3,)
    )
    assert searched["seconds"][0] > 0 and -1 <= searched["tau"][0] <= 1
    assert benchmark.rank(searched["genotype"][0]) == searched["rank"][0]


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_finds_an_architecture_of_the_space_by_its_seed(
    name, small_task, small_benchmark
):
    strategy = STRATEGIES[name](small_task, small_benchmark, torch.device("cpu"))
    found = run_strategy(strategy, small_benchmark, (3, 3))
    assert found["genotype"][0] == found["genotype"][1] and 1 <= found["rank"][0] <= 60
    assert found["tau"].isna().all() == found["seconds"].isna().all()


@pytest.mark.parametrize(
    ("name", "trials", "epochs"),
    [("random search", 10, 15), ("random search, short trials", 50, 3)],
)
def test_random_search_takes_the_best_on_validation_of_what_it_drew(
    name, trials, epochs, monkeypatch
):
    benchmark, rated = TabularBenchmark("digits", "sum"), []
    trial = benchmark.trial

    def is_interactive(genotype, epochs, seed):
        rated.append((trial(genotype, epochs, seed), genotype.canonical(), epochs, seed))
        return rated[-1][0]

    monkeypatch.setattr(benchmark, "trial", is_interactive)
    found = STRATEGIES[name](None, benchmark, None)(7)
    assert len(rated) == trials and {e for _, _, e, _ in rated} == {epochs}
    assert len({seed for *_, seed in rated}) == 1
    best = max(score for score, *_ in rated)
    assert found.genotype.canonical() in {g for score, g, *_ in rated if score == best}


def test_strategies_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    out, asked, build_one = tmp_path / "j.csv", [], STRATEGIES["random search"]

    def is_interactive(*args):
        strategy = build_one(*args)
        return lambda seed: asked.append(seed) or strategy(seed)

    monkeypatch.setitem(STRATEGIES, "random search", is_interactive)
    first = run_benchmark("digits", ("sum",), (0, 1), out, names=PLAYED, device="cpu")
    assert asked == [0, 1] and len(first) == 4
    whole = run_benchmark("digits", ("sum", "same"), (0, 1, 2), out, names=PLAYED, device="cpu")
    assert asked == [0, 1, 2, 0, 1, 2] and len(whole) == 12
    benchmark = TabularBenchmark("digits", "same")
    mine = whole[(whole["rule"] == "same") & (whole["strategy"] == "best on validation")]
    assert set(mine["rank"]) == {benchmark.rank(benchmark.best("validation"))}
    assert set(mine["rank_validation"]) == {1} and mine["seconds"].isna().all()
    before = out.read_text()
    run_benchmark("digits", ("sum",), (2,), out, names=PLAYED, device="cpu")
    assert out.read_text() == before


def test_what_cannot_be_benchmark_is_refused(tmp_path):
    out = tmp_path / "j.csv"
    with pytest.raises(StrategyError, match="strategy: found 'luck'; allowed: default search, "):
        run_benchmark("digits", ("sum",), (0,), out, names=["luck"])
    out.write_text("a,b\n1,2\n")
    with pytest.raises(TableError, match="j.csv: found columns a, b; allowed: task, rule"):
        run_benchmark("digits", ("sum",), (0,), out, names=PLAYED)
    assert out.read_text() == "a,b\n1,2\n"


def test_a_summarize_has_medians_worst_and_means():
    rows = {
        "task": "t", "rule": "r", "strategy": ["A", "A", "A", "B"], "seed": [0, 1, 2, 0],
        "rank": [1, 5, 30, 2], "percentile": [10.0, 50.0, 300.0, 20.0],
        "regret": [0.0, 1.0, 5.0, 0.5], "tau": [0.1, 0.2, 0.3, None],
        "seconds": [1.0, 2.0, 3.0, None],
    }  # fmt: skip
    found = summarize(pd.DataFrame(rows)).set_index("strategy")
    assert list(found.index) == ["B", "A"]
    row = found.loc["A"]
    assert (row["seeds"], row["median_rank"], row["worst_rank"]) == (3, 5, 30)
    assert (row["median_percentile"], row["worst_percentile"]) == (50, 300)
    assert (row["regret"], row["tau"], row["seconds"]) == pytest.approx((2, 0.2, 2))
    assert row["regret_std"] == pytest.approx(7**0.5)


@pytest.mark.parametrize("rule", ["sum", "same"])
def test_the_committed_summarize_is_of_ten_seeds_each(rule, root):
    table = read_benchmark(root / "assets" / "results" / "digits_benchmark.csv")
    found = summarize(table[table["rule"] == rule]).set_index("strategy")
    assert set(found["seeds"]) == {10}
    names = {"default search", "best epoch", "paper relaxation", "random search"}
    assert names <= set(found.index) <= set(STRATEGIES)
    assert found.loc["default search", "regret"] < found.loc["random search", "regret"]


def test_the_readme_has_the_committed_summarize(root, readme_tables):
    (table,) = (t for t in readme_tables if "sum: rank" in t[0])
    found = summarize(read_benchmark(root / "assets" / "results" / "digits_benchmark.csv"))
    found = found.set_index(["strategy", "rule"])
    assert len(table) > 8
    for name, *cells in table[2:]:
        expected = []
        for rule in ("sum", "same"):
            row = found.loc[name.partition(":")[0], rule]
            expected += [f"{row.median_rank:g} ({row.worst_rank})", f"{row.regret:.2f}"]
        assert cells == expected, name
