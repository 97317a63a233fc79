"""Strategies: what they find, looked up in a tabular benchmark."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from scipy.stats import kendalltau

from bmnas_core import DEFAULT_OPERATIONS, Search, SearchConfig, load_task, most_probable
from bmnas_core.benchmark import (
    STRATEGIES,
    BenchmarkError,
    StrategyError,
    StrategyResult,
    TabularBenchmark,
    read_benchmark,
    register_strategy,
    run_benchmark,
    run_strategy,
    search_strategy,
    strategies,
    summarize,
    tabulate,
)
from bmnas_core.storage import TableError

SIMULATED = ["random search", "best on validation"]
SHORT_SIMULATED = ["random search, short training", "regularised evolution"]


@pytest.fixture(scope="module")
def small_benchmark(small_table) -> TabularBenchmark:
    return TabularBenchmark(path=small_table)


def test_what_a_strategy_finds_is_looked_up_in_the_benchmark(small_task, small_benchmark):
    benchmark = small_benchmark
    ratings = {genotype: float(-rank) for rank, genotype in enumerate(benchmark.table["genotype"])}
    worst = benchmark.table["genotype"].iloc[-1]

    def strategy(seed):
        genotype = benchmark.best() if seed else worst
        return StrategyResult(genotype, seconds=1.5, ratings=ratings if seed else None)

    found = run_strategy(strategy, benchmark, (0, 1))
    assert list(found["seed"]) == [0, 1] and list(found["seconds"]) == [1.5, 1.5]
    assert found["rank"].tolist() == [benchmark.rank(worst), 1]
    assert found["regret"].tolist() == [benchmark.regret(worst), 0]
    assert found["percentile"].tolist() == pytest.approx([benchmark.percentile(worst), 100 / 60])
    assert np.isnan(found["tau"][0]) and found["tau"][1] > 0.9


def test_a_search_is_rated_by_what_it_selects_and_by_the_probabilities_it_ends_with(
    small_task, small_benchmark
):
    strategy = search_strategy(small_task, SearchConfig(M=1), device="cpu")
    (row,) = run_strategy(strategy, small_benchmark, (3,)).to_dict("records")
    search = Search(small_task, SearchConfig(M=1, N=1), seed=3, device="cpu")
    for _ in search:
        pass
    assert row["genotype"] == search.best_genotype.canonical() and row["seconds"] > 0
    probabilities = most_probable(search.state.weights)
    scores = [small_benchmark.score(genotype) for genotype in probabilities]
    assert len(scores) == 60
    assert row["tau"] == pytest.approx(kendalltau(list(probabilities.values()), scores).statistic)


@pytest.mark.parametrize("name", list(STRATEGIES))
@pytest.mark.slow
def test_every_strategy_finds_an_architecture_of_the_space_by_its_seed(
    name, small_task, small_benchmark
):
    strategy = STRATEGIES[name](small_task, small_benchmark, torch.device("cpu"))
    found = run_strategy(strategy, small_benchmark, (3, 3))
    genotype, again = found["genotype"]
    assert genotype == again
    scores = small_benchmark.table.set_index("genotype")["test"]
    assert found["rank"].tolist() == [1 + (scores > scores[genotype]).sum()] * 2
    trains_nothing = name in (*SIMULATED, *SHORT_SIMULATED)
    assert found["tau"].isna().tolist() == found["seconds"].isna().tolist() == [trains_nothing] * 2


def scores_read(benchmark: TabularBenchmark, monkeypatch) -> list[tuple]:
    """The simulated scores that are read, as a list that grows: score, genotype, epochs, seed."""
    read, simulated_score = [], benchmark.simulated_score

    def recorded(genotype, epochs, seed):
        read.append((simulated_score(genotype, epochs, seed), genotype.canonical(), epochs, seed))
        return read[-1][0]

    monkeypatch.setattr(benchmark, "simulated_score", recorded)
    return read


def test_random_search_takes_the_best_of_ten_trainings(monkeypatch):
    benchmark = TabularBenchmark("digits", "sum")
    read = scores_read(benchmark, monkeypatch)
    found = STRATEGIES["random search"](load_task("digits", rule="sum"), benchmark, None)(7)
    assert len(read) == 10 and {epochs for *_, epochs, _ in read} == {15}
    assert len({seed for *_, seed in read}) == 1
    assert found.genotype.canonical() in best_of(read, 1)


def best_of(read: list[tuple], count: int) -> set:
    """The genotypes with the ``count`` best scores, and those level with the last of them."""
    scores = {genotype: score for score, genotype, *_ in read}
    least = sorted(scores.values())[-count:][0]
    return {genotype for genotype, score in scores.items() if score >= least}


@pytest.mark.parametrize("name", SHORT_SIMULATED)
def test_short_trainings_are_followed_by_a_second_look_at_the_best(name, monkeypatch):
    benchmark = TabularBenchmark("digits", "sum")
    read = scores_read(benchmark, monkeypatch)
    task = load_task("digits", rule="sum")
    found = STRATEGIES[name](task, benchmark, None)(7)
    left, rest = read[:50], read[50:]
    assert {epochs for *_, epochs, _ in left} == {3} and len({seed for *_, seed in read}) == 1
    assert task.search_config.rungs[0][1] == 3
    for count, epochs in task.search_config.rungs[1:]:  # as the task's own candidates go on
        rung, rest = rest[:count], rest[count:]
        assert len(rung) == count and {own for *_, own, _ in rung} == {epochs}
        assert {genotype for _, genotype, *_ in rung} <= best_of(left, count)
        left = rung
    assert not rest and found.genotype.canonical() in best_of(left, 1)


@pytest.mark.parametrize("name", ["random search", *SHORT_SIMULATED])
def test_a_simulated_search_needs_a_seed_that_all_architectures_have(
    name, small_task, small_table, tmp_path
):
    path, table = tmp_path / "t.parquet", parquet.read_table(small_table)
    runs = table.to_pandas()
    first, last = runs["genotype"].iloc[[0, -1]]
    gap = (runs["seed"] == 0) & (runs["genotype"] == first)
    gap |= (runs["seed"] == 1) & (runs["genotype"] == last)
    parquet.write_table(table.filter(pa.array(~gap)), path)
    benchmark = TabularBenchmark(path=path)
    assert len(benchmark) == 60 and len(benchmark.runs) == 118
    message = (
        "t.parquet: found no seed that all 60 architectures have; simulated searches need one$"
    )
    with pytest.raises(BenchmarkError, match=message):
        STRATEGIES[name](small_task, benchmark, None)(0)


@pytest.mark.slow
def test_strategies_take_the_operations_of_the_benchmark(
    product_operation, small_task, small_benchmark, tmp_path, monkeypatch
):
    path, operations = tmp_path / "t.parquet", ("sum", product_operation)
    monkeypatch.setattr(strategies, "BUDGET", 50)  # enough for evolution to mutate
    tabulate(small_task, path, (0,), operations=operations, device="cpu")
    for benchmark, expected in (
        (TabularBenchmark(path=path), set(operations)),
        (small_benchmark, set(DEFAULT_OPERATIONS)),
    ):
        for name in ("random search", "regularised evolution"):
            read = scores_read(benchmark, monkeypatch)
            strategy = STRATEGIES[name](small_task, benchmark, torch.device("cpu"))
            for seed in range(5):
                strategy(seed)
            assert {g.cells[0].steps[0].op for _, g, *_ in read} == expected, name
        search = STRATEGIES["argmax"](small_task, benchmark, torch.device("cpu"))(0)
        assert {g.cells[0].steps[0].op for g in search.ratings} == expected


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    out, asked, build = tmp_path / "b.csv", [], STRATEGIES["random search"]

    def recorded(*args):
        strategy = build(*args)
        return lambda seed: asked.append(seed) or strategy(seed)

    with STRATEGIES.restored():
        del STRATEGIES["random search"]
        register_strategy("random search")(recorded)
        how = {"names": SIMULATED, "device": "cpu"}
        first = run_benchmark("digits", ("sum",), (0, 1), out, **how)
        assert asked == [0, 1] and len(first) == 4
        whole = run_benchmark("digits", ("sum", "same"), (0, 1, 2), out, **how)
        assert asked == [0, 1, 2, 0, 1, 2] and len(whole) == 12
        before = out.read_text()
        run_benchmark("digits", ("sum",), (2,), out, **how)
        assert out.read_text() == before and len(asked) == 6
    benchmark = TabularBenchmark("digits", "same")
    mine = whole[(whole["rule"] == "same") & (whole["strategy"] == "best on validation")]
    assert set(mine["rank"]) == {benchmark.rank(benchmark.best("validation"))}
    assert set(mine["rank_validation"]) == {1} and mine["seconds"].isna().all()


def test_an_unknown_strategy_is_refused_before_any_runs(tmp_path):
    out = tmp_path / "b.csv"
    message = r"strategy: found 'random serch' \(did you mean 'random search'\?\); allowed: default"
    with pytest.raises(StrategyError, match=message):
        run_benchmark("digits", ("sum",), (0,), out, names=["random search", "random serch"])
    assert not out.exists()


def test_a_file_with_other_columns_is_refused_and_left_alone(tmp_path):
    out = tmp_path / "b.csv"
    out.write_text("a,b\n1,2\n")
    with pytest.raises(TableError, match="b.csv: found columns a, b; allowed: task, rule"):
        run_benchmark("digits", ("sum",), (0,), out, names=SIMULATED)
    assert out.read_text() == "a,b\n1,2\n"


def always_best(task, benchmark, device):
    return lambda seed: StrategyResult(benchmark.best())


def test_a_new_strategy_is_one_registered_function(small_task, small_benchmark):
    with STRATEGIES.restored():
        register_strategy("always the best")(always_best)
        strategy = STRATEGIES["always the best"](small_task, small_benchmark, torch.device("cpu"))
        assert run_strategy(strategy, small_benchmark, (0, 1))["regret"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("mine", lambda seed: None, "strategy 'mine': found <function .*; allowed: a function of"),
        ("mine", None, "strategy 'mine': found None"),
        ("best on validation", always_best, "exists already: .*strategies.best_on_validation"),
        ("random search", always_best, "strategy 'random search' exists already"),
        ("\n", always_best, "strategy name: found '.n'; allowed: a printable name"),
    ],
)
def test_a_strategy_that_cannot_work_is_refused(name, function, message):
    before = dict(STRATEGIES)
    with pytest.raises(StrategyError, match=message):
        register_strategy(name)(function)
    assert dict(STRATEGIES) == before


def test_a_summary_has_medians_the_worst_and_means():
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


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sum", "same"])
def test_the_committed_table_has_ten_seeds_of_each_strategy(rule, root):
    table = read_benchmark(root / "assets" / "results" / "digits_benchmark.csv")
    found = summarize(table[table["rule"] == rule]).set_index("strategy")
    assert set(found["seeds"]) == {10}
    names = {"default search", "argmax", "paper relaxation", "random search"}
    assert names <= set(found.index) <= set(STRATEGIES)
    assert found.loc["default search", "regret"] < found.loc["random search", "regret"]
